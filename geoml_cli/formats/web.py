"""HTTP with patience: text behind a URL, and what its statuses mean."""

from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from geoml_cli.errors import GeomlError, Unreachable

# one for every read: a window, a header, a catalog file
PATIENCE = Retrying(
    retry=retry_if_exception_type(Unreachable),
    stop=stop_after_attempt(6),
    wait=wait_exponential_jitter(0.5, 20),
    reraise=True,
)
TIMEOUT_S = 60
PASSING = (408, 425, 429)  # with 5xx: statuses that may be another ones in a while


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


def blame(href: str, status: int) -> GeomlError:
    """The error for an HTTP status: to try later, or not to try again."""
    name = unsigned(href)
    if status >= 500 or status in PASSING:
        return Unreachable(f"{name}: the server fails (HTTP {status}); try again later")
    if status in (401, 403):
        return GeomlError(
            f"{name}: may not be read (HTTP {status}); check its signature or your rights"
        )
    return GeomlError(f"{name}: cannot be had (HTTP {status}); check the catalog that names it")


def read_text(href: str) -> str:
    """Text of a local file or a URL, UTF-8."""
    try:
        if is_http(href):
            return _get(href).decode()
        if "://" in href:
            raise GeomlError(f"{unsigned(href)}: cannot be read; give a path or an http(s) URL")
        return Path(href).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise GeomlError(f"{href}: no such file") from None
    except UnicodeDecodeError:
        raise GeomlError(
            f"{unsigned(href)}: not text in UTF-8; check that it is the file you meant"
        ) from None


@PATIENCE.wraps
def _get(href: str) -> bytes:
    import requests

    try:
        answer = requests.get(href, timeout=TIMEOUT_S)
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
        raise GeomlError(f"{unsigned(href)}: no URL that can be read ({error})") from None
    except requests.RequestException as error:
        raise no_answer(href, error) from None
    if answer.status_code != 200:
        raise blame(href, answer.status_code)
    return answer.content


@PATIENCE.wraps
def version_of(href: str) -> str | None:
    """The ETag of what a URL names, else its date; None where the server tells neither."""
    import requests

    want = {"Range": "bytes=0-0"}  # not HEAD: a signature is for GET alone
    try:
        with requests.get(href, headers=want, timeout=TIMEOUT_S, stream=True) as answer:
            status, sent = answer.status_code, answer.headers
    except requests.RequestException as error:
        raise no_answer(href, error) from None
    if status not in (200, 206, 416):  # 416: an empty file
        raise blame(href, status)
    return sent.get("ETag") or sent.get("Last-Modified")


def no_answer(href: str, error: Exception) -> Unreachable:
    """The error for a request that nothing came back to."""
    kind = type(error).__name__  # requests' own text repeats the signed URL
    return Unreachable(f"{unsigned(href)}: no answer over the network ({kind}); try again later")
