"""The shape of the package: what may import what, what start-up loads, what a part must have."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from geoml_cli import registry
from geoml_cli.commands import COMMANDS
from geoml_cli.errors import GeomlError, UsageMistake
from geoml_cli.program import program

ROOT = Path(registry.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
PARTS = set(registry.ENTRY)
INWARD = {"core", "geo", "registry"}
MAY = {  # room or file at the top: what it may import; itself and errors go without saying
    "__init__": set(),
    "__main__": {"cli"},
    "cli": {"commands", "program", "log"},
    "program": {"config", "surface"},
    "config": {"surface"},
    "surface": {"options"},
    "options": {"manners", "log"},
    "manners": set(),
    "log": {"manners"},
    "errors": set(),
    "registry": set(),
    "completions": {"cli", "commands", "registry", "surface"},
    "docs": {"cli", "commands", "completions", "program", "surface"},
    "commands": {"options", "stages", "registry", "manners"},
    "stages": {"core", "formats", "geo", "registry", "manners", "data"},
    "core": {"geo", "registry"},
    "formats": {"geo", "data"},
    "geo": set(),
    "data": set(),
    **{room: INWARD for room in PARTS},
    "sources": INWARD | {"formats"},
}
HEAVY = (
    "torch numpy rasterio geopandas pandas pystac pystac_client rich tqdm requests matplotlib"
    " pyarrow shapely sklearn scipy lightning_fabric"
).split()
UNSAFE = {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal"}


def place(path: Path) -> str:
    """The room a file stands in, or the name of a file at the top."""
    inside = path.relative_to(ROOT)
    return inside.parts[0] if len(inside.parts) > 1 else path.stem


@cache
def modules(path: Path) -> list[str]:
    """Every module a file imports, also inside functions, with its full name."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write the whole name, geoml_cli...."
            found += [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
    return found


def rooms(path: Path) -> set[str]:
    """The rooms and top files of geoml_cli that a file imports from."""
    ours = (name.split(".") for name in modules(path) if name.startswith("geoml_cli."))
    return {parts[1] for parts in ours if (ROOT / parts[1]).is_dir() or parts[1] in MAY}


def offenders(found: Callable[[Path], set[str]]) -> dict[str, set[str]]:
    """What is found in files where nothing should be."""
    return {str(path.relative_to(ROOT)): names for path in FILES if (names := found(path))}


def test_imports_follow_the_arrows():
    assert not offenders(lambda path: rooms(path) - MAY[place(path)] - {place(path), "errors"})


def test_nobody_imports_a_part():
    def parts(path):
        inside = (name for name in modules(path) if name.startswith("geoml_cli."))
        return {name for name in inside if PARTS & set(name.split("."))}

    assert not offenders(parts), "use registry.load(room, name)"


def test_nothing_is_unpickled():
    assert not offenders(lambda path: UNSAFE & {name.split(".")[0] for name in modules(path)})


def test_modules_are_loaded_by_name_in_two_places_only():
    text = {place(path) for path in FILES if "import_module(" in path.read_text()}
    assert text <= {"registry", "program"}


def test_light_files_import_nothing_heavy_at_the_top():
    light = {*MAY} - {"stages", "core", "formats", "geo", "data", *PARTS}

    def heavy(path):
        if place(path) not in light:
            return set()
        body = ast.parse(path.read_text()).body
        top = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {getattr(node, "module", None) or node.names[0].name for node in top}
        stages = {name for name in names if name.startswith("geoml_cli.stages")}
        return {name for name in names if name.split(".")[0] in HEAVY} | stages

    assert not offenders(heavy)


def loaded(argv: list[str], watch: list[str]) -> list[str]:
    """Those modules of `watch` that one command line loads, in a fresh interpreter."""
    code = (
        "import sys; from geoml_cli.cli import run; run(sys.argv[2:]);"
        "print(*(set(sys.argv[1].split()) & set(sys.modules)), file=sys.stderr)"
    )
    call = [sys.executable, "-c", code, " ".join(watch), *argv]
    got = subprocess.run(call, capture_output=True, text=True, check=True)
    assert "a fault in geoml" not in got.stderr
    return got.stderr.splitlines()[-1].split()


MISTYPED = [["tiel"], ["--hlep"], ["tile", "--siz", "3"], ["tile"]]
LISTING = [["list"], ["list", "encoders"], ["list", "nothing"], ["help", "exit-codes"]]


@pytest.mark.parametrize("argv", [["--help"], ["--version"], *MISTYPED, *LISTING], ids=" ".join)
def test_start_loads_nothing_heavy(argv):
    assert loaded(argv, HEAVY) == []


@pytest.mark.parametrize("verb", COMMANDS)
def test_the_help_of_a_verb_loads_nothing_heavy(verb):
    assert loaded([verb, "--help"], [*HEAVY, "pydantic"]) == []


def test_the_list_of_verbs_does_without_typer():
    assert loaded(["--help"], ["typer"]) == loaded(["tiel"], ["typer"]) == []
    assert loaded(["tile", "--help"], ["typer"]) == ["typer"]


def test_the_table_names_every_command_and_repeats_its_docstring():
    files = {path.stem for path in (ROOT / "commands").glob("[a-z]*.py")}
    assert set(COMMANDS) == files
    assert {name: (program(name).help or "").split("\n")[0] for name in COMMANDS} == COMMANDS


def test_every_room_of_parts_is_there_and_says_what_it_is():
    for room in registry.ENTRY:
        assert registry.about_room(room).endswith("."), room


def every_part() -> list[tuple[str, str]]:
    return [(room, name) for room in registry.ENTRY for name in registry.names(room)]


@pytest.mark.parametrize(("room", "name"), every_part())
def test_a_part_has_one_line_and_options_that_can_be_typed(room, name):
    line = registry.about(room, name)
    assert line.endswith(".") and 10 < len(line) <= 100
    for key, option in registry.options(room, name).items():  # raises where ENTRY is missing
        kind = option.kind.removesuffix(" | None")
        assert kind in registry.READ, f"{key}: {option.kind}"
        if option.default is not None:
            assert type(option.default).__name__ == kind, key
            spelled = f"{name}:{key}={option.default}"
            assert registry.parse(room, spelled) == (name, {key: option.default})


PART = '''"""A part of the user's own.

More about it.
"""

import torch


def build(channels: int, *, width: int = 8, rate: float = 0.5, deep: bool = False,
          kind: str = "a", top: int | None = None):
    return (channels, width, rate, deep, kind, top)
'''


@pytest.fixture
def part(tmp_path, monkeypatch):
    """The path of a part's file, given as a user would: ./mine.py."""
    (tmp_path / "mine.py").write_text(PART.replace("import torch\n", "import string\n"))
    monkeypatch.chdir(tmp_path)
    return "./mine.py"


def test_a_file_is_a_part_too(part):
    assert registry.about("encoders", part) == "A part of the user's own."
    spec = f"{part}:width=3,rate=2,deep=true,kind=x,top=7"
    name, options = registry.parse("encoders", spec)
    assert name == part
    assert options == {"width": 3, "rate": 2.0, "deep": True, "kind": "x", "top": 7}
    assert type(options["rate"]) is float
    assert registry.make("encoders", spec, 5) == (5, 3, 2.0, True, "x", 7)
    assert registry.make("encoders", part, 5) == (5, 8, 0.5, False, "a", None)


def test_options_are_read_without_running_the_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(PART + "\nraise SystemExit('imported')\n")
    assert registry.options("encoders", str(path))["width"] == registry.Option("int", 8)


@pytest.mark.parametrize(
    ("tail", "says"),
    [
        ("widht=3", "did you mean width?"),
        ("zzz=3", "it has width, rate, deep, kind, top"),
        ("width=3.5", "width takes int, not '3.5'"),
        ("width=", "width takes int, not ''"),
        ("width", "width needs a value, as in width=8"),
        ("deep=maybe", "deep takes bool, not 'maybe'"),
    ],
)
def test_a_wrong_option_of_a_part_is_a_mistake_of_usage(part, tail, says):
    with pytest.raises(UsageMistake, match=says.replace("?", r"\?")):
        registry.parse("encoders", f"{part}:{tail}")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def build(:", "not a Python file"),
        ("x = 1", r"defines no function build\(\)"),
        ("def build(*, width: int = max(1, 2)): ...", "mine.py:1: the default of width"),
        ("raise KeyError('k')\ndef build(): ...", r"cannot be imported \(KeyError: 'k'\)"),
    ],
)
def test_a_damaged_part_file_is_named(part, text, says):
    Path(part).write_text(text)
    with pytest.raises(GeomlError, match=says):
        registry.make("encoders", part)


