"""How a run behaves: the options of every verb that change no byte of what it writes."""

import json
import logging
import sys
import time
import warnings
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Manners:
    """Options shared by all verbs; see `options.py` for what each means."""

    jobs: int = 1
    force: bool = False
    dry_run: bool = False
    json: bool = False
    ndjson: bool = False
    quiet: bool = False
    verbose: bool = False
    log_format: str = "plain"
    debug: bool = False
    keep_going: bool = False
    depfile: str | None = None
    deadline_s: float | None = None


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


def seconds(text: str) -> float:
    """Read a length of time such as `90`, `90s`, `30m` or `2h`, in seconds."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    number, unit = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1)
    value = float(number) * unit
    if not 0 <= value < float("inf"):
        raise ValueError(text)
    return value


def now() -> float:
    """Seconds on a clock that never goes back."""
    return time.monotonic()
