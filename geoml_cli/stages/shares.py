"""Which share of every pixel of a grid a shape covers."""

from collections.abc import Sequence
from dataclasses import dataclass

import geopandas
import numpy as np
import rasterio.features
import shapely
from affine import Affine

from geoml_cli.geo.grid import Grid, Window

FINE = 4  # a pixel's side is cut into as many: shares are in sixteenths


@dataclass(frozen=True)
class Share:
    """Shares (h, w) of the pixels of a window; 0 elsewhere."""

    window: Window
    shape: shapely.Geometry  # in pixels of the grid

    def on(self, span: Window) -> np.ndarray:
        """Shares of the pixels of a span of the grid."""
        if self.window.height == self.window.width == 1:
            return self._one(span)
        out, mine = np.zeros((span.height, span.width)), self.window
        top, left = max(mine.row, span.row), max(mine.col, span.col)
        bottom = min(mine.row + mine.height, span.row + span.height)
        right = min(mine.col + mine.width, span.col + span.width)
        if bottom > top and right > left:
            rows, cols = (
                slice(top - span.row, bottom - span.row),
                slice(left - span.col, right - span.col),
            )
            out[rows, cols] = parts(self.shape, Window(top, left, bottom - top, right - left)).mean(
                (1, 3)
            )
        return out

    def _one(self, span: Window) -> np.ndarray:
        out = np.zeros((span.height, span.width))
        row, col = self.window.row - span.row, self.window.col - span.col
        if 0 <= row < span.height and 0 <= col < span.width:
            out[row, col] = 1.0
        return out


def covered(shapes: geopandas.GeoSeries, grid: Grid) -> Sequence[Share]:
    """Shares of a grid's pixels for each shape; a point, or what is smaller than a part of a pixel, is the pixel
    that holds it. Lines are as wide as a quarter of a pixel. What lies beside the grid has none.
    """
    back = ~grid.transform

    def pixels(xy: np.ndarray) -> np.ndarray:
        return np.column_stack(back * (xy[:, 0], xy[:, 1]))

    flat = shapely.force_2d(shapes.to_crs(grid.crs).to_numpy())
    found = []
    for shape in shapely.transform(flat, pixels):
        if not np.isfinite(shapely.get_coordinates(shape)).all():
            found.append(Share(Window(-9, -9, 1, 1), shape))
            continue
        if shapely.get_dimensions(shape) == 1:
            shape = shapely.buffer(shape, 0.5 / FINE)
        small = shapely.get_dimensions(shape) == 0 or shapely.area(shape) < 1 / FINE**2
        middle = shapely.point_on_surface(shape)
        if small:
            window = Window(int(np.floor(middle.y)), int(np.floor(middle.x)), 1, 1)
        else:
            west, top, east, bottom = shapely.bounds(shape)
            row, col = int(np.floor(top)), int(np.floor(west))
            height = max(int(np.ceil(bottom)) - row, 1)
            width = max(int(np.ceil(east)) - col, 1)
            window = Window(row, col, height, width)
            fine = max(height, width) > 2 or bool(parts(shape, window).any())
            if not fine:  # it slips between the centres of all parts
                window = Window(int(np.floor(middle.y)), int(np.floor(middle.x)), 1, 1)
            elif height == width == 1:
                window = Window(row, col, 1, 1)
        found.append(Share(window, shape))
    return found


def parts(shape: shapely.Geometry, window: Window) -> np.ndarray:
    """Which parts (h, FINE, w, FINE) of the pixels of a window have their centre in a shape."""
    transform = Affine(1 / FINE, 0, window.col, 0, 1 / FINE, window.row)
    size = (window.height * FINE, window.width * FINE)
    fine = rasterio.features.rasterize([shape], size, transform=transform, dtype="uint8")
    return fine.reshape(window.height, FINE, window.width, FINE)
