"""Man pages and completion scripts: up to date, complete, clean, and working in their shells."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from geoml_cli import docs, registry
from geoml_cli.commands import COMMANDS, TOPICS
from geoml_cli.errors import MEANING
from geoml_cli.program import program, surface_of
from geoml_cli.surface import Given, blocks, usage

ROOT = docs.ROOT
PAGES = ["geoml", *(f"geoml-{name}" for name in COMMANDS)]


def needs(tool: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not shutil.which(tool), reason=f"{tool} is not installed")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with everything freshly generated."""
    root = tmp_path_factory.mktemp("docs")
    assert docs.main([], root) == 0
    return root


def test_what_is_committed_is_up_to_date(capsys):
    assert docs.main(["--check"]) == 0, capsys.readouterr().err


def test_check_names_what_is_stale_and_writes_nothing(made, tmp_path, capsys):
    root = tmp_path / "copy"
    shutil.copytree(made, root)
    assert docs.main(["--check"], root) == 0
    (root / "man/geoml-tile.1").write_text("old")
    (root / "man/geoml-gone.1").write_text("a verb that is no more")
    (root / "completions/_geoml").unlink()
    capsys.readouterr()
    assert docs.main(["--check"], root) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "stale: completions/_geoml man/geoml-gone.1 man/geoml-tile.1; run `make docs`\n"
    assert (root / "man/geoml-tile.1").read_text() == "old"
    assert docs.main([], root) == 0
    names = [{str(p.relative_to(at)) for p in at.rglob("*")} for at in (root, made)]
    assert names[0] == names[1]
    assert docs.main(["--check"], root) == 0


def test_the_same_bytes_in_another_process(made, tmp_path):
    """Whatever the hash seed, the terminal's width, the language and the folder are."""
    code = f"import sys, pathlib; from geoml_cli import docs; docs.main([], pathlib.Path({str(tmp_path)!r}))"
    env = os.environ | {"PYTHONHASHSEED": "7", "COLUMNS": "40", "LC_ALL": "C", "PYTHONUTF8": "0"}
    subprocess.run([sys.executable, "-c", code], check=True, env=env, cwd="/")
    for path in made.rglob("*.*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / path.relative_to(made)).read_bytes(), path


def test_writing_them_imports_nothing_heavy():
    code = "import sys; from geoml_cli import docs; docs.generate(); print(*sys.modules)"
    got = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "rasterio", "geopandas", "pandas"} & set(got.stdout.split())


def plain(path: Path) -> str:
    """What a page says, without roff's marks."""
    text = re.sub(r"\\f[BIR]", "", path.read_text())
    for shown, mark in docs.ROFF.items():
        text = text.replace(mark, shown)
    return text


@pytest.mark.parametrize("name", COMMANDS)
def test_a_page_tells_all_that_a_verb_offers(name, made):
    verb = program(name)
    text = plain(made / f"man/geoml-{name}.1")
    for given in surface_of(verb):
        value = "|".join(given.choices) if given.choices and given.flags else given.value
        head = ", ".join(given.flags) + (f" {value}" if given.value else "")
        row = re.search(rf"\.TP\n{re.escape(head.strip())}(?:\.\.\.)?\n((?:[^.][^\n]*\n)+)", text)
        assert row, head
        note = f" ({given.note})" if given.note else ""
        assert " ".join(row[1].split()) == given.help.replace("`", "") + note
        section = "COMMON OPTIONS" if given.shared else "OPTIONS" if given.flags else "DESCRIPTION"
        assert text.rindex(".SH ", 0, row.start()) == text.index(f".SH {section}\n")
    for block in blocks(verb.help or ""):
        assert "".join(block.text.split()).replace("`", "") in "".join(text.split()).replace(
            "`", ""
        )


@pytest.mark.parametrize("name", PAGES)
def test_the_sections_of_a_page_are_in_the_usual_order(name, made):
    usual = "NAME SYNOPSIS DESCRIPTION COMMANDS OPTIONS COMMON_OPTIONS EXIT_STATUS FILES EXAMPLES SEE_ALSO"
    text = (made / f"man/{name}.1").read_text()
    found = [title.replace(" ", "_") for title in re.findall(r"^\.SH (.+)$", text, flags=re.M)]
    assert found == [title for title in usual.split() if title in found]
    assert {"NAME", "SYNOPSIS", "DESCRIPTION", "EXIT_STATUS", "EXAMPLES", "SEE_ALSO"} <= set(found)
    for status in MEANING:
        assert f".TP\n\\fB{status.value}\\fR\n" in text
    assert text.isascii()


@pytest.mark.parametrize("name", PAGES)
@needs("mandoc")
def test_mandoc_finds_nothing_wrong(name, made):
    call = ["mandoc", "-T", "lint", "-W", "warning", str(made / f"man/{name}.1")]
    got = subprocess.run(call, capture_output=True, text=True)
    assert (got.returncode, got.stdout, got.stderr) == (0, "", "")


