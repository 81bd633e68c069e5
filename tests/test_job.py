"""What a run leaves behind: always the old artifact or the new one, whatever happens in between."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

import made
import pytest
import rasterio.shutil

from geoml_cli.cli import run
from geoml_cli.errors import GeomlError, NothingMatched, SomeFailed, Stopped, TryLater, UsageMistake
from geoml_cli.formats.digest import digest_file
from geoml_cli.formats.stamp import Input, damage, read_record
from geoml_cli.manners import Manners
from geoml_cli.stages.job import Job
from geoml_cli.stages.units import map_units

SLOW = [sys.executable, str(Path(__file__).with_name("slow_job.py"))]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder with one input, in.txt, of long ago; the folder one is in."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.txt").write_text("content")
    os.utime("in.txt", (10**9, 10**9))
    return tmp_path


def build(out="out", read=("in.txt",), text="made", arguments=None, verb="tile", **manners) -> Job:
    """One whole run that writes a folder with one member."""
    inputs = [Input(str(path), "scene", digest_file(path)) for path in read]
    with Job(
        verb, out, "tiles", "tileset.json", arguments or {}, inputs, Manners(**manners)
    ) as job:
        if not job.done:
            (job.part / "member.txt").write_text(text)
            job.commit({"count": 1})
    return job


def build_file(out="out.json", text="{}", read=("in.txt",), **manners) -> Job:
    inputs = [Input(str(path), "map", digest_file(path)) for path in read]
    with Job("evaluate", out, "scores", None, {}, inputs, Manners(**manners)) as job:
        if not job.done:
            (job.part / "built").write_text(json.dumps(json.loads(text) | {"geoml": job.record}))
            job.commit_file(job.part / "built")
    return job


def start(**given: object) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen([*SLOW, json.dumps(given)], stdout=pipe, stderr=pipe, text=True)


def finish(**given: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*SLOW, json.dumps(given)], capture_output=True, text=True)


def wait_for_block(child: subprocess.Popen[str], number: int) -> None:
    assert any(line.strip() == str(number) for line in child.stdout), child.stderr.read()


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def blocks(n: int, size: int = 1000) -> dict[str, bytes]:
    return {f"{i:03d}.bin": bytes([i % 256]) * size for i in range(n)}


def members(folder: Path) -> dict[str, bytes]:
    found = made.content(folder)
    found.pop("tileset.json")
    return found


def test_a_run_leaves_the_artifact_and_nothing_else(here):
    job = build()
    assert names(here) == ["in.txt", "out"] and names(here / "out") == [
        "member.txt",
        "tileset.json",
    ]
    assert damage("out", read_again=True) == [] and job.stamp == "out/tileset.json"
    assert read_record("out")["inputs"] == [
        {"path": "../in.txt", "role": "scene", "digest": digest_file("in.txt")}
    ]
    build_file("deep/er/x.json")
    assert names(here / "deep/er") == ["x.json"]


def test_the_fingerprint_is_of_content_not_of_names_or_times(here):
    first = build().record["fingerprint"]
    shutil.copy("in.txt", "other.txt")
    (here / "sub").mkdir()
    assert build("sub/b", read=[here / "other.txt"]).record["fingerprint"] == first
    os.utime("in.txt")
    assert build("c").record["fingerprint"] == first
    assert build("d", jobs=4, verbose=True, deadline_s=99).record["fingerprint"] == first
    (here / "in.txt").write_text("Content")
    assert build("e").record["fingerprint"] != first
    assert build("f", arguments={"size": 2}).record["fingerprint"] not in (
        first,
        build("e").record["fingerprint"],
    )


def test_up_to_date_does_nothing(here):
    build()
    os.utime("out/tileset.json", (10**9 + 9, 10**9 + 9))
    before = [(p.stat().st_ino, p.stat().st_mtime_ns) for p in sorted((here / "out").iterdir())]
    assert build(text="other").done
    assert [
        (p.stat().st_ino, p.stat().st_mtime_ns) for p in sorted((here / "out").iterdir())
    ] == before
    assert (here / "out/member.txt").read_text() == "made" and names(here) == ["in.txt", "out"]


def test_the_stamp_is_touched_only_if_older_than_an_input(here):
    build()
    for age_s, touched in [(-5, False), (0, False), (5, True)]:
        os.utime("out/tileset.json", (2 * 10**9, 2 * 10**9))
        os.utime("in.txt", (2 * 10**9 + age_s, 2 * 10**9 + age_s))
        content = made.content(here / "out")
        assert build().done and made.content(here / "out") == content
        assert (os.stat("out/tileset.json").st_mtime != 2 * 10**9) == touched


@pytest.mark.parametrize("spoil", ["input", "arguments", "member", "stranger tag"])
def test_what_is_stale_or_damaged_is_made_again(spoil, here):
    build()
    if spoil == "input":
        (here / "in.txt").write_text("new")
    if spoil == "member":
        (here / "out/member.txt").write_text("spoilt")
    if spoil == "stranger tag":  # what a viewer leaves beside a raster is no one's work
        (here / "out/member.txt.aux.xml").write_text("<PAMDataset/>")
        (here / "in.txt").write_text("new")
    job = build(text="again", arguments={"a": 1} if spoil == "arguments" else None)
    assert not job.done and (here / "out/member.txt").read_text() == "again"
    assert names(here) == ["in.txt", "out"] and names(here / "out") == [
        "member.txt",
        "tileset.json",
    ]
    assert build(text="?", arguments={"a": 1} if spoil == "arguments" else None).done


def test_the_old_artifact_is_there_until_the_new_one_is(here):
    build(text="old")
    (here / "in.txt").write_text("new")
    with Job(
        "tile", "out", "tiles", "tileset.json", {}, [Input("in.txt", "scene", "d")], Manners()
    ) as job:
        (job.part / "member.txt").write_text("new")
        assert (here / "out/member.txt").read_text() == "old" and damage("out") == []
        handle = os.open("out", os.O_RDONLY)  # as a reader that looks in right now
        job.commit({})
    assert (here / "out/member.txt").read_text() == "new"
    os.close(handle)
    assert names(here) == ["in.txt", "out"]


def refused(status: type[GeomlError] = GeomlError, **given) -> str:
    with pytest.raises(status) as caught:
        build(**given)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_what_is_not_ours_is_replaced_by_force_alone(kind, here):
    if kind == "folder":
        (here / "out").mkdir()
        (here / "out/mine.txt").write_text("mine")
    elif kind == "file":
        (here / "out").write_text("mine")
    else:
        (here / "far").mkdir()
        (here / "far/mine.txt").write_text("mine")
        (here / "out").symlink_to("far")
    before = made.content(here)
    assert (
        refused()
        == "out: exists and was not written by geoml; name another -o, or --force replaces it"
    )
    assert made.content(here) == before
    build(force=True)
    assert damage("out") == [] and (here / "out/member.txt").read_text() == "made"
    assert not (here / "out/mine.txt").exists() and "out" in names(here)
    assert not [name for name in names(here) if name.startswith(".")]


def test_a_link_to_a_folder_is_followed_and_stays(here):
    (here / "disk").mkdir()
    (here / "disk/out").mkdir()
    (here / "out").symlink_to("disk/out")
    build()
    assert (here / "out").is_symlink() and damage("disk/out") == []
    (here / "in.txt").write_text("new")
    build(text="again")
    assert (here / "out").is_symlink() and (here / "disk/out/member.txt").read_text() == "again"
    assert names(here / "disk") == ["out"] and names(here) == ["disk", "in.txt", "out"]
    assert (here / "disk/out" / read_record("out")["inputs"][0]["path"]).samefile("in.txt")


def test_the_artifact_of_another_verb_is_replaced_by_force_alone(here):
    build(verb="train")
    assert "written by `geoml train`" in refused()
    build(force=True)
    assert read_record("out")["verb"] == "tile"


def test_a_damaged_stamp_is_replaced_by_force_alone(here):
    build()
    (here / "out/tileset.json").write_text("{")
    assert "damaged JSON" in refused() and "--force replaces it" in refused()
    build(force=True)
    assert damage("out") == []


def test_a_file_of_ours_that_names_members_outside_is_made_again(here):
    build()
    stamp = json.loads((here / "out/tileset.json").read_text())
    stamp["geoml"]["members"]["../in.txt"] = digest_file("in.txt")
    (here / "out/tileset.json").write_text(json.dumps(stamp))
    assert not build().done
    assert damage("out") == [] and (here / "in.txt").read_text() == "content"


def test_force_never_takes_the_inputs_the_home_or_the_place_one_is_in(here, monkeypatch):
    (here / "data").mkdir()
    shutil.copy("in.txt", "data/in.txt")
    (here / "link").symlink_to("data/in.txt")
    for force in (True, False):
        for read in ("data/in.txt", "data/../data/in.txt", "link", here / "data/in.txt"):
            assert "which this run reads" in refused(out="data", read=[read], force=force)
        monkeypatch.setenv("HOME", str(here / "data"))
        assert "your home" in refused(out="data", force=force)
        monkeypatch.setenv("HOME", "/nowhere")
        monkeypatch.chdir(here / "data")
        for out in (".", here / "data", "..", "../../" + here.name):
            assert "where you are" in refused(out=str(out), force=force)
        monkeypatch.chdir(here)
    assert (here / "data/in.txt").read_text() == "content"
    assert "name a folder" in refused(UsageMistake, out="/")


def test_an_artifact_is_never_made_out_of_itself(here):
    build(verb="tile")
    (here / "in.txt").write_text("new")
    before = made.content(here)
    assert "out: holds " in refused(read=["out/tileset.json", "in.txt"])
    assert "out: holds " in refused(read=["out/member.txt"], force=True, verb="train")
    with pytest.raises(GeomlError, match="in.txt: is which this run reads; it would be replaced"):
        build_file("in.txt", force=True)
    assert made.content(here) == before


def test_an_empty_folder_may_be_filled(here):
    (here / "out").mkdir()
    build("out/")
    assert damage("out") == [] and names(here) == ["in.txt", "out"]


def test_a_file_of_the_user_in_a_stale_folder_is_kept(here):
    build()
    (here / "out/sub").mkdir()
    (here / "out/sub/notes.txt").write_text("mine")
    assert build().done  # up to date: nothing to do, nothing in the way
    (here / "in.txt").write_text("new")
    before = made.content(here)
    assert refused().startswith(
        "out/sub/notes.txt: not written by geoml, and out must be made again; move it"
    )
    assert made.content(here) == before
    build(force=True)
    assert names(here / "out") == ["member.txt", "tileset.json"]


def test_a_single_file_follows_the_same_rules(here):
    assert not build_file().done and build_file().done
    os.utime("out.json", (1, 1))
    assert build_file().done and os.stat("out.json").st_mtime > 1
    (here / "in.txt").write_text("new")
    assert not build_file(text='{"x": 1}').done and "x" in json.loads(
        (here / "out.json").read_text()
    )
    (here / "out.json").write_text('{"type": "FeatureCollection"}')
    with pytest.raises(GeomlError, match="out.json: exists and was not written by geoml"):
        build_file()
    build_file(force=True)
    (here / "folder").mkdir()
    with pytest.raises(GeomlError, match="folder: is a folder; name a file"):
        build_file("folder", force=True)
    assert names(here) == ["folder", "in.txt", "out.json"]


def test_of_two_runs_at_once_the_second_is_told_to_come_back(here):
    first = start(out="out", blocks=100)
    wait_for_block(first, 1)
    second = finish(out="out", blocks=100)
    assert (second.returncode, second.stdout) == (75, "")
    assert (
        second.stderr
        == f"geoml: tile: {here}/out: another run is writing it; try again when that is done\n"
    )
    other = finish(out="elsewhere", blocks=1)
    assert other.returncode == 0
    first.send_signal(signal.SIGTERM)
    first.communicate()


def test_a_killed_run_is_no_obstacle_and_loses_nothing(here):
    assert finish(out="out", blocks=3).returncode == 0
    old = made.content(here / "out")
    child = start(out="out", blocks=20)
    wait_for_block(child, 7)
    child.kill()
    child.communicate()
    assert child.returncode == -9 and made.content(here / "out") == old and damage("out") == []
    assert names(here) == [".out.lock", ".out.part", "in.txt", "out"]
    again = finish(out="out", blocks=20)
    assert again.returncode == 0 and "tileset.json" in again.stdout
    assert members(here / "out") == blocks(20) and names(here) == ["in.txt", "out"]
    redone = [int(line) for line in again.stdout.split()[:-1]]
    assert redone and redone[0] in (7, 8, 9) and redone == list(range(redone[0], 20))
    undisturbed = finish(out="whole", blocks=20)
    assert undisturbed.returncode == 0 and made.content(here / "whole") == made.content(
        here / "out"
    )


def test_what_a_killed_run_began_for_other_arguments_is_not_used(here):
    child = start(out="out", blocks=20, size=1000)
    wait_for_block(child, 5)
    child.kill()
    child.communicate()
    again = finish(out="out", blocks=20, size=1001)
    assert again.stdout.split()[:-1] == [str(i) for i in range(20)]
    assert members(here / "out") == blocks(20, 1001)


def test_a_run_killed_right_after_the_exchange_leaves_no_litter_for_long(here, monkeypatch):
    build(text="old")
    (here / "in.txt").write_text("new")

    def die(*_):
        raise SystemExit  # the moment between the exchange and the removal of the old folder

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr("geoml_cli.formats.commit.shutil.rmtree", die)
        build(text="new")
    assert (here / "out/member.txt").read_text() == "new" and ".out.part" in names(here)
    assert build().done and names(here) == ["in.txt", "out"]


def test_a_torn_file_of_a_killed_run_is_no_member(here):
    inputs = [Input("in.txt", "scene", "d")]
    with (
        pytest.raises(OSError),
        Job("tile", "out", "tiles", "tileset.json", {}, inputs, Manners()) as job,
    ):
        (job.part / ".member.txt.tmp").write_text("half")
        raise OSError(errno.EIO, "disk trouble")
    with Job("tile", "out", "tiles", "tileset.json", {}, inputs, Manners()) as job:
        (job.part / "member.txt").write_text("whole")
        job.commit({})
    assert names(here / "out") == ["member.txt", "tileset.json"]


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_at_the_block_and_the_rerun_goes_on(signum, status, here):
    child = start(out="out", blocks=20)
    wait_for_block(child, 4)
    child.send_signal(signum)
    out, err = child.communicate()
    assert child.returncode == status
    kept = [line for line in err.splitlines() if "keeps what is done" in line]
    assert kept == [
        f"geoml: warning: {here}/.out.part keeps what is done; run the same command again to go on"
    ]
    assert (
        f"geoml: tile: stopped by signal {int(signum)}; run the same command again to go on" in err
    )
    assert names(here) == [".out.part", "in.txt"]
    done = len(names(here / ".out.part")) - 1
    again = finish(out="out", blocks=20)
    assert again.returncode == 0 and len(again.stdout.split()) - 1 == 20 - done
    assert members(here / "out") == blocks(20) and names(here) == ["in.txt", "out"]


def test_a_second_signal_dies_at_once(here):
    child = start(out="out", blocks=3, pause_s=60)
    wait_for_block(child, 0)
    child.send_signal(signal.SIGINT)
    line = child.stderr.readline()
    assert line == "geoml: stopping at the next block; Ctrl-C again to die at once\n"
    began = time.monotonic()
    child.send_signal(signal.SIGINT)
    child.communicate()
    assert child.returncode == -signal.SIGINT and time.monotonic() - began < 20


def test_a_deadline_exits_75_and_the_next_run_goes_on(here):
    statuses, computed = [], []
    for _ in range(9):
        got = finish(out="out", blocks=12, pause_s=0.05, manners={"deadline_s": 0.3})
        statuses.append(got.returncode)
        computed += [int(word) for word in takewhile(str.isdigit, got.stdout.split())]
        if got.returncode == 0:
            break
        assert "deadline reached; run the same command again to go on" in got.stderr
    assert statuses[:-1] and set(statuses[:-1]) == {75} and statuses[-1] == 0
    assert computed == list(range(12)) and members(here / "out") == blocks(12)


def test_handlers_are_given_back(here):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    build()
    with pytest.raises(GeomlError):
        build("in.txt")
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_job_may_run_in_a_thread(here):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        assert not pool.submit(build).result().done
    assert damage("out") == []


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (GeomlError("bad data"), False),  # other data will have another fingerprint
        (NothingMatched("nothing"), False),
        (OSError(errno.ENOSPC, "full"), True),
        (TryLater("network"), True),
        (Stopped(15), True),
        (MemoryError(), True),
        (AssertionError(), True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_unfinished_work_is_kept_where_a_rerun_can_use_it_and_that_is_said(
    error, kept, here, caplog, monkeypatch
):
    monkeypatch.setattr("geoml_cli.stages.job.log.propagate", True)
    inputs = [Input("in.txt", "scene", "d")]
    with (
        pytest.raises(type(error)),
        Job("tile", "out", "tiles", "tileset.json", {}, inputs, Manners()) as job,
    ):
        (job.part / "block").write_text("done")
        raise error
    assert (names(here) == [".out.part", "in.txt"]) == kept and (
        "keeps what is done" in caplog.text
    ) == kept
    with (
        pytest.raises(type(error)),
        Job("tile", "b", "tiles", "tileset.json", {}, inputs, Manners()),
    ):
        raise error
    assert not (here / ".b.part").exists()  # nothing was done


def test_a_refused_run_leaves_the_unfinished_work_of_another_alone(here):
    inputs = [Input("in.txt", "scene", "d")]
    with (
        pytest.raises(TryLater),
        Job("tile", "out", "tiles", "tileset.json", {}, inputs, Manners()) as job,
    ):
        (job.part / "block").write_text("done")
        raise TryLater("deadline")
    (here / "out").write_text("in the way")
    refused()
    assert (here / ".out.part/block").read_text() == "done"


def attempts(keep_going: bool, fails=("b",)) -> Job:
    def work(name):
        if name in fails:
            raise GeomlError(f"{name}: damaged")
        (job.part / name).write_text(name)
        return name

    inputs = [Input("in.txt", "scene", "d")]
    manners = Manners(keep_going=keep_going)
    with Job("tile", "out", "tiles", "tileset.json", {}, inputs, manners) as job:
        if not job.done:
            assert [job.attempt(name, lambda name=name: work(name)) for name in "abc"]
            job.commit({})
    job.report([job.stamp])
    return job


def test_one_bad_input_stops_the_run_but_not_under_keep_going(here, capsys):
    with pytest.raises(GeomlError, match="b: damaged"):
        attempts(False)
    assert names(here / ".out.part") == [".part.json", "a"]  # what --keep-going can go on from
    with pytest.raises(SomeFailed, match=r"1 input\(s\) failed: b"):
        attempts(True)
    assert names(here / "out") == ["a", "c", "tileset.json"] and names(here) == ["in.txt", "out"]
    with pytest.raises(SomeFailed):
        attempts(True)  # never up to date while something is missing
    assert not attempts(True, fails=()).done and attempts(True, fails=()).done
    assert names(here / "out") == ["a", "b", "c", "tileset.json"]


ODD = [
    "plain.txt", "a b", "a:b", "a#b", "$x", "a=b", "year=2023/a b.txt", "100%", "a*b", "[1]", "a?b", "a\\ b",
    "é'\"", "(1) x", "a,b", "a!b", "~x", "a&b", "c:/x", "-a", "a\\:b",
]  # fmt: skip


def test_make_reads_the_depfile_whatever_the_names(here):
    for name in ODD:
        path = here / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        os.utime(path, (10**9, 10**9))
    job = build(read=ODD, depfile="dep.d")
    job.report([job.stamp])
    (here / "Makefile").write_text("out/tileset.json:\n\t@echo stale\ninclude dep.d\n")

    def make() -> str:
        got = subprocess.run(
            ["make", "-r", "--no-print-directory", "out/tileset.json"],
            capture_output=True,
            text=True,
        )
        assert (got.returncode, got.stderr) == (0, "")
        return got.stdout

    assert "up to date" in make()
    for name in ODD:
        os.utime(name)
        assert make() == "stale\n", name
        os.utime(name, (10**9, 10**9))
        (here / name).rename(here / "away")
        assert make() == "stale\n", name  # gone is changed, and no error
        (here / "away").rename(here / name)
    assert "up to date" in make()


def test_a_target_of_any_name_is_a_target_for_make(here):
    for out in ("a b", "k=v", "5%", "x#y"):
        build(out, depfile="dep.d").report([])
        (here / "in.txt").touch()
        goal = subprocess.run(
            ["make", "-r", "--no-print-directory", "-f", "dep.d", "-pn"],
            capture_output=True,
            text=True,
        )
        assert f"\n{out}/tileset.json: in.txt\n" in goal.stdout, out


def test_what_make_cannot_look_at_or_spell_is_left_out(here, caplog, monkeypatch):
    monkeypatch.setattr("geoml_cli.stages.job.log.propagate", True)
    (here / "a;b").write_text("x")
    inputs = [
        Input(name, "scene", "d")
        for name in ("in.txt", "-", "https://h/a.tif", "/vsizip/a.zip/b", "a;b")
    ]
    with Job("tile", "out", "tiles", "tileset.json", {}, inputs, Manners(depfile="dep.d")) as job:
        job.commit({})
    job.report([])
    assert (here / "dep.d").read_text() == "out/tileset.json: in.txt\nin.txt:\n"
    assert "a;b: make has no way to spell this name" in caplog.text
    assert [i["path"] for i in read_record("out")["inputs"]] == [
        "../in.txt", "-", "https://h/a.tif", "/vsizip/a.zip/b", "../a;b",
    ]  # fmt: skip


DROP = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from slow_job import cli, work
cli.dispatch = work
warm = {"out": sys.argv[3], "blocks": 1}
assert cli.run(["tile", json.dumps(warm)]) == 0  # another user may not even read Python's own files
print(flush=True)
os.setgroups([]), os.setgid(65534), os.setuid(65534)
sys.exit(cli.run(["tile", sys.argv[2]]))
"""


