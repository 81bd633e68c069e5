"""Static catalogs: catalog.json, collection.json and item.json files that link to each other."""

import os
from collections.abc import Iterator
from typing import Any

import pystac

from geoml_cli.errors import GeomlError
from geoml_cli.formats.items import anchor, features, folder_of, parse_json
from geoml_cli.formats.web import Access, is_http, read_text, unsigned
from geoml_cli.geo.query import Query

FAULTS = (pystac.STACError, pystac.STACTypeError, KeyError, TypeError, ValueError, AttributeError)


class Files(pystac.StacIO):
    """pystac's reading, with our retries and our words; the query notes what was read."""

    def __init__(self, query: Query) -> None:
        super().__init__()
        self.query = query

    def read_text(self, source: Any, *_: Any, **__: Any) -> str:
        """Text of a file or URL."""
        known = self.query.text if source == self.query.href else None
        query = self.query
        access = Access(tries=query.tries, timeout_s=query.timeout_s)
        text = read_text(source, access) if known is None else known
        self.query.files.append(source)
        return text

    def write_text(self, *_: Any, **__: Any) -> None:
        """Refuse: catalogs are only read."""
        raise NotImplementedError


def search(query: Query) -> Iterator[dict[str, Any]]:
    """The items of a catalog and all its children, in the order of the links; none is read twice.

    The items of a collection that is not looked for are not read.
    """
    yield from _walk(query.href, None, Files(query), set())


def open(asset: dict[str, Any], fresh: bool = False) -> str:
    """The href to read an asset from, right now."""
    return asset["href"]


def _walk(
    href: str, above: pystac.Collection | None, files: Files, seen: set[str]
) -> Iterator[dict[str, Any]]:
    """Items from one file down; `above` is the nearest collection over it."""
    if href in seen:
        return
    seen.add(href)
    query = files.query
    try:
        found = _read(href, above, files)
    except GeomlError as error:
        if href == query.href:  # nothing is left without it
            raise
        query.trouble(error)
        return
    if isinstance(found, dict):
        yield found
        return
    above = found if isinstance(found, pystac.Collection) else above
    wanted = (
        not isinstance(found, pystac.Collection)
        or not query.collections
        or found.id in query.collections
    )
    for link in found.links:
        child = link.get_absolute_href()
        if child and (link.rel == "child" or (link.rel == "item" and wanted)):
            plain = is_http(child) or os.path.isabs(query.href)
            yield from _walk(child if plain else os.path.relpath(child), above, files, seen)


def _read(
    href: str, above: pystac.Collection | None, files: Files
) -> pystac.Catalog | dict[str, Any]:
    """A catalog or collection, or an item ready to be handed out."""
    name = unsigned(href)
    values = parse_json(files.read_text(href), name)
    found = values[0] if len(values) == 1 else None
    if isinstance(found, dict) and found.get("type") == "Feature":
        return _item(features(found, name)[0], href, above)
    if not isinstance(found, dict):
        raise GeomlError(f"{name}: holds no catalog, collection or item; check the link to it")
    if "conformsTo" in found:
        raise GeomlError(f"{name}: a STAC API, not files; save what a search finds and fetch that")
    try:
        where = href if is_http(href) else os.path.abspath(href)
        made = files.stac_object_from_dict(found, href=where)
    except FAULTS as error:
        raise GeomlError(f"{name}: not STAC that can be read ({error}); mend it") from None
    assert isinstance(made, pystac.Catalog)
    return made


def _item(item: dict[str, Any], href: str, above: pystac.Collection | None) -> dict[str, Any]:
    """An item that knows where it lies and what collection it is of, with openable hrefs."""
    item = anchor([item], folder_of(href))[0]
    item["links"] = [link for link in item["links"] if link.get("rel") != "self"]
    item["links"].append({"rel": "self", "href": href, "type": "application/geo+json"})
    if above and not item.get("collection"):
        item["collection"] = above.id
        place = {"href": above.get_self_href() or "", "type": "application/json"}
        item["links"].append({"rel": "collection"} | place)
    return item
