"""STAC Items in one file: `items.json`, an ItemCollection with relative hrefs, proj/raster/eo fields, file:checksum."""

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin

import numpy as np
import shapely
from shapely.geometry.polygon import orient

from geoml_cli.errors import GeomlError
from geoml_cli.formats.bands import bands_of_asset
from geoml_cli.formats.digest import digest_file
from geoml_cli.formats.jsonfile import read_json
from geoml_cli.formats.raster import Raster, describe, is_remote
from geoml_cli.geo.bounds import footprint

NAME = "items.json"
COG_TYPE = "image/tiff; application=geotiff; profile=cloud-optimized"
EXTENSIONS = {  # prefix of fields: the extension that defines them
    # 1.2 has proj:code and proj:epsg; readers that know but the latter are still in use
    "proj:": "https://stac-extensions.github.io/projection/v1.2.0/schema.json",
    "raster:": "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
    "eo:": "https://stac-extensions.github.io/eo/v2.0.0/schema.json",
    "file:": "https://stac-extensions.github.io/file/v2.1.0/schema.json",
}
HIDDEN = {"thumbnail", "overview", "metadata", "date", "graphic"}  # roles of what is no data
SUFFIXES = (".tif", ".tiff", ".vrt", ".jp2", ".img")
TRIM_DEG = 1e-7  # outlines are drawn this exactly: 1 cm


def item_of(
    name: str, datetime: str | None, properties: dict[str, Any] | None = None
) -> dict[str, Any]:
    """A STAC 1.1 Item without assets; geometry and bbox follow from `add_raster`.

    `datetime` is RFC 3339 in UTC; None is allowed only with start_datetime and end_datetime in properties.
    """
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [],
        "id": name,
        "geometry": None,
        "properties": {"datetime": datetime, **(properties or {})},
        "links": [],
        "assets": {},
    }


def add_raster(item: dict[str, Any], key: str, raster: Raster, folder: Path, **more: Any) -> None:
    """Add a raster that lies in `folder` as an asset: grid, bands, size and checksum from the file itself."""
    path = Path(raster.path)
    item["assets"][key] = {
        "href": "./" + path.relative_to(folder).as_posix(),
        "type": COG_TYPE,
        "roles": ["data"],
        "bands": [band.to_stac(raster.dtype) for band in raster.bands],
        "file:size": path.stat().st_size,
        "file:checksum": "1220" + digest_file(path),  # multihash: sha2-256, 32 bytes
        **raster.grid.to_dict(),
        **more,
    }
    if raster.grid.crs.startswith("EPSG:"):
        item["assets"][key]["proj:epsg"] = int(raster.grid.crs.removeprefix("EPSG:"))
    else:  # proj:code wants authority:code
        grid = item["assets"][key]
        if len(raster.grid.crs) > 64:
            grid["proj:wkt2"] = grid.pop("proj:code")
    whole = shapely.make_valid(footprint(raster.grid.outline()))
    if item["geometry"] is not None:
        whole = shapely.union(shapely.geometry.shape(item["geometry"]), whole)
    whole = _trimmed(whole)
    item["geometry"] = json.loads(shapely.to_geojson(whole))
    item["bbox"] = bbox_of(whole)
    used = [item["properties"], *item["assets"].values()]
    used += [band for asset in item["assets"].values() for band in asset.get("bands", [])]
    for prefix, url in EXTENSIONS.items():  # one that is listed and not used is not valid
        there = any(word.startswith(prefix) for words in used for word in words)
        if there and url not in item["stac_extensions"]:
            item["stac_extensions"].append(url)


def add_file(item: dict[str, Any], key: str, path: Path, folder: Path, **more: Any) -> None:
    """Add any file that lies in `folder` as an asset: size and checksum."""
    item["assets"][key] = {
        "href": "./" + path.relative_to(folder).as_posix(),
        "file:size": path.stat().st_size,
        "file:checksum": "1220" + digest_file(path),
        **more,
    }
    if EXTENSIONS["file:"] not in item["stac_extensions"]:
        item["stac_extensions"].append(EXTENSIONS["file:"])


def place_like(item: dict[str, Any], other: dict[str, Any]) -> None:
    """Give an item without rasters of its own the outline of another."""
    if item["geometry"] is None and other.get("geometry"):
        item["geometry"] = other["geometry"]
        item["bbox"] = other.get("bbox") or bbox_of(shapely.geometry.shape(other["geometry"]))


def _trimmed(shape: shapely.Geometry) -> shapely.Geometry:
    """Polygons with whole numbers of TRIM_DEG / 100, no idle vertices, outer rings counterclockwise."""
    slim = shapely.simplify(shape, TRIM_DEG)
    slim = shapely.normalize(shapely.transform(slim, lambda xy: np.round(xy, 9)))
    parts = [orient(p) for p in shapely.get_parts(slim) if isinstance(p, shapely.Polygon)]
    return parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)


def bbox_of(shape: shapely.Geometry) -> list[float]:
    """West, south, east, north; west > east where the ground runs across the antimeridian."""
    west, south, east, north = (float(v) for v in shapely.bounds(shape))
    if west == -180 and east == 180:
        spans = shapely.bounds(shapely.get_parts(shape))[:, [0, 2]]
        spans = spans[np.argsort(spans[:, 0])]
        reach = np.maximum.accumulate(spans[:, 1])  # the widest gap is what the ground leaves out
        gaps = spans[1:, 0] - reach[:-1]
        if len(gaps) and gaps.max() > 0:
            widest = int(gaps.argmax())
            west, east = float(spans[widest + 1, 0]), float(reach[widest])
    return [west, south, east, north]