@pytest.mark.parametrize("name", PAGES)
@needs("groff")
def test_groff_finds_nothing_wrong(name, made):
    call = ["groff", "-man", "-ww", "-z", str(made / f"man/{name}.1")]
    got = subprocess.run(call, capture_output=True, text=True)
    assert (got.returncode, got.stdout, got.stderr) == (0, "", "")


def test_roff_shows_every_letter_as_it_was():
    odd = r".dot 'quote' -o \n ~user a^b `code` 5° \"x\""
    written = docs.guard(docs.escape(odd))
    assert written.startswith(r"\&.dot") and written.isascii()
    if shutil.which("mandoc"):
        page = f'.TH X 1 "2026-01-01"\n.SH NAME\nx \\- y\n.SH A\n{written}\n'
        got = subprocess.run(["mandoc", "-T", "utf8"], input=page, capture_output=True, text=True)
        assert odd in got.stdout


def test_prose_is_told_from_examples():
    found = blocks("First.\n\nTwo\nlines.\n\n    geoml x \\\n      -o y\n\nLast.\n")
    assert [b.text for b in found] == ["First.", "Two lines.", "geoml x \\\n  -o y", "Last."]
    assert [b.example for b in found] == [False, False, True, False]


def test_usage_shows_what_must_be_given():
    def given(name: str, *flags: str, **more: bool) -> Given:
        base = dict.fromkeys(("required", "many", "shared"), False) | more
        return Given(name, flags, name.upper(), "", "", "", (), **base)

    surface = [
        given("input", required=True, many=True),
        given("out", "-o", "--out", required=True),
        given("size", "--size"),
        given("room"),
    ]
    assert usage(surface) == "INPUT... -o OUT [ROOM] [OPTIONS]"


# ---- completion: one table of what is typed and what must come, in every shell

