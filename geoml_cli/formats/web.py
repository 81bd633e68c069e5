"""HTTP with patience: how a URL is reached, text behind it, and what its statuses mean."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_any,
    wait_random_exponential,
)
from tenacity.stop import stop_base

from geoml_cli.errors import GeomlError, Unreachable

if TYPE_CHECKING:
    import requests

PASSING = (408, 425, 429)  # with 5xx: statuses that may be another ones in a while
LONGEST_WAIT_S = 300  # a server that wants to be left alone for longer is for the next run
PROXIES = [f"{kind}_proxy" for kind in ("http", "https", "all")]
PROXIES += [name.upper() for name in PROXIES]
CONNECT_S = 20
CONNECTIONS = 64  # kept open, to one host
SLOWEST = 512  # bytes a second: what comes slower, over the length of a time-out, does not come
PIECE = 2**18  # bytes taken at once
BACK_OFF = wait_random_exponential(0.5, 20)


def _sign_not(href: str, fresh: bool) -> str:
    return href


@dataclass(frozen=True)
class Access:
    """How to reach what lies behind URLs: who signs them, and how patient to be.

    `sign` gives a URL that is valid right now; `fresh` asks it for a new signature.
    `pause` sleeps between two attempts, and may raise.
    """

    sign: Callable[[str, bool], str] = _sign_not
    tries: int = 6
    timeout_s: float = 60
    pause: Callable[[float], None] = time.sleep

    @property
    def patience(self) -> Retrying:
        """What goes round an attempt: again after `Unreachable`, later each time."""
        return Retrying(
            retry=retry_if_exception_type(Unreachable),
            stop=stop_any(stop_after_attempt(self.tries), AskedForTooLong()),
            wait=_wait,
            sleep=self.pause,
            reraise=True,
        )

    def get(self, href: str, **headers: str) -> "requests.Response":
        """Send one request; the answer is open, its status and body are not looked at."""
        import requests

        for fresh in (False, True):
            signed = self.sign(href, fresh)
            try:
                answer = session().get(
                    signed, headers=headers, timeout=(CONNECT_S, self.timeout_s), stream=True
                )
            except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
                why = type(error).__name__  # requests' own text repeats the signed URL
                raise GeomlError(f"{unsigned(href)}: no URL that can be read ({why})") from None
            except requests.RequestException as error:
                raise no_answer(href, error) from None
            if answer.status_code not in (401, 403) or self.sign is _sign_not:
                break
            answer.close()  # a signature that ran out: once more with a new one
        return answer

    def body(self, answer: "requests.Response", href: str) -> bytes:
        """All of an answer's body."""
        return b"".join(self.pieces(answer, href))

    def pieces(self, answer: "requests.Response", href: str) -> Iterator[bytes]:
        """An answer's body as it comes; what breaks off, or hardly flows, is `Unreachable`."""
        from urllib3.exceptions import HTTPError

        began, size, coded = time.monotonic(), 0, "Content-Encoding" in answer.headers
        try:
            while piece := answer.raw.read1(PIECE, decode_content=True):
                yield piece
                size += len(piece)
                spent = time.monotonic() - began
                if spent > self.timeout_s and size < SLOWEST * spent:
                    raise Unreachable(f"{unsigned(href)}: hardly sends anything; try again later")
        except (HTTPError, OSError, HTTPException) as error:
            raise no_answer(href, error) from None
        finally:
            answer.close()
        if not coded and size < int(answer.headers.get("Content-Length", 0)):
            raise cut_short(href)


PLAIN = Access()


def session() -> "requests.Session":
    """The connections that all threads share."""
    return _session(any(os.environ.get(name) for name in PROXIES))


@cache
def _session(proxied: bool) -> "requests.Session":
    import requests
    from requests.adapters import HTTPAdapter

    made = requests.Session()
    if not proxied:  # requests would look for proxies each time, which takes longer than the rest
        made.verify = os.environ.get("REQUESTS_CA_BUNDLE") or True
        made.trust_env = False
    for scheme in ("http://", "https://"):
        made.mount(scheme, HTTPAdapter(CONNECTIONS, CONNECTIONS))
    return made


def _wait(state: RetryCallState) -> float:
    """Seconds until the next attempt: what the server asks for, or longer and longer."""
    return max(BACK_OFF(state), _asked(state))


def _asked(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    return getattr(error, "wait_s", None) or 0.0


class AskedForTooLong(stop_base):
    """Stops where the server wants to be left alone for longer than a run waits."""

    def __call__(self, retry_state: RetryCallState) -> bool:
        """Whether it does."""
        return _asked(retry_state) > LONGEST_WAIT_S


def is_http(path: str) -> bool:
    """Whether a path is a URL that a web server answers."""
    return path.startswith(("http://", "https://"))


def unsigned(href: str) -> str:
    """A URL without password and query, where signatures live; a local path as it is."""
    if "://" not in href:
        return href
    try:
        parts = urlsplit(href)
    except ValueError:  # such as http://[bad
        return href.partition("?")[0]
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def blame(href: str, status: int, retry_after: str | None = None) -> GeomlError:
    """The error for an HTTP status: to try later, or not to try again."""
    name = unsigned(href)
    if status >= 500 or status in PASSING:
        wait_s = _seconds_until(retry_after)
        when = f" in {wait_s:.0f} s" if wait_s else ""
        error = Unreachable(f"{name}: the server fails (HTTP {status}); try again later{when}")
        error.wait_s = wait_s
        return error
    if status in (401, 403):
        return GeomlError(
            f"{name}: may not be read (HTTP {status}); check its signature or your rights"
        )
    return GeomlError(f"{name}: cannot be had (HTTP {status}); check the catalog that names it")


def _seconds_until(said: str | None) -> float | None:
    """What a Retry-After header asks for: seconds, or a date."""
    try:
        if not said or said.strip().isdigit():
            return float(said) if said else None
        return max(0.0, (parsedate_to_datetime(said) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def read_text(href: str, access: Access = PLAIN) -> str:
    """Text of a local file or a URL, UTF-8."""
    try:
        if is_http(href):
            return access.patience(_get, href, access).decode()
        if "://" in href:
            raise GeomlError(f"{unsigned(href)}: cannot be read; give a path or an http(s) URL")
        return Path(href).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise GeomlError(f"{href}: no such file") from None
    except UnicodeDecodeError:
        raise GeomlError(
            f"{unsigned(href)}: not text in UTF-8; check that it is the file you meant"
        ) from None


def read_bytes(href: str) -> bytes:
    """Bytes of a local file or a URL."""
    return PLAIN.patience(_get, href, PLAIN) if is_http(href) else Path(href).read_bytes()


def _get(href: str, access: Access) -> bytes:
    with access.get(href) as answer:
        if answer.status_code != 200:
            raise blame(href, answer.status_code, answer.headers.get("Retry-After"))
        return access.body(answer, href)


def no_answer(href: str, error: Exception) -> Unreachable:
    """The error for a request that nothing came back to."""
    kind = type(error).__name__  # requests' own text repeats the signed URL
    return Unreachable(f"{unsigned(href)}: no answer over the network ({kind}); try again later")


def cut_short(href: str) -> Unreachable:
    """The error for an answer that ends too early."""
    return Unreachable(f"{unsigned(href)}: an answer cut short; try again later")
