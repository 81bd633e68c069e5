"""STAC Items in one file: `items.json`, an ItemCollection with relative hrefs, proj/raster/eo fields, file:checksum."""

import json
import os
from pathlib import Path
from typing import Any

import shapely

from geoml_cli.errors import GeomlError
from geoml_cli.formats.bands import bands_of_asset
from geoml_cli.formats.digest import digest_file
from geoml_cli.formats.jsonfile import read_json
from geoml_cli.formats.raster import Raster, describe, is_remote
from geoml_cli.geo.bounds import footprint

NAME = "items.json"
COG_TYPE = "image/tiff; application=geotiff; profile=cloud-optimized"
EXTENSIONS = [
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
    "https://stac-extensions.github.io/eo/v2.0.0/schema.json",
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
]


def item_of(name: str, datetime: str | None, properties: dict[str, Any] | None = None) -> dict[str, Any]:
    """A STAC 1.1 Item without assets; geometry and bbox follow from `add_raster`.

    `datetime` is RFC 3339 in UTC; None is allowed only with start_datetime and end_datetime in properties.
    """
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": list(EXTENSIONS),
        "id": name,
        "geometry": None,
        "properties": {"datetime": datetime, **(properties or {})},
        "links": [],
        "assets": {},
    }


def add_raster(
    item: dict[str, Any], key: str, raster: Raster, folder: Path, **more: Any
) -> None:
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
    if not raster.grid.crs.startswith("EPSG:"):  # proj:code wants authority:code
        grid = item["assets"][key]
        if len(raster.grid.crs) > 64:
            grid["proj:wkt2"] = grid.pop("proj:code")
    whole = footprint(raster.grid.outline())
    if item["geometry"] is not None:
        whole = shapely.union(shapely.geometry.shape(item["geometry"]), whole)
    item["geometry"] = json.loads(shapely.to_geojson(shapely.normalize(whole)))
    item["bbox"] = _bbox(whole)


def _bbox(shape: shapely.Geometry) -> list[float]:
    west, south, east, north = shape.bounds
    parts = [p.bounds for p in getattr(shape, "geoms", [])]
    if len(parts) == 2 and west == -180 and east == 180:  # cut at the antimeridian: west > east
        west = next(p[0] for p in parts if p[2] == 180)
        east = next(p[2] for p in parts if p[0] == -180)
    return [west, south, east, north]


def collection_of(items: list[dict[str, Any]]) -> dict[str, Any]:
    """An ItemCollection, items in order of id."""
    return {"type": "FeatureCollection", "features": sorted(items, key=lambda item: item["id"])}


def read_items(path: str | Path) -> list[dict[str, Any]]:
    """Items of a FeatureCollection, a single Item, a list or lines of them; hrefs made absolute or openable."""
    text = Path(path).read_text()
    return anchor(parse_items(text, str(path)), str(Path(path).parent))


def parse_items(text: str, where: str) -> list[dict[str, Any]]:
    """Items in JSON text: one Item, a FeatureCollection, a list, or any of these one after another."""
    decoder, found, at = json.JSONDecoder(), [], 0
    text = text.strip()
    while at < len(text):
        try:
            value, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise GeomlError(f"{where}: damaged JSON ({error})") from None
        while at < len(text) and text[at] in " \t\r\n\x1e,":
            at += 1
        found += _features(value, where)
    return found


def _features(value: Any, where: str) -> list[dict[str, Any]]:
    if isinstance(value, list):
        return [item for part in value for item in _features(part, where)]
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "FeatureCollection":
        return _features(value.get("features", []), where)
    if kind == "Feature" and isinstance(value.get("assets"), dict):
        return [value]
    raise GeomlError(f"{where}: holds {kind or type(value).__name__}, not STAC items (Features with assets)")


def anchor(items: list[dict[str, Any]], base: str) -> list[dict[str, Any]]:
    """Make relative asset hrefs openable from here; `base` is the folder or URL they are relative to."""
    for item in items:
        for asset in item["assets"].values():
            asset["href"] = openable(asset.get("href", ""), base)
    return items


def openable(href: str, base: str) -> str:
    """A path or URL that can be opened from here."""
    if href.startswith("file://"):
        return href.removeprefix("file://")
    if is_remote(href) or href.startswith("/"):
        return href
    if is_remote(base):
        from urllib.parse import urljoin

        return urljoin(base.rstrip("/") + "/", href)
    return os.path.normpath(os.path.join(base, href))


def is_raster_asset(asset: dict[str, Any]) -> bool:
    """Whether an asset is pixels to work on: not a thumbnail, an overview or metadata."""
    roles = set(asset.get("roles") or [])
    if roles & {"thumbnail", "overview", "metadata", "date", "graphic"}:
        return False
    kind, href = asset.get("type") or "", asset.get("href", "").split("?")[0].lower()
    return "tiff" in kind or "jp2" in kind or href.endswith((".tif", ".tiff", ".vrt", ".jp2", ".img"))


def rasters_of(item: dict[str, Any]) -> dict[str, Raster]:
    """Describe every raster asset of an item: {asset key: Raster}."""
    return {
        key: describe(asset["href"], bands_of_asset(asset))
        for key, asset in sorted(item["assets"].items())
        if is_raster_asset(asset)
    }


def read_collection(folder: Path) -> dict[str, Any]:
    """The whole items.json of a folder."""
    return read_json(folder / NAME)