def as_nobody(warm: Path, **given: object) -> subprocess.CompletedProcess[str]:
    """Run the slow job as a user who may not write everywhere."""
    if os.getuid() != 0:
        return finish(**given)
    call = [sys.executable, "-c", DROP, str(Path(__file__).parent), json.dumps(given), str(warm)]
    got = subprocess.run(call, capture_output=True, text=True)
    got.stdout = got.stdout.partition("\n\n")[2]
    return got


@pytest.fixture
def open_to_all(here):
    """The same, but below folders that any user may enter."""
    shut = [f for f in [here, *here.parents] if f.stat().st_mode & 0o005 != 0o005]
    before = {folder: folder.stat().st_mode for folder in shut}
    for folder in shut:
        folder.chmod(before[folder] | 0o055)
    yield here
    for folder in shut:
        folder.chmod(before[folder])


def test_without_permission_one_line_and_nothing_lost(open_to_all, tmp_path_factory):
    here = open_to_all
    (here / "shut").mkdir()
    assert finish(out="shut/out", blocks=2).returncode == 0
    old = made.content(here)
    for path in (here / "shut", here / "shut/out"):
        path.chmod(0o555)
    try:
        for out in ("shut/out", "shut/new", "shut/deep/new"):
            got = as_nobody(tmp_path_factory.mktemp("warm") / "out", out=out, blocks=3)
            assert (got.returncode, got.stdout) == (1, ""), got.stderr
            assert got.stderr.count("\n") == 1 and "permission denied; check who may" in got.stderr
            assert str(here / "shut") in got.stderr or "shut/" in got.stderr
    finally:
        for path in (here / "shut", here / "shut/out"):
            path.chmod(0o755)
    assert made.content(here) == old


