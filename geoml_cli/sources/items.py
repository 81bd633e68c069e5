"""Items in one file: an ItemCollection, a list, or one Item a line."""

import os
from collections.abc import Iterator
from typing import Any

from geoml_cli.errors import GeomlError
from geoml_cli.formats.items import anchor, folder_of, parse_items
from geoml_cli.formats.web import read_text
from geoml_cli.geo.query import Query


def search(query: Query) -> Iterator[dict[str, Any]]:
    """The items of the file, in its order."""
    text = read_text(query.href) if query.text is None else query.text
    base = os.getcwd() if query.href == "-" else folder_of(query.href)
    if query.href != "-":
        query.files.append(query.href)
    for item in parse_items(text, query.href):
        try:
            yield anchor([item], base)[0]
        except GeomlError as error:
            query.trouble(error)


def open(asset: dict[str, Any]) -> str:
    """The href to read an asset from, right now."""
    return asset["href"]
