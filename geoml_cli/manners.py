"""How a run behaves: the options of every verb that change no byte of what it writes."""

import json
import logging
import sys
import time
from dataclasses import dataclass


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


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {"level": record.levelname.lower(), "message": record.getMessage(), "time": record.created}
        return json.dumps(line, sort_keys=True)


class _Plain(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        mark = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        return f"geoml: {mark}{' '.join(record.getMessage().splitlines())}"


def start_log(manners: Manners) -> None:
    """Send the `geoml` log to stderr: a person's notes on a terminal, warnings alone elsewhere."""
    log = logging.getLogger("geoml")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines() if manners.log_format == "json" else _Plain())
    log.handlers[:] = [handler]
    log.propagate = False
    talk = manners.verbose or (sys.stderr.isatty() and not manners.quiet)
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