def collection_of(items: list[dict[str, Any]]) -> dict[str, Any]:
    """An ItemCollection, items in order of id."""
    return {"type": "FeatureCollection", "features": sorted(items, key=lambda item: item["id"])}


def read_items(path: str | Path) -> list[dict[str, Any]]:
    """Items of a FeatureCollection, a single Item, a list or lines of them; hrefs made absolute or openable."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise GeomlError(f"{path}: not text in UTF-8; check that it holds STAC items") from None
    return anchor(parse_items(text, str(path)), str(Path(path).parent))


def parse_json(text: str, where: str) -> list[Any]:
    """Values in JSON text, one or several one after another; NaN and Infinity become null."""
    decoder, found, at = json.JSONDecoder(parse_constant=lambda _: None), [], 0
    text = text.strip("\ufeff \t\r\n\x1e")
    while at < len(text):
        try:
            value, at = decoder.raw_decode(text, at)
        except (json.JSONDecodeError, RecursionError) as error:
            raise GeomlError(f"{where}: damaged JSON ({error})") from None
        while at < len(text) and text[at] in " \t\r\n\x1e,":
            at += 1
        found.append(value)
    return found


def parse_items(text: str, where: str) -> list[dict[str, Any]]:
    """Items in JSON text: one Item, a FeatureCollection, a list, or any of these one after another."""
    return [item for value in parse_json(text, where) for item in features(value, where)]


def features(value: Any, where: str) -> list[dict[str, Any]]:
    """The items in a JSON value, each checked to have the parts that are read of it."""
    if isinstance(value, list):
        return [item for part in value for item in features(part, where)]
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "FeatureCollection":
        return features(value.get("features") or [], where)
    if kind == "Feature" and isinstance(value.get("assets"), dict):
        return [_checked(value, where)]
    raise GeomlError(
        f"{where}: holds {kind or type(value).__name__}, not STAC items (Features with assets)"
    )


def _checked(item: dict[str, Any], where: str) -> dict[str, Any]:
    """The item, if what is read of it later has the right kinds."""
    kinds = {"properties": dict, "links": list, "bbox": list, "geometry": dict}
    wrong = [k for k, kind in kinds.items() if not isinstance(item.get(k) or kind(), kind)]
    for key, asset in item["assets"].items():
        if not isinstance(asset, dict) or not isinstance(asset.get("href"), str):
            wrong.append(f"asset {key}")
    if wrong or not isinstance(item.get("id", ""), str | int):
        name = str(item.get("id", "without id"))
        raise GeomlError(
            f"{where}: item {name}: its {wrong[0] if wrong else 'id'} is not as STAC wants it"
        )
    item["id"] = str(item.get("id", ""))
    item["links"] = [link for link in item.get("links") or [] if isinstance(link, dict)]
    return item


def anchor(items: list[dict[str, Any]], base: str) -> list[dict[str, Any]]:
    """Make relative hrefs openable from here; `base` is the folder or URL they are relative to."""
    for item in items:
        for asset in item["assets"].values():
            asset["href"] = openable(asset["href"], base)
        for link in item.get("links", []):
            href = link.get("href")
            far = isinstance(href, str) and not (is_remote(base) and href.startswith("file:"))
            link["href"] = openable(href, base) if far else ""
    return items


def folder_of(href: str) -> str:
    """Folder or URL that the relative hrefs of a file are relative to."""
    path = href.partition("?")[0] if is_remote(href) else href
    return path.rpartition("/")[0] or ("/" if path.startswith("/") else ".")


def openable(href: str, base: str) -> str:
    """A path or URL that can be opened from here; a remote catalog cannot name local files."""
    if is_remote(href) and not href.startswith("/"):
        return href
    if is_remote(base):
        if href.startswith("file:"):
            raise GeomlError(
                f"{base}: names a file on its author's own disk, {href}; it cannot be read"
            )
        return urljoin(base.rstrip("/") + "/", href)
    if href.startswith("file://"):
        return unquote(href.removeprefix("file://").removeprefix("localhost"))
    return href if href.startswith("/") else os.path.normpath(os.path.join(base, href))


def is_raster_asset(asset: dict[str, Any]) -> bool:
    """Whether an asset is pixels to work on: not a thumbnail, an overview or metadata."""
    if set(asset.get("roles") or []) & HIDDEN:
        return False
    kind, href = (asset.get("type") or "").lower(), asset.get("href", "").split("?")[0].lower()
    return "tiff" in kind or "jp2" in kind or href.endswith(SUFFIXES)


def rasters_of(item: dict[str, Any]) -> dict[str, Raster]:
    """Describe every raster asset of an item: {asset key: Raster}."""
    return {
        key: describe(asset["href"], bands_of_asset(asset))
        for key, asset in sorted(item["assets"].items())
        if is_raster_asset(asset)
    }


def assets_of(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All assets of items."""
    return [asset for item in items for asset in item["assets"].values()]


def member_of(asset: dict[str, Any]) -> str:
    """The name, in its folder, of a file that we wrote."""
    return asset["href"].removeprefix("./")


def read_collection(folder: Path) -> dict[str, Any]:
    """The whole items.json of a folder."""
    return read_json(folder / NAME)
