"""Rows that lie somewhere, dealt into folds by blocks of ground."""

import numpy as np

from geoml_cli.errors import GeomlError
from geoml_cli.geo.deal import deal
from geoml_cli.geo.grid import LONLAT, Bounds, between
from geoml_cli.geo.splits import Lattice

EQUAL_AREA = "EPSG:6933"  # metres, anywhere but at the poles
NORTH, SOUTH = "EPSG:6931", "EPSG:6932"  # equal area about them
POLAR = 80.0
MOST_CELLS = 1 << 20


def crs_for(lonlat: np.ndarray) -> str:
    """A CRS of equal areas in which all places (n, 2) can be told."""
    low, high = np.nanmin(lonlat[:, 1]), np.nanmax(lonlat[:, 1])
    if low > 0 and high > POLAR:
        return NORTH
    return SOUTH if high < 0 and low < -POLAR else EQUAL_AREA


def lay_blocks(
    lonlat: np.ndarray, weights: np.ndarray, blocks: int, shares: tuple[int, ...], seed: int
) -> Lattice:
    """`blocks` x `blocks` over the places (n, 2) dealt so that each fold has its share of every kind of
    weight (n, kinds); blocks without any are dealt by number.
    """
    crs = crs_for(lonlat)
    x, y = between(LONLAT, crs).transform(*lonlat.T)
    pad = [max(np.ptp(v), 1.0) * 1e-9 + 1e-6 for v in (x, y)]
    bounds = Bounds(x.min() - pad[0], y.min() - pad[1], x.max() + pad[0], y.max() + pad[1])
    blank = Lattice(crs, bounds, tuple((0,) * blocks for _ in range(blocks)), 0.0)
    return dealt(blank, x, y, weights, shares, seed)


def lay_degrees(
    lonlat: np.ndarray, weights: np.ndarray, size_deg: float, shares: tuple[int, ...], seed: int
) -> Lattice:
    """Cells of `size_deg` degrees over the places (n, 2), dealt as `lay_blocks` deals its blocks."""
    return dealt(_degrees(lonlat, size_deg), lonlat[:, 0], lonlat[:, 1], weights, shares, seed)


def lay_checkerboard(
    lonlat: np.ndarray, weights: np.ndarray, size_deg: float, shares: tuple[int, ...], seed: int
) -> Lattice:
    """Cells of `size_deg` degrees as on a checkerboard, counted from 180 W, 90 S: odd ones test (fold 2),
    even ones are dealt to train (0) and validate (1) by two shares.
    """
    blank = _degrees(lonlat, size_deg)
    b = blank.bounds
    row = np.arange(blank.rows)[::-1] + round((b.south + 90) / size_deg)
    col = np.arange(blank.cols) + round((b.west + 180) / size_deg)
    odd = (row[:, None] + col) % 2 == 1
    places = blank.block_at(*lonlat.T)
    even = ~odd[places]
    inner = dealt(blank, lonlat[even, 0], lonlat[even, 1], weights[even], shares, seed)
    folds = np.where(odd, 2, np.array(inner.folds))
    return Lattice(blank.crs, b, tuple(tuple(int(f) for f in one) for one in folds), 0.0)


def _degrees(lonlat: np.ndarray, size_deg: float) -> Lattice:
    """Cells of whole multiples of `size_deg` from 180 W, 90 S that hold all places."""
    low, high = lonlat.min(axis=0), lonlat.max(axis=0)
    start = np.array([-180.0, -90.0])
    first = np.floor((low - start) / size_deg)
    count = (np.floor((high - start) / size_deg) - first + 1).astype(int)
    if count.prod() > MOST_CELLS:
        raise GeomlError(
            f"cells of {size_deg:g} degrees are too small for places so far apart; use larger ones"
        )
    west, south = start + first * size_deg
    cols, rows = count.tolist()
    bounds = Bounds(west, south, west + cols * size_deg, south + rows * size_deg)
    return Lattice(LONLAT, bounds, tuple((0,) * cols for _ in range(rows)), 0.0)


def dealt(
    blank: Lattice,
    x: np.ndarray,
    y: np.ndarray,
    weights: np.ndarray,
    shares: tuple[int, ...],
    seed: int,
) -> Lattice:
    """The blocks of a lattice dealt so that each fold has its share of every kind of weight (n, kinds) of
    places x, y in its CRS; blocks without any are dealt by number.
    """
    row, col = blank.block_at(x, y)
    number, count = row * blank.cols + col, blank.rows * blank.cols
    held = np.zeros((count, weights.shape[1]))
    np.add.at(held, number, weights)
    some = np.unique(number)
    if len(some) < len(shares):
        raise GeomlError(
            f"all places lie in {len(some)} block(s); {len(shares)} sides need as many at least"
        )
    folds = np.arange(count) % len(shares)
    folds[some] = deal(held[some], shares, seed)
    found = folds.reshape(blank.rows, blank.cols).tolist()
    made = tuple(tuple(int(f) for f in one) for one in found)
    return Lattice(blank.crs, blank.bounds, made, 0.0)


def on_blocks(lattice: Lattice, lonlat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fold and number of the block (n,) of places (n, 2)."""
    x, y = between(LONLAT, lattice.crs).transform(*lonlat.T)
    row, col = lattice.block_at(x, y)
    return lattice.fold_at(x, y).astype(int), row * lattice.cols + col
