"""What a catalog offers to a fetch: areas and times asked for, items that match."""

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from types import ModuleType
from typing import Any

import shapely

from geoml_cli import registry
from geoml_cli.errors import GeomlError, NothingMatched, UsageMistake
from geoml_cli.formats.bands import bands_of_asset
from geoml_cli.formats.copies import asset_words
from geoml_cli.formats.items import parse_json
from geoml_cli.formats.items_table import TABLES
from geoml_cli.formats.jsonfile import sha256_of
from geoml_cli.formats.web import Access, is_http, read_text, unsigned
from geoml_cli.geo.bounds import area_of, dissolve, parse_bbox
from geoml_cli.geo.choice import Choice, choose
from geoml_cli.geo.query import Query, matches
from geoml_cli.stages.inputs import read_stdin

log = logging.getLogger("geoml")
INDEXES = ("items.json", "catalog.json", "collection.json")  # what a folder may hold


class Trouble:
    """Stand in the way of an error in part of a catalog: it ends the run, or is noted under --keep-going."""

    def __init__(self, keep_going: bool) -> None:
        self.keep_going = keep_going
        self.names: list[str] = []
        self.scenes: set[str] = set()  # ids of those that it is about

    def __call__(self, error: GeomlError, scene: str | None = None) -> None:
        """Raise the error or note it."""
        if not self.keep_going:
            raise error
        self.names.append(str(error).partition(": ")[0])
        self.scenes |= {scene} if scene else set()
        log.warning("%s", error)


@dataclass(frozen=True)
class Hit:
    """An item that matches, and the source that opens its assets."""

    item: dict[str, Any]
    source: ModuleType


def read_area(bbox: str | None, intersects: str | None) -> shapely.Geometry | None:
    """The ground asked for, CRS84: what --bbox and --intersects have in common; None is everywhere."""
    box = area_of(parse_bbox(bbox)) if bbox else None
    if not intersects:
        return box
    from geoml_cli.formats.vectors import parse_vectors, read_vectors  # geopandas takes its time

    read = intersects != "-"
    table = read_vectors(intersects) if read else parse_vectors(read_stdin(), "-")
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


def search(
    catalog: str,
    asked: Query,
    source: str | None,
    choice: Choice,
    skip: Callable[[dict[str, Any]], bool] | None = None,
) -> list[Hit]:
    """The items to take of those that match, each once although a catalog may list it twice.

    The source is the one named, or the one that reads what the catalog holds. What `skip` says
    yes to counts as a match and is not taken.
    """
    if choice.cover and asked.area is None:
        raise UsageMistake("--cover: covers an area; give --bbox or --intersects")
    limit = None if choice.needs_all else asked.limit
    hits: dict[str, Hit] = {}
    looked = skipped = 0
    for item, part in _items(catalog, replace(asked, limit=limit), source):
        looked += 1
        try:
            if matches(asked, item):
                if skip and skip(item):
                    skipped += 1
                    continue
                hits.setdefault(content_of(item, set(item["assets"])), Hit(item, part))
        except GeomlError as error:
            asked.trouble(error)
        if limit and len(hits) == limit:
            break
    found = list(hits.values())
    if not found and not skipped:
        raise NothingMatched(f"{unsigned(catalog)}: {_why_nothing(asked, looked)}")
    taken = choose([hit.item for hit in found], choice, asked.area)
    if len(taken) < len(found):
        log.info("%d of %d scenes that match are chosen", len(taken), len(found))
    return [_owned(found[i], source) for i in taken[: asked.limit]]


def count(catalog: str, asked: Query, source: str | None) -> int:
    """How many items match; the server's word is taken where it can tell exactly."""
    total = 0
    for query, part, options in _places(catalog, replace(asked, limit=None), source):
        known = part.matched(query, **options) if hasattr(part, "matched") else None
        if known is None:
            known = sum(matches(query, item) for item in part.search(query, **options))
        total += known
    return total


