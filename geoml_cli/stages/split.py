"""From what was asked for to a split: blocks, cells of the globe, a file, label features, whole tiles."""

import math
import re
from dataclasses import dataclass

import geopandas
import numpy as np

from geoml_cli.errors import GeomlError, UsageMistake
from geoml_cli.formats.stamp import Input
from geoml_cli.geo.apart import distances, leakage
from geoml_cli.geo.cells import RADIUS_M, Cells, Scattered
from geoml_cli.geo.grid import Bounds, Grid
from geoml_cli.geo.metric import pixel_m, stretch
from geoml_cli.geo.sides import read_split
from geoml_cli.geo.splits import PLAIN, Lattice, Split, assign, balance, portion
from geoml_cli.stages.split_column import by_column
from geoml_cli.stages.split_file import MOST_FOLDS, folds_in, inputs_of, open_split

__all__ = [
    "SplitWish",
    "blocks_of",
    "distances",
    "folds_of",
    "inputs",
    "lay",
    "leakage",
    "parse",
    "read_split",
]

BLOCKS = 8  # a side, by default
MOST_SIZE_M = 2_000_000
CELL = re.compile(r"(\d+(?:\.\d+)?|\.\d+)(k?m)")
WRITE = "write auto, blocks:8 (8 x 8 over the scenes), blocks:5km, a file, random or none"


@dataclass(frozen=True)
class SplitWish:
    """What was asked for; `size_px` is a tile's (height, width), `features` the label file's."""

    split: str
    by: str | None = None
    folds: int = 0
    buffer: float = 8
    buffer_unit: str = "px"
    size_px: tuple[int, int] = (128, 128)
    features: geopandas.GeoDataFrame | None = None

    def buffer_m(self, grid: Grid) -> float:
        """The buffer in metres; pixels are those of a grid, by their longer side."""
        return float(self.buffer if self.buffer_unit == "m" else self.buffer * pixel_m(grid))

    @property
    def said(self) -> str:
        """The buffer as it was written."""
        return f"--buffer {self.buffer:g}{'m' if self.buffer_unit == 'm' else ''}"

    @property
    def shares(self) -> tuple[int, ...]:
        """Whole numbers, one a fold, that the ground is dealt by."""
        return (1,) * self.folds if self.folds else PLAIN


def parse(split: str, by: str | None = None, folds: int = 0) -> tuple[str, float]:
    """The kind that is meant, and its number: blocks a side, metres of a cell; no file is read.

    Kinds: auto, none, random, blocks, cells, file, column.
    """
    kind, number = _kind(split)
    if by is not None:
        if kind not in ("auto", "none"):
            raise UsageMistake(
                f"--split-by {by} and --split {split} both deal the ground; give one"
            )
        kind = "column"
    if folds and not 3 <= folds <= MOST_FOLDS:
        raise UsageMistake(f"--folds {folds}: from 3 (train, validation, test) to {MOST_FOLDS}")
    if folds and kind == "none":
        raise UsageMistake("--folds needs blocks to deal out: --split blocks:8")
    if folds and kind == "file":
        raise UsageMistake(f"--folds {folds}: {split} says which folds there are; leave it out")
    if folds and kind == "blocks" and number * number < folds:
        raise UsageMistake(f"--split {split}: fewer blocks than --folds {folds}")
    return kind, number


def _kind(split: str) -> tuple[str, float]:
    if split in ("auto", "none", "random"):
        return split, BLOCKS if split == "auto" else 0
    word, colon, count = split.partition(":")
    if word != "blocks":
        if split and (not colon or len(word) > 1 and ("/" in split or "." in split)):
            return "file", 0
        raise UsageMistake(f"--split {split!r}: {WRITE}")
    if count.isdigit() and int(count) >= 2:
        return "blocks", int(count)
    length = CELL.fullmatch(count)
    size = float(length[1]) * (1000 if length[2] == "km" else 1) if length else 0.0
    if not 1 <= size <= MOST_SIZE_M:
        raise UsageMistake(
            f"--split {split!r}: write blocks:8 (8 x 8 blocks) or blocks:5km (cells of 1 m to 2000 km)"
        )
    return "cells", size


def inputs(wish: SplitWish) -> list[Input]:
    """The file that the split is read from, if it is one."""
    return inputs_of(wish.split) if parse(wish.split, wish.by, wish.folds)[0] == "file" else []


def folds_of(wish: SplitWish, split: Split | None) -> int:
    """Number of cross-validation folds of a split that was laid; 0 for train, validation, test."""
    if split is not None and parse(wish.split, wish.by, wish.folds)[0] == "file":
        return folds_in(wish.split, split)
    return wish.folds


