"""What `geoml tile` is asked for, read from words: sizes, dates, values for one layer or sensor."""

import re
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from geoml_cli.errors import GeomlError, UsageMistake
from geoml_cli.geo.grid import Grid
from geoml_cli.stages.place import Frames
from geoml_cli.stages.stack import Stack

NAMED = re.compile(r"([A-Za-z][A-Za-z0-9_]*)=(.+)", re.DOTALL)
MONTHS = "monthly"


def named_values(given: Sequence[str], option: str, first: str) -> dict[str, str]:
    """Values of a repeated `[NAME=]VALUE`; the first without a name is called `first`."""
    found: dict[str, str] = {}
    for text in given:
        match = NAMED.fullmatch(text)
        name, value = match.groups() if match and not Path(text).exists() else (first, text)
        if name in found:
            raise UsageMistake(f"{option}: two are called {name!r}; write NAME={value}")
        found[name] = value
    return found


def value_for(given: Sequence[str], name: str, names: Sequence[str], option: str) -> str | None:
    """The value that a repeated `[NAME=]VALUE` gives to one name: its own, or the one for all."""
    own, common = None, None
    for text in given:
        head, eq, tail = text.partition("=")
        if eq and head in names:
            own = tail if head == name else own
        elif common is not None:
            raise UsageMistake(f"{option} {text!r}: two without a name; write NAME={text}")
        else:
            common = text
    return own if own is not None else common


def side(text: str, option: str) -> tuple[float, str | None]:
    """A length as (number, None for pixels, or m or km)."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(m|km)?", text.strip())
    if not match or (match[2] is None and "." in match[1]) or float(match[1]) <= 0:
        raise UsageMistake(f"{option} {text!r}: write whole pixels as 256, or metres as 2560m")
    return float(match[1]), match[2]


def pixels(text: str, option: str, grid: Grid) -> int:
    """A length as `256` (pixels) or `2560m` (on the ground, of the grid's pixels, rounded)."""
    number, unit = side(text, option)
    if unit is None:
        return int(number)
    if not grid.placed:
        raise UsageMistake(f"{option} {text!r}: without a CRS there are no metres; write pixels")
    return max(1, round(number * (1000 if unit == "km" else 1) / grid.gsd_m()))


def length(text: str, option: str) -> tuple[float, str]:
    """A length as (number, "px" or "m")."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(px|m|km)?", text.strip())
    if not match:
        raise UsageMistake(f"{option} {text!r}: write pixels as 8, or metres as 250m")
    number, unit = float(match[1]), match[2] or "px"
    return (number * 1000, "m") if unit == "km" else (number, unit)


def check_frames(text: str | None) -> None:
    """Refuse what --frames does not take, before anything is opened."""
    if text is None or text in ("all", MONTHS) or (text.isdigit() and int(text) > 0):
        return
    for part in text.split(","):
        try:
            date.fromisoformat(part.strip()[:10])
        except ValueError:
            raise UsageMistake(
                f"--frames {text!r}: write a number, all, {MONTHS}, or dates as 2023-05-01,2023-08-01"
            ) from None


def frames_of(text: str | None, within: float | None, stacks: Sequence[Stack]) -> Frames:
    """Which dates become frames, given the stacks of the first sensor."""
    if text is None:
        return Frames(within_days=within)
    moments = sorted(stack.datetime for stack in stacks if stack.datetime)
    if not moments:
        raise GeomlError(f"--frames {text}: none of the scenes has a date")
    if text.isdigit():
        return Frames("best", int(text), (), within)
    if text == "all":
        days = tuple(sorted({moment[:10] for moment in moments}))
        return Frames("days", len(days), days, within)
    if text == MONTHS:
        slots = _months(moments[0], moments[-1])
        return Frames("months", len(slots), slots, within)
    slots = tuple(part.strip() for part in text.split(","))
    return Frames("near", len(slots), slots, within)


def _months(first: str, last: str) -> tuple[str, ...]:
    """Every YYYY-MM from one moment to another."""
    number = int(first[:4]) * 12 + int(first[5:7]) - 1
    end = int(last[:4]) * 12 + int(last[5:7]) - 1
    return tuple(f"{n // 12:04d}-{n % 12 + 1:02d}" for n in range(number, end + 1))
