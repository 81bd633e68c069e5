"""Rasters behind URLs: we ask for the bytes ourselves, so that no failure is lost inside GDAL.

GDAL's own reader takes metadata or a mask that a server would not send for metadata or a mask
that is not there: scale, offset, nodata and validity would go without a word.
"""

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from io import BytesIO
from tempfile import TemporaryFile
from typing import IO, Any

import rasterio
from rasterio.abc import MultiByteRangeResourceContainer

from geoml_cli.errors import GeomlError, Unreachable
from geoml_cli.formats.web import PLAIN, Access, blame, cut_short, unsigned

REMOTE = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}
# of object stores; GDAL_NUM_THREADS stays unset: with it GDAL 3.10 drops its HTTP retries
STORES = REMOTE | {"GDAL_HTTP_TIMEOUT": "60", "CPL_VSIL_CURL_NON_CACHED": "/vsi"}
HEAD_BYTES = 2**14  # asked for at once: the header of most files
CHUNK_BYTES = 2**14  # small reads are rounded to this
CHUNKS = 64  # of them kept
GAP_BYTES = 2**13  # ranges this close are asked for as one
RANGE_BYTES = 2**24  # unless that gets as large as this


@dataclass(frozen=True)
class Head:
    """The first bytes of what a URL names, its size and version; all empty where a server knows no ranges."""

    data: bytes = b""
    size: int = 0
    tag: str | None = None


def read_head(href: str, access: Access = PLAIN, size: int = HEAD_BYTES) -> Head:
    """Ask for the beginning of a file; raises what the server says."""

    def ask() -> Head:
        # a range, not HEAD: a signature is for GET alone
        want = {"Range": f"bytes=0-{size - 1}", "Accept-Encoding": "identity"}
        with access.get(href, **want) as answer:
            status, sent = answer.status_code, answer.headers
            tag = sent.get("ETag") or sent.get("Last-Modified")
            if status in (200, 416):  # 416: an empty file
                return Head(tag=tag)
            if status != 206:
                raise blame(href, status, sent.get("Retry-After"))
            return Head(*_part_of(access.body(answer, href), href, 0, sent))

    return access.patience(ask)


def _part_of(
    body: bytes, href: str, first: int, sent: Mapping[str, str]
) -> tuple[bytes, int, str | None]:
    """The bytes of a 206, with the size and version of the whole; checked against what it says of itself."""
    said = re.match(r"bytes (\d+)-(\d+)/(\d+)", sent.get("Content-Range", ""))
    if not said or int(said[1]) != first or len(body) != int(said[2]) - first + 1:
        raise cut_short(href)
    return body, int(said[3]), sent.get("ETag") or sent.get("Last-Modified")


def version_of(href: str) -> str | None:
    """The ETag of what a URL names, else its date; None where the server tells neither."""
    return read_head(href, size=1).tag


