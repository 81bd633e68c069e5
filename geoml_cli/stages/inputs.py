"""What the user named, made into scenes: rasters, folders, items, lists on stdin."""

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from geoml_cli.errors import GeomlError, NothingMatched
from geoml_cli.formats import items as stac
from geoml_cli.formats.digest import digest_file
from geoml_cli.formats.embeddings import is_embeddings
from geoml_cli.formats.jsonfile import sha256_of
from geoml_cli.formats.points import is_places
from geoml_cli.formats.presets import MaskRule, masks_of, preset_of
from geoml_cli.formats.raster import Raster, describe, is_remote, opened
from geoml_cli.formats.remote import version_of
from geoml_cli.formats.stamp import Input, damage, read_record, stamp_in
from geoml_cli.formats.web import is_http, unsigned

JSON_SUFFIXES = (".json", ".geojson", ".ndjson")
CHIPS = (".tif", ".tiff", ".vrt", ".img", ".jp2", ".png", ".jpg", ".jpeg", ".webp")
CLOUDS = ("clouds", "cloud", "cirrus")  # names of mask layers that count as cloud


@dataclass(frozen=True)
class Scene:
    """One place at one time: rasters by asset key; `datetime` is RFC 3339 UTC or None.

    `categorical` assets hold classes or flags; `cloud` is the one that tells clouds, and how;
    `folder` is the name of the folder that a single raster lies in.
    """

    id: str
    datetime: str | None
    rasters: dict[str, Raster]
    properties: dict[str, Any]
    categorical: frozenset[str] = frozenset()
    cloud: tuple[str, MaskRule] | None = None
    folder: str | None = None


def read_stdin() -> str:
    """All of stdin, read to its end before any work."""
    if sys.stdin.isatty():
        raise GeomlError("-: stdin is a terminal; pipe paths or JSON into it")
    return sys.stdin.read()


def expand(inputs: list[str]) -> list[str | dict[str, Any]]:
    """Replace `-` by what stdin holds: paths, or STAC items; told apart by the first character."""
    out: list[str | dict[str, Any]] = []
    for name in inputs:
        if name != "-":
            out.append(name)
            continue
        text = read_stdin().lstrip("\x1e \t\r\n")
        if text[:1] in ("{", "["):
            out += stac.anchor(stac.parse_items(text, "stdin"), os.getcwd())
        else:
            out += [line.strip() for line in text.splitlines() if line.strip()]
    if not out:
        raise NothingMatched("no inputs")
    return out


def check_local(inputs: list[str | dict[str, Any]]) -> None:
    """Say at once which named local path does not exist, before anything slow starts."""
    for name in inputs:
        if isinstance(name, str) and not _gdal_name(name) and not os.path.exists(name):
            raise GeomlError(f"{name}: no such file or folder")


def _gdal_name(name: str) -> bool:
    return is_remote(name) or name.startswith("/vsi") or name.split(":")[0].isupper()


def read_scenes(
    inputs: list[str | dict[str, Any]], loose: bool = False, pictures: bool = False
) -> list[Scene]:
    """Open what was named; every raster is described, none is read. Ids are made unique.

    `loose`: a folder may hold rasters without items.json. `pictures`: they need no CRS.
    """
    scenes: list[Scene] = []
    for name in inputs:
        if loose and isinstance(name, str) and is_loose(name):
            scenes += [_scene_of_chip(Path(name), file, pictures) for file in chips(Path(name))]
        else:
            scenes += _scenes_of(name, pictures)
    if not scenes:
        raise NothingMatched("no scenes in what was named")
    seen: dict[str, int] = {}
    unique = []
    for scene in scenes:
        n = seen[scene.id] = seen.get(scene.id, 0) + 1
        unique.append(replace(scene, id=f"{scene.id}-{n}") if n > 1 else scene)
    return unique


def _scenes_of(name: str | dict[str, Any], pictures: bool) -> Iterable[Scene]:
    if isinstance(name, dict):
        return [_scene_of_item(name)]
    path = Path(name)
    if is_loose(name):
        raise GeomlError(
            f"{name}: holds no items.json; name rasters, or a folder that `geoml fetch` wrote"
        )
    if path.is_dir() or path.suffix in JSON_SUFFIXES:
        file = path / stac.NAME if path.is_dir() else path
        for line in damage(file):
            raise GeomlError(f"{line}; run the command that made it again")
        return [_scene_of_item(item) for item in stac.read_items(file)]
    raster = describe(name, picture=pictures)
    scene = path.name.split(".")[0] or name
    return [Scene(scene, _tiff_datetime(name), {"data": raster}, {}, folder=path.parent.name)]


