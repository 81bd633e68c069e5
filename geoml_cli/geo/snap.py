"""Grids on a lattice: what is asked for a year apart lies pixel on pixel."""

from dataclasses import dataclass

import numpy as np
import shapely
from affine import Affine
from pyproj import CRS

from geoml_cli.errors import GeomlError
from geoml_cli.geo.bounds import SEGMENTS, cover, footprint, project
from geoml_cli.geo.grid import LONLAT, Bounds, Grid, Window, between

SNUG = 1e-6  # of a pixel: a border that is passed by rounding adds none
MOST_PIXELS = 2**31
TOUCH = 1e-3  # of a pixel: grids no further apart are one lattice


@dataclass(frozen=True)
class Target:
    """The grid that pixels are to be put on.

    `crs` None keeps that of each source; `size` is a pixel's, in units of the CRS, and pixel
    borders are whole multiples of it. With `like` the pixels are that grid's, all of them.
    """

    crs: str | None = None
    size: float = 0.0
    like: Grid | None = None

    def grid(self, source: Grid, area: shapely.Geometry | None) -> Grid | None:
        """Where a source, or what of it lies in a CRS84 area, comes to lie; None where that is nothing."""
        ground = shapely.make_valid(footprint(source.outline()))
        shape = ground if area is None else shapely.intersection(ground, area)
        if shape.area == 0:
            return None
        if self.like:
            if cover(shape, self.like) is None:
                return None
            window = None if area is None else cover(area, self.like)
            return self.like if window is None else self.like.crop(window)
        crs = self.crs or source.crs
        # an outline bulges a little on its way through degrees and back
        return on_lattice(shape, crs, self.size, source.bounds if crs == source.crs else None)


def on_lattice(
    shape: shapely.Geometry, crs: str, size: float, within: Bounds | None = None
) -> Grid:
    """The smallest grid over a CRS84 shape whose borders are whole multiples of `size` in `crs`.

    `within` are bounds, in that CRS, that it need not reach beyond.
    """
    west, south, east, north = shapely.bounds(shape)
    longest = max(east - west, north - south) / SEGMENTS
    flat = project(shapely.segmentize(shape, longest), LONLAT, crs)
    xy = shapely.get_coordinates(flat)
    if CRS.from_user_input(crs).is_geographic and np.ptp(xy[:, 0]) > 180:  # across the antimeridian
        xy[:, 0] += 360 * (xy[:, 0] < 0)
    bounds = np.concatenate([xy.min(axis=0), xy.max(axis=0)])
    if within:
        bounds[:2] = np.maximum(bounds[:2], within[:2])
        bounds[2:] = np.minimum(bounds[2:], within[2:])
    if not np.isfinite(bounds).all():
        raise GeomlError(f"the area cannot be expressed in {crs}; choose another --crs")
    first = np.floor(bounds[[0, 1]] / size + SNUG).astype(int)
    last = np.ceil(bounds[[2, 3]] / size - SNUG).astype(int)
    width, height = (int(n) for n in np.maximum(last - first, 1))
    if width * height > MOST_PIXELS:
        raise GeomlError(
            f"{width} x {height} pixels of {size} in {crs}; --resolution is in its units"
        )
    left, top = float(first[0] * size), float((first[1] + height) * size)
    return Grid(crs, Affine(size, 0.0, left, 0.0, -size, top), height, width)


def shift_between(source: Grid, target: Grid) -> tuple[int, int] | None:
    """Rows and columns from one grid's origin to the other's; None where their pixels do not coincide."""
    a, b = source.transform, target.transform
    if source.crs != target.crs or (a.b, a.d, b.b, b.d) != (0, 0, 0, 0):
        return None
    span = max(source.width, source.height, target.width, target.height)
    if abs(a.a - b.a) * span > TOUCH * abs(a.a) or abs(a.e - b.e) * span > TOUCH * abs(a.e):
        return None
    rows, cols = (b.f - a.f) / a.e, (b.c - a.c) / a.a
    if abs(rows - round(rows)) > TOUCH or abs(cols - round(cols)) > TOUCH:
        return None
    return round(rows), round(cols)


def shrinking(source: Grid, target: Grid) -> float:
    """How many source pixels lie along one of the target's, at the source's centre; at least 1.

    It depends on the pixels' sizes alone, not on where the target ends.
    """
    middle = source.crop(Window(source.height // 2, source.width // 2, 1, 1))
    x, y = between(source.crs, target.crs).transform(middle.transform.c, middle.transform.f)
    if not np.isfinite([x, y]).all():
        return max(1.0, target.gsd_m() / source.gsd_m())
    t = target.transform
    there = Grid(target.crs, Affine(t.a, 0.0, x, 0.0, t.e, y), 1, 1)
    return max(1.0, round(there.gsd_m() / middle.gsd_m(), 3))


def needed(target: Grid, source: Grid, margin: int) -> Window | None:
    """Window of the source that the pixels of a target lie in, and `margin` pixels round it."""
    along = np.linspace(0, 1, 17)
    cols, rows = (v.ravel() for v in np.meshgrid(along * target.width, along * target.height))
    t = target.transform
    x, y = between(target.crs, source.crs).transform(t.c + cols * t.a, t.f + rows * t.e)
    good = np.isfinite(x) & np.isfinite(y)
    if not good.any():
        return None
    x, y = x[good], y[good]
    if CRS.from_user_input(source.crs).is_geographic:  # its columns may run beyond 180 degrees
        x = x + 360 * np.round((np.mean(source.bounds[::2]) - x) / 360)
    pad_x, pad_y = margin * abs(source.transform.a), margin * abs(source.transform.e)
    return source.window_of(
        Bounds(x.min() - pad_x, y.min() - pad_y, x.max() + pad_x, y.max() + pad_y)
    )
