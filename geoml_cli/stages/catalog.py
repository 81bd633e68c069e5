"""What a catalog offers to a fetch: areas and times asked for, items that match, assets to keep."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import shapely

from geoml_cli import __version__, registry
from geoml_cli.errors import GeomlError, NothingMatched
from geoml_cli.formats.bands import bands_of_asset
from geoml_cli.formats.copies import asset_words, safe_name
from geoml_cli.formats.digest import digest_file
from geoml_cli.formats.items import is_raster_asset, parse_json
from geoml_cli.formats.jsonfile import sha256_of
from geoml_cli.formats.stamp import Input
from geoml_cli.formats.vectors import digest_vectors, read_vectors
from geoml_cli.formats.web import is_http, read_text, unsigned
from geoml_cli.geo.bounds import area_of, dissolve, parse_bbox
from geoml_cli.geo.query import Query, matches
from geoml_cli.stages.inputs import digest_source, read_stdin

INDEXES = ("items.json", "catalog.json", "collection.json")  # what a folder may hold


@dataclass(frozen=True)
class Want:
    """One asset to keep: the item it is of, its key, and the file in the folder that will hold it."""

    item: int
    key: str
    asset: dict[str, Any]
    member: str
    name: str  # for people
    datetime: str | None

    def fingerprint(self, digest: str, area: shapely.Geometry | None) -> str:
        """sha256 of all that decides the bytes of the copy; `digest` is the source's."""
        where = None if area is None else shapely.to_wkb(shapely.normalize(area), hex=True)
        said = bands_of_asset(self.asset)
        return sha256_of([__version__, digest, where, said, self.datetime])


def read_area(bbox: str | None, intersects: str | None) -> shapely.Geometry | None:
    """The ground asked for, CRS84: what --bbox and --intersects have in common; None is everywhere."""
    box = area_of(parse_bbox(bbox)) if bbox else None
    if not intersects:
        return box
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


def ask(catalog: str, asked: Query, source: str | None) -> list[tuple[Query, ModuleType, dict[str, Any]]]:
    """The queries a catalog argument stands for (several where stdin lists paths), each with its source.

    The source is the one named, or the one that reads what the catalog holds.
    """
    names = [catalog]
    text = None
    if catalog == "-":
        text = read_stdin().lstrip("\ufeff\x1e \t\r\n")
        if not text.startswith(("{", "[")):
            names = [line.strip() for line in text.splitlines() if line.strip()]
            text = None
    if not names:
        raise NothingMatched("-: stdin is empty; pipe items, or paths of catalogs, into it")
    return [_ask_one(name, text, asked, source) for name in names]


def _ask_one(
    name: str, text: str | None, asked: Query, source: str | None
) -> tuple[Query, ModuleType, dict[str, Any]]:
    part, options = registry.parse("sources", source) if source else (None, {})
    href = name if is_http(name) or name == "-" else _index_in(name.removeprefix("file://"))
    if text is None:
        text = read_text(href)
    if not text.strip():
        raise GeomlError(f"{unsigned(href)}: is empty; check that it is the catalog you meant")
    if part is None:
        part = "items" if name == "-" or not _is_static(text, href) else "static"
    return replace(asked, href=href, text=text), registry.load("sources", part), options


def _index_in(name: str) -> str:
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


def search(query: Query, part: ModuleType, options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Items of one source that match."""
    for item in part.search(query, **options):
        try:
            found = matches(query, item)
        except GeomlError as error:
            query.trouble(error)
            continue
        if found:
            yield item


def distinct(items: Iterator[dict[str, Any]], limit: int | None) -> list[dict[str, Any]]:
    """The first `limit` items, each once although a catalog may list it twice."""
    seen = set()

    def new() -> Iterator[dict[str, Any]]:
        for item in items:
            mark = content_of(item, sorted(item["assets"]))
            if mark not in seen:
                seen.add(mark)
                yield item

    return list(islice(new(), limit))


def content_of(item: dict[str, Any], keys: list[str]) -> str:
    """sha256 of what an item says that a fetch writes down, of the assets `keys`; no signatures."""
    said = {key: item.get(key) for key in ("id", "collection", "properties", "stac_extensions")}
    assets = [
        [key, unsigned(asset["href"]), asset_words(asset), bands_of_asset(asset)]
        for key, asset in item["assets"].items()
        if key in keys
    ]
    return sha256_of([said, sorted(assets, key=lambda row: row[0])])


def choose(
    items: list[dict[str, Any]], names: list[str] | None, trouble: Callable[[GeomlError], None]
) -> list[Want]:
    """The assets to keep: those named, or all that are rasters; each gets a file of its own."""
    wants: list[Want] = []
    folders: dict[str, int] = {}
    for number, item in enumerate(items):
        have = sorted(item["assets"])
        keys = names or [key for key in have if is_raster_asset(item["assets"][key])]
        missing = [key for key in keys if key not in have]
        if missing or not keys:
            what = f"no asset {missing[0]}" if missing else "no raster assets"
            listed = ", ".join(have) or "none"
            trouble(GeomlError(f"item {item['id']}: has {what}; it has {listed}; see --assets"))
        folder = safe_name(item["id"])
        again = folders[folder.lower()] = folders.get(folder.lower(), 0) + 1
        folder += f"-{again}" if again > 1 else ""  # an id is unique in its collection only
        when = (item.get("properties") or {}).get("datetime")
        for key in keys:
            if key in have:
                member = f"{folder}/{safe_name(key)}.tif"
                name = f"{item['id']}/{key}"
                wants.append(Want(number, key, item["assets"][key], member, name, when))
    return wants


def inputs_of(
    queries: list[Query], items: list[dict[str, Any]], wants: list[Want], digests: list[str]
) -> list[Input]:
    """What decides a fetch: local catalog files, what items from elsewhere say, the assets."""
    local = [name for query in queries for name in query.files if not is_http(name)]
    found = [Input(name, "catalog", digest_file(name)) for name in dict.fromkeys(local)]
    if any(query.href == "-" or is_http(query.href) for query in queries):
        keys = [[want.key for want in wants if want.item == number] for number in range(len(items))]
        said = [content_of(item, chosen) for item, chosen in zip(items, keys, strict=True)]
        found.append(Input(unsigned(queries[0].href), "items", sha256_of(said)))
    for want, digest in zip(wants, digests, strict=True):
        found.append(Input(unsigned(want.asset["href"]), "asset", digest))
    return found


def digest_asset(href: str) -> str:
    """Digest of what an asset holds."""
    if not is_http(href) and "://" not in href and not os.path.exists(href):
        raise GeomlError(f"{href}: no such file; check the catalog that names it")
    return digest_source(href)


def area_input(intersects: str) -> Input:
    """The vector file that an area came from."""
    return Input(str(Path(intersects)), "area", digest_vectors(intersects))