def test_a_part_that_is_not_there_is_named_with_the_nearest():
    with pytest.raises(UsageMistake, match="no encoder called unett; did you mean unet?"):
        registry.parse("encoders", "unett:width=3")
    with pytest.raises(UsageMistake, match="no location encoder called x; see `geoml list loc"):
        registry.load("location_encoders", "x")
    with pytest.raises(GeomlError, match="no such file"):
        registry.parse("encoders", "./none.py")


def test_names_are_the_files_of_the_room():
    assert "cross-entropy" in registry.names("objectives")
    files = {p.stem for p in (ROOT / "objectives").iterdir() if p.suffix == ".py"} - {"__init__"}
    assert {name.replace("-", "_") for name in registry.names("objectives")} == files
    assert registry.find_room("location-encoders") == "location_encoders"


def test_what_is_pinned_takes_the_oldest_python_that_is_promised():
    """As its own metadata says: a pin that wants a later patch release cannot be installed on a bare machine."""
    root = ROOT.parent
    oldest = tomllib.loads((root / "pyproject.toml").read_text())["project"]["requires-python"]
    assert oldest == ">=3.11"
    pins = [line.partition("==")[0] for line in (root / "constraints.txt").read_text().splitlines() if "==" in line]  # fmt: skip
    wants = {}
    for name in pins:
        with suppress(metadata.PackageNotFoundError):  # of an extra that is not installed
            wants[name] = metadata.metadata(name)["Requires-Python"]
    assert len(wants) > 100
    assert not {n: w for n, w in wants.items() if w and "3.11.0" not in SpecifierSet(w)}
