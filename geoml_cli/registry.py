"""Find encoders, metrics and other parts by name: a part is a file in its room.

`encoders/less_vit.py` is the encoder `less-vit`; a path such as `./mine.py` is a part
too. A part's options are the keyword-only parameters of its entry function and ride on
the name: `unet:width=32,depth=4`. Names, one-line descriptions and options are read by
`ast`, so help, completion and checks never wait for torch.
"""

import ast
import sys
import tomllib
from collections.abc import Callable
from difflib import get_close_matches
from functools import cache
from importlib import import_module, util
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from geoml_cli.errors import GeomlError, UsageMistake

HERE = Path(__file__).parent
ENTRY = {  # room: the function whose keyword-only parameters are the part's options
    "tasks": "build",
    "encoders": "build",
    "heads": "build",
    "location_encoders": "build",
    "augmentations": "apply",
    "adapters": "apply",
    "objectives": "build",
    "samplers": "draw",
    "metrics": "score",
    "probes": "measure",
    "sources": "search",
    "aligners": "estimate",
}
READ: dict[str, Callable[[str], Any]] = {
    "int": int,
    "float": float,
    "str": str,
    "bool": lambda text: {"true": True, "1": True, "false": False, "0": False}[text.lower()],
}


class Option(NamedTuple):
    """One option of a part: its type as written and its default (None when required)."""

    kind: str
    default: Any


def names(room: str) -> list[str]:
    """Sorted names of the parts in a room, e.g. `names("encoders")`."""
    return sorted(f.stem.replace("_", "-") for f in (HERE / room).glob("[a-z]*.py"))


def find_room(asked: str) -> str:
    """The room that a user calls `asked`; `location-encoders` is `location_encoders` too."""
    name = asked.replace("-", "_")
    if name not in ENTRY:
        near = get_close_matches(name, ENTRY, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(ENTRY)}"
        raise UsageMistake(f"no room called {asked}; {hint}")
    return name


def _file(room: str, name: str) -> Path:
    if name.endswith(".py"):
        if not Path(name).is_file():
            raise GeomlError(f"{name}: no such file; a part's file is given as ./mine.py")
        return Path(name)
    if name not in names(room):
        near = get_close_matches(name, names(room), 1)
        hint = f"; did you mean {near[0]}?" if near else f"; see `geoml list {room}`"
        raise UsageMistake(f"no {room.removesuffix('s').replace('_', ' ')} called {name}{hint}")
    return HERE / room / f"{name.replace('-', '_')}.py"


@cache
def _tree(path: Path, mtime_ns: int) -> ast.Module:
    try:
        return ast.parse(path.read_text())
    except (SyntaxError, UnicodeDecodeError) as error:
        raise GeomlError(f"{path}: not a Python file ({error})") from None


def _parsed(room: str, name: str) -> ast.Module:
    path = _file(room, name)
    return _tree(path, path.stat().st_mtime_ns)


def _first_line(module: ast.Module) -> str:
    return (ast.get_docstring(module) or "").split("\n")[0]


def about(room: str, name: str) -> str:
    """First line of a part's docstring."""
    return _first_line(_parsed(room, name))


def about_room(room: str) -> str:
    """First line of a room's docstring."""
    path = HERE / room / "__init__.py"
    return _first_line(_tree(path, path.stat().st_mtime_ns))


def _option(path: Path, arg: ast.arg, default: ast.expr | None) -> Option:
    kind = ast.unparse(arg.annotation) if arg.annotation else "str"
    try:
        return Option(kind, None if default is None else ast.literal_eval(default))
    except ValueError:
        raise GeomlError(
            f"{path}:{arg.lineno}: the default of {arg.arg} must be written out, as 1 or 'a'"
        ) from None


def options(room: str, name: str) -> dict[str, Option]:
    """Options of a part, read from its entry function without importing it."""
    entry = ENTRY[room]
    for node in _parsed(room, name).body:
        if isinstance(node, ast.FunctionDef) and node.name == entry:
            pairs = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
            return {arg.arg: _option(_file(room, name), arg, default) for arg, default in pairs}
    raise GeomlError(f"{_file(room, name)}: defines no function {entry}(); see ARCHITECTURE.md")


def constant(room: str, name: str, word: str) -> Any:
    """A value that a part's file sets at its top, read without importing it; None where it does not."""
    for node in _parsed(room, name).body:
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == word for target in node.targets
        ):
            return ast.literal_eval(node.value)
    return None


def parse(room: str, spec: str) -> tuple[str, dict[str, Any]]:
    """Split `name:key=value,key=value` and check it against the part's options."""
    name, _, tail = spec.partition(":")
    known = options(room, name)
    given: dict[str, Any] = {}
    for pair in filter(None, tail.split(",")):
        key, eq, text = pair.partition("=")
        if key not in known:
            near = get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known) or 'none'}"
            raise UsageMistake(f"{spec}: {name} has no option {key!r}; {hint}")
        kind = known[key].kind.removesuffix(" | None")
        if not eq:
            raise UsageMistake(f"{spec}: {key} needs a value, as in {key}={known[key].default}")
        try:
            given[key] = READ[kind](text)
        except (KeyError, ValueError):
            raise UsageMistake(f"{spec}: {key} takes {kind}, not {text!r}") from None
    return name, given


def load(room: str, name: str) -> ModuleType:
    """Import the part called `name`, or the file if `name` is a path."""
    path = _file(room, name)
    if not name.endswith(".py"):
        return import_module(f"geoml_cli.{room}.{path.stem}")
    spec = util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = util.module_from_spec(spec)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # nothing lands beside it
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's own code
        raise GeomlError(f"{name}: cannot be imported ({type(error).__name__}: {error})") from error
    finally:
        sys.dont_write_bytecode = before
    return module


def make(room: str, spec: str, *given: Any) -> Any:
    """Call a part's entry function: what core hands it, then the options on its name."""
    name, chosen = parse(room, spec)
    return getattr(load(room, name), ENTRY[room])(*given, **chosen)


@cache
def weights() -> dict[str, dict[str, Any]]:
    """Checkpoints that others published, by the names that geoml knows them by: weights, encoder, megabytes, licence,
    source, frames, gsd_m, bands, unit, mean, std.
    """
    return tomllib.loads((HERE / "data" / "weights.toml").read_text(encoding="utf-8"))
