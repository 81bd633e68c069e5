"""A STAC API over HTTP: its landing page, what it can do, and its answers page by page."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

import requests
from pystac_client.stac_api_io import StacApiIO

from geoml_cli.errors import GeomlError, Unreachable
from geoml_cli.formats.items import parse_json
from geoml_cli.formats.web import (
    CONNECT_S,
    PASSING,
    PLAIN,
    Access,
    blame,
    no_answer,
    session,
    unsigned,
)

ACCEPT = {"Accept": "application/geo+json, application/json;q=0.9"}
HOPS = 5
IDLE = 10  # pages without anything new, one after another: no more will come
WORDS = 200  # characters of a server's complaint
CLASS = r"https?://api\.stacspec\.org/v1\.[^/]*/item-search#{}"


class NotThere(GeomlError):
    """The server has nothing under that address (HTTP 404)."""


class Api(StacApiIO):
    """pystac-client's requests, with our patience and our words.

    Its own retries see no body that breaks off, and lose what a server answers.
    """

    def __init__(self, access: Access = PLAIN) -> None:
        super().__init__(max_retries=None)
        self.access = access
        self.session = session()
        self.known = False  # to be an API: a web page in between is a server in trouble

    def request(
        self,
        href: str,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> str:
        """The JSON text of an answer; searches change nothing, so POST is sent again too."""
        asked = (href, (method or "GET").upper(), headers, parameters)
        return self.access.patience(self._once, *asked)

    def read(
        self,
        href: str,
        method: str = "GET",
        parameters: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        """The one JSON object of an answer."""
        return as_object(self.request(href, method, headers, parameters), href)

    def _once(
        self,
        href: str,
        method: str,
        headers: dict[str, str] | None,
        parameters: dict[str, Any] | None,
    ) -> str:
        try:
            answer = self._send(href, method, headers, parameters)
        except (ValueError, requests.exceptions.InvalidSchema) as error:
            why = type(error).__name__  # its text repeats the URL
            raise GeomlError(f"{unsigned(href)}: no URL that can be read ({why})") from None
        except requests.RequestException as error:
            raise no_answer(href, error) from None
        body = self.access.body(answer, href)
        if not 200 <= answer.status_code < 300:
            raise _complaint(href, answer.status_code, answer.headers.get("Retry-After"), body)
        if body.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] not in (b"{", b"["):
            raise self._no_json(href, body)
        try:
            return body.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise self._no_json(href, body) from None

    def _send(
        self,
        href: str,
        method: str,
        headers: dict[str, str] | None,
        parameters: dict[str, Any] | None,
    ) -> requests.Response:
        sent = {"json" if method == "POST" else "params": parameters}
        for _ in range(HOPS):
            answer = self.session.request(
                method,
                href,
                headers=ACCEPT | (headers or {}),
                timeout=(CONNECT_S, self.access.timeout_s),
                stream=True,
                allow_redirects=method == "GET",
                **sent,  # type: ignore[arg-type]
            )
            if not answer.is_redirect:
                return answer
            answer.close()  # requests would go on with GET, without what is looked for
            href = urljoin(href, answer.headers["Location"])
        raise GeomlError(f"{unsigned(href)}: sends on and on to other addresses; check the address")

    def _no_json(self, href: str, body: bytes) -> GeomlError:
        what = "a web page" if body.lstrip()[:1] == b"<" else "something else"
        said = f"{unsigned(href)}: answers with {what}, not with JSON"
        if self.known:
            return Unreachable(f"{said}; try again later")
        return GeomlError(f"{said}; check that it is the address of a STAC API")


def as_object(text: str, href: str) -> dict[str, Any]:
    """The one JSON object in a text."""
    found = parse_json(text, unsigned(href))
    if len(found) != 1 or not isinstance(found[0], dict):
        raise GeomlError(
            f"{unsigned(href)}: answers with JSON that is no object; check the address"
        )
    return found[0]


@dataclass(frozen=True)
class Landing:
    """What a landing page says: where to search and how, and what the server understands."""

    href: str
    search: str
    method: str  # POST or GET
    collections: str | None
    conforms: tuple[str, ...]

    def knows(self, what: str) -> bool:
        """Whether the server does `sort`, `query` or `filter`; some ignore in silence what they do not."""
        if what == "filter" and not any(
            uri.endswith("cql2-json" if self.method == "POST" else "cql2-text")
            for uri in self.conforms
        ):
            return False
        return any(re.fullmatch(CLASS.format(what), uri) for uri in self.conforms)


def read_landing(api: Api, href: str, text: str | None = None) -> Landing:
    """Read the landing page of an API; `text` is what it holds where that has been read."""
    name = unsigned(href)
    try:
        said = as_object(text, href) if text else api.read(href)
    except NotThere:
        raise GeomlError(f"{name}: no STAC API there (HTTP 404); check the address") from None
    links = _links(said, href)
    ways = [link for link in links if link.get("rel") == "search"]
    if not ways:
        root = next((link["href"] for link in links if link.get("rel") == "root"), None)
        page = f"; give its landing page, {unsigned(root)}" if root else ""
        raise GeomlError(f"{name}: not the landing page of a STAC API that can be searched{page}")
    api.known = True
    post = [link for link in ways if str(link.get("method", "GET")).upper() == "POST"]
    data = [link["href"] for link in links if link.get("rel") == "data"]
    classes = tuple(str(uri) for uri in said.get("conformsTo") or ())
    way = (post or ways)[0]["href"]
    return Landing(href, way, "POST" if post else "GET", data[0] if data else None, classes)


def entries(
    api: Api, href: str, method: str, parameters: dict[str, Any], key: str = "features"
) -> Iterator[dict[str, Any]]:
    """What an API lists under `key`, page after page, each once.

    Raises GeomlError where the pages go round in a circle.
    """
    found: set[str] = set()
    asked: set[str] = set()
    first, idle, headers = parameters, 0, None
    while True:
        asked.add(json.dumps([href, method, parameters], sort_keys=True))
        page = api.read(href, method, parameters, headers)
        listed = [one for one in page.get(key) or [] if isinstance(one, dict)]
        known = len(found)
        for one in listed:
            name = json.dumps([one.get("collection"), one.get("id")])
            if name not in found:
                found.add(name)
                yield one
        link = next((link for link in _links(page, href) if link.get("rel") == "next"), None)
        if link is None:
            return
        href, method = link["href"], str(link.get("method", "GET")).upper()
        body = link.get("body") or {}
        parameters = (first | body if link.get("merge") else body) if method == "POST" else {}
        headers = link.get("headers")
        idle = 0 if len(found) > known else idle + 1
        again = json.dumps([href, method, parameters], sort_keys=True) in asked
        if again or idle == IDLE:
            if not listed or len(found) == count_of(page):  # some name a next page for ever
                return
            raise GeomlError(
                f"{unsigned(href)}: its pages go round in a circle after {len(found)} {key};"
                " ask for less, such as a shorter --datetime"
            )


def count_of(page: dict[str, Any]) -> int | None:
    """How many match in all, where a page says that."""
    context = page.get("context")
    said = page.get("numberMatched", context.get("matched") if isinstance(context, dict) else None)
    return said if isinstance(said, int) else None


def _links(said: dict[str, Any], href: str) -> list[dict[str, Any]]:
    """The links of an answer with absolute hrefs."""
    links = said.get("links")
    return [
        link | {"href": urljoin(href, link["href"])}
        for link in (links if isinstance(links, list) else [])
        if isinstance(link, dict) and isinstance(link.get("href"), str)
    ]


def _complaint(href: str, status: int, retry_after: str | None, body: bytes) -> GeomlError:
    """The error for a status, with the server's own words where they can help."""
    if status >= 500 or status in (*PASSING, 401, 403):
        return blame(href, status, retry_after)
    said = _words(body.decode(errors="replace"))
    words = f": {said}" if said else ""
    if status == 404:
        return NotThere(f"{unsigned(href)}: not there (HTTP 404){words}; check the address")
    return GeomlError(
        f"{unsigned(href)}: refuses what is asked (HTTP {status}){words}; check the conditions"
    )


def _words(text: str) -> str:
    """What a server says of an error: a sentence, not a page."""
    if text.lstrip().startswith("<"):
        return ""
    try:
        said = json.loads(text)
    except ValueError:
        said = text
    if isinstance(said, dict):
        named = [
            said[k] for k in ("description", "detail", "message", "title", "code") if said.get(k)
        ]
        said = named[0] if named else said
    plain = " ".join((said if isinstance(said, str) else json.dumps(said)).split())
    return plain if len(plain) <= WORDS else plain[: WORDS - 3].rstrip() + "..."
