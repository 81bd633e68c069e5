"""sha256 of files, remembered by (device, inode, size, mtime_ns)."""

import hashlib
import os
import sqlite3
import time
from contextlib import closing, suppress
from functools import cache
from pathlib import Path

from platformdirs import user_cache_path

RACY_NS = 2_000_000_000  # a file changed within this of now may change again within one clock tick


def sha256_file(path: str | Path) -> str:
    """Hex sha256 of a file's bytes, read now."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_file(path: str | Path) -> str:
    """Hex sha256 of a file's bytes, from the cache where it knows this very file."""
    seen = os.stat(path)
    key = (seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns)
    if known := _written().get(key):
        return known
    try:
        with closing(_cache()) as cache:
            row = cache.execute(
                "select sha256 from digests where device=? and inode=? and size=? and mtime_ns=?",
                key,
            ).fetchone()
            if row:
                return row[0]
            found = sha256_file(path)
            if time.time_ns() - seen.st_mtime_ns > RACY_NS:
                cache.execute("insert or replace into digests values (?,?,?,?,?)", (*key, found))
                cache.commit()
            return found
    except sqlite3.Error:  # no cache is only slower
        return sha256_file(path)


def note_written(path: str | Path, *data: memoryview | bytes) -> None:
    """Remember, for this process, the digest of bytes that it has just written to a file."""
    seen = os.stat(path)
    key = (seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns)
    found = hashlib.sha256()
    for part in data:
        found.update(part)
    _written()[key] = found.hexdigest()


@cache
def _written() -> dict[tuple[int, int, int, int], str]:
    return {}


def _cache() -> sqlite3.Connection:
    folder = user_cache_path("geoml")
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    cache = sqlite3.connect(folder / "digests.sqlite", timeout=5)
    cache.execute(
        "create table if not exists digests (device int, inode int, size int, mtime_ns int,"
        " sha256 text, primary key (device, inode, size, mtime_ns)) without rowid"
    )
    return cache
