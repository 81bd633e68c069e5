"""What a model is shown of some ground: windows of its sensors' frames, from scenes or from tiles."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np

from geoml_cli.errors import GeomlError
from geoml_cli.formats.bands import Band
from geoml_cli.formats.raster import physical
from geoml_cli.formats.tileset import Tiles
from geoml_cli.geo.grid import Grid, Window
from geoml_cli.geo.snap import shift_between
from geoml_cli.stages.gather import Images
from geoml_cli.stages.place import Frames, Place, Shot
from geoml_cli.stages.place_reader import PlaceReader, Read

LOOKS, LOOK_PX = 6, 48  # windows along a side, and their side: where dates are looked at


class Seen(NamedTuple):
    """What one sensor shows of a window: physical values (T, C, h, w) float32, valid (T, h, w), days (T,)."""

    images: np.ndarray
    valid: np.ndarray
    days: np.ndarray


class Shown(Protocol):
    """Ground on a grid, as sensors show it; plain data."""

    grid: Grid

    def open(self) -> "Looking":
        """Open its files; one per thread."""

    def on(self, grid: Grid) -> "Shown":
        """The same brought onto another grid."""


class Looking(Protocol):
    """Open files."""

    def read(self, window: Window) -> list[Seen]:
        """What every sensor shows of a window; nothing is valid beyond the grid."""

    def close(self) -> None:
        """Close the files."""


@dataclass(frozen=True)
class ShownPlace:
    """Scenes of a place; `frames` are the shots of each sensor that its frames are read from, None where there is none."""

    grid: Grid
    frames: tuple[tuple[Shot | None, ...], ...]
    bands: tuple[tuple[Band, ...], ...]

    def open(self) -> "Looking":
        """See Shown."""
        return _Scenes(self)

    def on(self, grid: Grid) -> "ShownPlace":
        """See Shown."""
        moved = tuple(
            tuple(
                shot and replace(shot, stacks=tuple(stack.on(grid) for stack in shot.stacks))
                for shot in sensor
            )
            for sensor in self.frames
        )
        return replace(self, grid=grid, frames=moved)


class _Scenes:
    """Open scenes of a place."""

    def __init__(self, shown: ShownPlace) -> None:
        self.shown = shown
        self.days = [
            np.array([day_of(shot.datetime if shot else None) for shot in sensor], np.float32)
            for sensor in shown.frames
        ]
        self._reader = PlaceReader(Frames(), [len(sensor) for sensor in shown.frames])

    def read(self, window: Window) -> list[Seen]:
        """See Looking."""
        return [self._sensor(i, window) for i in range(len(self.days))]

    def _sensor(self, i: int, window: Window) -> Seen:
        shots, bands = self.shown.frames[i], self.shown.bands[i]
        size = (window.height, window.width)
        out = np.zeros((len(shots), len(bands), *size), np.float32)
        valid = np.zeros((len(shots), *size), bool)
        for frame, shot in enumerate(shots):
            if shot is None:
                continue
            stored = np.empty((1, len(bands), *size), shot.stacks[0].dtype)
            read = Read(stored, valid[frame : frame + 1], [None])
            self._reader.put(read, 0, shot, window)
            out[frame] = physical(stored[0], shot.stacks[0].bands)
        return Seen(out, valid, self.days[i])

    def close(self) -> None:
        """See Looking."""
        self._reader.close()


def show(place: Place, frames: Frames, counts: Sequence[int]) -> ShownPlace:
    """Scenes of a place as frames. One choice of dates holds for all of the ground, whatever the windows:
    the one that most of some windows, spread over it, would make each for itself.
    """
    bands = tuple(sensor[0].stacks[0].bands for sensor in place.shots)
    if frames.kind == "one" and all(len(sensor) == 1 for sensor in place.shots):
        return ShownPlace(place.grid, tuple((sensor[0],) for sensor in place.shots), bands)
    votes: Counter[tuple[tuple[str | None, ...], ...]] = Counter()
    with PlaceReader(frames, counts) as reader:
        for window in _spread(place.grid):
            found = reader.read(place, window)
            if any(read.valid.any() for read in found):
                votes[tuple(tuple(read.dates) for read in found)] += 1
    if not votes:
        raise GeomlError(f"{place.id}: none of its dates shows any of the ground")
    dates = max(votes, key=lambda one: (votes[one], str(one)))
    chosen = tuple(
        tuple(_shot_of(shots, date, len(wanted) == 1) for date in wanted)
        for shots, wanted in zip(place.shots, dates, strict=True)
    )
    return ShownPlace(place.grid, chosen, bands)


def _shot_of(shots: Sequence[Shot], date: str | None, alone: bool) -> Shot | None:
    found = next((shot for shot in shots if shot.datetime == date), None)
    return found if date is not None or (alone and len(shots) == 1) else None


def _spread(grid: Grid) -> list[Window]:
    """Windows spread evenly over a grid."""
    spans = []
    for length in (grid.height, grid.width):
        size = min(LOOK_PX, length)
        spans.append((np.unique(np.linspace(0, length - size, LOOKS).round().astype(int)), size))
    (rows, height), (cols, width) = spans
    return [Window(int(r), int(c), height, width) for r in rows for c in cols]


def day_of(moment: str | None) -> float:
    """Days since 1970-01-01 of an RFC 3339 moment; NaN where it is unknown."""
    return (
        np.nan if moment is None else float(np.datetime64(moment[:19], "s").astype(float)) / 86400
    )


@dataclass(frozen=True)
class ShownTiles:
    """Tiles put together: `rows` of a tile set that lie on one grid; of several the first valid pixel counts."""

    tiles: Tiles
    grid: Grid
    rows: np.ndarray
    corners: np.ndarray  # (n, 2) row and column of each on the grid
    sensors: tuple[str, ...]

    def open(self) -> "Looking":
        """See Shown."""
        return _TilesOpen(self)

    def on(self, grid: Grid) -> "ShownTiles":
        """See Shown; only another part of the same pixels."""
        shift = shift_between(self.grid, grid) if grid.placed else (0, 0)
        if shift is None:
            raise GeomlError(f"{self.tiles.folder}: tiles are mapped on their own pixels only")
        return replace(self, grid=grid, corners=self.corners - np.array(shift))


class _TilesOpen:
    """Open tiles."""

    def __init__(self, shown: ShownTiles) -> None:
        self.shown = shown
        self.images = [Images(shown.tiles, name) for name in shown.sensors]
        self._days = [one.days() for one in self.images]

    def read(self, window: Window) -> list[Seen]:
        """See Looking."""
        shown, side = self.shown, self.shown.tiles.size
        top, left = (shown.corners - np.array([window.row, window.col])).T
        near = np.flatnonzero(
            (top < window.height) & (top > -side) & (left < window.width) & (left > -side)
        )
        return [
            self._sensor(one, days, shown.rows[near], top[near], left[near], window)
            for one, days in zip(self.images, self._days, strict=True)
        ]

    def _sensor(
        self,
        images: Images,
        days: np.ndarray,
        rows: np.ndarray,
        top: np.ndarray,
        left: np.ndarray,
        window: Window,
    ) -> Seen:
        frames, bands, side = images.head["frames"], len(images.head["bands"]), images.tiles.size
        out = np.zeros((frames, bands, window.height, window.width), np.float32)
        valid = np.zeros((frames, window.height, window.width), bool)
        for row, r, c in zip(rows, top, left, strict=True):
            one = np.array([row])
            values, seen = images.values(one)[0], images.valid(one)[0]
            here = slice(max(r, 0), r + side), slice(max(c, 0), c + side)
            there = (
                slice(max(-r, 0), min(side, window.height - r)),
                slice(max(-c, 0), min(side, window.width - c)),
            )
            fresh = seen[(..., *there)] & ~valid[(..., *here)]
            out[(..., *here)] = np.where(fresh[:, None], values[(..., *there)], out[(..., *here)])
            valid[(..., *here)] |= fresh
        when = days[rows[0]] if len(rows) else np.full(frames, np.nan, np.float32)
        return Seen(out, valid, when)

    def close(self) -> None:
        """See Looking."""


def show_tiles(tiles: Tiles, sensors: Sequence[str]) -> list[tuple[str, ShownTiles]]:
    """The ground of each scene that tiles were cut from, by name; a tile that lies nowhere is one of its own."""
    index, size = tiles.index, tiles.size
    found = []
    placed = (
        index["proj:code"].notna().to_numpy()
        if "proj:code" in index
        else np.zeros(len(index), bool)
    )
    for row in np.flatnonzero(~placed):
        grid = Grid("", _pixels(), size, size)
        corner = np.zeros((1, 2), int)
        found.append(
            (
                str(index["id"].iloc[row]),
                ShownTiles(tiles, grid, np.array([row]), corner, tuple(sensors)),
            )
        )
    for (scene, code), places in index[placed].groupby(["scene", "proj:code"]).indices.items():
        rows = np.flatnonzero(placed)[places]
        transforms = np.stack(index["proj:transform"].iloc[rows].to_list())[:, :6]
        first = transforms[0]
        cols = np.round((transforms[:, 2] - first[2]) / first[0]).astype(int)
        downs = np.round((transforms[:, 5] - first[5]) / first[4]).astype(int)
        base = Grid(str(code), _affine(first), size, size)
        top, left = int(downs.min()), int(cols.min())
        grid = base.crop(Window(top, left, int(np.ptp(downs)) + size, int(np.ptp(cols)) + size))
        corners = np.stack([downs - top, cols - left], axis=1)
        found.append((str(scene), ShownTiles(tiles, grid, rows, corners, tuple(sensors))))
    return found


def _affine(six: Sequence[float]) -> Any:
    from affine import Affine

    return Affine(*map(float, six))


def _pixels() -> Any:
    return _affine((1, 0, 0, 0, -1, 0))


def mirrored(
    read: Callable[[Window], list[Seen]], shape: tuple[int, int], window: Window, rim: str | None
) -> list[Seen]:
    """A window that may stick out of ground of `shape` px: mirrored there (`reflect`, or `symmetric` with
    the rim's own pixel twice); None: not valid there.
    """
    from geoml_cli.core.lattice import mirror

    inside = (
        window.row >= 0
        and window.col >= 0
        and window.row + window.height <= shape[0]
        and window.col + window.width <= shape[1]
    )
    if inside or rim is None:
        return read(window)
    twice = rim == "symmetric"
    rows = mirror(window.row, window.height, shape[0], twice)
    cols = mirror(window.col, window.width, shape[1], twice)
    top, left = int(rows.min()), int(cols.min())
    span = Window(top, left, int(rows.max()) - top + 1, int(cols.max()) - left + 1)
    there = rows[:, None] - top, cols[None] - left
    return [
        Seen(one.images[(..., *there)], one.valid[(..., *there)], one.days) for one in read(span)
    ]
