"""Rows that lie somewhere, dealt into folds by blocks of ground."""

import numpy as np

from geoml_cli.geo.deal import deal
from geoml_cli.geo.grid import LONLAT, Bounds, between
from geoml_cli.geo.splits import Lattice

EQUAL_AREA = "EPSG:6933"  # metres, anywhere but at the poles
NORTH, SOUTH = "EPSG:6931", "EPSG:6932"  # equal area about them
POLAR = 80.0


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
    row, col = blank.block_at(x, y)
    number = row * blocks + col
    held = np.zeros((blocks * blocks, weights.shape[1]))
    np.add.at(held, number, weights)
    some = np.unique(number)
    folds = np.arange(blocks * blocks) % len(shares)
    folds[some] = deal(held[some], shares, seed)
    dealt = folds.reshape(blocks, blocks).tolist()
    return Lattice(crs, bounds, tuple(tuple(int(f) for f in one) for one in dealt), 0.0)


def on_blocks(lattice: Lattice, lonlat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fold and number of the block (n,) of places (n, 2)."""
    x, y = between(LONLAT, lattice.crs).transform(*lonlat.T)
    row, col = lattice.block_at(x, y)
    return lattice.fold_at(x, y).astype(int), row * lattice.cols + col
