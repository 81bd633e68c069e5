"""The exceptions a user is meant to see as one plain line, and the exit statuses."""

import errno
import os
from enum import IntEnum


class Status(IntEnum):
    """Exit statuses; `geoml help exit-codes` prints this table."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    PARTIAL = 3
    NOTHING = 4
    LATER = 75
    SIGINT = 130
    SIGPIPE = 141
    SIGTERM = 143


MEANING = {
    Status.DONE: "done, or already up to date",
    Status.FAILED: "bad data or a mistake: the line on stderr says what, where and what to do",
    Status.USAGE: "the command line itself is wrong",
    Status.PARTIAL: "some inputs failed under --keep-going; the rest is written",
    Status.NOTHING: "nothing matched",
    Status.LATER: "try again later: network down after retries, lock held, deadline reached",
    Status.SIGINT: "stopped by Ctrl-C; the same command goes on from where it was",
    Status.SIGPIPE: "the reader of stdout went away",
    Status.SIGTERM: "stopped by SIGTERM; the same command goes on from where it was",
}


class GeomlError(Exception):
    """What is wrong, where, and what to do: printed as one line, without a traceback."""

    status = Status.FAILED


class UsageMistake(GeomlError):
    """The command line itself is wrong."""

    status = Status.USAGE


class NothingMatched(GeomlError):
    """The search or selection is empty."""

    status = Status.NOTHING


class TryLater(GeomlError):
    """Right command, wrong moment: lock held, deadline reached, network down."""

    status = Status.LATER


class Unreachable(TryLater):
    """A server that does not answer, or fails, after retries."""

    wait_s: float | None = None  # what it asks to be left alone for


class SomeFailed(GeomlError):
    """Some inputs failed under --keep-going; what could be written was."""

    status = Status.PARTIAL


class Stopped(GeomlError):
    """A signal asked the run to stop; work done so far is kept."""

    def __init__(self, signum: int):
        super().__init__(f"stopped by signal {signum}; run the same command again to go on")
        self.status = Status(128 + signum)


def as_oserror(error: Exception, path: object) -> OSError:
    """What a library says of a failed write, as the OSError it was: such as a full disk."""
    import re

    found = re.search(r"os error (\d+)", str(error))
    number = int(found[1]) if found else errno.EIO
    return OSError(number, os.strerror(number), str(path))
