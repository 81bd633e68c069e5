"""Rasters behind URLs: GDAL's settings, and why bytes of one could not be read."""

import re
from contextlib import AbstractContextManager, nullcontext

import rasterio

from geoml_cli.errors import GeomlError, Undecoded, Unreachable
from geoml_cli.formats.web import TIMEOUT_S, blame, is_http, no_answer, unsigned
from geoml_cli.geo.grid import Window

# GDAL_NUM_THREADS stays unset: with it GDAL 3.10 drops its HTTP retries
REMOTE = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_TIMEOUT": "60",
    "GDAL_HTTP_CONNECTTIMEOUT": "15",
    "CPL_VSIL_CURL_USE_HEAD": "NO",
    "CPL_VSIL_CURL_NON_CACHED": "/vsi",  # else a failure is remembered and no retry asks again
}


def is_remote(path: str) -> bool:
    """Whether reading a path needs the network."""
    return path.startswith(("http://", "https://", "s3://", "gs://", "az://", "/vsicurl", "/vsis3"))


def settings(path: str) -> AbstractContextManager[object]:
    """GDAL's settings for a path; rasterio keeps them by thread, so they wrap each call."""
    return rasterio.Env(**REMOTE) if is_remote(path) else nullcontext()


def explain(href: str, said: str) -> GeomlError:
    """The error for what GDAL says of a remote file."""
    status = re.search(r"HTTP response code: (\d{3})", said)
    if status:
        return blame(href, int(status[1]))
    name = unsigned(href)
    if "not recognized as being in a supported" in said:
        error = f"{name}: not readable as a raster; check the catalog that names it"
        return Undecoded(error) if is_http(href) and _looks_right(href) else GeomlError(error)
    return Unreachable(f"{name}: cannot be read over the network ({said}); try again later")


def _looks_right(href: str) -> bool:
    """Whether a file begins as a TIFF does, and so may have been cut short on its way."""
    import requests

    try:
        answer = requests.get(href, headers={"Range": "bytes=0-3"}, timeout=TIMEOUT_S, stream=True)
        with answer:
            return answer.status_code not in (200, 206) or answer.raw.read(2) in (b"II", b"MM")
    except requests.RequestException:
        return True


def why(
    error: GeomlError, dataset: rasterio.DatasetReader, path: str, index: int, window: Window
) -> GeomlError:
    """The reason behind a failed read: GDAL does not tell a server's refusal from a damaged file.

    The bytes of the window of band `index` are asked for again, without GDAL.
    """
    span = _span(dataset, index, window) if is_http(path) else None
    if span is None:
        return error
    try:
        probe(path, *span)
    except GeomlError as reason:
        return reason
    rows = f"rows {window.row}-{window.row + window.height}"
    where = f"{rows}, columns {window.col}-{window.col + window.width}"
    said = "arrives but does not decode; its owner must upload it again"
    return Undecoded(f"{unsigned(path)}: {where}: {said}")


def probe(href: str, first: int, size: int) -> None:
    """Ask for bytes without fetching them; raise what keeps the server from sending all of them."""
    import requests

    last = first + size - 1
    want = {"Range": f"bytes={first}-{last}"}
    try:
        with requests.get(href, headers=want, timeout=TIMEOUT_S, stream=True) as answer:
            status, sent = answer.status_code, answer.headers
    except requests.RequestException as error:
        raise no_answer(href, error) from None
    got = re.match(r"bytes \d+-(\d+)", sent.get("Content-Range", ""))
    end = int(got[1]) if got else int(sent.get("Content-Length", last + 1)) - 1
    if status == 416 or (status in (200, 206) and end < last):
        raise GeomlError(f"{unsigned(href)}: is truncated; its owner must upload it again")
    if status not in (200, 206):
        raise blame(href, status)


def _span(dataset: rasterio.DatasetReader, index: int, window: Window) -> tuple[int, int] | None:
    """First byte and size of the part of a TIFF that holds a window of a band."""
    high, wide = dataset.block_shapes[index - 1]
    spans = []
    for row in range(window.row // high, -(-(window.row + window.height) // high)):
        for col in range(window.col // wide, -(-(window.col + window.width) // wide)):
            words = [f"BLOCK_{what}_{col}_{row}" for what in ("OFFSET", "SIZE")]
            found = [dataset.get_tag_item(word, "TIFF", bidx=index) for word in words]
            if all(found):
                spans.append([int(value) for value in found])
    if not spans:
        return None
    first = min(at for at, _ in spans)
    return first, max(at + size for at, size in spans) - first
