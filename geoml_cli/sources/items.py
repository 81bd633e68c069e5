"""Items in one file: an ItemCollection, a list, one Item a line, or a table (stac-geoparquet)."""

import os
from collections.abc import Iterable, Iterator
from typing import Any

from geoml_cli.errors import GeomlError
from geoml_cli.formats.items import anchor, folder_of, parse_items
from geoml_cli.formats.items_table import TABLES, read_table
from geoml_cli.formats.web import read_text
from geoml_cli.geo.query import Query


def search(query: Query) -> Iterator[dict[str, Any]]:
    """The items of the file, in its order."""
    base = os.getcwd() if query.href == "-" else folder_of(query.href)
    if query.href != "-":
        query.files.append(query.href)
    for item in _items(query):
        try:
            yield anchor([item], base)[0]
        except GeomlError as error:
            query.trouble(error)


def _items(query: Query) -> Iterable[dict[str, Any]]:
    if query.text is None and query.href.partition("?")[0].lower().endswith(TABLES):
        return read_table(query.href)
    return parse_items(read_text(query.href) if query.text is None else query.text, query.href)


def open(asset: dict[str, Any], fresh: bool = False) -> str:
    """The href to read an asset from, right now."""
    return asset["href"]