TYPED = [  # words so far, the last one unfinished; what is offered; what is not
    (["ti"], ["tile"], ["train"]),
    ([""], [*COMMANDS], ["--help"]),
    (["--v"], ["--version"], ["tile"]),
    (["tile", "--la"], ["--labels", "--label-column"], ["--size"]),
    (["tile", "--siz"], ["--size"], []),
    (["tile", "--sampler", ""], [*registry.names("samplers")], ["--help", "tile"]),
    (["train", "tiles/", "--encoder", "u"], ["unet"], ["segment"]),
    (["train", "--objective", ""], [*registry.names("objectives")], ["unet"]),
    (["train", "-j", "2", "--head", ""], [*registry.names("heads")], []),
    (["train", "--task", ""], [*registry.names("tasks")], []),
    (["evaluate", "--metric", ""], [*registry.names("metrics")], []),
    (["evaluate", "--task", ""], ["alignment"], ["segment"]),
    (["train", "--device", ""], ["auto", "cpu", "cuda", "mps"], []),
    (["predict", "--log-format", ""], ["plain", "json"], []),
    (["list", ""], [*registry.ENTRY], ["tile"]),
    (["list", "enc"], ["encoders"], ["heads"]),
    (["help", ""], [*TOPICS, *COMMANDS], ["encoders"]),
    (["tile", "--labels", "some"], ["somewhere.gpkg"], ["--labels"]),
    (["tile", "some"], ["somewhere.gpkg"], ["tile"]),
    (["tile", "-o", "some"], ["somewhere.gpkg"], []),
    (["evaluate", "--report", "some"], ["somewhere.gpkg"], []),
    (["tile", "--seed", ""], [], ["somewhere.gpkg", "tile"]),
    (["info", "tile", "--sa"], [], ["--sampler"]),
]
IDS = [" ".join(words) + "_" for words, _, _ in TYPED]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with one file to complete."""
    (tmp_path / "somewhere.gpkg").touch()
    monkeypatch.chdir(tmp_path)


def quoted(words: list[str]) -> str:
    return " ".join(f"'{word}'" for word in words)


def bash_offers(made: Path, words: list[str], before: str = "") -> list[str]:
    """What the bash function answers; where it leaves it to readline, what readline would."""
    script = f"""
        shopt -s extglob; {before}
        plain=; compopt() {{ [[ $* == '+o default' ]] && plain=1; }}
        source {made}/completions/geoml
        COMP_WORDS=({quoted(["geoml", *words])}) COMP_CWORD={len(words)}
        $(complete -p geoml | sed 's/.*-F \\([^ ]*\\).*/\\1/') geoml
        if (( ${{#COMPREPLY[@]}} )); then printf '%s\\n' "${{COMPREPLY[@]}}"
        elif [[ ! $plain ]]; then compgen -f -- "${{COMP_WORDS[COMP_CWORD]}}"; fi
    """
    got = subprocess.run(["bash", "--norc", "-c", script], capture_output=True, text=True)
    assert got.stderr == ""
    return got.stdout.split()


def fish_offers(made: Path, words: list[str]) -> list[str]:
    line = " ".join(["geoml", *words])
    call = [
        "fish",
        "--no-config",
        "-c",
        f"source {made}/completions/geoml.fish; complete -C '{line}'",
    ]
    got = subprocess.run(call, capture_output=True, text=True)
    assert got.stderr == ""
    return [row.split("\t")[0] for row in got.stdout.splitlines()]


ZSH = r"""
# types each line and a tab into a real zsh, whose compadd also prints what it is given
zmodload zsh/zpty
zpty z zsh -f -i
say() { zpty -w z "$1" }
say "PS1= RPS1= PROMPT_SP= LISTMAX=1000; unsetopt auto_list; stty -echo"
say "fpath=($1/completions \$fpath); autoload -U compinit; compinit -u -D"
say 'compadd() { local -a hits; [[ " $*" == *\ -[OAD]\ * ]] || {'
say 'builtin compadd -A hits "$@"; print -rl -- \<${^hits}\> }; builtin compadd "$@" }'
say 'over() { print -r -- "<O""VER>"; zle kill-whole-line }; zle -N over; bindkey "^G" over'
shift
for line; do
    zpty -w -n z "$line"$'\t\a'
    zpty -r -m z text '*<OVER>*'
    print -r -- "$text"
done
zpty -d z
"""


@pytest.fixture(scope="module")
def zsh_offers(made, tmp_path_factory):
    """For each line of the table, what zsh adds; one shell for all, since it starts slowly."""
    here = tmp_path_factory.mktemp("here")
    (here / "somewhere.gpkg").touch()
    lines = [" ".join(["geoml", *words]) for words, _, _ in TYPED]
    call = ["zsh", "-f", "-c", ZSH, "zsh", str(made), *lines]
    got = subprocess.run(call, capture_output=True, text=True, timeout=60, cwd=here)
    assert got.stderr == ""
    texts = got.stdout.split("<OVER>")
    return [re.findall(r"<([^<>\s]+?)=?>", text) for text in texts[:-1]]


@pytest.mark.parametrize(("words", "wanted", "unwanted"), TYPED, ids=IDS)
@needs("bash")
def test_bash_completes(words, wanted, unwanted, made, here):
    offered = bash_offers(made, words)
    assert set(wanted) <= set(offered)
    assert not set(unwanted) & set(offered)


@pytest.mark.parametrize("breaks", ["=", ""])
@needs("bash")
def test_bash_completes_a_value_behind_an_equals_sign(breaks, made, here):
    """Bash hands `--a=b` over as three words, or as one where COMP_WORDBREAKS has no `=`."""

    def offers(option: str, start: str) -> list[str]:
        words = [option, "=", *filter(None, [start])] if breaks else [f"{option}={start}"]
        return bash_offers(made, ["train", "tiles/", *words])

    head = (lambda option: "") if breaks else (lambda option: f"{option}=")
    assert offers("--encoder", "u") == [f"{head('--encoder')}unet"]
    objectives = [head("--objective") + name for name in registry.names("objectives")]
    assert offers("--objective", "") == objectives
    assert offers("--out", "some") == [f"{head('--out')}somewhere.gpkg"]
    assert offers("--epochs", "") == []


@pytest.mark.parametrize(("words", "wanted", "unwanted"), TYPED, ids=IDS)
@needs("fish")
def test_fish_completes(words, wanted, unwanted, made, here):
    offered = fish_offers(made, words)
    assert set(wanted) <= set(offered)
    assert not set(unwanted) & set(offered)


@pytest.mark.parametrize("case", range(len(TYPED)), ids=IDS)
@needs("zsh")
def test_zsh_completes(case, zsh_offers):
    assert len(zsh_offers) == len(TYPED)
    words, wanted, unwanted = TYPED[case]
    assert set(wanted) <= set(zsh_offers[case])
    assert not set(unwanted) & set(zsh_offers[case])


@pytest.mark.parametrize(
    ("shell", "name"), [("bash", "geoml"), ("zsh", "_geoml"), ("fish", "geoml.fish")]
)
def test_a_script_is_sound_and_starts_no_python(shell, name, made):
    text = (made / "completions" / name).read_text()
    assert "python" not in text.replace("no Python runs at TAB", "").lower()
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    got = subprocess.run(
        [shell, "-n", str(made / "completions" / name)], capture_output=True, text=True
    )
    assert (got.returncode, got.stderr) == (0, "")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_in_every_script(name, made):
    bash, zsh, fish = (
        (made / "completions" / f).read_text() for f in ("geoml", "_geoml", "geoml.fish")
    )
    of_bash = bash[bash.index(f"\n    {name})") :]
    of_zsh = zsh[zsh.index(f"\n        {name})") :]
    for given in surface_of(program(name)):
        for flag in given.flags:
            long = flag.startswith("--")
            assert not long or re.search(rf"[' ]{flag}[' ]", of_bash.split("\n")[2])
            assert re.search(rf"[{{,)']{flag}[}},=+'\[]", of_zsh.split(";;")[0]), flag
            spelled = f"-l {flag[2:]} " if long else f"-s {flag[1:]} "
            using = [row for row in fish.split("\n") if f"'__fish_geoml_using {name}'" in row]
            assert any(spelled in f"{row} " for row in using), flag
