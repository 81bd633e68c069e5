"""Items of a catalog made into items about copies of their pixels."""

import hashlib
import os
import re
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from geoml_cli.errors import GeomlError
from geoml_cli.formats.items import EXTENSIONS, HIDDEN, NAME
from geoml_cli.formats.raster import is_remote
from geoml_cli.formats.web import unsigned

# what was said of the files that are left behind; the copies say it of themselves
OLD = ("proj:", "raster:", "file:", "storage:", "alternate", "auth:", "eo:bands")
OLD_IN_ASSETS = (*OLD, "eo:", "href", "type", "bands", "nodata", "data_type", "unit", "statistics")
# extension: the prefix of its fields, where that is not its name
PREFIX = {"projection": "proj", "scientific": "sci", "sentinel-2": "s2", "sentinel-1": "s1"}
NEEDS_LINKS = {"card4l", "label"}  # extensions that want links of their own
KEPT_LINKS = {"collection", "derived_from", "via"}
TIMES = ("datetime", "start_datetime", "end_datetime")
UTC_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)")


def safe_name(text: str) -> str:
    """A file name for any text; different texts get different names."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._-")[:80]
    if plain and plain == text != NAME:
        return plain
    return f"{plain or 'unnamed'}-{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:8]}"


def item_without_files(item: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A STAC 1.1 copy of an item with openable hrefs, ready for `add_raster`; `folder` will hold it.

    Properties are kept but for what described the files. Its `collection` stays where a link
    says which one that is, as STAC demands; else it becomes a property.
    """
    said = deepcopy(item.get("properties") or {})
    said = {k: v for k, v in said.items() if not k.startswith((*OLD, "bands"))}
    said |= {key: utc_text(said[key], item) for key in TIMES if said.get(key)}
    said.setdefault("datetime", None)
    links = _links(item, folder)
    made = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [],
        "id": item["id"] or safe_name(""),
        "geometry": None,
        "properties": said,
        "links": links,
        "assets": {},
    }
    if item.get("collection"):
        linked = any(link["rel"] == "collection" for link in links)
        (made if linked else said)["collection"] = item["collection"]
    return made


def asset_words(asset: dict[str, Any]) -> dict[str, Any]:
    """What a catalog's asset says that is true of a copy too: title, classes, gsd, ...

    A thumbnail that was asked for by name is data from now on.
    """
    kept = {k: deepcopy(v) for k, v in asset.items() if not k.startswith(OLD_IN_ASSETS)}
    kept["roles"] = [role for role in kept.get("roles") or [] if role not in HIDDEN] or ["data"]
    return kept


def declare(made: dict[str, Any], item: dict[str, Any]) -> None:
    """List in a filled item the extensions of the catalog's item whose fields are still there."""
    keys = set(made["properties"]) | {key for asset in made["assets"].values() for key in asset}
    ours = {_name(url) for url in EXTENSIONS.values()}
    for url in item.get("stac_extensions") or []:
        name = _name(url) if isinstance(url, str) and url.startswith("https://") else ""
        prefix = PREFIX.get(name, name) + ":"
        if name not in ours | NEEDS_LINKS and any(key.startswith(prefix) for key in keys):
            made["stac_extensions"].append(url)


def utc_text(text: Any, item: dict[str, Any]) -> str:
    """A time as STAC writes it, UTC; one that is so already is not touched."""
    if isinstance(text, str) and UTC_TIME.fullmatch(text):
        return text
    try:
        when = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        raise GeomlError(
            f"item {item['id']}: {text!r} is no RFC 3339 time; mend the catalog"
        ) from None
    when = (when if when.tzinfo else when.replace(tzinfo=UTC)).astimezone(UTC)
    return when.isoformat().replace("+00:00", "Z")


def _name(url: str) -> str:
    """Name of the extension behind a schema's URL."""
    name = next((part for part in url.split("/")[3:] if not part.startswith("stac")), "")
    return name.removesuffix("-extension")


def _links(item: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """The links worth keeping; the item's own place becomes what the copy is derived from."""
    found: list[dict[str, Any]] = []
    for link in item.get("links", []):
        kept = {key: link[key] for key in ("rel", "type", "title") if key in link}
        if kept.get("rel") == "self":
            kept["rel"] = "derived_from"
        href = link["href"]
        if is_remote(href):
            kept["href"] = unsigned(href)
        elif href and os.path.exists(href):
            kept["href"] = os.path.relpath(href, folder)
        if kept.get("rel") in KEPT_LINKS and "href" in kept and kept not in found:
            found.append(kept)
    return found
