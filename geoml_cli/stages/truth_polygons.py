"""Polygons as truth: a sample for every pixel whose centre they hold."""

from collections.abc import Iterator, Sequence

import numpy as np
import shapely

from geoml_cli.geo.classes import Class
from geoml_cli.geo.grid import Bounds, Grid, Window
from geoml_cli.geo.windows import blocks
from geoml_cli.stages.shapes import Shapes
from geoml_cli.stages.truth import BLOCK, CONFLICT, Features, PixelFates, Placed, Samples


class Polygons(Features, PixelFates):
    """A sample for every pixel whose centre a polygon holds."""

    kind = "polygons"

    def __init__(
        self, shapes: np.ndarray, crs: str, values: list[str | None], classes: Sequence[Class]
    ) -> None:
        Features.__init__(self, shapes, crs, values, classes)
        PixelFates.__init__(self)
        self.hit = np.zeros(len(self.shapes), bool)  # polygons that hold a pixel of some map

    def extent(self, grid: Grid) -> Bounds | None:
        """See Truth."""
        box, here = shapely.bounds(Shapes(self.moved(grid.crs), grid).geometries), grid.bounds
        low = np.maximum(box[:, :2], (here.west, here.south))
        high = np.minimum(box[:, 2:], (here.east, here.north))
        on = (low < high).all(axis=1)
        return Bounds(*low[on].min(axis=0), *high[on].max(axis=0)) if on.any() else None

    def place(self, grid: Grid) -> Placed:
        """See Truth."""
        return PlacedPolygons(self, Shapes(self.moved(grid.crs), grid))

    def left_out(self) -> dict[str, int | None]:
        """See Truth; outside and unlabelled are polygons, the rest pixels."""
        return self.counted() | {"outside": int((~self.hit).sum()), "unlabelled": self.unlabelled}


class PlacedPolygons:
    """Polygons on a grid."""

    def __init__(self, truth: Polygons, shapes: Shapes) -> None:
        self.truth, self.shapes = truth, shapes

    def windows(self) -> Iterator[Window]:
        """Blocks that polygons meet."""
        for window in blocks(self.shapes.grid.height, self.shapes.grid.width, (BLOCK, BLOCK)):
            if len(self.shapes.near(window)):
                yield window

    def samples(self, window: Window) -> Samples:
        """See Placed; the label is CONFLICT where polygons of several classes overlap."""
        near = self.truth.know(self.shapes.near(window))
        label = np.full((window.height, window.width), CONFLICT)
        times = np.zeros(label.shape, np.int32)
        for position in np.unique(self.truth.label[near]):
            mine = near[self.truth.label[near] == position]
            held = self.shapes.burn(window, mine, [1] * len(mine)) > 0
            label[held] = position
            times += held
        label[times > 1] = CONFLICT
        self._count_hits(window, near)
        rows, cols = np.nonzero(times)
        return Samples(rows, cols, label[rows, cols])

    def _count_hits(self, window: Window, near: np.ndarray) -> None:
        hit = self.truth.hit
        fresh = near[~hit[near]]
        on_top = np.unique(self.shapes.burn(window, fresh, (fresh + 1).tolist()))
        hit[on_top[on_top > 0] - 1] = True
        for number in fresh[~hit[fresh]]:  # below another one, or too small to hold a centre
            hit[number] = self.shapes.holds_centre(int(number), window)
