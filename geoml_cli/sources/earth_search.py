"""Earth Search by Element 84: Sentinel, Landsat, NAIP and elevation in the AWS cloud."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

from geoml_cli import registry
from geoml_cli.geo.query import Query

HREF = "https://earth-search.aws.element84.com/v1"
HOST = "earth-search.aws.element84.com"
PUBLIC = {  # buckets that anybody may read over https, and where they are
    "sentinel-cogs": "us-west-2",
    "e84-earth-search-sentinel-data": "us-west-2",
    "copernicus-dem-30m": "eu-central-1",
    "copernicus-dem-90m": "eu-central-1",
}


def search(query: Query) -> Iterator[dict[str, Any]]:
    """The items that the server finds."""
    return registry.load("sources", "stac").search(query)


def matched(query: Query) -> int | None:
    """How many items the server says match; None where it cannot know."""
    return registry.load("sources", "stac").matched(query)


def open(asset: dict[str, Any], fresh: bool = False) -> str:
    """The href to read an asset from: https where the bucket is public, else as it is."""
    bucket, _, key = asset["href"].removeprefix("s3://").partition("/")
    if not asset["href"].startswith("s3://") or bucket not in PUBLIC:
        return asset["href"]
    return f"https://{bucket}.s3.{PUBLIC[bucket]}.amazonaws.com/{quote(key)}"


def owns(item: dict[str, Any]) -> bool:
    """Whether an item comes from there, by its links."""
    hrefs = [link.get("href") for link in item.get("links") or [] if isinstance(link, dict)]
    return any(isinstance(href, str) and _host(href) == HOST for href in hrefs)


def _host(href: str) -> str | None:
    try:
        return urlsplit(href).hostname
    except ValueError:
        return None
