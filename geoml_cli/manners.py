"""How a run behaves: the options of every verb that change no byte of what it writes."""

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
