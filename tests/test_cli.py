"""The edge of the program: statuses, one line on stderr, signals, pipes, help pages."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path

import pytest

from geoml_cli import cli, registry
from geoml_cli.cli import run
from geoml_cli.commands import COMMANDS, TOPICS
from geoml_cli.errors import MEANING, GeomlError, NothingMatched, Status, Stopped, TryLater
from geoml_cli.log import start_log
from geoml_cli.manners import Manners
from geoml_cli.program import program, surface_of

GEOML = [sys.executable, "-m", "geoml_cli"]
FULL = Path("/dev/full")


def geoml(*argv: str, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*GEOML, *argv], capture_output=True, text=True, **more)


@pytest.fixture
def fail(monkeypatch):
    """Make the next command line raise what it is given."""

    def arm(error: BaseException) -> None:
        def dispatch(_: object) -> int:
            raise error

        monkeypatch.setattr(cli, "dispatch", dispatch)

    return arm


MISTAKES = [
    ("tiel", "no command called tiel; did you mean tile?"),
    ("Train x", "no command called Train; did you mean train?"),
    ("xyzzy", "no command called xyzzy; see `geoml --help`"),
    ("--verison", "did you mean --version?"),
    ("-q tile x", "options come after it: geoml tile -q"),
    ("tile x --out y --sise 3", "no option called --sise; did you mean --size?"),
    ("tile x --out y --zzz", "no option called --zzz; see `geoml tile --help`"),
    ("tile x", "-o/--out is missing"),
    ("tile -o y", "INPUT is missing"),
    ("tile x -o", "option '-o' requires an argument"),
    ("tile x -o y --jobs 0", "-j/--jobs: input should be greater than or equal to 1"),
    ("tile x -o y --size big", "--size 'big': write whole pixels"),
    ("tile x -o y --log-format yaml", "--log-format: 'yaml' is not one of 'plain', 'json'; see"),
    ("tile x -o y --json --ndjson", "give --json or --ndjson, not both"),
    ("tile x -o y --deadline soon", "--deadline soon: no length of time; write 90s, 30m or 2h"),
    ("tile x -o y --sampler gird", "no sampler called gird; did you mean grid?"),
    ("tile x -o y --sampler grid:egde=drop", "grid has no option 'egde'; did you mean edge?"),
    ("list encoder", "no room called encoder; did you mean encoders?"),
    ("list qqq", "no room called qqq; there are tasks, encoders,"),
    ("list encoders heads", "unexpected extra argument(s) (heads)"),
    ("list --jsn", "no option called --jsn; did you mean --json?"),
    ("help exitcodes", "no topic called exitcodes; did you mean exit-codes?"),
    ("help qqq", "no topic called qqq; there are exit-codes, artifacts, models, pipes,"),
]


@pytest.mark.parametrize(("line", "says"), MISTAKES, ids=[line for line, _ in MISTAKES])
def test_a_mistaken_command_line_is_one_line_and_status_2(
    line, says, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert run(line.split()) == Status.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("geoml: ") and err.count("\n") == 1 and err.endswith("\n")
    assert says in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("line", ["tiel --log-format json", "tile --siz 1 --log-format=json"])
def test_a_mistake_is_json_where_that_is_asked_for(line, capsys):
    assert run(line.split()) == 2
    said = json.loads(capsys.readouterr().err)
    assert said["level"] == "error" and said["status"] == 2
    assert "did you mean" in said["message"]


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_verb_has_the_same_page_under_every_spelling(verb, capsys):
    pages = []
    for argv in ([verb, "-h"], [verb, "--help"], ["help", verb]):
        assert run(argv) == 0
        pages.append(capsys.readouterr().out)
    assert pages[0] == pages[1] == pages[2]


@pytest.mark.parametrize("verb", COMMANDS)
def test_a_help_page_shows_all_there_is_own_options_first(verb, capsys):
    assert run([verb, "--help"]) == 0
    page = capsys.readouterr().out
    usage, _, rest = page.partition("\n\n")
    assert usage.startswith(f"Usage: geoml {verb} ")
    assert COMMANDS[verb] in " ".join(rest.split())
    assert "\n      geoml " in page, "no example"
    own, _, common = rest.partition("\nCommon options:\n")
    for given in surface_of(program(verb)):
        row = f"  {', '.join(given.flags) or given.value}"
        assert row in (common if given.shared and common else own)
        assert not (given.flags and given.required) or f"{given.flags[0]} {given.value}" in usage
        assert given.help and (given.help.endswith(".") or not given.flags)


@pytest.mark.parametrize("verb", COMMANDS)
def test_a_help_page_keeps_its_examples_and_fits_a_terminal(verb, capsys):
    assert run([verb, "--help"]) == 0
    lines = capsys.readouterr().out.split("\n")
    wanted = [
        line.rstrip() for line in (program(verb).help or "").split("\n") if line[:4] == "    "
    ]
    assert [line[2:] for line in lines if line[:6] == " " * 6 and line[2:] in wanted] == wanted
    assert max(map(len, lines)) <= 88
    assert not any("\u00a0" in line for line in lines)


def test_the_overview_names_every_verb_and_topic_uncut(capsys):
    assert run(["--help"]) == run(["-h"]) == run(["help"]) == 0
    out = capsys.readouterr().out
    assert out == out[: len(out) // 3] * 3
    for name, line in (COMMANDS | TOPICS).items():
        assert any(row.split(None, 1) == [name, line] for row in out.split("\n")), name
    assert max(map(len, out.split("\n"))) <= 80


def test_no_arguments_show_the_page_and_are_a_mistake(capsys):
    assert run([]) == 2
    nothing = capsys.readouterr()
    assert run(["--help"]) == 0
    assert (nothing.out, nothing.err) == ("", capsys.readouterr().out)
    assert run(["tile"]) == 2
    bare = capsys.readouterr()
    assert run(["tile", "--help"]) == 0
    assert (bare.out, bare.err) == ("", capsys.readouterr().out)


def test_exit_codes_are_all_explained(capsys):
    assert run(["help", "exit-codes"]) == 0
    rows = [line.split(None, 1) for line in capsys.readouterr().out.splitlines()]
    assert {int(number): text for number, text in rows} == {s.value: MEANING[s] for s in Status}
    assert {0, 1, 2, 3, 4, 75, 130, 141, 143} == set(map(int, Status))


@pytest.mark.parametrize("topic", TOPICS)
def test_every_topic_is_explained(topic, capsys):
    assert run(["help", topic]) == 0
    assert len(capsys.readouterr().out.splitlines()) >= 4


def test_version_is_that_of_the_distribution(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"geoml {version('geoml-cli')}\n"


def test_list_tells_the_same_in_each_form(capsys):
    assert run(["list", "objectives"]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert run(["list", "objectives", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert run(["list", "objectives", "--ndjson"]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == told
    assert rows == [[part["name"], part["about"]] for part in told]
    smoothing = next(p for p in told if p["name"] == "cross-entropy")["options"]["smoothing"]
    assert smoothing == {"default": 0.0, "kind": "float"}
    assert run(["list", "--json"]) == 0
    rooms = json.loads(capsys.readouterr().out)
    assert {room["name"]: room["parts"] for room in rooms} == {
        r: registry.names(r) for r in registry.ENTRY
    } | {"weights": sorted(registry.weights())}


FAILURES = [
    (GeomlError("a.tif: no CRS; set one"), 1, "a.tif: no CRS; set one"),
    (NothingMatched("nothing"), 4, "nothing"),
    (TryLater("busy"), 75, "busy"),
    (Stopped(signal.SIGTERM), 143, "stopped by signal 15"),
    (OSError(28, "x", "o.tif"), 1, "o.tif: no space left on the disk"),
    (PermissionError(13, "x", "o"), 1, "o: permission denied"),
    (OSError("odd\nthing"), 1, "odd thing"),
    (MemoryError(), 1, "out of memory"),
    (KeyError("k"), 1, "a fault in geoml itself (KeyError: 'k'); --debug shows where"),
    (AssertionError(), 1, "a fault in geoml itself (AssertionError: )"),
]


@pytest.mark.parametrize(("error", "status", "says"), FAILURES, ids=lambda v: type(v).__name__)
def test_a_failure_is_one_line_and_a_traceback_only_with_debug(error, status, says, fail, capsys):
    fail(error)
    assert run(["tile", "x"]) == status
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("geoml: tile: ") and says in err
    assert run(["tile", "x", "--debug"]) == status
    loud = capsys.readouterr().err
    assert loud.startswith("Traceback (most recent call last):") and loud.endswith(err)


@pytest.mark.parametrize("stop", [(KeyboardInterrupt(), 130), (KeyboardInterrupt(15), 143)])
def test_a_stop_is_one_line(stop, fail, capsys):
    fail(stop[0])
    assert run(["train"]) == stop[1]
    assert capsys.readouterr().err == "geoml: train: stopped\n"


@pytest.mark.parametrize("argv", [["list"], ["list", "encoders"], ["--help"], ["tile", "--help"]])
def test_a_closed_pipe_is_quiet_and_141(argv):
    read, write = os.pipe()
    os.close(read)  # the reader is gone before the first byte: no race
    try:
        got = subprocess.run([*GEOML, *argv], stdout=write, stderr=subprocess.PIPE)
    finally:
        os.close(write)
    assert (got.returncode, got.stderr) == (141, b"")


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
def test_a_closed_pipe_in_a_shell():
    line = f"{sys.executable} -m geoml_cli list encoders | head -c 0; echo ${{PIPESTATUS[0]}}"
    got = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert got.stderr == ""
    assert got.stdout.strip() in ("141", "0")  # 0 where the line was in the pipe before head left


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")
def test_a_full_disk_under_stdout_is_a_failure():
    with FULL.open("w") as full:
        got = subprocess.run([*GEOML, "list"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert got.returncode == 1
    assert got.stderr.count("\n") == 1 and "no space left" in got.stderr


def test_closed_streams_do_no_harm():
    got = subprocess.run(f"{sys.executable} -m geoml_cli list >&- 2>&-", shell=True)
    assert got.returncode == 0
    got = subprocess.run(f"{sys.executable} -m geoml_cli lsit 2>&-", shell=True)
    assert got.returncode == 2


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_work_begins(signum, tmp_path):
    """Stdin is read to its end first: a run that waits there has not begun its job."""
    call = [*GEOML, "tile", "-", "-o", str(tmp_path / "tiles")]
    pipe = subprocess.PIPE
    heed = partial(
        signal.signal, signal.SIGINT, signal.SIG_DFL
    )  # shells deafen what they put behind
    with subprocess.Popen(call, stdin=pipe, stdout=pipe, stderr=pipe, preexec_fn=heed) as child:
        child.stdin.write(
            b"scene.tif\n" * 30_000
        )  # more than a pipe holds: it returns once it is read
        child.stdin.flush()
        for _ in range(30):  # a signal between two reads is seen at the next one only
            time.sleep(0.3)
            child.send_signal(signum)
            with suppress(subprocess.TimeoutExpired):
                child.wait(2)
                break
        else:
            child.kill()
        out, err = child.stdout.read(), child.stderr.read()
    assert child.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[signum]
    assert (out, err) == (b"", b"geoml: tile: stopped\n")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def log():
    """The program's log; put back as it was afterwards."""
    found = logging.getLogger("geoml")
    kept = found.handlers[:], found.propagate, found.level
    show = warnings.showwarning
    yield found
    found.handlers[:], found.propagate, found.level = kept
    warnings.showwarning = show


