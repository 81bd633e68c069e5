"""Putting files and folders in place at once: temporary sibling, fsync, rename."""

import ctypes
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Lock

from geoml_cli.errors import GeomlError, TryLater

ONE_AT_A_TIME = Lock()
AT_FDCWD, RENAME_EXCHANGE = -100, 2


def sync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@cache
def _umask() -> int:
    """The process's; there is no way to read it without setting it, so it is read once."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Give a temporary sibling to write; it takes the name only if all went well."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        with ONE_AT_A_TIME:
            mask = _umask()
        os.chmod(temporary, 0o666 & ~mask)  # some writers make files private
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk is told without a name
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def exchange(a: Path, b: Path) -> None:
    """Swap two names at once; where the system cannot: old aside, new in."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 and not renameat2(AT_FDCWD, bytes(a), AT_FDCWD, bytes(b), RENAME_EXCHANGE):
        return
    aside = b.with_name(f".{b.name}.old")
    shutil.rmtree(aside, ignore_errors=True)
    os.rename(b, aside)
    os.rename(a, b)
    os.rename(aside, a)


def put_folder(part: Path, out: Path) -> None:
    """Put a finished folder in the place of `out`; the old one, if any, is removed after."""
    for folder, _, files in os.walk(part):
        for name in files:
            sync(Path(folder, name))
        sync(Path(folder))
    if os.path.lexists(out):
        exchange(part, out)
        if part.is_dir() and not part.is_symlink():
            shutil.rmtree(part)
        else:
            part.unlink()
    else:
        os.rename(part, out)
    sync(out.parent)


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold the lock of an output; the kernel frees it when the holder dies, so none is ever stale."""
    from filelock import FileLock, Timeout

    path = out.with_name(f".{out.name}.lock")
    lock = FileLock(path, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        if not path.exists():  # on a place where nothing can be created it looks like a held lock
            raise GeomlError(
                f"{out}: nothing can be created in {out.parent}; name another -o"
            ) from None
        raise TryLater(f"{out}: another run is writing it; try again when that is done") from None
    try:
        yield
    finally:
        path.unlink(
            missing_ok=True
        )  # under the lock: a waiter sees the unlinked file and opens anew
        lock.release()
