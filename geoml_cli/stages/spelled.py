"""A record spelled as the command line that it is of; which artifact a file belongs to."""

import ast
import os
import shlex
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from geoml_cli import __version__
from geoml_cli.errors import GeomlError
from geoml_cli.formats.package import HF, PKG
from geoml_cli.formats.stamp import read_record, stamp_in

NAMED = (
    "scene",
    "tiles",
    "map",
    "places",
    "features",
)  # roles that a command line names without an option
IMPLIED = ("catalog", "items", "part", "ground")  # named in another way, or not at all
SAID = {"area": "intersects"}  # roles that an option of another name gives
FLAGS = {"collections": "collection", "label_layer": "layer"}  # arguments, likewise
PER_WORD = (  # options that are repeated; other lists are joined by commas
    *("collections", "bands", "label_column", "label_layer", "label_kind", "label_per"),
    *("label_buffer", "background", "burn_order"),
)


def home(path: str) -> Path | None:
    """The artifact that a path is, or is a member of; None where there is none."""
    stamp = stamp_in(path)
    if stamp:
        return stamp.parent if read_record(stamp) else None
    file = Path(os.path.abspath(path))
    for folder in file.parents[:3]:
        stamp = stamp_in(folder)
        with suppress(GeomlError):
            record = read_record(stamp) if stamp else None
            if record and file.relative_to(folder).as_posix() in record.get("members", {}):
                return Path(shown(str(folder)))
    with suppress(GeomlError):
        if file.is_file() and read_record(path):
            return Path(path)
    return None


def is_local(path: str) -> bool:
    """Whether a recorded input is a file that can be looked for."""
    return path != "-" and "://" not in path and not path.startswith(("/vsi", HF, PKG))


def place_of(path: str, owner: Path) -> str:
    """Where a recorded input of an artifact lies: paths are kept as seen from the artifact."""
    base = owner if stamp_in(owner) else owner.parent
    return os.path.normpath(base / path) if is_local(path) else path


def shown(path: str) -> str:
    """A path as one would type it here: relative, unless that is the longer way."""
    near, far = os.path.relpath(path), os.path.abspath(path)
    return near if len(near) <= len(far) else far


def command_of(path: str) -> list[str]:
    """The command line that makes an artifact, as words; paths are seen from here."""
    owner = home(path)
    record = read_record(owner) if owner else None
    return list(_words(record, owner)) if owner and record else []


def _words(record: dict[str, Any], owner: Path) -> Iterator[str]:
    by_role: dict[str, list[str]] = {}
    for one in record["inputs"]:
        place = place_of(one["path"], owner)
        by_role.setdefault(one["role"], []).append(shown(place) if place != one["path"] else place)
    yield from ("geoml", record["verb"])
    yield from by_role.get("items", by_role.get("catalog", []))[:1]  # the rest it links to
    for role in NAMED:
        yield from map(_typed, by_role.get(role, []))
    for role, paths in by_role.items():
        if role not in IMPLIED and role not in NAMED and not role.endswith("asset"):
            flag, _, name = role.partition("=")
            flag = SAID.get(flag, flag).replace("_", "-")
            yield from (f"--{flag}", f"{name}=" * bool(name) + _typed(paths[0]))
    usual = _usual(record["verb"]) if record["version"] == __version__ else {}
    parts = {f"parts/{Path(path).name}": path for path in by_role.get("part", [])}
    for key, value in sorted(record["arguments"].items()):
        if value is None or value is False or (key in usual and value == usual[key]):
            continue
        if key == "report":
            value = shown(str(owner.parent / value))
        yield from _option(key, value, parts)
    yield from ("-o", shown(str(owner)))


def _option(key: str, value: Any, parts: dict[str, str]) -> Iterator[str]:
    """One argument as it is typed."""
    flag = "--" + FLAGS.get(key, key).replace("_", "-")
    if value is True:
        yield flag
    elif isinstance(value, list) and key in PER_WORD:
        for one in value:
            yield from (flag, str(one))
    elif key == "datetime":
        start, end = value
        if start or end:
            yield from (flag, f"{start or '..'}/{end or '..'}")
    elif isinstance(value, list):
        if value:
            yield from (
                flag,
                ",".join(f"{v:.15g}" if isinstance(v, float) else str(v) for v in value),
            )
    else:
        text = str(value)
        for inside, path in parts.items():
            text = text.replace(inside, path if "/" in path else f"./{path}")
        yield from (flag, text)


def _typed(path: str) -> str:
    """The folder for its stamp: what one names to a command."""
    stamp = stamp_in(path)
    ours = stamp and Path(path).name == stamp.name and (Path(path).parent != Path("."))
    return str(Path(path).parent) if ours else path


@cache
def _usual(verb: str) -> dict[str, Any]:
    """Defaults of a stage's arguments, read without importing it."""
    path = Path(__file__).with_name(f"{verb}.py")
    if not path.is_file():
        return {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == "run":
            pairs = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
            written = {
                arg.arg: default for arg, default in pairs if isinstance(default, ast.Constant)
            }
            return {name: default.value for name, default in written.items()}
    return {}


def folded(words: list[str], width: int) -> list[str]:
    """A command line as a shell reads it, broken before options where it is long."""
    pieces: list[list[str]] = []
    for word in words:
        if not pieces or (word.startswith("-") and len(word) > 1):
            pieces.append([])
        pieces[-1].append(word)
    lines = [shlex.join(pieces[0])]
    for piece in map(shlex.join, pieces[1:]):
        if len(lines[-1]) + len(piece) + 3 <= width:
            lines[-1] += f" {piece}"
        else:
            lines[-1] += " \\"
            lines.append(f"    {piece}")
    return lines
