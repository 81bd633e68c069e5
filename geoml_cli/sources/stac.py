"""Any STAC API: what it understands of a search is asked of it, the rest is sorted out here."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any
from urllib.parse import quote

import shapely
from pystac_client import ItemSearch

from geoml_cli.errors import GeomlError, TryLater
from geoml_cli.formats.api import Api, Landing, NotThere, count_of, entries, read_landing
from geoml_cli.formats.items import anchor, features, folder_of
from geoml_cli.formats.web import Access, unsigned
from geoml_cli.geo.query import Query
from geoml_cli.geo.superset import is_box, plain

log = logging.getLogger("geoml")
PAGE = 250  # items: what every known server sends at once
VERTICES = {"POST": 500, "GET": 50}  # of an area; longer URLs are cut off
LACKS = {"--filter": "filter", "--max-cloud": "filter", "--sort": "sort"}
TOP = ("id", "collection", "geometry", "bbox")  # what is sorted by and is no property


def search(query: Query) -> Iterator[dict[str, Any]]:
    """The items that the server finds, page after page, with hrefs that can be opened."""
    api = Api(Access(tries=query.tries, timeout_s=query.timeout_s))
    landing = read_landing(api, query.href, query.text)
    query.files.append(query.href)
    _check_collections(api, landing, query.collections)
    asked = _ask(landing, query)
    if asked.here:
        lacks = " and ".join(dict.fromkeys(LACKS[name] for name in asked.here))
        verb = "is" if len(asked.here) == 1 else "are"
        said = " and ".join(asked.here)
        log.info("%s: knows no %s; %s %s applied here", unsigned(query.href), lacks, said, verb)
    found = entries(api, landing.search, landing.method, asked.parameters)
    while True:
        try:
            item = next(found, None)
        except TryLater:
            raise
        except GeomlError as error:
            query.trouble(error)
            return
        if item is None:
            return
        try:
            yield _ready(item, landing)
        except GeomlError as error:
            query.trouble(error)


def matched(query: Query) -> int | None:
    """How many items the server says match; None where it does not say, or cannot know."""
    api = Api(Access(tries=query.tries, timeout_s=query.timeout_s))
    landing = read_landing(api, query.href, query.text)
    _check_collections(api, landing, query.collections)
    asked = _ask(landing, query)
    if not asked.exact:
        return None
    return count_of(api.read(landing.search, landing.method, asked.parameters | {"limit": 1}))


def open(asset: dict[str, Any], fresh: bool = False) -> str:
    """The href to read an asset from, right now."""
    return asset["href"]


@dataclass(frozen=True)
class Asked:
    """What goes to the server: its parameters, what is left to us, and whether it is the very question."""

    parameters: dict[str, Any]
    here: tuple[str, ...]
    exact: bool


def _ask(landing: Landing, query: Query) -> Asked:
    """The question as this server understands it: never narrower than what is asked for."""
    here: list[str] = []
    more: dict[str, Any] = {}
    condition = query.filter if landing.knows("filter") else None
    if query.filter and not condition:
        here.append("--filter")
    if query.max_cloud is not None:
        if landing.knows("filter"):
            clear = {"op": "<=", "args": [{"property": "eo:cloud_cover"}, query.max_cloud]}
            condition = {"op": "and", "args": [condition, clear]} if condition else clear
        elif landing.knows("query"):
            more["query"] = {"eo:cloud_cover": {"lte": query.max_cloud}}
        else:
            here.append("--max-cloud")
    if query.sort and landing.knows("sort"):
        more["sortby"] = [_order(name, falling) for name, falling in query.sort]
    elif query.sort:
        here.append("--sort")
    shape = None if query.area is None else plain(query.area, VERTICES[landing.method])
    if shape is not None:
        # a box over the antimeridian as west > east means all the rest to some servers
        box = is_box(shape)
        more |= (
            {"bbox": list(shape.bounds)} if box else {"intersects": shapely.geometry.mapping(shape)}
        )
    if query.start or query.end:
        more["datetime"] = [query.start, query.end]
    exact = not here and (shape is None or shape is query.area)
    made = ItemSearch(
        landing.search,
        method=landing.method,
        limit=min(query.limit or PAGE, PAGE) if exact else PAGE,
        ids=list(query.ids) or None,
        collections=list(query.collections) or None,
        filter=condition,
        **more,
    )
    return Asked(made.get_parameters(), tuple(here), exact)


def _order(name: str, falling: bool) -> dict[str, str]:
    name = name.removeprefix("properties.")
    field = name if name in TOP else f"properties.{name}"
    return {"field": field, "direction": "desc" if falling else "asc"}


def _check_collections(api: Api, landing: Landing, names: tuple[str, ...]) -> None:
    """Refuse a collection that the server does not have: its search would just be empty."""
    for name in names if landing.collections else ():
        assert landing.collections
        try:
            api.read(f"{landing.collections.rstrip('/')}/{quote(name, safe='')}")
        except NotThere:
            have = _collections(api, landing.collections)
            if have and name not in have:
                near = get_close_matches(name, have, 3, 0.5)
                more = ", ..." if len(have) > 10 else ""
                hint = f"did you mean {' or '.join(near)}?" if near else "it has "
                hint += "" if near else ", ".join(sorted(have)[:10]) + more
                raise GeomlError(
                    f"{unsigned(landing.href)}: no collection {name}; {hint}"
                ) from None
        except TryLater:
            raise
        except GeomlError:  # not for us to see: the search itself decides
            continue


def _collections(api: Api, href: str) -> list[str]:
    """Names of the server's collections; none where it does not tell."""
    try:
        return [str(one.get("id")) for one in entries(api, href, "GET", {}, "collections")]
    except TryLater:
        raise
    except GeomlError:
        return []


def _ready(item: dict[str, Any], landing: Landing) -> dict[str, Any]:
    """An item checked, with hrefs that can be opened."""
    item = features(item, unsigned(landing.search))[0]
    links = item["links"]
    own = next((link.get("href") for link in links if link.get("rel") == "self"), None)
    known = isinstance(own, str) and own.startswith(("http://", "https://"))
    return anchor([item], folder_of(own if known and own else landing.search))[0]