class Far:
    """The bytes of a URL as a file; what keeps them from coming is in `error`, for GDAL does not tell."""

    def __init__(self, href: str, access: Access = PLAIN, head: Head | None = None) -> None:
        """Read the beginning, if it is not known yet; raises what the server says."""
        head = head or read_head(href, access)
        self.href, self.access = href, access
        self.size, self._tag = head.size, head.tag
        self.error: GeomlError | None = None
        self._whole: IO[bytes] | None = None  # of a server that sends nothing less
        self._at = 0
        self._chunks: OrderedDict[int, bytes] = OrderedDict()
        self._head = head.data
        if not head.size:
            self._head = self._fetch(0, HEAD_BYTES)

    def read(self, size: int = -1) -> bytes:
        """Bytes from the current place on; fewer, and `error`, where they do not come."""
        size = self.size - self._at if size < 0 else size
        try:
            data = self._bytes(self._at, min(size, self.size - self._at))
        except GeomlError as error:
            self.error = error
            return b""
        self._at += len(data)
        return data

    def get_byte_ranges(self, offsets: Sequence[int], sizes: Sequence[int]) -> list[bytes]:
        """Several ranges at once; those that lie close together are one request."""
        try:
            spans: list[list[int]] = []  # first byte, first byte after
            for first, size in sorted(zip(offsets, sizes, strict=True)):
                close = spans and first <= spans[-1][1] + GAP_BYTES
                if close and first + size - spans[-1][0] <= RANGE_BYTES:
                    spans[-1][1] = max(spans[-1][1], first + size)
                else:
                    spans.append([first, first + size])
            if max(end for _, end in spans) > self.size:  # GDAL would take what it gets
                raise GeomlError(f"{unsigned(self.href)}: is truncated; tell who published it")
            found = {first: self._bytes(first, end - first) for first, end in spans}
        except GeomlError as error:
            self.error = error
            return [b""] * len(offsets)
        starts = sorted(found)
        parts = []
        for first, size in zip(offsets, sizes, strict=True):
            start = max(at for at in starts if at <= first)
            parts.append(found[start][first - start : first - start + size])
        return parts

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move, as a file does."""
        self._at = offset + (0, self._at, self.size)[whence]
        return self._at

    def tell(self) -> int:
        """The current place."""
        return self._at

    def close(self) -> None:
        """Let go of what is kept."""
        if self._whole:
            self._whole.close()

    def __enter__(self) -> "Far":
        """GDAL opens it as a context."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave it open: rasterio ends this context when it likes."""

    def check(self) -> None:
        """Raise what kept bytes from coming."""
        if self.error:
            raise self.error

    def _bytes(self, first: int, size: int) -> bytes:
        if size <= 0:
            return b""
        if first + size <= len(self._head):
            return self._head[first : first + size]
        if size > CHUNK_BYTES or self._whole:
            return self._fetch(first, size)
        start, end = first // CHUNK_BYTES, (first + size - 1) // CHUNK_BYTES
        data = b"".join(self._chunk(number) for number in range(start, end + 1))
        return data[first - start * CHUNK_BYTES :][:size]

    def _chunk(self, number: int) -> bytes:
        if number not in self._chunks:
            self._chunks[number] = self._fetch(number * CHUNK_BYTES, CHUNK_BYTES)
            if len(self._chunks) > CHUNKS:
                self._chunks.popitem(last=False)
        self._chunks.move_to_end(number)
        return self._chunks[number]

    def _fetch(self, first: int, size: int) -> bytes:
        """Bytes of a range, all of them up to the end of the file."""
        return self.access.patience(self._ask, first, size)

    def _ask(self, first: int, size: int) -> bytes:
        if self._whole:
            self._whole.seek(first)
            return self._whole.read(size)
        want = {"Range": f"bytes={first}-{first + size - 1}", "Accept-Encoding": "identity"}
        with self.access.get(self.href, **want) as answer:
            if answer.status_code == 200:
                return self._take_all(answer)
            if answer.status_code == 416:
                return b""  # beyond the end: an empty or truncated file
            if answer.status_code != 206:
                said = answer.headers.get("Retry-After")
                raise blame(self.href, answer.status_code, said)
            body = self.access.body(answer, self.href)
            body, total, tag = _part_of(body, self.href, first, answer.headers)
        if self.size and (self.size, self._tag) != (total, tag):
            raise GeomlError(f"{unsigned(self.href)}: changed while it was read; run this again")
        self.size, self._tag = total, tag
        return body

    def _take_all(self, answer: Any) -> bytes:
        """Keep the whole file, of a server that does not know ranges."""
        whole = TemporaryFile()
        try:
            for piece in self.access.pieces(answer, self.href):
                whole.write(piece)
        except Unreachable:
            whole.close()
            raise
        self.size, self._whole = whole.tell(), whole
        whole.seek(0)
        return whole.read(HEAD_BYTES)


class _Files(MultiByteRangeResourceContainer):
    """What rasterio wants of a place where files are: this one holds one."""

    def __init__(self, far: Far) -> None:
        """Hold a file."""
        self.far = far

    def open(self, path: str, mode: str = "r", **_: object) -> Any:
        """The file; rasterio also tries the word `test`."""
        if path == self.far.href:
            self.far.seek(0)
            return self.far
        if path == "test":
            return BytesIO()
        raise FileNotFoundError(path)

    def isfile(self, path: str) -> bool:
        """Whether it is the file."""
        return path == self.far.href

    def isdir(self, path: str) -> bool:
        """There are no folders."""
        return False

    def ls(self, path: str) -> list[str]:
        """There are no folders."""
        return []

    def mtime(self, path: str) -> int:
        """Not known."""
        return 0

    def size(self, path: str) -> int:
        """Bytes."""
        return self.far.size

    def rm(self, path: str) -> None:
        """Files are only read."""
        raise PermissionError(path)


def open_stored(path: str) -> rasterio.DatasetReader:
    """Open a raster in an object store, by GDAL's means."""

    def attempt() -> rasterio.DatasetReader:
        with settings(path):
            try:
                return rasterio.open(path)
            except rasterio.errors.RasterioError as error:
                raise explain(path, str(error.__cause__ or error)) from None

    return PLAIN.patience(attempt)


def open_far(
    href: str, access: Access = PLAIN, head: Head | None = None
) -> tuple[rasterio.DatasetReader, Far]:
    """Open a raster behind an http(s) URL, and the file it is read through."""
    far = Far(href, access, head)
    try:
        with settings(href):
            return rasterio.open(href, opener=_Files(far), sharing=False), far
    except rasterio.errors.RasterioError:
        far.check()
        raise


def is_remote(path: str) -> bool:
    """Whether reading a path needs the network."""
    return path.startswith(("http://", "https://", "s3://", "gs://", "az://", "/vsicurl", "/vsis3"))


def settings(path: str) -> AbstractContextManager[object]:
    """GDAL's settings for a path; rasterio keeps them by thread, so they wrap each call."""
    if path.startswith(("http://", "https://")):
        return rasterio.Env(**REMOTE)
    return rasterio.Env(**STORES) if is_remote(path) else nullcontext()


def explain(href: str, said: str) -> GeomlError:
    """The error for what GDAL says of a file in an object store."""
    status = re.search(r"HTTP response code: (\d{3})", said)
    if status:
        return blame(href, int(status[1]))
    if re.search("not recognized as being in|NoSuchKey|AccessDenied|InvalidCredentials", said):
        return GeomlError(f"{unsigned(href)}: cannot be read ({said}); check who may read it")
    return Unreachable(
        f"{unsigned(href)}: cannot be read over the network ({said}); try again later"
    )
