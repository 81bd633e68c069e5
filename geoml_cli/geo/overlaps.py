"""Displacements that make polygons overlap where they did not: pairs give way, or move as one."""

import numpy as np
import shapely
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

ALLOWED = 0.01  # of the smaller polygon, that it may overlap more than it did
GIVE, TURNS = 0.5, 12


def translate(shapes: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Shapes (n,) each moved by its shift (n, 2)."""
    xy, owner = shapely.get_coordinates(shapes, return_index=True)
    return np.asarray(shapely.set_coordinates(shapes.copy(), xy + shift[owner]))


def new_overlaps(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Pairs (m, 2) of polygons that overlap more `after` than `before`, beyond what is ALLOWED."""
    after = _sound(after)
    a, b = shapely.STRtree(after).query(after, predicate="intersects")
    a, b = a[a < b], b[a < b]
    now = shapely.area(shapely.intersection(after[a], after[b]))
    least = np.minimum(shapely.area(after[a]), shapely.area(after[b])) * ALLOWED
    some = now > least
    a, b, now, least = a[some], b[some], now[some], least[some]
    before = _sound(before)
    then = shapely.area(shapely.intersection(before[a], before[b]))
    more = now > then + least
    return np.stack([a[more], b[more]], 1)


def part(shapes: np.ndarray, body: np.ndarray, shift: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Shifts (bodies, 2) under which no two polygons overlap more than they did.

    `body` (n,) says which body a polygon belongs to. Pairs that do first go some way towards the
    mean of both, by `weight` (bodies,); those that still do after TURNS move as one.
    """
    shift = shift.copy()
    hold = np.arange(len(shift))  # bodies that move as one have one number
    for turn in range(TURNS + len(shift)):
        pairs = new_overlaps(shapes, translate(shapes, shift[body]))
        pairs = np.unique(np.sort(hold[body[pairs]], axis=1), axis=0).reshape(-1, 2)
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
        if not len(pairs):
            break
        if turn < TURNS:
            shift = _give_way(shift, weight, pairs)
        else:
            links = coo_array((np.ones(len(pairs)), tuple(pairs.T)), shape=(len(shift),) * 2)
            hold = connected_components(links, directed=False)[1][hold]
            shift = _means(shift, weight, hold)[hold]
    return shift


def _give_way(shift: np.ndarray, weight: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    a, b = pairs.T
    total = weight[a] + weight[b]
    mean = (shift[a] * weight[a, None] + shift[b] * weight[b, None]) / total[:, None]
    aim, count = np.zeros_like(shift), np.zeros(len(shift))
    for one in (a, b):
        np.add.at(aim, one, mean)
        np.add.at(count, one, 1)
    moved = count > 0
    out = shift.copy()
    out[moved] += GIVE * (aim[moved] / count[moved, None] - shift[moved])
    return out


def _means(shift: np.ndarray, weight: np.ndarray, hold: np.ndarray) -> np.ndarray:
    total, worth = np.zeros((hold.max() + 1, 2)), np.zeros(hold.max() + 1)
    np.add.at(total, hold, shift * weight[:, None])
    np.add.at(worth, hold, weight)
    return total / worth[:, None]


def _sound(shapes: np.ndarray) -> np.ndarray:
    good = shapely.is_valid(shapes)
    return shapes if good.all() else np.where(good, shapes, shapely.buffer(shapes, 0))