def is_loose(name: str) -> bool:
    """Whether a folder was named that no stage wrote."""
    return Path(name).is_dir() and not (Path(name) / stac.NAME).is_file()


def chips(folder: Path) -> list[Path]:
    """The rasters in a folder and those in it, by name."""
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in CHIPS and p.is_file())
    if not found:
        raise GeomlError(
            f"{folder}: holds no items.json and no rasters ({', '.join(CHIPS)}); name rasters,"
            " or a folder that `geoml fetch` wrote"
        )
    return found


def _scene_of_chip(folder: Path, file: Path, pictures: bool) -> Scene:
    inside = file.relative_to(folder).with_suffix("")
    raster = describe(str(file), picture=pictures)
    name = "-".join(inside.parts)
    return Scene(name, _tiff_datetime(str(file)), {"data": raster}, {}, folder=file.parent.name)


def _scene_of_item(item: dict[str, Any]) -> Scene:
    rasters = stac.rasters_of(item)
    if not rasters:
        raise GeomlError(f"item {item.get('id')}: has no raster assets")
    properties = item.get("properties") or {}
    when = properties.get("datetime") or properties.get("start_datetime")
    scene = Scene(str(item["id"]), utc(when) if when else None, rasters, properties)
    preset = preset_of(item)
    if preset is None:
        return scene
    layers = [layer for layer in preset.layers if set(layer.assets) & set(rasters)]
    flags = {key for layer in layers for key in layer.assets}
    classes = {key for row in preset.rows if row.categorical for key in row.assets}
    told = [name for layer in layers for name in CLOUDS if name in layer.names]
    rules = masks_of(item, replace(preset, layers=tuple(layers)), told) if told else ()
    cloud = (rules[0].asset, rules[0]) if rules else None
    return replace(scene, categorical=frozenset((flags | classes) & set(rasters)), cloud=cloud)


def utc(text: str) -> str:
    """An RFC 3339 time in UTC, whole seconds, Z."""
    try:
        when = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise GeomlError(f"{text!r} is no RFC 3339 date") from None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _tiff_datetime(path: str) -> str | None:
    with opened(path) as dataset:
        text = dataset.tags().get("TIFFTAG_DATETIME", "")
    try:
        return datetime.strptime(text, "%Y:%m:%d %H:%M:%S").strftime("%Y-%m-%dT%H:%M:%SZ")
    except ValueError:
        return None


def scene_inputs(
    inputs: list[str | dict[str, Any]], scenes: list[Scene], role: str = "scene"
) -> list[Input]:
    """Digests of all that scenes are made of: stamps of our folders, bytes of other files, hrefs of remote ones."""
    out = []
    for name in inputs:
        stamp = stamp_in(name) if isinstance(name, str) and not is_remote(name) else None
        found = read_record(name) if stamp and isinstance(name, str) else None
        if stamp and found:
            out.append(Input(str(stamp), role, digest_file(stamp)))
        elif isinstance(name, dict):
            scene = next(s for s in scenes if s.id == str(name["id"]))
            files = sorted(r.path for r in scene.rasters.values())
            out.append(
                Input("-", role, sha256_of([name.get("properties"), *map(digest_source, files)]))
            )
        elif is_embeddings(name) or is_places(name):
            out.append(Input(name, role, digest_file(Path(name))))
        elif Path(name).is_dir() and not (Path(name) / stac.NAME).is_file():
            rasters = chips(Path(name))
            inside = [[str(f.relative_to(name)), digest_source(str(f))] for f in rasters]
            out.append(Input(name, role, sha256_of(inside)))
        elif Path(name).suffix in JSON_SUFFIXES or Path(name).is_dir():
            file = Path(name) / stac.NAME if Path(name).is_dir() else Path(name)
            out.append(Input(str(file), role, digest_file(file)))
            hrefs = sorted(
                {r.path for item in stac.read_items(file) for r in stac.rasters_of(item).values()}
            )
            out += [Input(href, f"{role} asset", digest_source(href)) for href in hrefs]
        else:
            out.append(Input(name, role, digest_source(name)))
    return out


def digest_source(path: str) -> str:
    """Digest of a raster: its files' bytes, or a remote one's unsigned href and ETag."""
    if is_remote(path):
        return sha256_of([unsigned(path), version_of(path) if is_http(path) else None])
    with opened(path) as dataset:
        files = [f for f in dataset.files if os.path.isfile(f)]
    if len(files) == 1:
        return digest_file(files[0])
    return sha256_of([[Path(f).name, digest_file(f)] for f in sorted(files)])
