"""Ground on one grid and what shows it: scenes of several dates and sensors, read as frames."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import Any

from geoml_cli.errors import GeomlError, NothingMatched
from geoml_cli.geo.grid import Grid, Window
from geoml_cli.geo.snap import Target, shift_between
from geoml_cli.stages.stack import Stack


@dataclass(frozen=True)
class Shot:
    """What one sensor took of a place on one day: of scenes that overlap the first valid pixel counts."""

    datetime: str | None
    stacks: tuple[Stack, ...]


@dataclass(frozen=True)
class Place:
    """Ground on one grid, and the shots of each sensor, by date; plain data."""

    id: str
    grid: Grid
    shots: tuple[tuple[Shot, ...], ...]  # of each sensor

    def to_dict(self, name: Callable[[str], str]) -> dict[str, Any]:
        """As plain JSON values; `name` spells the path of a raster."""
        shots = [
            [[stack.to_dict(name) for stack in shot.stacks] for shot in sensor]
            for sensor in self.shots
        ]
        return {"id": self.id, **self.grid.to_dict(), "shots": shots}

    @classmethod
    def from_dict(cls, plain: dict[str, Any], path: Callable[[str], str]) -> "Place":
        """Read what `to_dict` gave; `path` undoes its `name`."""
        grid = Grid.from_dict(plain)
        sensors = []
        for sensor in plain["shots"]:
            shots = [[Stack.from_dict(one, grid, path) for one in shot] for shot in sensor]
            sensors.append(tuple(Shot(stacks[0].datetime, tuple(stacks)) for stacks in shots))
        return cls(plain["id"], grid, tuple(sensors))


@dataclass(frozen=True)
class Frames:
    """Which dates become the frames of a tile.

    `one`: the scene's own. `best`: of all dates the `count` that show most of the tile.
    `near`: for each of `slots` (dates) the nearest date that shows anything. `months`: in each of
    `slots` (YYYY-MM) the date that shows most. `days`: each of `slots` (YYYY-MM-DD), where there is one.
    """

    kind: str = "one"
    count: int = 1
    slots: tuple[str, ...] = ()
    within_days: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "Frames":
        """Read what `to_dict` gave."""
        return cls(**(plain | {"slots": tuple(plain["slots"])}))


def lay_places(
    stacks: list[list[Stack]], target: Target | None, frames: Frames, step: tuple[int, int]
) -> list[Place]:
    """Places for the stacks of every sensor: one a scene of the first sensor, or one a lattice of pixels.

    On a common grid (`target`) places begin and end on multiples of `step` (height, width) px of
    its lattice, so that the same ground lies in the same tile of every scene.
    """
    first, others = stacks[0], stacks[1:]
    places = []
    if frames.kind == "one":
        for stack in first:
            grid = _target_grid(stack.grid, target, step)
            if grid:
                shots = _shots([stack])
                places.append(Place(stack.scene, grid, (tuple(shots),)))
    else:
        for group in _lattices(first, target, step):
            grid = _union([grid for _, grid in group])
            places.append(Place(group[0][0].scene, grid, (tuple(_shots([s for s, _ in group])),)))
    if not places:
        raise NothingMatched("no scene lies on the grid that was asked for")
    return [_with_others(place, others) for place in places]


def _target_grid(grid: Grid, target: Target | None, step: tuple[int, int]) -> Grid | None:
    """Where a scene comes to lie; None where that is nothing."""
    if target is None:
        return grid
    if not grid.placed:
        raise GeomlError("a raster without a CRS cannot be brought onto a grid; give it one")
    found = target.grid(grid, None)
    return found if found is None or target.like else _widened(found, step)


def _widened(grid: Grid, step: tuple[int, int]) -> Grid:
    """A grid grown to multiples of `step` px of its lattice, whose origin is 0, 0 of the CRS."""
    t = grid.transform
    row, col = round(t.f / t.e), round(t.c / t.a)
    top, left = row // step[0] * step[0], col // step[1] * step[1]
    height = -(-(row + grid.height - top) // step[0]) * step[0]
    width = -(-(col + grid.width - left) // step[1]) * step[1]
    return grid.crop(Window(top - row, left - col, height, width))


def _lattices(
    stacks: list[Stack], target: Target | None, step: tuple[int, int]
) -> list[list[tuple[Stack, Grid]]]:
    """Stacks grouped by the lattice their pixels lie on, each with its grid there."""
    groups: list[list[tuple[Stack, Grid]]] = []
    for stack in stacks:
        grid = _target_grid(stack.grid, target, step)
        if grid is None:
            continue
        for group in groups:
            if shift_between(group[0][1], grid) is not None:
                group.append((stack, grid))
                break
        else:
            groups.append([(stack, grid)])
    return groups


def _union(grids: Sequence[Grid]) -> Grid:
    """The grid over grids of one lattice."""
    first = grids[0]
    spans = []
    for grid in grids:
        row, col = shift_between(first, grid) or (0, 0)
        spans.append((row, col, row + grid.height, col + grid.width))
    top, left = min(s[0] for s in spans), min(s[1] for s in spans)
    bottom, right = max(s[2] for s in spans), max(s[3] for s in spans)
    return first.crop(Window(top, left, bottom - top, right - left))


def _shots(stacks: Sequence[Stack]) -> list[Shot]:
    """Stacks by day, in order of time; those without a date are one shot, the last."""
    ordered = sorted(stacks, key=lambda s: (s.datetime is None, s.datetime or "", s.scene))
    days = groupby(ordered, key=lambda s: s.datetime and s.datetime[:10])
    return [Shot(group[0].datetime, tuple(group)) for group in (list(g) for _, g in days)]


def _with_others(place: Place, others: Sequence[list[Stack]]) -> Place:
    """The place with all shots brought onto its grid, and those of further sensors added."""
    every = [list(place.shots[0]), *(_shots(stacks) for stacks in others)]
    moved = [
        tuple(replace(shot, stacks=tuple(s.on(place.grid) for s in shot.stacks)) for shot in shots)
        for shots in every
    ]
    return replace(place, shots=tuple(moved))


def count_frames(shots: Sequence[Sequence[Shot]], frames: Frames) -> int:
    """Frames of a further sensor, given its shots at every place: 1 where none is dated."""
    dated = any(shot.datetime for one in shots for shot in one)
    return frames.count if dated else 1
