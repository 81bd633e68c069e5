"""Ways to look at a raster while it is copied: through a mask, on another grid."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from rasterio.enums import Resampling
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT

from geoml_cli.errors import GeomlError
from geoml_cli.formats.raster import Raster, Reader, describe
from geoml_cli.geo.grid import Grid, Window, same_crs
from geoml_cli.geo.snap import needed, shrinking

RADIUS = {"nearest": 1, "bilinear": 1, "cubic": 2, "average": 1, "mode": 1}  # source pixels
RESAMPLING = tuple(RADIUS)
EXACT_PX = 1e-9
WARP_PIXELS = 2**22  # of the source, at once


class View(Protocol):
    """What can be read by windows of its grid: values (C, h, w) and valid (h, w)."""

    grid: Grid

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Values and what of them is valid."""


class Plain:
    """A raster as it is."""

    def __init__(self, reader: Reader) -> None:
        self.reader, self.grid = reader, reader.raster.grid

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Values and what of them is valid."""
        return self.reader.read(window)


class Cropped:
    """Some of the pixels of a raster: those of a grid that is part of its own."""

    def __init__(self, inner: View, grid: Grid) -> None:
        rows, cols = inner.grid.rowcol(*(np.array([v]) for v in grid.xy(np.array(0), np.array(0))))
        self.inner, self.grid, self.row, self.col = inner, grid, int(rows[0]), int(cols[0])

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Values and what of them is valid."""
        there = Window(window.row + self.row, window.col + self.col, window.height, window.width)
        return self.inner.read(there)


@dataclass(frozen=True)
class Screen:
    """A mask layer in a local file, and which of its values hide what lies under them."""

    path: str
    bad: Callable[[np.ndarray], np.ndarray]


class Screened:
    """A raster without the pixels whose centre lies on a bad, or no, pixel of a mask layer."""

    def __init__(self, inner: View, screen: Screen) -> None:
        self.inner, self.grid, self.screen = inner, inner.grid, screen
        layer = describe(screen.path)
        if not same_crs(layer.grid.crs, self.grid.crs):
            raise GeomlError(
                f"its mask layer is in {layer.grid.crs}, not {self.grid.crs}; leave out --mask"
            )
        self.layer: Raster = layer

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Values and what of them is valid."""
        data, valid = self.inner.read(window)
        rows, cols = np.arange(window.height) + window.row, np.arange(window.width) + window.col
        x, _ = self.grid.xy(np.zeros_like(cols), cols)
        _, y = self.grid.xy(rows, np.zeros_like(rows))
        there_rows, _ = self.layer.grid.rowcol(np.zeros(len(y)), y)
        _, there_cols = self.layer.grid.rowcol(x, np.zeros(len(x)))
        top, left = int(there_rows.min()), int(there_cols.min())
        span = Window(top, left, int(np.ptp(there_rows)) + 1, int(np.ptp(there_cols)) + 1)
        with Reader(self.layer) as reader:
            said, known = reader.read(span)
        good = known & ~self.screen.bad(said[0])
        return data, valid & good[np.ix_(there_rows - top, there_cols - left)]


class Warped:
    """A raster on another grid; a pixel does not depend on the window it is read in."""

    def __init__(self, inner: View, grid: Grid, resampling: str) -> None:
        self.inner, self.grid, self.resampling = inner, grid, resampling
        self.ratio = shrinking(inner.grid, grid)

    @staticmethod
    def side(source: Grid, target: Grid) -> int:
        """Side of a block whose source fits into memory."""
        return int(min(512, max(16, WARP_PIXELS**0.5 / shrinking(source, target))))

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Values and what of them is valid."""
        target, margin = self.grid.crop(window), int(np.ceil(RADIUS[self.resampling] * self.ratio))
        span = needed(target, self.inner.grid, margin + 2)
        if span is None:
            data, _ = self.inner.read(Window(0, 0, 1, 1))
            size = (window.height, window.width)
            return np.zeros((len(data), *size), data.dtype), np.zeros(size, bool)
        data, valid = self.inner.read(span)
        shape = (len(data), window.height, window.width)
        out: np.ndarray = np.full(shape, np.nan, float_for(data.dtype))
        values = data.astype(out.dtype)
        values[:, ~valid] = np.nan
        self._move(values, out, span, target, self.resampling)
        there = np.isfinite(out).all(0)
        if not valid.all():  # interpolation would let the rim of what is valid grow
            seen = np.zeros((1, window.height, window.width), np.uint8)
            self._move(valid[None].astype(np.uint8), seen, span, target, "nearest")
            there &= seen[0] > 0
        if data.dtype.kind != "f":
            limits = np.iinfo(data.dtype)
            out = np.clip(np.rint(np.where(there, out, 0)), limits.min, limits.max)
        return out.astype(data.dtype), there

    def _move(
        self, values: np.ndarray, out: np.ndarray, span: Window, target: Grid, how: str
    ) -> None:
        none = np.nan if out.dtype.kind == "f" else None
        source = self.inner.grid.crop(span)
        kind = {"driver": "GTiff", "count": len(values), "dtype": values.dtype}
        place = {"crs": source.crs, "transform": source.transform}
        size = {"height": source.height, "width": source.width}
        with MemoryFile() as memory:
            with memory.open(**kind, **place, **size) as dataset:
                dataset.write(values)
            with (
                memory.open() as dataset,
                WarpedVRT(
                    dataset,
                    src_nodata=none,
                    nodata=none,
                    crs=target.crs,
                    transform=target.transform,
                    height=target.height,
                    width=target.width,
                    resampling=Resampling[how],
                    tolerance=EXACT_PX,  # an approximation would depend on the window
                    XSCALE=1 / self.ratio,  # so would what GDAL computes by itself
                    YSCALE=1 / self.ratio,
                ) as warped,
            ):
                warped.read(out=out)


def float_for(kind: np.dtype) -> type:
    """A float type that holds every value of the type."""
    return np.float32 if kind.itemsize <= 2 or kind == np.float32 else np.float64
