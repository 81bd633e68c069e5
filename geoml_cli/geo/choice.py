"""Which of the scenes that match to take: the newest, the least cloudy, enough to cover an area."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import shapely

from geoml_cli.errors import GeomlError
from geoml_cli.geo.query import cloud_of, ground_of, times_of

Item = dict[str, Any]
# what names the cell of a grid that a scene is of: one property, or several together
CELLS = (
    ("grid:code",),
    ("s2:mgrs_tile",),
    ("mgrs:utm_zone", "mgrs:latitude_band", "mgrs:grid_square"),
    ("landsat:wrs_type", "landsat:wrs_path", "landsat:wrs_row"),
    ("landsat:wrs_path", "landsat:wrs_row"),
    ("modis:horizontal-tile", "modis:vertical-tile"),
    ("naip:quad",),
)
SLIVER = 1e-6  # of the area: ground that is not worth a scene


@dataclass(frozen=True)
class Choice:
    """How to choose; all that is asked for applies, in this order.

    `per_month` keeps as many of each calendar month, the least cloudy ones; `latest` the newest;
    `per_cell` does either for each grid cell by itself and alone keeps its least cloudy scene;
    `cover` takes the least cloudy scenes until the area is covered once.
    `sort` ranks by other properties than cloud cover.
    """

    sort: tuple[tuple[str, bool], ...] = ()
    per_month: int | None = None
    latest: int | None = None
    per_cell: bool = False
    cover: bool = False

    @property
    def needs_all(self) -> bool:
        """Whether every match must be known before the first can be taken."""
        return bool(self.sort or self.per_month or self.latest or self.per_cell or self.cover)


def choose(items: Sequence[Item], choice: Choice, area: shapely.Geometry | None) -> list[int]:
    """Indexes of the items to take: in their order, or that of `sort`."""
    ranked = sorted(range(len(items)), key=lambda i: _rank(items[i]))
    if choice.sort:
        ranked = sort(items, choice.sort)
    taken = set(ranked)
    if choice.per_month or (choice.per_cell and not choice.latest):
        taken = _best(items, ranked, choice)
    if choice.latest:
        newest = sorted(taken, key=lambda i: (-_seconds(items[i]), str(items[i].get("id"))))
        taken = _first_of_each(items, newest, choice.latest, choice.per_cell, False)
    if choice.cover:
        taken = _covering(items, [i for i in ranked if i in taken], area)
    return [i for i in (ranked if choice.sort else range(len(items))) if i in taken]


def sort(items: Sequence[Item], by: Sequence[tuple[str, bool]]) -> list[int]:
    """Indexes in order of properties; what an item does not say comes last, ties keep their order."""
    order = list(range(len(items)))
    for name, falling in reversed(by):
        values = [_value(item, name) for item in items]
        known = [i for i in order if values[i] is not None]
        try:
            known.sort(key=lambda i: values[i], reverse=falling)
        except TypeError:
            raise GeomlError(f"--sort {name}: some items say a number and some a text") from None
        order = known + [i for i in order if values[i] is None]
    return order


def _value(item: Item, name: str) -> Any:
    said = item.get("properties") or {}
    value = said.get(name) if name in said else item.get(name)
    if name == "datetime" and value is None:
        value = said.get("start_datetime")
    return value if isinstance(value, str | int | float) else None


def _rank(item: Item) -> tuple[float, float, str]:
    """Least cloudy first, then newest."""
    cloud = cloud_of(item)
    return (101.0 if cloud is None else cloud, -_seconds(item), str(item.get("id")))


def _seconds(item: Item) -> float:
    first, last = times_of(item)
    when = last or first
    return when.timestamp() if when else float("-inf")


def _best(items: Sequence[Item], ranked: list[int], choice: Choice) -> set[int]:
    monthly = bool(choice.per_month)
    return _first_of_each(items, ranked, choice.per_month or 1, choice.per_cell, monthly)


def _first_of_each(
    items: Sequence[Item], ranked: list[int], count: int, by_cell: bool, by_month: bool
) -> set[int]:
    groups: defaultdict[tuple[str | None, ...], list[int]] = defaultdict(list)
    for i in ranked:
        key = (cell_of(items[i]) if by_cell else None, _month(items[i]) if by_month else None)
        groups[key].append(i)
    return {i for group in groups.values() for i in group[:count]}


def _month(item: Item) -> str:
    first, _ = times_of(item)
    return first.strftime("%Y-%m") if first else ""


def cell_of(item: Item) -> str:
    """The grid cell that a scene is of; raises where it does not say."""
    said = item.get("properties") or {}
    for names in CELLS:
        if all(said.get(name) is not None for name in names):
            return "/".join(str(said[name]) for name in names)
    raise GeomlError(f"item {item.get('id')}: names no grid cell (grid:code); leave out --per-cell")


def _covering(items: Sequence[Item], ranked: list[int], area: shapely.Geometry | None) -> set[int]:
    """Those of the ranked that add ground until none of the area is left."""
    assert area is not None
    left, taken = area, set()
    for i in ranked:
        ground = ground_of(items[i])
        rest = left if ground is None else shapely.difference(left, ground)
        if ground is None or left.area - rest.area > SLIVER * area.area:
            taken.add(i)
            left = rest
        if left.area <= SLIVER * area.area:
            break
    return taken
