"""Displacements that make polygons overlap where they did not: the less sure give way."""

import numpy as np
import shapely

ALLOWED = 0.01  # of the smaller polygon, that it may overlap more than it did
GIVE, TURNS = 0.5, 16


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


def part(
    shapes: np.ndarray, body: np.ndarray, shift: np.ndarray, weight: np.ndarray, room: np.ndarray
) -> np.ndarray:
    """Shifts (bodies, 2) under which polygons do not overlap that did not, as far as they may give way.

    `body` (n,) says which body a polygon belongs to. Of a pair that overlaps anew, the one of less
    `weight` (bodies,) goes half the way towards the shift of the other, and again, but no further
    than its `room` (bodies,) from where it was put: what is sure is not moved for what is not.
    """
    found, shift = shift, shift.copy()
    rank = np.argsort(np.argsort(-weight, kind="stable"))  # 0 is the heaviest
    for _ in range(TURNS):
        pairs = body[new_overlaps(shapes, translate(shapes, shift[body]))]
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
        if not len(pairs):
            break
        step = _give_way(shift, rank, pairs) - found
        length = np.hypot(*step.T)
        shift = found + step * np.minimum(1, room / np.maximum(length, 1e-9))[:, None]
    return shift


def _give_way(shift: np.ndarray, rank: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The lighter of each pair goes half the way to its heaviest partner's shift."""
    swap = rank[pairs[:, 0]] > rank[pairs[:, 1]]
    heavy, light = np.where(swap[:, None], pairs[:, ::-1], pairs).T
    order = np.argsort(rank[heavy])[::-1]
    partner = np.full(len(shift), -1)
    partner[light[order]] = heavy[order]
    some = partner >= 0
    out = shift.copy()
    out[some] += GIVE * (shift[partner[some]] - shift[some])
    return out


def _sound(shapes: np.ndarray) -> np.ndarray:
    good = shapely.is_valid(shapes)
    return shapes if good.all() else np.where(good, shapes, shapely.buffer(shapes, 0))