def _items(
    catalog: str, asked: Query, source: str | None
) -> Iterator[tuple[dict[str, Any], ModuleType]]:
    for query, part, options in _places(catalog, asked, source):
        for item in part.search(query, **options):
            yield item, part


def _why_nothing(asked: Query, looked: int) -> str:
    if looked:
        asks = "--collection, --bbox, --intersects, --datetime, --filter"
        return f"none of the {looked} items match; see {asks}"
    named = f" of {', '.join(asked.collections)}" if asked.collections else ""
    return f"holds no items{named} that match"


def _owned(hit: Hit, source: str | None) -> Hit:
    """The hit with the source that opens its assets: one that says it is its own."""
    if source or hasattr(hit.source, "HREF"):
        return hit
    for name in homes():
        part = registry.load("sources", name)
        if part.owns(hit.item):
            return Hit(hit.item, part)
    return hit


def homes() -> dict[str, str]:
    """Sources that live at one place, and where."""
    found = {name: registry.constant("sources", name, "HREF") for name in registry.names("sources")}
    return {name: home for name, home in found.items() if home}


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


def _places(
    catalog: str, asked: Query, source: str | None
) -> Iterator[tuple[Query, ModuleType, dict[str, Any]]]:
    """What to ask each catalog behind the argument, the source that is asked, and its options."""
    name, options = (
        registry.parse("sources", source or catalog) if _is_part(catalog, source) else ("", {})
    )
    for place, text in _named(catalog):
        if name:
            home = homes().get(name) if place == catalog and not source else None
            href = home or (place if is_http(place) or place == "-" else _index_in(place))
            yield replace(asked, href=href, text=text), registry.load("sources", name), options
        else:
            yield _told(place, text, asked)


def _is_part(catalog: str, source: str | None) -> bool:
    """Whether the user names a source, by --source or in place of a catalog."""
    plain = catalog.partition(":")[0]
    return bool(source) or (plain in homes() and not os.path.exists(catalog))


def _told(name: str, text: str | None, asked: Query) -> tuple[Query, ModuleType, dict[str, Any]]:
    """As `_places`, by what the catalog holds."""
    href = name if is_http(name) or name == "-" else _index_in(name.removeprefix("file://"))
    if href.partition("?")[0].lower().endswith(TABLES):
        return replace(asked, href=href), registry.load("sources", "items"), {}
    near = get_close_matches(name, homes(), 1) if "://" not in href else []
    if near and text is None and not os.path.exists(href):
        raise GeomlError(f"{name}: no such file; did you mean {near[0]}?")
    access = Access(tries=asked.tries, timeout_s=asked.timeout_s)
    text = read_text(href, access) if text is None else text
    if not text.strip():
        raise GeomlError(f"{unsigned(href)}: is empty; check that it is the catalog you meant")
    values = parse_json(text, unsigned(href)) if name != "-" else []
    alone = values[0] if len(values) == 1 and isinstance(values[0], dict) else {}
    part = "items"
    if "conformsTo" in alone:
        part = "stac"
    elif alone and alone.get("type") != "FeatureCollection":
        part = "static"
    return replace(asked, href=href, text=text), registry.load("sources", part), {}


def _index_in(name: str) -> str:
    """The file to start from, where a folder is named."""
    if not os.path.isdir(name):
        return name
    found = next((index for index in INDEXES if os.path.isfile(os.path.join(name, index))), None)
    if not found:
        raise GeomlError(f"{name}: holds none of {', '.join(INDEXES)}; name the catalog's file")
    return os.path.join(name, found)


def content_of(item: dict[str, Any], keys: set[str]) -> str:
    """sha256 of what an item says that a fetch writes down, of the assets `keys`; no signatures."""
    said = {key: item.get(key) for key in ("id", "collection", "properties", "stac_extensions")}
    assets = [
        [key, unsigned(asset["href"]), asset_words(asset), bands_of_asset(asset)]
        for key, asset in sorted(item["assets"].items())
        if key in keys
    ]
    return sha256_of([said, assets])
