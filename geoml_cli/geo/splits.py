"""Which ground trains, which validates, which tests: what a split is, and blocks over some bounds.

A split is laid on the ground, so the same ground falls into the same fold whatever scene, date
or grid shows it.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import shapely

from geoml_cli.geo.bounds import footprint, project
from geoml_cli.geo.deal import deal
from geoml_cli.geo.grid import LONLAT, Bounds, Grid, between, same_crs

NONE = 255  # the fold of ground on no side: it never trains, validates or tests
PLAIN = (70, 15, 15)  # per cent of the ground that train, validate and test
RING = 512  # steps along a lattice's side when it is drawn in degrees


class Split(Protocol):
    """Ground dealt into folds."""

    grids_only: bool  # folds belong to whole grids (tiles): a pixel alone has none

    @property
    def count(self) -> int:
        """Number of folds."""

    def on(self, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
        """Fold (H, W) uint8 of every pixel, 255 on no side, and bits (H, W) uint32 of the folds near it."""

    def areas(self, ground: shapely.Geometry) -> list[tuple[int, shapely.Geometry]]:
        """Ground (CRS84) of each fold within some; no two share any."""

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""


@dataclass(frozen=True)
class Lattice:
    """`rows` x `cols` blocks over `bounds` (units of `crs`), each with a fold; blocks outside repeat the rim's.

    `buffer` is the width, in CRS units, of the strip along other folds that must not train.
    """

    crs: str
    bounds: Bounds
    folds: tuple[tuple[int, ...], ...]
    buffer: float
    grids_only = False

    @property
    def rows(self) -> int:
        """Rows of blocks, north to south."""
        return len(self.folds)

    @property
    def cols(self) -> int:
        """Columns of blocks, west to east."""
        return len(self.folds[0])

    @property
    def count(self) -> int:
        """Number of folds."""
        return max(max(row) for row in self.folds) + 1

    def block_at(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Row and column of the block of coordinates in the lattice's CRS."""
        b = self.bounds
        col = np.floor((np.asarray(x) - b.west) / (b.east - b.west) * self.cols)
        row = np.floor((b.north - np.asarray(y)) / (b.north - b.south) * self.rows)
        row, col = np.clip(row, 0, self.rows - 1), np.clip(col, 0, self.cols - 1)
        return row.astype(int), col.astype(int)

    def fold_at(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Fold (uint8) of coordinates in the lattice's CRS."""
        return np.asarray(self.folds, np.uint8)[self.block_at(x, y)]

    def near(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Bits (uint32) of the folds within `buffer` of coordinates, the own fold included.

        A square of half-width `buffer` < block touches no more blocks than its corners do.
        """
        bits = np.uint32(1) << np.asarray(self.folds, np.uint32)
        found = bits[self.block_at(x, y)]
        for dx in (-self.buffer, self.buffer):
            for dy in (-self.buffer, self.buffer):
                found = found | bits[self.block_at(x + dx, y + dy)]
        return found

    def on(self, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
        """Fold (H, W) uint8 and near bits (H, W) uint32 of every pixel of a grid."""
        x, y = self._places(grid)
        return self.fold_at(x, y), self.near(x, y)

    def numbers(self, grid: Grid) -> np.ndarray:
        """Number (H, W) of the block of every pixel of a grid, counted row by row."""
        row, col = self.block_at(*self._places(grid))
        return row * self.cols + col

    def _places(self, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
        """Pixel centres in the lattice's CRS: (H, W), or a row and a column of them that broadcast."""
        rows, cols = np.ogrid[: grid.height, : grid.width]
        if same_crs(grid.crs, self.crs) and grid.north_up:
            return grid.xy(np.array(0), cols)[0], grid.xy(rows, np.array(0))[1]
        x, y = grid.xy(*np.broadcast_arrays(rows, cols))
        return (x, y) if same_crs(grid.crs, self.crs) else _moved(grid.crs, self.crs, x, y)

    def boxes(self) -> list[tuple[int, shapely.Polygon]]:
        """Fold and rectangle (lattice CRS) of every block, row by row."""
        b = self.bounds
        xs = np.linspace(b.west, b.east, self.cols + 1)
        ys = np.linspace(b.north, b.south, self.rows + 1)
        return [
            (self.folds[r][c], shapely.box(xs[c], ys[r + 1], xs[c + 1], ys[r]))
            for r in range(self.rows)
            for c in range(self.cols)
        ]

    def areas(self, ground: shapely.Geometry) -> list[tuple[int, shapely.Geometry]]:
        """Ground (CRS84) of each fold within some; what lies outside the bounds goes with the rim."""
        xs, ys = self._lines(ground)
        by_fold: dict[int, list[shapely.Geometry]] = {}
        for r in range(self.rows):
            for c in range(self.cols):
                block = footprint(_ring(self.crs, xs[c], ys[r]))
                by_fold.setdefault(self.folds[r][c], []).append(shapely.make_valid(block))
        found = [
            (fold, shapely.intersection(shapely.union_all(blocks), ground))
            for fold, blocks in sorted(by_fold.items())
        ]
        return [(fold, area) for fold, area in found if area.area > 0]

    def _lines(self, ground: shapely.Geometry) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates (n, steps + 1) along each column and each row of blocks, the rim's as far as the ground."""
        b, steps = self.bounds, max(4, RING // max(self.rows, self.cols))
        xs = np.linspace(b.west, b.east, self.cols + 1)
        ys = np.linspace(b.north, b.south, self.rows + 1)
        west, south, east, north = shapely.bounds(ground)
        dense = shapely.segmentize(ground, max(east - west, north - south) / RING)
        xy = shapely.get_coordinates(project(dense, LONLAT, self.crs))
        if np.isfinite(xy).all() and not _turned(self.crs, xy):
            xs[0], xs[-1] = min(xs[0], xy[:, 0].min()), max(xs[-1], xy[:, 0].max())
            ys[0], ys[-1] = max(ys[0], xy[:, 1].max()), min(ys[-1], xy[:, 1].min())
        return np.linspace(xs[:-1], xs[1:], steps + 1).T, np.linspace(ys[:-1], ys[1:], steps + 1).T

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "kind": "blocks",
            "crs": self.crs,
            "bounds": list(self.bounds),
            "folds": [list(row) for row in self.folds],
            "buffer": self.buffer,
        }

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "Lattice":
        """Read what `to_dict` gave."""
        return cls(
            plain["crs"],
            Bounds(*plain["bounds"]),
            tuple(tuple(row) for row in plain["folds"]),
            plain["buffer"],
        )


def _moved(source: str, target: str, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = between(source, target).transform(x, y)
    return x, y


def _turned(crs: str, xy: np.ndarray) -> bool:
    """Whether coordinates in degrees lie on both sides of the antimeridian."""
    return between(crs, LONLAT).source_crs.is_geographic and np.ptp(xy[:, 0]) > 180  # type: ignore[union-attr]


def _ring(crs: str, xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
    """Closed CRS84 ring (n, 2) round a block; neighbours share their vertices to the last bit."""
    x = np.concatenate([xs, np.full(len(ys) - 1, xs[-1]), xs[-2::-1], np.full(len(ys) - 1, xs[0])])
    y = np.concatenate([np.full(len(xs), ys[0]), ys[1:], np.full(len(xs) - 1, ys[-1]), ys[-2::-1]])
    return np.column_stack(between(crs, LONLAT).transform(x, y))


def assign(blocks: int, folds: int, seed: int) -> tuple[tuple[int, ...], ...]:
    """Deal `blocks` x `blocks` blocks into folds of equal count (to one block), shuffled."""
    rng = np.random.Generator(np.random.PCG64(seed))
    dealt = np.arange(blocks * blocks) % folds
    rng.shuffle(dealt)
    return tuple(tuple(int(f) for f in row) for row in dealt.reshape(blocks, blocks))


def portion(
    blocks: int, shares: tuple[float, float, float], seed: int
) -> tuple[tuple[int, ...], ...]:
    """Deal blocks into train (0), validation (1) and test (2) by shares that add up to 1."""
    count = blocks * blocks
    test, val = round(count * shares[2]), round(count * shares[1])
    dealt = np.array([2] * test + [1] * val + [0] * (count - test - val))
    np.random.Generator(np.random.PCG64(seed)).shuffle(dealt)
    return tuple(tuple(int(f) for f in row) for row in dealt.reshape(blocks, blocks))


def balance(weights: np.ndarray, shares: tuple[int, ...], seed: int) -> tuple[tuple[int, ...], ...]:
    """Deal blocks so that each fold has its share of every class; weights (rows, cols, classes) are labelled pixels.

    Every fold gets labelled blocks where there are enough of them. Blocks without labels are
    dealt by their count alone.
    """
    rows, cols, classes = weights.shape
    flat = weights.reshape(rows * cols, classes)
    bare = (flat.sum(axis=1) == 0)[:, None]
    dealt = deal(np.concatenate([flat, bare], axis=1), shares, seed, must=~bare[:, 0])
    return tuple(tuple(int(f) for f in row) for row in dealt.reshape(rows, cols))
