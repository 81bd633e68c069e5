"""What is looked for in a catalog, and whether an item is that: one rule for every source."""

import re
from calendar import monthrange
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import shapely
from dateutil.relativedelta import relativedelta

from geoml_cli.errors import GeomlError, UsageMistake
from geoml_cli.geo.bounds import across, area_of, cut
from geoml_cli.geo.cql import passes
from geoml_cli.geo.grid import Bounds

WRITE = "write 2023, 2023-05, 2023-05-01, an RFC 3339 time, or two of them as A/B; .. leaves an end open, P30D is a length of time"
CALENDAR = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d))?)?", re.ASCII)
INSTANT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)?", re.ASCII)
LENGTH = re.compile(
    r"P(?=\d|T\d)(?:(?P<years>\d+)Y)?(?:(?P<months>\d+)M)?(?:(?P<weeks>\d+)W)?(?:(?P<days>\d+)D)?"
    r"(?:T(?=\d)(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+)S)?)?",
    re.ASCII,
)


def _raise(error: GeomlError) -> None:
    raise error


@dataclass(frozen=True)
class Query:
    """What `geoml fetch` asks a source for; sources may leave out what `matches` would refuse.

    `area` is in CRS84, cut at the antimeridian; `start` and `end` are UTC, both included.
    `max_cloud` is in percent, `filter` CQL2 as JSON, `sort` pairs of property and whether it
    falls; `limit` is how many items will be taken at most, where that is known before.
    A source adds to `files` what it reads, and hands to `trouble` what it can do without.
    """

    href: str
    collections: tuple[str, ...] = ()
    area: shapely.Geometry | None = None
    start: datetime | None = None
    end: datetime | None = None
    ids: tuple[str, ...] = ()
    max_cloud: float | None = None
    filter: dict[str, Any] | None = None
    sort: tuple[tuple[str, bool], ...] = ()
    limit: int | None = None
    tries: int = 6  # of each request, and seconds that its answer may take
    timeout_s: float = 60
    text: str | None = None  # what `href` holds, where that has been read already
    files: list[str] = field(default_factory=list, compare=False)
    trouble: Callable[[GeomlError], None] = field(default=_raise, compare=False)


def matches(query: Query, item: dict[str, Any]) -> bool:
    """Whether an item is what is looked for; of its ground and the area it is enough that they may meet."""
    if query.collections and collection_of(item) not in query.collections:
        return False
    if query.ids and item.get("id") not in query.ids:
        return False
    if query.max_cloud is not None:
        cloud = cloud_of(item)
        if cloud is None or cloud > query.max_cloud:
            return False
    if query.start or query.end:
        first, last = times_of(item)
        if first is None or last is None:
            return False
        if (query.end and first > query.end) or (query.start and last < query.start):
            return False
    if query.filter and not passes(query.filter, item):
        return False
    if query.area is None:
        return True
    ground = ground_of(item)
    return ground is None or bool(shapely.intersects(query.area, ground))


def cloud_of(item: dict[str, Any]) -> float | None:
    """Cloud cover in percent; None where the item does not say."""
    said = (item.get("properties") or {}).get("eo:cloud_cover")
    return float(said) if isinstance(said, int | float) and not isinstance(said, bool) else None


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


def parse_times(text: str, now: datetime | None = None) -> tuple[datetime | None, datetime | None]:
    """First and last moment, UTC, that `--datetime` means; both are included, None is open.

    A length of time (ISO 8601, such as P30D) lasts until the moment behind it, or begins with the
    one before it; alone, or with an open end, it goes back from now.
    """
    first, slash, last = (part.strip() for part in text.partition("/"))
    first_s, last_s = _length(first), _length(last) if slash else None
    if first_s and last_s:
        raise UsageMistake(f"--datetime {text!r}: two lengths and no moment; {WRITE}")
    if first_s:
        ends = _unit(last, text)[1] if last not in ("", "..") else None
        return _moved(ends or now or datetime.now(UTC), first_s, -1, text), ends
    start = None if first in ("", "..") and slash else _unit(first, text)[0]
    if last_s:
        if start is None:
            raise UsageMistake(f"--datetime {text!r}: a length that begins nowhere; {WRITE}")
        return start, _moved(start, last_s, 1, text)
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


def _length(text: str) -> relativedelta | None:
    """A length of time; None where the text is none."""
    found = LENGTH.fullmatch(text.upper())
    if not found:
        return None
    return relativedelta(**{k: int(v) for k, v in found.groupdict().items() if v})


def _moved(when: datetime, length: relativedelta, sign: int, whole: str) -> datetime:
    try:
        return when + sign * length
    except (ValueError, OverflowError):
        raise UsageMistake(f"--datetime {whole!r}: leads out of the calendar; {WRITE}") from None


def parse_sort(text: str) -> tuple[tuple[str, bool], ...]:
    """Read `--sort`: properties, the most important first; a minus before one that is to fall."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    found = tuple((part.lstrip("+-").removeprefix("properties."), part[0] == "-") for part in parts)
    if not found or not all(name for name, _ in found):
        raise UsageMistake(f"--sort {text!r}: name properties, such as -datetime or eo:cloud_cover")
    return found


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
