"""What is looked for in a catalog, and whether an item is that: one rule for every source."""

import re
from calendar import monthrange
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import shapely

from geoml_cli.errors import GeomlError, UsageMistake
from geoml_cli.geo.bounds import across, area_of, cut
from geoml_cli.geo.grid import Bounds

WRITE = "write 2023, 2023-05, 2023-05-01, an RFC 3339 time, or two of them as A/B; .. leaves an end open"
CALENDAR = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d))?)?", re.ASCII)
INSTANT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)?", re.ASCII)


def _raise(error: GeomlError) -> None:
    raise error


@dataclass(frozen=True)
class Query:
    """What `geoml fetch` asks a source for; sources may leave out what `matches` would refuse.

    `area` is in CRS84, cut at the antimeridian; `start` and `end` are UTC, both included.
    A source adds to `files` what it reads, and hands to `trouble` what it can do without.
    """

    href: str
    collections: tuple[str, ...] = ()
    area: shapely.Geometry | None = None
    start: datetime | None = None
    end: datetime | None = None
    text: str | None = None  # what `href` holds, where that has been read already
    files: list[str] = field(default_factory=list, compare=False)
    trouble: Callable[[GeomlError], None] = field(default=_raise, compare=False)


def matches(query: Query, item: dict[str, Any]) -> bool:
    """Whether an item is of the collections, may share ground with the area, and overlaps the times."""
    if query.collections and collection_of(item) not in query.collections:
        return False
    if query.start or query.end:
        first, last = times_of(item)
        if first is None or last is None:
            return False
        if (query.end and first > query.end) or (query.start and last < query.start):
            return False
    if query.area is None:
        return True
    ground = ground_of(item)
    return ground is None or bool(shapely.intersects(query.area, ground))


def collection_of(item: dict[str, Any]) -> str | None:
    """Collection of an item."""
    return item.get("collection") or (item.get("properties") or {}).get("collection")


def times_of(item: dict[str, Any]) -> tuple[datetime | None, datetime | None]:
    """First and last moment of an item, UTC; None where it does not say."""
    said = item.get("properties") or {}
    first = said.get("start_datetime") or said.get("datetime")
    last = said.get("end_datetime") or said.get("datetime")
    return _moment(first, item), _moment(last, item)


def _moment(text: Any, item: dict[str, Any]) -> datetime | None:
    if text is None:
        return None
    try:
        when = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        raise GeomlError(
            f"item {item.get('id')}: {text!r} is no RFC 3339 time; mend the catalog"
        ) from None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).astimezone(UTC)


def ground_of(item: dict[str, Any]) -> shapely.Geometry | None:
    """Ground of an item in CRS84, cut at the antimeridian; None where it does not say.

    An outline that leaps over 180 degrees may be drawn across the antimeridian or round the
    world: both count, for a scene must not be missed and its pixels decide in the end.
    """
    box = item.get("bbox")
    try:
        if item.get("geometry") is None:
            if not box:
                return None
            half = len(box) // 2
            return area_of(Bounds(box[0], box[1], box[half], box[half + 1]))
        drawn = shapely.force_2d(shapely.geometry.shape(item["geometry"]))
        meant = across(drawn)
        if meant is None or not (box and box[0] > box[len(box) // 2]):
            drawn = shapely.make_valid(cut(drawn))
            meant = drawn if meant is None else shapely.union(drawn, meant)
        return None if meant.is_empty else meant
    except (
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        shapely.errors.ShapelyError,
    ) as error:
        raise GeomlError(
            f"item {item.get('id')}: damaged geometry ({error}); mend the catalog"
        ) from None


def parse_times(text: str) -> tuple[datetime | None, datetime | None]:
    """First and last moment, UTC, that `--datetime` means; both are included, None is open."""
    first, slash, last = (part.strip() for part in text.partition("/"))
    start = None if first in ("", "..") and slash else _unit(first, text)[0]
    end = (
        _unit(first, text)[1] if not slash else None if last in ("", "..") else _unit(last, text)[1]
    )
    if start is None and end is None:
        raise UsageMistake(f"--datetime {text!r}: names no time; {WRITE}")
    if start and end and start > end:
        raise UsageMistake(
            f"--datetime {text!r}: ends before it starts; put the earlier time first"
        )
    return start, end


def _unit(text: str, whole: str) -> tuple[datetime, datetime]:
    """First and last microsecond of a year, month, day or second."""
    try:
        if found := CALENDAR.fullmatch(text):
            year, month, day = (int(part) if part else None for part in found.groups())
            assert year is not None
            start = datetime(year, month or 1, day or 1, tzinfo=UTC)
            days = monthrange(year, month or 12)[1]
            last = start.replace(month=month or 12, day=day or days)
            return start, last.replace(hour=23, minute=59, second=59, microsecond=999999)
        if found := INSTANT.fullmatch(text):
            when = datetime.fromisoformat(text.upper())
            start = (when if when.tzinfo else when.replace(tzinfo=UTC)).astimezone(UTC)
            return start, start if found[1] else start.replace(microsecond=999999)
    except (ValueError, OverflowError):  # there is no 2023-02-30
        pass
    what = "no such time" if text == whole else f"{text!r} is no time"
    raise UsageMistake(f"--datetime {whole!r}: {what}; {WRITE}")
