"""What a catalog offers to a fetch: areas and times asked for, items that match, assets to keep."""

import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import shapely

from geoml_cli import __version__, registry
from geoml_cli.errors import GeomlError, NothingMatched
from geoml_cli.formats.bands import bands_of_asset
from geoml_cli.formats.copies import asset_words, item_without_files, safe_name
from geoml_cli.formats.digest import digest_file
from geoml_cli.formats.items import is_raster_asset, parse_json
from geoml_cli.formats.jsonfile import sha256_of
from geoml_cli.formats.stamp import Input
from geoml_cli.formats.web import is_http, read_text, unsigned
from geoml_cli.geo.bounds import area_of, dissolve, parse_bbox
from geoml_cli.geo.query import Query, matches
from geoml_cli.stages.inputs import digest_source, read_stdin

log = logging.getLogger("geoml")
INDEXES = ("items.json", "catalog.json", "collection.json")  # what a folder may hold


class Trouble:
    """Stand in the way of an error in part of a catalog: it ends the run, or is noted under --keep-going."""

    def __init__(self, keep_going: bool) -> None:
        self.keep_going = keep_going
        self.names: list[str] = []

    def __call__(self, error: GeomlError) -> None:
        """Raise the error or note it."""
        if not self.keep_going:
            raise error
        self.names.append(str(error).partition(": ")[0])
        log.warning("%s", error)


@dataclass(frozen=True)
class Hit:
    """An item that matches, and the source that opens its assets."""

    item: dict[str, Any]
    source: ModuleType


@dataclass(frozen=True)
class Want:
    """One asset to keep, and the file in the folder that will hold it."""

    hit: Hit
    key: str
    member: str
    digest: str = ""

    @property
    def asset(self) -> dict[str, Any]:
        """What the catalog says of it."""
        return self.hit.item["assets"][self.key]

    @property
    def name(self) -> str:
        """Its name for people."""
        return f"{self.hit.item['id']}/{self.key}"

    @property
    def when(self) -> str | None:
        """The item's time."""
        return (self.hit.item.get("properties") or {}).get("datetime")

    def fingerprint(self, where: str | None) -> str:
        """sha256 of all that decides the bytes of the copy; `where` stands for the area."""
        said = bands_of_asset(self.asset)
        return sha256_of([__version__, self.digest, where, said, self.when])


def read_area(bbox: str | None, intersects: str | None) -> shapely.Geometry | None:
    """The ground asked for, CRS84: what --bbox and --intersects have in common; None is everywhere."""
    box = area_of(parse_bbox(bbox)) if bbox else None
    if not intersects:
        return box
    from geoml_cli.formats.vectors import read_vectors  # geopandas takes its time

    table = read_vectors(intersects)
    try:
        shape = dissolve(table.geometry.values, table.crs.to_wkt())
    except GeomlError as error:
        raise GeomlError(f"{intersects}: {error}") from None
    if box is None:
        return shape
    both = shapely.intersection(box, shape)
    if both.area == 0:
        raise NothingMatched(f"{intersects}: lies outside --bbox {bbox}; no ground is in both")
    return both


def search(catalog: str, asked: Query, source: str | None, limit: int | None) -> list[Hit]:
    """The first `limit` items that match, each once although a catalog may list it twice.

    The source is the one named, or the one that reads what the catalog holds.
    """
    hits: dict[str, Hit] = {}
    looked = 0
    for name, text in _named(catalog):
        query, part, options = _source_of(name, text, asked, source)
        for item in part.search(query, **options):
            looked += 1
            try:
                if matches(query, item):
                    hits.setdefault(content_of(item, set(item["assets"])), Hit(item, part))
            except GeomlError as error:
                asked.trouble(error)
            if limit and len(hits) == limit:
                return list(hits.values())
    if not hits:
        named = f" of {', '.join(asked.collections)}" if asked.collections else ""
        why = f"holds no items{named}"
        if looked:
            asks = "--collection, --bbox, --intersects, --datetime"
            why = f"none of the {looked} items match; see {asks}"
        raise NothingMatched(f"{unsigned(catalog)}: {why}")
    return list(hits.values())


