"""Polygons that share edges or corners: what touches stays touching, whatever moves."""

import numpy as np
import shapely
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

NEAR = 1e-3  # of a pixel: as near as this is the same corner
MANY, WIDE = 8, 4.0  # of a group that still moves as one: members, and times the size of one


def touching(shapes: np.ndarray, near: float = NEAR) -> np.ndarray:
    """Group (n,) of each polygon: those of one group hang together by shared edges or corners.

    Polygons that overlap by more than their rims share nothing, and do not count as touching.
    """
    tree = shapely.STRtree(shapes)
    a, b = tree.query(shapes, predicate="dwithin", distance=near)
    a, b = a[a < b], b[a < b]
    if len(a):
        shared = shapely.area(shapely.intersection(shapes[a], shapes[b]))
        rim = near * np.minimum(shapely.length(shapes[a]), shapely.length(shapes[b]))
        a, b = a[shared <= rim], b[shared <= rim]
    links = coo_array((np.ones(len(a)), (a, b)), shape=(len(shapes), len(shapes)))
    return np.asarray(connected_components(links, directed=False)[1])


def bodies(shapes: np.ndarray, near: float = NEAR) -> tuple[np.ndarray, np.ndarray]:
    """What moves as one (n,), and which polygons hang in a sheet too large for that (n,) bool.

    Each polygon of a sheet is a body of its own; its corners must be moved by where they are.
    """
    group = touching(shapes, near)
    box = shapely.bounds(shapes)
    count = np.bincount(group)
    low = np.full((len(count), 2), np.inf)
    high = np.full((len(count), 2), -np.inf)
    np.minimum.at(low, group, box[:, :2])
    np.maximum.at(high, group, box[:, 2:])
    size = np.zeros(len(count))
    np.maximum.at(size, group, np.max(box[:, 2:] - box[:, :2], axis=1))
    large = (count > MANY) | ((high - low).max(1) > WIDE * size)
    large &= count > 1
    sheet = large[group]
    label = np.where(sheet, len(count) + np.arange(len(shapes)), group)
    return np.unique(label, return_inverse=True)[1], sheet


def move_sheet(
    shapes: np.ndarray, shift: np.ndarray, weight: np.ndarray, near: float = NEAR
) -> np.ndarray:
    """Move polygons (n,) of a sheet: a corner by the mean `shift` (n, 2) of those that touch it.

    Corners of a neighbour on an edge become corners of the edge first, so edges stay shared.
    """
    tree = shapely.STRtree(shapes)
    out = np.empty(len(shapes), object)
    for i, shape in enumerate(shapes):
        around = tree.query(shape, predicate="dwithin", distance=near)
        noded = _with_corners(shape, shapes[around[around != i]], near)
        corners = shapely.get_coordinates(noded)
        who, corner = tree.query(shapely.points(corners), predicate="dwithin", distance=near)[::-1]
        total = np.zeros((len(corners), 2))
        worth = np.zeros(len(corners))
        np.add.at(total, corner, shift[who] * weight[who, None])
        np.add.at(worth, corner, weight[who])
        out[i] = shapely.set_coordinates(noded, corners + total / worth[:, None])
    return out


def _with_corners(shape: shapely.Geometry, others: np.ndarray, near: float) -> shapely.Geometry:
    """The polygon with the corners of others that lie on its edges."""
    if not len(others):
        return shape
    points = shapely.points(shapely.get_coordinates(others))
    on = points[shapely.dwithin(shapely.boundary(shape), points, near)]
    return shapely.snap(shape, shapely.multipoints(on), near) if len(on) else shape
