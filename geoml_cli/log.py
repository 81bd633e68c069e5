"""The `geoml` log on stderr, for people or as JSON; imported when a command runs, not for its help."""

import json
import logging
import sys
import time
import warnings
from typing import Any

from geoml_cli.manners import Manners


def json_line(level: str, message: str, **more: int) -> str:
    """One line of `--log-format json`; `time` is in seconds since 1970, UTC."""
    return json.dumps(
        {"level": level, "message": message, "time": time.time()} | more, sort_keys=True
    )


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return json_line(record.levelname.lower(), record.getMessage())


class _Plain(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        mark = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        return f"geoml: {mark}{' '.join(record.getMessage().splitlines())}"


def _tell_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """Stand in for `warnings.showwarning`; deprecations are the programmer's business."""
    if not issubclass(category, DeprecationWarning | PendingDeprecationWarning):
        logging.getLogger("geoml").warning("%s", message)


def start_log(manners: Manners) -> None:
    """Send the `geoml` log to stderr: a person's notes on a terminal, warnings alone elsewhere.

    The warnings of libraries go the same way: one line each, as JSON where that is asked for.
    """
    log = logging.getLogger("geoml")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines() if manners.log_format == "json" else _Plain())
    log.handlers[:] = [handler]
    log.propagate = False
    talk = manners.verbose or (sys.stderr.isatty() and not manners.quiet)
    warnings.showwarning = _tell_warning
    log.setLevel(logging.DEBUG if manners.verbose else logging.INFO if talk else logging.WARNING)
