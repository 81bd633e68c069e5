"""Spatial blocks: which ground trains, which validates, which tests.

The blocks are a lattice on the ground, in one CRS, so the same ground falls into the same
fold whatever scene, date or grid shows it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely

from geoml_cli.geo.grid import Bounds, Grid, between, same_crs


@dataclass(frozen=True)
class Lattice:
    """`rows` x `cols` blocks over `bounds` (units of `crs`), each with a fold; blocks outside repeat the rim's.

    `buffer` is the width, in CRS units, of the strip along other folds that must not train.
    """

    crs: str
    bounds: Bounds
    folds: tuple[tuple[int, ...], ...]
    buffer: float

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

    def fold_at(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Fold (uint8) of coordinates in the lattice's CRS."""
        b = self.bounds
        col = np.floor((np.asarray(x) - b.west) / (b.east - b.west) * self.cols)
        row = np.floor((b.north - np.asarray(y)) / (b.north - b.south) * self.rows)
        row, col = np.clip(row, 0, self.rows - 1), np.clip(col, 0, self.cols - 1)
        return np.asarray(self.folds, np.uint8)[row.astype(int), col.astype(int)]

    def near(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Bits (uint32) of the folds within `buffer` of coordinates, the own fold included.

        A square of half-width `buffer` < block touches no more blocks than its corners do.
        """
        bits = np.uint32(1) << self.fold_at(x, y).astype(np.uint32)
        for dx in (-self.buffer, self.buffer):
            for dy in (-self.buffer, self.buffer):
                bits |= np.uint32(1) << self.fold_at(x + dx, y + dy).astype(np.uint32)
        return bits

    def on(self, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
        """Fold (H, W) uint8 and near bits (H, W) uint32 of every pixel of a grid."""
        rows, cols = np.mgrid[: grid.height, : grid.width]
        x, y = grid.xy(rows, cols)
        if not same_crs(grid.crs, self.crs):
            x, y = between(grid.crs, self.crs).transform(x, y)
        return self.fold_at(x, y), self.near(x, y)

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
