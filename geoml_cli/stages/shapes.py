"""Polygons laid on a pixel grid, burnt window by window: a pixel belongs where its centre does."""

from collections.abc import Sequence

import numpy as np
import shapely
from affine import Affine
from rasterio.features import rasterize

from geoml_cli.geo.bounds import project
from geoml_cli.geo.grid import Bounds, Grid, Window, same_crs
from geoml_cli.geo.nearest import turned

PARTS = (
    64  # a geometry's edges are cut to a share of its size, so that they bend with the projection
)


def bring(geometries: np.ndarray, source: str, target: str) -> np.ndarray:
    """Reproject geometries (n,); edges stay straight in `source`. Empty where no coordinates exist."""
    if not len(geometries) or same_crs(source, target):
        return geometries
    box = shapely.bounds(geometries)
    longest = np.maximum(box[:, 2] - box[:, 0], box[:, 3] - box[:, 1]) / PARTS
    moved = project(shapely.segmentize(geometries, np.maximum(longest, 1e-9)), source, target)
    xy, owner = shapely.get_coordinates(moved, return_index=True)
    moved[owner[~np.isfinite(xy).all(axis=1)]] = shapely.Polygon()
    return moved


class Shapes:
    """Geometries (n,), already in a grid's CRS, to burn into windows of that grid."""

    def __init__(self, geometries: np.ndarray, grid: Grid) -> None:
        self.grid = grid
        self.geometries = _turn(geometries, grid)
        self._tree = shapely.STRtree(self.geometries)

    def near(self, window: Window) -> np.ndarray:
        """Numbers, in order, of the geometries that meet a window."""
        box = shapely.box(*self.grid.crop(window).bounds)
        return np.sort(self._tree.query(box, predicate="intersects"))

    def burn(self, window: Window, numbers: np.ndarray, values: Sequence[int]) -> np.ndarray:
        """Values (h, w) int32 of the geometry that holds each pixel's centre, the last one's of several; else 0."""
        shape = (window.height, window.width)
        if not len(numbers):
            return np.zeros(shape, np.int32)
        pairs = list(zip(self.geometries[numbers], values, strict=True))
        transform = self.grid.crop(window).transform
        return rasterize(pairs, out_shape=shape, transform=transform, fill=0, dtype="int32")

    def holds_centre(self, number: int, window: Window) -> bool:
        """Whether one geometry holds the centre of any pixel of a window."""
        near = self.grid.window_of(Bounds(*shapely.bounds(self.geometries[number])))
        if near is None:
            return False
        rows = np.arange(
            max(near.row, window.row), min(near.row + near.height, window.row + window.height)
        )
        cols = np.arange(
            max(near.col, window.col), min(near.col + near.width, window.col + window.width)
        )
        x, y = self.grid.xy(*np.meshgrid(rows, cols, indexing="ij"))
        return bool(shapely.contains_xy(self.geometries[number], x.ravel(), y.ravel()).any())


def _turn(geometries: np.ndarray, grid: Grid) -> np.ndarray:
    """Shift geometries in degrees by whole circles to where the grid is."""
    box = shapely.bounds(geometries)
    middle = (box[:, 0] + box[:, 2]) / 2
    here = grid.bounds
    # turned() starts at the west rim; start half a circle before the centre instead
    centred = Grid(grid.crs, Affine.translation((here.west + here.east) / 2 - 180, 0), 1, 1)
    circles = np.round((turned(middle, centred) - middle) / 360)
    shift = np.where(np.isfinite(circles), circles * 360, 0)
    if not shift.any():
        return geometries
    out = geometries.copy()
    for i in np.flatnonzero(shift):
        out[i] = shapely.transform(out[i], lambda xy, by=shift[i]: xy + [by, 0])
    return out
