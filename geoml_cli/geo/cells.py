"""Cells of equal size on the globe, each dealt into a fold by a hash of its place.

Rows run along parallels; each has a whole number of columns, so that cells are about as wide as
high from pole to pole. They do not depend on any scene: the same ground is on the same side in
every run, at every date, of every sensor, in every CRS.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np
import shapely

from geoml_cli.errors import GeomlError
from geoml_cli.geo.grid import LONLAT, Grid, apply, between
from geoml_cli.geo.metric import lonlat
from geoml_cli.geo.splits import NONE

RADIUS_M = 6371007.2  # of the sphere with the Earth's surface
TIGHTEST_M = (
    6335439.0  # the smallest radius of curvature of WGS 84: no distance is shorter than on it
)
MOST_CELLS = 2_000_000


@dataclass(frozen=True)
class Cells:
    """Cells about `size_m` high and wide, dealt into folds by `shares` (whole numbers, one a fold).

    `buffer_m` is the width of the strip along other folds that must not train; at most half a cell.
    """

    size_m: float
    shares: tuple[int, ...]
    seed: int
    buffer_m: float
    grids_only = False

    @property
    def count(self) -> int:
        """Number of folds."""
        return len(self.shares)

    @property
    def rows(self) -> int:
        """Rows from pole to pole, north first."""
        return max(2, round(math.pi * RADIUS_M / self.size_m))

    def cols(self, row: np.ndarray) -> np.ndarray:
        """Columns round the world of each row, east from the antimeridian."""
        middle = np.sin((np.asarray(row) + 0.5) * (math.pi / self.rows))
        return np.maximum(1, np.round(2 * math.pi * RADIUS_M * middle / self.size_m)).astype(int)

    def row_at(self, lat: np.ndarray) -> np.ndarray:
        """Row of latitudes."""
        row = np.floor((90 - np.asarray(lat)) / 180 * self.rows)
        return np.clip(row, 0, self.rows - 1).astype(int)

    def cell_at(self, lon: np.ndarray, lat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Row and column of the cell that holds each place."""
        row = self.row_at(lat)
        cols = self.cols(row)
        return row, np.floor((np.asarray(lon) + 180) / 360 * cols).astype(int) % cols

    def fold_of(self, row: np.ndarray, col: np.ndarray) -> np.ndarray:
        """Fold (uint8) of cells, by a hash of seed, row and column; hashed once a cell."""
        key = (np.asarray(row, np.int64) << 32 | np.asarray(col, np.int64)).ravel()
        starts = np.flatnonzero(np.diff(key, prepend=-1))  # along rows of pixels cells come in runs
        cells, where = np.unique(key[starts], return_inverse=True)
        folds = [_dealt(f"{self.seed}:{k >> 32}:{k & 0xFFFFFFFF}", self.shares) for k in cells]
        every = np.repeat(np.array(folds, np.uint8)[where], np.diff(starts, append=len(key)))
        return every.reshape(np.broadcast_shapes(np.shape(row), np.shape(col)))

    def on(self, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
        """Fold (H, W) uint8, 255 where there is no ground, and near bits (H, W) uint32 of every pixel."""
        shape = grid.height, grid.width
        one = self._only(grid)
        if one is not None:
            return np.full(shape, one, np.uint8), np.full(shape, np.uint32(1) << np.uint32(one))
        lon, lat = lonlat(grid)
        lost = ~(np.isfinite(lon) & np.isfinite(lat))
        lon, lat = np.where(lost, 0, lon), np.where(lost, 0, lat)
        fold, near = self.fold_of(*self.cell_at(lon, lat)), self.near(lon, lat)
        return np.where(lost, np.uint8(NONE), fold), np.where(lost, np.uint32(0), near)

    def _only(self, grid: Grid) -> int | None:
        """The fold of a grid that lies in one cell, further than the buffer from its borders."""
        try:
            lon, lat = grid.outline().T
        except GeomlError:  # part of it is no ground
            return None
        reach = math.degrees((self.buffer_m + 2 * grid.gsd_m()) / TIGHTEST_M)
        south, north = lat.min() - reach, lat.max() + reach
        row = int(self.row_at(np.array(north)))
        if row in (0, self.rows - 1) or row != int(self.row_at(np.array(south))):
            return None
        lon = np.unwrap(lon, period=360)
        aside = reach / math.cos(math.radians(max(abs(south), abs(north))))
        cols = int(self.cols(np.array(row)))
        first = math.floor((lon.min() - aside + 180) / 360 * cols)
        if first != math.floor((lon.max() + aside + 180) / 360 * cols):
            return None
        return int(self.fold_of(np.array(row), np.array(first % cols)))

    def near(self, lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
        """Bits (uint32) of the folds of all cells that a box of half-width `buffer_m` touches."""
        bits = np.uint32(1) << self.fold_of(*self.cell_at(lon, lat)).astype(np.uint32)
        if not self.buffer_m:
            return bits
        reach = math.degrees(self.buffer_m / TIGHTEST_M)
        top, bottom = self.row_at(lat + reach), self.row_at(lat - reach)
        # how far east a circle reaches: all round where it holds the pole
        polar = np.abs(lat) + reach >= 90
        sine = math.sin(math.radians(reach)) / np.cos(np.radians(np.where(polar, 0, lat)))
        aside = np.where(polar, 180.0, np.degrees(np.arcsin(np.minimum(sine, 1))))
        for row in (top, bottom):
            cols = self.cols(row)
            first = np.floor((lon - aside + 180) / 360 * cols).astype(int)
            more = np.floor((lon + aside + 180) / 360 * cols).astype(int) - first
            more = np.minimum(more, cols - 1)
            for k in range(int(more.max(initial=0)) + 1):
                found = self.fold_of(row, (first + np.minimum(k, more)) % cols)
                bits |= np.uint32(1) << found.astype(np.uint32)
        return bits

    def areas(self, ground: shapely.Geometry) -> list[tuple[int, shapely.Geometry]]:
        """Ground (CRS84) of each fold within some."""
        boxes: list[np.ndarray] = []
        folds: list[np.ndarray] = []
        for part in shapely.get_parts(ground):
            if not part.is_empty:
                self._over(part, boxes, folds)
        if not boxes:
            return []
        every, fold = np.concatenate(boxes), np.concatenate(folds)
        found = [
            (int(f), shapely.intersection(shapely.union_all(every[fold == f]), ground))
            for f in np.unique(fold)
        ]
        return [(f, area) for f, area in found if area.area > 0]

    def _over(
        self, part: shapely.Geometry, boxes: list[np.ndarray], folds: list[np.ndarray]
    ) -> None:
        """Add boxes over one part and their folds: runs of cells of one fold along each row."""
        west, south, east, north = shapely.bounds(part)
        first, last = int(self.row_at(north)), int(self.row_at(south))
        step = 180 / self.rows
        many = (last - first + 1) * max(
            1.0, (east - west) / 360 * self.cols(np.array(self.rows // 2))
        )
        if many > MOST_CELLS:
            raise GeomlError(
                f"cells of {self.size_m:g} m are too small for ground of {many:.0f} of them; use larger ones"
            )
        for row in range(first, last + 1):
            cols = int(self.cols(np.array(row)))
            low = math.floor((west + 180) / 360 * cols)
            col = np.arange(low, max(low + 1, math.ceil((east + 180) / 360 * cols)))
            fold = self.fold_of(np.full(len(col), row), col % cols)
            begins = np.flatnonzero(np.diff(fold, prepend=NONE))
            edges = np.append(col[begins], col[-1] + 1) / cols * 360 - 180
            # written as multiples of the step: neighbours share their edge to the last bit
            boxes.append(shapely.box(edges[:-1], 90 - (row + 1) * step, edges[1:], 90 - row * step))
            folds.append(fold[begins])

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "kind": "cells",
            "size_m": self.size_m,
            "shares": list(self.shares),
            "seed": self.seed,
            "buffer_m": self.buffer_m,
        }

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "Cells":
        """Read what `to_dict` gave."""
        return cls(plain["size_m"], tuple(plain["shares"]), plain["seed"], plain["buffer_m"])


@lru_cache(1 << 16)
def _dealt(name: str, shares: tuple[int, ...]) -> int:
    """Fold of a name: where the first 8 bytes of its BLAKE2b, as a share of 1, fall among the shares."""
    value = int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big")
    at = value * sum(shares) >> 64
    fold = 0
    while at >= shares[fold]:
        at -= shares[fold]
        fold += 1
    return fold


@dataclass(frozen=True)
class Scattered:
    """Whole tiles dealt by a hash of the ground that their centre lies on; neighbours are torn apart.

    `size_m` is about a tile's side: tiles whose centres share a cell of that size share a fold.
    """

    size_m: float
    shares: tuple[int, ...]
    seed: int
    grids_only = True

    @property
    def cells(self) -> Cells:
        """The cells that centres are looked up in."""
        return Cells(self.size_m, self.shares, self.seed, 0.0)

    @property
    def count(self) -> int:
        """Number of folds."""
        return len(self.shares)

    def on(self, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
        """One fold and its bit for all pixels (H, W) of a tile's grid."""
        if not grid.placed:
            raise GeomlError("a tile without a CRS is dealt by its name, not by its place")
        x, y = apply(grid.transform, np.array([grid.width / 2]), np.array([grid.height / 2]))
        fold = self.cells.fold_of(*self.cells.cell_at(*between(grid.crs, LONLAT).transform(x, y)))
        shape = grid.height, grid.width
        return np.full(shape, fold[0]), np.full(shape, np.uint32(1) << np.uint32(fold[0]))

    def named(self, name: str) -> int:
        """Fold of a tile that has no place on Earth, by its name."""
        return _dealt(f"{self.seed}:{name}", self.shares)

    def areas(self, ground: shapely.Geometry) -> list[tuple[int, shapely.Geometry]]:
        """Ground (CRS84) that centres of tiles of each fold lie on; the tiles themselves reach further."""
        return self.cells.areas(ground)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "kind": "random",
            "size_m": self.size_m,
            "shares": list(self.shares),
            "seed": self.seed,
        }

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "Scattered":
        """Read what `to_dict` gave."""
        return cls(plain["size_m"], tuple(plain["shares"]), plain["seed"])
