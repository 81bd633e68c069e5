"""Whole files, bit for bit: what has come is kept when a download breaks off, and gone on from."""

import hashlib
import json
import os
import shutil
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

from geoml_cli.errors import GeomlError, Unreachable
from geoml_cli.formats.commit import whole_file, write_text
from geoml_cli.formats.web import Access, blame, cut_short, is_http, unsigned

PIECE = 2**20
HASHES = {"11": "sha1", "12": "sha256", "13": "sha512", "d501": "md5"}  # multihash codes, varint
TOLD = ("x-ms-blob-content-md5",)  # headers that hold the MD5 of the whole, base64


def download(
    href: str, path: Path, asset: dict[str, Any], access: Access, check: Callable[[], None]
) -> None:
    """Copy what an asset names to `path`, checked against what its catalog and server say of it.

    `check` is called between pieces and may raise. A file that does not hold what it should is
    fetched once more; then it is an error.
    """
    for last in (False, True):
        partial = path.with_name(f"{path.name}.partial")
        said = {}
        if is_http(href):
            said = _pull(href, partial, access, check)
        else:
            _copy(href, partial, check)
        wrong = _wrong(partial, asset, said)
        if not wrong:
            break
        _drop(partial)
        if last:
            raise GeomlError(f"{unsigned(href)}: {wrong}; tell who published it")
    with whole_file(path) as temporary:
        os.replace(partial, temporary)
    _drop(partial)


def _pull(href: str, partial: Path, access: Access, check: Callable[[], None]) -> dict[str, str]:
    """Bring a partial file to its full length; gives the headers that tell of the whole."""
    while True:
        size = partial.stat().st_size if partial.is_file() else 0
        headers = access.patience(_more, href, partial, access, check)
        if headers is not None:
            return headers
        if partial.stat().st_size <= size:
            raise cut_short(href)


def _more(
    href: str, partial: Path, access: Access, check: Callable[[], None]
) -> dict[str, str] | None:
    """Ask for what is missing; None where the answer broke off after some of it came."""
    note = partial.with_name(f"{partial.name}.json")
    have, tag = _known(partial, note)
    want = {"Accept-Encoding": "identity"}
    if have:
        want |= {"Range": f"bytes={have}-", "If-Range": tag}
    with access.get(href, **want) as answer:
        status, sent = answer.status_code, answer.headers
        if status == 416:  # the file is shorter than what is here
            _drop(partial)
            raise cut_short(href)
        if status not in (200, 206):
            raise blame(href, status, sent.get("Retry-After"))
        now = sent.get("ETag") or ""
        if status == 206 and (now != tag or not _begins_at(sent, have)):
            _drop(partial)
            raise cut_short(href)
        if status == 200 and "html" in sent.get("Content-Type", "").lower():
            raise GeomlError(f"{unsigned(href)}: a web page, not data; check your rights to it")
        write_text(note, json.dumps({"tag": now}))
        came = 0
        with open(partial, "ab" if status == 206 else "wb") as file:
            try:
                for piece in access.pieces(answer, href):
                    check()
                    file.write(piece)
                    came += len(piece)
            except Unreachable:
                if came:
                    return None
                raise
        return {k: v for k, v in sent.items() if k.lower() in TOLD}


def _known(partial: Path, note: Path) -> tuple[int, str]:
    """Bytes that are here, and the version they are of; none where that cannot be told apart."""
    try:
        tag = json.loads(note.read_text())["tag"]
        have = partial.stat().st_size
    except (OSError, ValueError, KeyError):
        return 0, ""
    return (have, tag) if tag and not tag.startswith("W/") else (0, "")


def _begins_at(sent: Any, first: int) -> bool:
    return str(sent.get("Content-Range", "")).startswith(f"bytes {first}-")


def _copy(source: str, partial: Path, check: Callable[[], None]) -> None:
    try:
        with open(source, "rb") as old, open(partial, "wb") as new:
            while piece := old.read(PIECE):
                check()
                new.write(piece)
        shutil.copystat(source, partial)
    except FileNotFoundError:
        raise GeomlError(f"{source}: no such file; check the catalog that names it") from None


def _wrong(path: Path, asset: dict[str, Any], said: dict[str, str]) -> str | None:
    """What of a file contradicts what is said of it; None where nothing does."""
    size = asset.get("file:size")
    if isinstance(size, int) and path.stat().st_size != size:
        return f"is {path.stat().st_size} bytes, its catalog says {size}"
    text = asset.get("file:checksum") or asset.get("checksum:multihash")
    for code, name in HASHES.items():
        if isinstance(text, str) and text.lower().startswith(code):
            wanted = text.lower()[len(code) + 2 :]  # two digits tell the length
            if _hash(path, name).hex() != wanted:
                return f"its {name} is not the one its catalog says"
            return None
    for header in said.values():
        if _hash(path, "md5") != b64decode(header):
            return "its MD5 is not the one the server says"
    return None


def _hash(path: Path, name: str) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, name).digest()


def _drop(partial: Path) -> None:
    for left in (partial, partial.with_name(f"{partial.name}.json")):
        left.unlink(missing_ok=True)
