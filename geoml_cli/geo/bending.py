"""Shapes in another CRS: straight edges bend on the way, so long ones are cut into pieces first."""

import numpy as np
import shapely
from pyproj import CRS

from geoml_cli.geo.grid import between, same_crs

MOST_PIECES = 1024  # of one edge


def bent(shapes: np.ndarray, source: str, target: str, close: float) -> np.ndarray:
    """Reproject shapes (n,) so that no edge strays by more than `close`, in units of `target`.

    Shapes without coordinates in the target become empty.
    """
    if not len(shapes) or same_crs(source, target):
        return shapes
    longest = _longest(shapes, source, target, close)
    if longest is not None:
        shapes = shapely.segmentize(shapes, longest)
    xy, owner = shapely.get_coordinates(shapes, return_index=True)
    moved = _moved(xy, source, target)
    bad = np.unique(owner[~np.isfinite(moved).all(axis=1)])
    if len(bad):
        keep = ~np.isin(owner, bad)
        shapes, moved = shapes.copy(), moved[keep]
        shapes[bad] = shapely.Polygon()
    return shapely.set_coordinates(shapes.copy(), moved)


def _moved(xy: np.ndarray, source: str, target: str) -> np.ndarray:
    x, y = between(source, target).transform(xy[:, 0], xy[:, 1])
    if all(CRS.from_user_input(crs).is_geographic for crs in (source, target)):
        x = x + 360 * np.round((xy[:, 0] - x) / 360)  # a shift of datum does not go round the world
    return np.stack([x, y], axis=1)


def _longest(shapes: np.ndarray, source: str, target: str, close: float) -> float | None:
    """Longest edge, in units of `source`, that stays close; None where all do.

    An edge in n pieces strays n * n times less.
    """
    lines = shapely.get_parts(shapes)
    areal = shapely.get_dimensions(lines) == 2
    lines = np.concatenate([lines[~areal], shapely.get_rings(lines[areal])])
    xy, owner = shapely.get_coordinates(lines, return_index=True)
    edge = np.flatnonzero(owner[1:] == owner[:-1])
    if not len(edge):
        return None
    ends = _moved(xy, source, target)
    half = _moved((xy[edge] + xy[edge + 1]) / 2, source, target) - ends[edge]
    whole = ends[edge + 1] - ends[edge]
    with np.errstate(invalid="ignore"):
        if CRS.from_user_input(target).is_geographic:  # one that crosses 180 degrees leaps
            half[:, 0] -= 360 * np.round(half[:, 0] / 360)
            whole[:, 0] -= 360 * np.round(whole[:, 0] / 360)
        stray = np.hypot(*(half - whole / 2).T)
    far = ~(stray <= close)
    if not far.any():
        return None
    pieces = np.ceil(np.sqrt(stray[far] / close)) + 1
    pieces = np.where(np.isfinite(pieces), np.minimum(pieces, MOST_PIECES), MOST_PIECES)
    length = np.hypot(*(xy[edge[far] + 1] - xy[edge[far]]).T)
    return float((length / pieces).min())
