"""Microsoft's Planetary Computer; its assets are signed right before each read.

PC_SDK_SAS_URL and PC_SDK_SUBSCRIPTION_KEY count as for the planetary-computer package.
"""

import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from geoml_cli import registry
from geoml_cli.errors import GeomlError, Unreachable
from geoml_cli.formats.web import PLAIN, blame, unsigned
from geoml_cli.geo.query import Query

if TYPE_CHECKING:
    from planetary_computer.sas import SASToken

HREF = "https://planetarycomputer.microsoft.com/api/stac/v1"
HOST = "planetarycomputer.microsoft.com"
STORE = ".blob.core.windows.net"
OPEN = "ai4edatasetspublicassets" + STORE  # thumbnails, for everybody
SIGNED = {"st", "se", "sp", "sig", "sv", "sr", "skoid", "sktid", "skt", "ske", "sks", "skv"}
LEAST_S = 60  # a token with less left is renewed
LOCK = threading.Lock()  # one thread renews a token, and the others use it
RENEWED: dict[str, float] = {}  # when, by the token's address


def search(query: Query) -> Iterator[dict[str, Any]]:
    """The items that the server finds; their hrefs are not signed."""
    return registry.load("sources", "stac").search(query)


def matched(query: Query) -> int | None:
    """How many items the server says match; None where it cannot know."""
    return registry.load("sources", "stac").matched(query)


def open(asset: dict[str, Any], fresh: bool = False) -> str:
    """The href of an asset, signed; `fresh` asks for a new signature.

    A signature that the catalog gave is used until it is refused.
    """
    parts = urlsplit(asset["href"])
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not host.endswith(STORE) or host == OPEN:
        return asset["href"]
    query = parse_qsl(parts.query, keep_blank_values=True)
    if not fresh and SIGNED & {key for key, _ in query}:
        return asset["href"]
    kept = urlencode([pair for pair in query if pair[0] not in SIGNED])
    account, container = host.removesuffix(STORE), parts.path.lstrip("/").partition("/")[0]
    token = _token(account, container, fresh).token
    return urlunsplit(parts._replace(query=f"{kept}&{token}" if kept else token))


def owns(item: dict[str, Any]) -> bool:
    """Whether an item comes from there: it links there, or to its viewer beside its storage."""
    if _hosts(item.get("links") or []) & {HOST}:
        return True
    there = _hosts(list((item.get("assets") or {}).values()))
    return HOST in there and any(host.endswith(STORE) for host in there)


def _hosts(things: list[Any]) -> set[str]:
    """Hosts in the hrefs of links or assets."""
    found = set()
    for href in (thing.get("href") for thing in things if isinstance(thing, dict)):
        try:
            found.add(urlsplit(href).hostname or "" if isinstance(href, str) else "")
        except ValueError:
            continue
    return found


def _token(account: str, container: str, fresh: bool) -> "SASToken":
    """A token that is good for a while, out of the package's cache or new."""
    from planetary_computer.sas import TOKEN_CACHE
    from planetary_computer.settings import Settings

    settings = Settings.get()
    address = f"{settings.sas_url}/{account}/{container}"
    asked = time.monotonic()
    with LOCK:
        known = TOKEN_CACHE.get(address)
        old = fresh and RENEWED.get(address, 0.0) < asked  # not renewed while we waited
        if known and not old and known.ttl() >= LEAST_S:
            return known
        TOKEN_CACHE.pop(address, None)
        token = PLAIN.patience(_ask, address, settings.subscription_key)
        TOKEN_CACHE[address], RENEWED[address] = token, time.monotonic()
        return token


def _ask(address: str, key: str | None) -> "SASToken":
    """A new token; the package's own request for one has no time-out and no words."""
    from planetary_computer.sas import SASToken

    name = unsigned(address)
    with PLAIN.get(address, **({"Ocp-Apim-Subscription-Key": key} if key else {})) as answer:
        status = answer.status_code
        if status in (400, 401, 403, 404):
            raise GeomlError(f"{name}: gives no signature (HTTP {status}); check that it is public")
        if status != 200:
            raise blame(address, status, answer.headers.get("Retry-After"))
        body = PLAIN.body(answer, address)
    try:
        return SASToken.model_validate_json(body)
    except ValueError:  # its text repeats the token
        raise Unreachable(f"{name}: gives no signature that can be read; try again later") from None