@contextmanager
def little_disk(path: Path, size_kb: int):
    """A disk of some kilobytes, mounted at `path`."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_kb}k", "tmpfs", str(path)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


def test_a_full_disk_is_one_line_keeps_the_old_and_goes_on_later(here):
    with little_disk(here / "disk", 256) as disk:
        assert finish(out="disk/out", blocks=2).returncode == 0
        old = made.content(disk / "out")
        got = finish(out="disk/out", blocks=9, size=50_000, pause_s=0)
        assert got.returncode == 1
        said = got.stderr.splitlines()
        assert (
            said[0]
            == f"geoml: warning: {disk}/.out.part keeps what is done; run the same command again to go on"
        )
        assert len(said) == 2 and "no space left on the disk; free some" in said[1]
        assert made.content(disk / "out") == old and damage("disk/out") == []
        assert names(disk) == [".out.part", "out"]
        subprocess.run(["mount", "-o", "remount,size=2048k", str(disk)], check=True)
        again = finish(out="disk/out", blocks=9, size=50_000, pause_s=0)
        assert again.returncode == 0 and len(again.stdout.split()) - 1 < 9
        assert members(disk / "out") == blocks(9, 50_000) and names(disk) == ["out"]


def test_a_disk_without_room_for_anything_is_left_as_it_was(here):
    with little_disk(here / "disk", 64) as disk:
        (disk / "fill").write_bytes(b"x" * 65536)
        got = finish(out="disk/out", blocks=2)
        assert got.returncode == 1 and got.stderr.count("\n") == 1 and "no space left" in got.stderr
        assert names(disk) == ["fill"]


def test_a_real_command_on_a_full_disk(here):
    """Wherever in the writing of a COG the disk fills up: one message, and the rerun has the same bytes."""
    import numpy as np
    from rasterio.transform import from_origin

    from geoml_cli.formats.bands import Band
    from geoml_cli.formats.cog import Layout, save_cog, write_cog
    from geoml_cli.geo.grid import Grid

    layout = Layout(Grid("EPSG:32633", from_origin(0, 0, 1, 1), 600, 600), (Band("a"),), "uint8")
    data = np.random.default_rng(0).integers(0, 255, (1, 600, 600), np.uint8)

    def through_a_raw_file(path):
        raw = path.with_suffix(".raw")
        try:
            raw.write_bytes(data.tobytes())
            write_cog(raw, path, layout)
        finally:
            raw.unlink(missing_ok=True)

    def at_once(path):
        save_cog(path, data, layout)

    at_once(here / "whole.tif")
    ways = {through_a_raw_file: (300, 420, 600, 740, 820), at_once: (60, 200, 300, 400)}
    with little_disk(here / "disk", 300) as disk:
        for write, sizes in ways.items():
            for size_kb in sizes:
                subprocess.run(["mount", "-o", f"remount,size={size_kb}k", str(disk)], check=True)
                with pytest.raises(OSError) as caught:
                    write(disk / "a.tif")
                assert caught.value.errno == errno.ENOSPC, size_kb
                assert names(disk) == []
            subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
            write(disk / "a.tif")
            assert (disk / "a.tif").read_bytes() == (here / "whole.tif").read_bytes()
            (disk / "a.tif").unlink()


def test_what_an_input_that_failed_left_behind_is_no_member(project):
    """A raster that is cut short fails in its middle, when blocks of it are written already."""
    rasterio.shutil.copy("scene.tif", "torn.tif", driver="COG", COMPRESS="NONE", BLOCKSIZE=128)
    whole = Path("torn.tif").read_bytes()
    Path("torn.tif").write_bytes(whole[:-5000])
    call = [
        "predict",
        "scene.tif",
        "torn.tif",
        "--model",
        "model",
        "--device",
        "cpu",
        "--window",
        "32",
    ]
    assert run([*call, "--batch", "1", "--keep-going", "-o", "both"]) == 3
    assert names(project / "both") == ["ground.parquet", "items.json", "scene.tif"]
    assert read_record("both")["members"].keys() == {"ground.parquet", "scene.tif"}
    assert not (project / ".both.part").exists()


def square(number: int) -> int:
    time.sleep(0.05 if number == 0 else 0)  # the first is the last to be done
    return number * number


def die(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def fail(number: int) -> int:
    raise GeomlError(f"unit {number}: bad data")


@pytest.mark.parametrize("jobs", [1, 2])
def test_units_come_back_in_order_and_stop_when_asked(jobs):
    checks = []
    assert list(map_units(square, range(9), jobs, lambda: checks.append(1))) == [
        n * n for n in range(9)
    ]
    assert len(checks) == 9
    assert list(map_units(square, [], jobs, lambda: None)) == []
    seen = []

    def stop() -> None:
        if len(seen) == 3:
            raise Stopped(15)

    with pytest.raises(Stopped):
        for result in map_units(square, range(1000), jobs, stop):
            seen.append(result)
    assert seen == [0, 1, 4]


def test_what_a_unit_complains_of_arrives_as_it_was_said():
    for jobs in (1, 2):
        with pytest.raises(GeomlError, match="unit 5: bad data"):
            list(map_units(fail, [5, 6, 7], jobs, lambda: None))


def test_a_worker_that_dies_is_one_line():
    with pytest.raises(GeomlError, match="a worker process died"):
        list(map_units(die, [1, 2, 3], 2, lambda: None))


def test_a_report_is_paths_or_records_or_a_summary(here, capsys):
    for manners, want in [
        ({}, "out/tileset.json\n"),
        ({"ndjson": True}, '{"a": 1}\n{"a": 2}\n'),
    ]:
        build(**manners).report(["out/tileset.json"], [{"a": 1}, {"a": 2}])
        assert capsys.readouterr().out == want
    build(json=True).report(["out/tileset.json"], [], more=3)
    assert json.loads(capsys.readouterr().out) == {
        "out": "out", "written": ["out/tileset.json"], "up_to_date": True, "failed": [], "more": 3,
    }  # fmt: skip


def test_a_killed_command_and_a_failed_one_differ_in_status(project, capsys):
    assert run(["tile", "gone.tif", "-o", "x"]) == 1
    assert run(["tile", "scene.tif", "-o", "model"]) == 1
    assert "model: written by `geoml train`" in capsys.readouterr().err
    assert run(["tile", "scene.tif", "-o", "."]) == 1
    assert "where you are" in capsys.readouterr().err