def lay(
    wish: SplitWish, grids: list[Grid], seed: int, weights: np.ndarray | None = None
) -> Split | None:
    """Lay the split over the ground of places; `weights` (rows, cols, classes) are for `auto` alone.

    They are labelled pixels of the blocks that `blocks_of` gives.
    """
    kind, number = parse(wish.split, wish.by, wish.folds)
    if kind == "none":
        return None
    if kind != "random":
        _need_places(grids)
    if kind == "auto":
        bare = blocks_of(wish, grids, seed)
        dealt = bare.folds if weights is None else balance(weights, wish.shares, seed)
        return Lattice(bare.crs, bare.bounds, dealt, bare.buffer)
    if kind == "blocks":
        return _lattice(wish, grids, int(number), seed)
    if kind == "cells":
        return _cells(wish, grids, number, seed)
    if kind == "random":
        return Scattered(_tile_m(wish, grids), wish.shares, seed)
    thin_m = pixel_m(grids[0]) * math.sqrt(0.5)
    if kind == "file":
        return open_split(wish.split, wish.buffer_m(grids[0]), thin_m)
    return by_column(
        wish.features,
        wish.by or "",
        wish.shares,
        buffer_m=wish.buffer_m(grids[0]),
        thin_m=thin_m,
        plain=not wish.folds,
        seed=seed,
    )


def blocks_of(wish: SplitWish, grids: list[Grid], seed: int) -> Lattice:
    """The blocks of `auto`, dealt blindly: 8 a side, or as many as leave ground beside the buffer."""
    _need_places(grids)
    bounds, narrow = _extent(grids), _buffer(wish, grids)
    side = min(bounds.east - bounds.west, bounds.north - bounds.south)
    fewest = math.ceil(math.sqrt(max(wish.folds, 3)))
    blocks = BLOCKS
    while blocks > fewest and 4 * narrow > side / blocks:
        blocks -= 1
    return _lattice(wish, grids, max(blocks, fewest), seed)


def _need_places(grids: list[Grid]) -> None:
    if not all(grid.placed for grid in grids):
        raise GeomlError(
            "scenes without a CRS have no place on Earth to split by; --split random or none"
        )


def _lattice(wish: SplitWish, grids: list[Grid], blocks: int, seed: int) -> Lattice:
    """Blocks over the bounds of all places, in the first one's CRS."""
    grid, bounds, buffer = grids[0], _extent(grids), _buffer(wish, grids)
    pixel = max(abs(grid.transform.a), abs(grid.transform.e))
    side = min(bounds.east - bounds.west, bounds.north - bounds.south) / blocks
    if buffer >= side / 2:
        raise UsageMistake(
            f"{wish.said}: blocks are {side / pixel:.0f} px a side, no ground would be left to train on;"
            " fewer blocks or a smaller buffer"
        )
    dealt = (
        assign(blocks, wish.folds, seed) if wish.folds else portion(blocks, (0.7, 0.15, 0.15), seed)
    )
    return Lattice(grid.crs, bounds, dealt, buffer)


def _extent(grids: list[Grid]) -> Bounds:
    xy = np.concatenate([grid.outline(grids[0].crs) for grid in grids])
    return Bounds(*xy.min(axis=0).tolist(), *xy.max(axis=0).tolist())


def _buffer(wish: SplitWish, grids: list[Grid]) -> float:
    """The buffer in units of the first grid's CRS; metres by the place where those are shortest."""
    grid, bounds = grids[0], _extent(grids)
    pixel = max(abs(grid.transform.a), abs(grid.transform.e))
    if wish.buffer_unit == "px":
        return wish.buffer * pixel
    x, y = np.meshgrid(np.linspace(*bounds[::2], 9), np.linspace(*bounds[1::2], 9))
    lower = stretch(grid.crs, x.ravel(), y.ravel(), pixel)
    # the part of a step along one axis that no step along the other can make shorter
    square = np.linalg.inv(lower @ np.swapaxes(lower, 1, 2))
    shortest = 1 / np.sqrt(np.diagonal(square, axis1=1, axis2=2))
    return float(wish.buffer / np.nanmin(shortest))


def _cells(wish: SplitWish, grids: list[Grid], size_m: float, seed: int) -> Cells:
    buffer_m = wish.buffer_m(grids[0])
    if buffer_m >= size_m / 2:
        raise UsageMistake(
            f"{wish.said}: cells are {size_m:g} m a side, no ground would be left to train on;"
            " larger cells or a smaller buffer"
        )
    return Cells(size_m, wish.shares, seed, buffer_m)


def _tile_m(wish: SplitWish, grids: list[Grid]) -> float:
    """About a tile's side: a power of two, so that grids that differ a little agree."""
    placed = [grid for grid in grids if grid.placed]
    if not placed:
        return RADIUS_M / 4
    return float(2 ** round(math.log2(max(1.0, min(wish.size_px) * placed[0].gsd_m()))))