def _named(catalog: str) -> list[tuple[str, str | None]]:
    """Catalogs behind the argument, with their text where it came through stdin."""
    if catalog != "-":
        return [(catalog, None)]
    text = read_stdin().lstrip("\ufeff\x1e \t\r\n")
    if not text:
        raise NothingMatched("-: stdin is empty; pipe items, or paths of catalogs, into it")
    if text.startswith(("{", "[")):
        return [("-", text)]
    return [(line.strip(), None) for line in text.splitlines() if line.strip()]


def _source_of(
    name: str, text: str | None, asked: Query, source: str | None
) -> tuple[Query, ModuleType, dict[str, Any]]:
    part, options = registry.parse("sources", source) if source else ("", {})
    href = name if is_http(name) or name == "-" else _index_in(name.removeprefix("file://"))
    text = read_text(href) if text is None else text
    if not text.strip():
        raise GeomlError(f"{unsigned(href)}: is empty; check that it is the catalog you meant")
    if not part:
        part = "static" if name != "-" and _is_static(text, href) else "items"
    return replace(asked, href=href, text=text), registry.load("sources", part), options


def _index_in(name: str) -> str:
    """The file to start from, where a folder is named."""
    if not os.path.isdir(name):
        return name
    found = next((index for index in INDEXES if os.path.isfile(os.path.join(name, index))), None)
    if not found:
        raise GeomlError(f"{name}: holds none of {', '.join(INDEXES)}; name the catalog's file")
    return os.path.join(name, found)


def _is_static(text: str, href: str) -> bool:
    values = parse_json(text, unsigned(href))
    alone = values[0] if len(values) == 1 else None
    return isinstance(alone, dict) and alone.get("type") != "FeatureCollection"


def content_of(item: dict[str, Any], keys: set[str]) -> str:
    """sha256 of what an item says that a fetch writes down, of the assets `keys`; no signatures."""
    said = {key: item.get(key) for key in ("id", "collection", "properties", "stac_extensions")}
    assets = [
        [key, unsigned(asset["href"]), asset_words(asset), bands_of_asset(asset)]
        for key, asset in sorted(item["assets"].items())
        if key in keys
    ]
    return sha256_of([said, assets])


def choose(hits: list[Hit], names: list[str], trouble: Trouble) -> list[Want]:
    """The assets to keep: those named, or all that are rasters; each gets a file of its own."""
    wants: list[Want] = []
    folders: dict[str, int] = {}
    for hit in hits:
        item, have = hit.item, sorted(hit.item["assets"])
        keys = names or [key for key in have if is_raster_asset(item["assets"][key])]
        missing = [key for key in keys if key not in have]
        try:
            item_without_files(item, Path())  # so that what cannot be described is not fetched
            if missing or not keys:
                what = f"no asset {missing[0]}" if missing else "no raster assets"
                raise GeomlError(
                    f"item {item['id']}: has {what}; it has {', '.join(have) or 'none'}"
                )
        except GeomlError as error:
            trouble(error)
        folder = safe_name(item["id"])
        again = folders[folder.lower()] = folders.get(folder.lower(), 0) + 1
        folder += f"-{again}" if again > 1 else ""  # an id is unique in its collection only
        wants += [Want(hit, key, f"{folder}/{safe_name(key)}.tif") for key in keys if key in have]
    return wants


def digest(want: Want) -> Want | GeomlError:
    """The asset with the digest of what it holds, or why there is none."""
    href = want.hit.source.open(want.asset)
    try:
        if "://" not in href and not href.startswith("/vsi") and not os.path.exists(href):
            raise GeomlError(f"{href}: no such file; check the catalog that names it")
        return replace(want, digest=digest_source(href))
    except GeomlError as error:
        return error


def inputs_of(
    catalog: str, query: Query, hits: list[Hit], wants: list[Want], intersects: str | None
) -> list[Input]:
    """What decides a fetch: local catalog files, what items from elsewhere say, the area, the assets."""
    local = dict.fromkeys(name for name in query.files if not is_http(name))
    found = [Input(name, "catalog", digest_file(name)) for name in local]
    if len(local) < len(set(query.files)) or not local:
        keys = [{want.key for want in wants if want.hit is hit} for hit in hits]
        said = [content_of(hit.item, chosen) for hit, chosen in zip(hits, keys, strict=True)]
        found.append(Input(unsigned(catalog), "items", sha256_of(said)))
    if intersects:
        from geoml_cli.formats.vectors import digest_vectors

        found.append(Input(intersects, "area", digest_vectors(intersects)))
    return found + [Input(unsigned(want.asset["href"]), "asset", want.digest) for want in wants]