def test_a_json_log_is_one_object_a_line(log, capsys):
    start_log(Manners(log_format="json", verbose=True))
    log.warning("two\nlines of %s", "text")
    log.debug("fine print")
    warnings.warn("from a library", UserWarning, stacklevel=1)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["level"] for line in lines] == ["warning", "debug", "warning"]
    assert [line["message"] for line in lines] == [
        "two\nlines of text",
        "fine print",
        "from a library",
    ]
    assert lines[0]["time"] <= lines[1]["time"] <= lines[2]["time"]


@pytest.mark.parametrize(
    ("manners", "terminal", "heard"),
    [
        (Manners(), False, ["warning: w"]),
        (Manners(), True, ["warning: w", "i"]),
        (Manners(quiet=True), True, ["warning: w"]),
        (Manners(verbose=True), False, ["warning: w", "i", "d"]),
    ],
)
def test_people_hear_more_than_crontabs(manners, terminal, heard, log, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    start_log(manners)
    log.warning("w")
    log.info("i")
    log.debug("d")
    assert capsys.readouterr().err.splitlines() == [f"geoml: {line}" for line in heard]


def test_the_module_and_the_script_are_one_program():
    script = shutil.which("geoml", path=str(Path(sys.executable).parent))
    if not script:
        pytest.skip("the console script is not beside this Python")
    asked = subprocess.run([script, "--help"], capture_output=True, text=True)
    assert (asked.returncode, asked.stdout) == (0, geoml("--help").stdout)
