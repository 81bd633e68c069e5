"""What a sampler draws from, and what it gives: grids, the places on them where a tile fits, picks."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from geoml_cli.errors import UsageMistake
from geoml_cli.geo.grid import Grid, Window

PARTS = 1 << 20  # the heaviest of several weights, in whole parts
log = logging.getLogger("geoml")


class Pick(NamedTuple):
    """One tile of a layout.

    `own` is the part of the window, in the same pixel coordinates of the place's grid, whose
    ground no earlier tile of the layout holds; None: all of it.
    """

    place: int
    window: Window
    own: Window | None


class Positions:
    """Every position where a tile lies wholly inside a place, numbered: place by place, row by row."""

    def __init__(self, grids: tuple[Grid, ...], size: tuple[int, int]) -> None:
        shapes = np.array([(g.height, g.width) for g in grids], np.int64).reshape(-1, 2)
        self.size = size
        self.fits = (shapes[:, 0] >= size[0]) & (shapes[:, 1] >= size[1])  # (places,)
        self.room = np.where(self.fits[:, None], shapes - size + 1, 0)  # (places, 2) down, across
        self.each = self.room.prod(axis=1)
        self._ends = np.cumsum(self.each)

    @property
    def total(self) -> int:
        """How many there are."""
        return int(self.each.sum())

    def split(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Place, first row and first column of positions (n,) by their number."""
        places = np.searchsorted(self._ends, numbers, side="right")
        inside = numbers - (self._ends - self.each)[places]
        rows, cols = np.divmod(inside, self.room[places, 1])
        return places, rows, cols

    def join(self, places: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
        """Numbers (n,) of positions by place, first row and first column."""
        first = (self._ends - self.each)[places]
        return first + rows * self.room[places, 1] + cols

    def around(self, places: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
        """Numbers (n,) of the positions centred on pixels of places where a tile fits, moved inside."""
        down = np.clip(rows - self.size[0] // 2, 0, self.room[places, 0] - 1)
        across = np.clip(cols - self.size[1] // 2, 0, self.room[places, 1] - 1)
        return self.join(places, down, across)


@dataclass(frozen=True)
class Field:
    """What a sampler draws from: the grids of the places in order, sizes, and what lies on the ground.

    `size` and `stride` are (height, width) in pixels. `strata` gives the class ids (h, w) uint8
    of the first label layer on a window of place i, 255 where there is none; it is None where
    there are no classes. `read_strata` gives the same for a file, a class raster or polygons.
    `read_places` gives for a file of n features, per place, the points (n, 2) x, y of their
    centroids in that place's CRS, not finite where it cannot express them.
    """

    grids: tuple[Grid, ...]
    size: tuple[int, int]
    stride: tuple[int, int]
    strata: Callable[[int, Window], np.ndarray] | None
    read_strata: Callable[[str], Callable[[int, Window], np.ndarray]]
    read_places: Callable[[str], list[np.ndarray]]

    @cached_property
    def positions(self) -> Positions:
        """Where a tile fits; says how many places are too small for one."""
        found = Positions(self.grids, self.size)
        if small := int((~found.fits).sum()):
            log.warning(
                "%d of %d scenes are smaller than a tile of %d x %d px; left out",
                small,
                len(self.grids),
                *self.size,
            )
        return found

    def how_many(self, count: int | None) -> int:
        """The asked number of tiles; without one, as many as would cover the scenes side by side.

        Only scenes that a tile fits in are counted, as TorchGeo does for its random sampler.
        """
        if count is not None and count < 1:
            raise UsageMistake(f"--sampler ...:count={count}: give at least 1")
        if count is not None:
            return count
        fits = np.flatnonzero(self.positions.fits).tolist()
        shapes = [(self.grids[i].height, self.grids[i].width) for i in fits]
        return sum(-(-h // self.size[0]) * -(-w // self.size[1]) for h, w in shapes)

    def picks(self, numbers: np.ndarray) -> list[Pick]:
        """The tiles at positions (n,) by their number, in the order of the ground: place, row, column."""
        places, rows, cols = (v.tolist() for v in self.positions.split(np.sort(numbers)))
        high, wide = self.size
        return [
            Pick(place, Window(row, col, high, wide), None)
            for place, row, col in zip(places, rows, cols, strict=True)
        ]


def choose(rng: np.random.Generator, weights: np.ndarray, count: int) -> np.ndarray:
    """Indices (count,) drawn with replacement by weight (n,), at least one of which is above 0.

    Weights are rounded to whole parts first, so that the last bits of a number, which differ
    from machine to machine, do not change what is drawn.
    """
    parts = np.rint(weights / weights.max() * PARTS).astype(np.int64)
    ends = np.cumsum(parts)
    return np.searchsorted(ends, rng.integers(0, ends[-1], count), side="right")
