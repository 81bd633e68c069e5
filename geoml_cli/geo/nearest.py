"""Which pixel of another grid holds the centre of each pixel of this one."""

from functools import cache

import numpy as np
import shapely
from pyproj import CRS

from geoml_cli.errors import GeomlError
from geoml_cli.geo.bounds import footprint
from geoml_cli.geo.grid import Grid, Window, apply, between, same_crs

STEP_PX = 32  # between places that are projected exactly
CLOSE_PX = 0.01  # error, in pixels of the other grid, that positions between them may have


def pixels_under(grid: Grid, window: Window, other: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns (h, w), in `other`, of the pixels that hold the centres of a window of `grid`.

    They may lie outside `other`; -1, -1 where a centre has no coordinates in its CRS.
    """
    here = grid.crop(window)
    if _same(grid.crs, other.crs):  # both run along x and y: rows and columns apart
        x, _ = here.xy(np.zeros(here.width), np.arange(here.width))
        _, y = here.xy(np.arange(here.height), np.zeros(here.height))
        cols, _ = apply(~other.transform, turned(x, other), np.zeros(here.width))
        _, rows = apply(~other.transform, np.zeros(here.height), y)
        shape = (here.height, here.width)
        whole_rows, whole_cols = _whole(rows), _whole(cols)
        return np.broadcast_to(whole_rows[:, None], shape), np.broadcast_to(whole_cols, shape)
    rows, cols = _positions(here, other)
    seen = np.isfinite(rows) & np.isfinite(cols)
    return _whole(np.where(seen, rows, -1)), _whole(np.where(seen, cols, -1))


def inside(grid: Grid, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """Whether rows and columns are pixels of a grid."""
    return (rows >= 0) & (rows < grid.height) & (cols >= 0) & (cols < grid.width)


def overlap(a: Grid, b: Grid) -> bool:
    """Whether two grids may share ground: surely not, where their outlines in degrees do not meet."""
    try:
        return bool(shapely.intersects(footprint(a.outline()), footprint(b.outline())))
    except (GeomlError, shapely.GEOSException):
        return True


def turned(x: np.ndarray, grid: Grid) -> np.ndarray:
    """Longitudes turned by whole circles to lie from the grid's west on; other x stay as they are."""
    if not _in_degrees(grid.crs):
        return x
    west = grid.bounds.west
    with np.errstate(invalid="ignore"):  # what has no coordinates is infinite
        return west + np.mod(x - west, 360)


def _whole(position: np.ndarray) -> np.ndarray:
    """Pixel that holds a position; one on a border, give or take rounding, is the next one's."""
    return np.floor(position + 1e-6).astype(np.int64)


@cache
def _same(a: str, b: str) -> bool:
    return same_crs(a, b)


@cache
def _in_degrees(crs: str) -> bool:
    return bool(CRS.from_user_input(crs).is_geographic)


def _exact(
    here: Grid, other: Grid, rows: np.ndarray, cols: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns, with fractions, in `other` of centres at `rows`, `cols` of `here`."""
    x, y = here.xy(rows, cols)
    x, y = between(here.crs, other.crs).transform(x, y)
    with np.errstate(invalid="ignore"):
        found_cols, found_rows = apply(
            ~other.transform, turned(np.asarray(x), other), np.asarray(y)
        )
    return found_rows, found_cols


def _positions(here: Grid, other: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns, with fractions, in `other` of all centres of `here`; whole parts are exact."""
    found = _between_nodes(here, other)
    if found is None:
        return _exact(here, other, *np.indices((here.height, here.width)))
    rows, cols = found
    near = [np.abs(at - np.round(at)) < 2 * CLOSE_PX for at in found]
    doubtful = np.nonzero(near[0] | near[1])  # so close to a border that the error may matter
    rows[doubtful], cols[doubtful] = _exact(here, other, *doubtful)
    return rows, cols


def _between_nodes(here: Grid, other: Grid) -> tuple[np.ndarray, np.ndarray] | None:
    """The same for all centres, exact every STEP_PX and linear between; None where that is not close."""
    if min(here.height, here.width) <= STEP_PX:
        return None
    node_rows, node_cols = _nodes(here.height), _nodes(here.width)
    nodes = _exact(here, other, *_cross(node_rows, node_cols))
    middle = _exact(here, other, *_cross(_middles(node_rows), _middles(node_cols)))
    for at_node, at_middle in zip(nodes, middle, strict=True):
        guess = (at_node[1:, 1:] + at_node[1:, :-1] + at_node[:-1, 1:] + at_node[:-1, :-1]) / 4
        if not np.abs(guess - at_middle).max() < CLOSE_PX:  # NaN is not close either
            return None
    rows, cols = (_spread(at, node_rows, node_cols, here) for at in nodes)
    return rows, cols


def _nodes(length: int) -> np.ndarray:
    return np.unique(np.append(np.arange(0, length, STEP_PX), length - 1))


def _cross(rows: np.ndarray, cols: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(np.meshgrid(rows, cols, indexing="ij"))


def _middles(nodes: np.ndarray) -> np.ndarray:
    return (nodes[1:] + nodes[:-1]) / 2


def _spread(at: np.ndarray, rows: np.ndarray, cols: np.ndarray, here: Grid) -> np.ndarray:
    """Bilinear values (h, w) from values at nodes."""
    wide = np.stack([np.interp(np.arange(here.width), cols, row) for row in at])
    places = np.interp(np.arange(here.height), rows, np.arange(len(rows)))
    above = np.minimum(places.astype(int), len(rows) - 2)
    share = (places - above)[:, None]
    return wide[above] * (1 - share) + wide[above + 1] * share
