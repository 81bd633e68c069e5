"""The record that every artifact carries: what made it, out of what, and what belongs to it.

A folder's stamp is one JSON file, written last, whose key `geoml` holds this record; a
GeoTIFF keeps it in the tag GEOML, a GeoParquet in its metadata.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from geoml_cli import __version__
from geoml_cli.errors import GeomlError
from geoml_cli.formats.digest import digest_file, sha256_file
from geoml_cli.formats.jsonfile import read_json, sha256_of

FORMAT = 1
STAMPS = ("items.json", "tileset.json", "model.json")
FIELDS = {"kind": str, "verb": str, "fingerprint": str, "arguments": dict, "inputs": list}


@dataclass(frozen=True)
class Input:
    """What a command read: its name, the part it plays, the sha256 of its content."""

    path: str
    role: str
    digest: str


def fingerprint(verb: str, arguments: dict[str, Any], inputs: list[Input]) -> str:
    """sha256 over all that decides the bytes: verb, arguments and content; no paths, no clock."""
    content = [[i.role, i.digest] for i in inputs]
    return sha256_of({"format": FORMAT, "verb": verb, "arguments": arguments, "inputs": content})


def record(verb: str, kind: str, arguments: dict[str, Any], inputs: list[Input]) -> dict[str, Any]:
    """The record without its members."""
    return {
        "format": FORMAT,
        "kind": kind,
        "verb": verb,
        "version": __version__,
        "arguments": arguments,
        "inputs": [asdict(i) for i in inputs],
        "fingerprint": fingerprint(verb, arguments, inputs),
    }


def stamp_in(path: str | Path) -> Path | None:
    """The stamp of an artifact folder, or of the path itself when it is one; None where there is none."""
    path = Path(path)
    if path.name in STAMPS and path.is_file():
        return path
    return next((path / name for name in STAMPS if (path / name).is_file()), None)


def read_record(path: str | Path) -> dict[str, Any] | None:
    """The record of any artifact of ours; None for a file or folder that is not ours.

    Raises a GeomlError for one that is damaged or written by a later format.
    """
    path = Path(path)
    stamp = stamp_in(path)
    if stamp:
        found = _of_json(stamp)
    elif path.suffix.lower() in (".json", ".geojson") and path.is_file():
        found = _of_json(path)
    elif path.suffix.lower() in (".tif", ".tiff") and path.is_file():
        found = _of_tiff(path)
    elif path.suffix.lower() in (".parquet", ".geoparquet") and path.is_file():
        found = _of_parquet(path)
    elif path.suffix.lower() == ".gpkg" and path.is_file():
        found = _of_gpkg(path)
    else:
        return None
    if found is not None:
        _check_format(found, stamp or path)
    return found


def _of_json(path: Path) -> dict[str, Any] | None:
    text = read_json(path)
    if isinstance(text, list) and text:  # of objects: the first bears the record
        text = text[0]
    return text.get("geoml") if isinstance(text, dict) else None


def _of_tiff(path: Path) -> dict[str, Any] | None:
    import rasterio

    try:
        with rasterio.open(path) as dataset:
            text = dataset.tags().get("GEOML")
        return json.loads(text) if text else None
    except (rasterio.errors.RasterioError, json.JSONDecodeError):
        return None


def _of_parquet(path: Path) -> dict[str, Any] | None:
    import pyarrow
    from pyarrow import parquet

    try:
        text = (parquet.read_schema(path).metadata or {}).get(b"geoml")
        return json.loads(text) if text else None
    except (pyarrow.ArrowException, OSError, ValueError):
        return None


def _of_gpkg(path: Path) -> dict[str, Any] | None:
    import pyogrio

    try:
        layers = pyogrio.list_layers(path)
        text = (pyogrio.read_info(path, layers[0][0])["dataset_metadata"] or {}).get("GEOML")
        return json.loads(text) if text else None
    except (pyogrio.errors.DataSourceError, IndexError, ValueError):
        return None


def _check_format(found: Any, path: Path) -> None:
    version = found.get("format") if isinstance(found, dict) else None
    if isinstance(version, int) and version > FORMAT:
        raise GeomlError(
            f"{path}: written by a later geoml (format {version}, this one reads {FORMAT}); update geoml"
        )
    if not isinstance(version, int) or not all(
        isinstance(found.get(k), t) for k, t in FIELDS.items()
    ):
        raise GeomlError(f"{path}: its geoml record is damaged; make it again")
    if not isinstance(found.get("members", {}), dict):
        raise GeomlError(f"{path}: its list of members is damaged; make it again")


def member_path(folder: Path, name: str) -> Path:
    """Path of a member; a name that leads out of the folder is refused."""
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or not name or "\\" in name:
        raise GeomlError(f"{folder}: member {name!r} points outside the folder; do not use it")
    path = folder / pure
    if path.is_symlink() or not path.resolve().is_relative_to(folder.resolve()):
        raise GeomlError(f"{folder}: member {name!r} points outside the folder; do not use it")
    return path


def damage(path: str | Path, *, read_again: bool = False) -> list[str]:
    """What is wrong with the members of an artifact, a folder or a file: a line each, empty when whole.

    `read_again` reads every byte; otherwise unchanged files are trusted to the digest cache.
    """
    stamp = stamp_in(path)
    found = read_record(path)
    if not found:
        return []
    folder = (stamp or Path(path)).parent
    digest = sha256_file if read_again else digest_file
    lines = []
    for name, wanted in sorted(found.get("members", {}).items()):
        try:
            member = member_path(folder, name)
        except GeomlError as error:
            lines.append(str(error).partition(";")[0])
            continue
        if not member.is_file():
            lines.append(f"{member}: missing")
        elif digest(member) != wanted:
            lines.append(f"{member}: changed or damaged (its sha256 is not the stamp's)")
    return lines


def read_stamp(path: str | Path, name: str, verb: str) -> tuple[Path, dict[str, Any]]:
    """Open an artifact folder: (folder, the stamp's JSON); `verb` makes such a folder."""
    folder = Path(path)
    if folder.name == name:
        folder = folder.parent
    stamp = folder / name
    if not stamp.is_file():
        what = "no such folder" if not folder.exists() else f"holds no {name}"
        raise GeomlError(f"{path}: {what}; `geoml {verb}` writes one")
    text = read_json(stamp)
    if not isinstance(text, dict) or not isinstance(text.get("geoml"), dict):
        raise GeomlError(f"{stamp}: not a file of geoml's; `geoml {verb}` writes one")
    _check_format(text["geoml"], stamp)
    return folder, text
