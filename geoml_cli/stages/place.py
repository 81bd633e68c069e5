"""Ground on one grid and what shows it: scenes of several dates and sensors, read as frames."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import numpy as np

from geoml_cli.errors import GeomlError, NothingMatched
from geoml_cli.geo.grid import Grid, Window
from geoml_cli.geo.snap import Target, shift_between
from geoml_cli.stages.stack import Stack, StackReader

OPEN = 48  # stacks that a reader keeps open


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


@dataclass
class Read:
    """What a tile shows to one sensor: images (T, C, H, W), valid (T, H, W), a date or None a frame."""

    images: np.ndarray
    valid: np.ndarray
    dates: list[str | None]


class PlaceReader:
    """Reads tiles of places; one per thread. Files stay open until others need the room."""

    def __init__(self, frames: Frames, counts: Sequence[int]) -> None:
        self.frames, self.counts = frames, counts
        self._open: dict[int, StackReader] = {}

    def close(self) -> None:
        """Close all files."""
        while self._open:
            self._open.popitem()[1].close()

    def __enter__(self) -> "PlaceReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _reader(self, stack: Stack) -> StackReader:
        found = self._open.pop(id(stack), None) or StackReader(stack)  # it holds the stack
        while len(self._open) >= OPEN:
            self._open.pop(next(iter(self._open))).close()
        self._open[id(stack)] = found  # the last used is the last to go
        return found

    def read(
        self, place: Place, window: Window, out: Sequence[np.ndarray] | None = None
    ) -> list[Read]:
        """What every sensor shows of a window; `out` (T, C, H, W) a sensor is written to, if given."""
        found: list[Read] = []
        for sensor, shots in enumerate(place.shots):
            count = self.counts[sensor]
            stack = shots[0].stacks[0]
            shape = (count, len(stack.order), window.height, window.width)
            images = np.empty(shape, stack.dtype) if out is None else out[sensor]
            read = Read(images, np.zeros((count, *shape[2:]), bool), [None] * count)
            self._fill(read, shots, window, found[0].dates if found else None)
            found.append(read)
        return found

    def _fill(
        self, read: Read, shots: Sequence[Shot], window: Window, beside: list[str | None] | None
    ) -> None:
        """Choose and read the frames of one sensor; `beside` are the dates of the first sensor."""
        frames = self.frames
        if len(read.dates) == 1 and (beside is None and frames.kind == "one" or len(shots) == 1):
            self._put(read, 0, shots[0], window)
        elif beside is not None:
            for frame, when in enumerate(beside):
                self._nearest(read, frame, shots, when, window)
        elif frames.kind == "near":
            for frame, slot in enumerate(frames.slots):
                self._nearest(read, frame, shots, slot, window)
        elif frames.kind == "best":
            self._best(read, shots, window)
        else:
            self._slots(read, shots, window)

    def _put(self, read: Read, frame: int, shot: Shot, window: Window) -> int:
        """Read a shot into a frame; give the number of valid pixels."""
        image, valid = read.images[frame], read.valid[frame]
        for n, stack in enumerate(shot.stacks):
            reader = self._reader(stack)
            if n == 0:
                _, valid[:] = reader.read(window, image)
            else:
                more, seen = reader.read(window)
                fresh = seen & ~valid
                image[:, fresh] = more[:, fresh]
                valid |= fresh
            if valid.all():
                break
        read.dates[frame] = shot.datetime
        return int(np.count_nonzero(valid))

    def _clear(self, read: Read, frame: int) -> None:
        read.images[frame], read.valid[frame], read.dates[frame] = 0, False, None

    def _nearest(
        self, read: Read, frame: int, shots: Sequence[Shot], when: str | None, window: Window
    ) -> None:
        limit = self.frames.within_days
        for shot in sorted(shots, key=lambda shot: _days_between(shot.datetime, when)):
            away = _days_between(shot.datetime, when)
            if limit is not None and when and away > limit:
                break
            if self._put(read, frame, shot, window):
                return
        self._clear(read, frame)

    def _best(self, read: Read, shots: Sequence[Shot], window: Window) -> None:
        """The frames that show most, in order of time; of equals the later."""
        count = len(read.dates)
        one = self._spare(read)
        shown = [self._put(one, 0, shot, window) for shot in shots]
        order = sorted(range(len(shots)), key=lambda i: (shown[i], i), reverse=True)
        chosen = sorted(i for i in order[:count] if shown[i])
        for frame in range(count):
            if frame < len(chosen):
                self._put(read, frame, shots[chosen[frame]], window)
            else:
                self._clear(read, frame)

    def _slots(self, read: Read, shots: Sequence[Shot], window: Window) -> None:
        """In each slot the shot that shows most; of equals the earlier."""
        wide = 7 if self.frames.kind == "months" else 10
        one = self._spare(read)
        for frame, slot in enumerate(self.frames.slots):
            best = 0
            self._clear(read, frame)
            for shot in shots:
                if shot.datetime and shot.datetime[:wide] == slot:
                    shown = self._put(one, 0, shot, window)
                    if shown > best:
                        best = shown
                        read.images[frame], read.valid[frame] = one.images[0], one.valid[0]
                        read.dates[frame] = shot.datetime

    def _spare(self, read: Read) -> Read:
        return Read(np.empty_like(read.images[:1]), np.zeros_like(read.valid[:1]), [None])

    def cloudy(self, place: Place, window: Window, dates: Sequence[str | None]) -> float | None:
        """Share of a window that is cloud, over those shots of the first sensor that its frames are of."""
        shares = [
            share
            for shot in place.shots[0]
            for stack in shot.stacks
            if stack.cloud and shot.datetime in dates
            if (share := self._reader(stack).cloudy(window)) is not None
        ]
        return float(np.mean(shares)) if shares else None


def _days_between(a: str | None, b: str | None) -> float:
    """Days between two moments; a day that is not known is further than any that is."""
    if a is None or b is None:
        return 1e9 if a is None else 0.0
    return abs((_moment(a) - _moment(b)).total_seconds()) / 86400


def _moment(text: str) -> datetime:
    when = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return when if when.tzinfo else when.replace(tzinfo=UTC)
