"""Rasters of labels: their classes, and their pixels under any grid."""

import os
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from geoml_cli.errors import GeomlError
from geoml_cli.formats.raster import Raster, Reader, describe, opened, physical
from geoml_cli.formats.views import Cropped, Plain, View, Warped
from geoml_cli.geo.grid import Grid, Window, same_crs
from geoml_cli.geo.nearest import inside, pixels_under
from geoml_cli.geo.snap import shrinking
from geoml_cli.geo.windows import blocks

RASTERS = (".tif", ".tiff", ".vrt", ".img", ".jp2", ".png", ".asc", ".bil", ".kea")
SNUG_PX = 1e-6  # that pixels of two grids may lie apart and still be the same
MOST_PX = 1 << 24  # of a raster to hold in memory at once
MOST_SCANNED_PX = 1 << 33  # of a raster to look through for its values
SCAN_PX = 1024  # side, about, of what is looked through at once
OPEN = 8  # views that a thread keeps open


def is_raster(path: str) -> bool:
    """Whether a name is that of a raster: by its ending, or as GDAL names what is inside of others."""
    plain = path.split("?")[0] if "://" in path else path
    return plain.lower().endswith(RASTERS) or bool(re.match(r"[A-Z][A-Z0-9_]+:", path))


@dataclass(frozen=True)
class Found:
    """What class rasters hold: their values in order, and what the files say of some of them."""

    values: tuple[int, ...]
    names: dict[int, str]
    colors: dict[int, str]


def open_labels(path: str, kind: str | None, picture: bool = False) -> tuple[Raster, str]:
    """A raster of labels, one band, and its kind: of itself, values for floats, else classes."""
    raster = describe(path, picture=picture)
    if len(raster.bands) != 1:
        names = ", ".join(band.name for band in raster.bands)
        raise GeomlError(
            f"{path}: labels are one band, this has {len(raster.bands)} ({names});"
            f" take one out: gdal_translate -b 1 {path} out.tif"
        )
    whole = bool(np.issubdtype(np.dtype(raster.dtype), np.integer))
    kind = kind or ("classes" if whole else "values")
    if kind == "classes" and not whole:
        raise GeomlError(
            f"{path}: classes are whole numbers, this is {raster.dtype};"
            f" convert it (gdal_translate -ot Int16 {path} out.tif) or take it as values"
        )
    return raster, kind


def open_all(
    paths: Sequence[str], kind: str | None, picture: bool
) -> tuple[dict[str, Raster], str]:
    """Rasters of labels by path, and the kind that all are of; a `picture` needs no CRS."""
    rasters: dict[str, Raster] = {}
    for path in paths:
        rasters[path], found = open_labels(path, kind, picture)
        if kind not in (None, found):
            raise GeomlError(f"{path}: holds {found}, {paths[0]} {kind}: they do not mix")
        kind = found
    assert kind is not None
    return rasters, kind


def put_on(raster: Raster, grid: Grid) -> Raster:
    """The raster; where it, or the grid, is a picture, pixel on pixel of the grid."""
    mine = raster.grid
    if mine.placed and grid.placed:
        return raster
    if (mine.height, mine.width) != (grid.height, grid.width):
        raise GeomlError(
            f"{raster.path}: {mine.width} x {mine.height} pixels, its image {grid.width} x"
            f" {grid.height}; without a CRS both must be of one size"
        )
    return replace(raster, grid=grid)


def what_is_in(rasters: Sequence[Raster], scan: bool) -> Found:
    """Names and colours that class rasters carry, and, where asked, all values of their valid pixels."""
    values: set[int] = set()
    names: dict[int, str] = {}
    colors: dict[int, str] = {}
    for raster in rasters:
        with opened(raster.path) as dataset:
            tags = dataset.tags() | dataset.tags(1)
            palette = dataset.colormap(1) if dataset.colorinterp[0].name == "palette" else {}
            block = dataset.block_shapes[0]
        known = {k.removeprefix("CLASS_"): v for k, v in tags.items() if k.startswith("CLASS_")}
        names |= {int(k): v for k, v in known.items() if k.lstrip("-").isdigit()}
        colors |= {v: "#" + bytes(color[:3]).hex() for v, color in palette.items()}
        if scan:
            values |= _values(raster, block)
    return Found(tuple(sorted(values)), names, colors)


def _values(raster: Raster, block: tuple[int, int]) -> set[int]:
    """All values of valid pixels; read in whole blocks of the file."""
    if raster.grid.height * raster.grid.width > MOST_SCANNED_PX:
        raise GeomlError(
            f"{raster.path}: too large to look through for its values; give a class map with a row *"
        )
    high, wide = (side * max(1, SCAN_PX // side) for side in block)
    values: set[int] = set()
    with Reader(raster) as reader:
        for window in blocks(raster.grid.height, raster.grid.width, (high, wide)):
            data, valid = reader.read(window)
            values |= set(_distinct(data[0][valid]))
    return values


def _distinct(values: np.ndarray) -> list[int]:
    if values.dtype.itemsize <= 2 and values.size:  # counting is far faster than sorting
        low = int(values.min())
        return (np.flatnonzero(np.bincount(values.astype(np.int64) - low)) + low).tolist()
    return np.unique(values).tolist()


class Nearest:
    """A raster on another grid: each pixel's value is that of the pixel that holds its centre."""

    def __init__(self, reader: Reader, grid: Grid) -> None:
        self.reader, self.grid = reader, grid

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Values and what of them is valid."""
        size = (window.height, window.width)
        data = np.zeros((len(self.reader.raster.bands), *size), self.reader.raster.dtype)
        valid = np.zeros(size, bool)
        self._fill(window, data, valid)
        return data, valid

    def _fill(self, window: Window, data: np.ndarray, valid: np.ndarray) -> None:
        source = self.reader.raster.grid
        rows, cols = pixels_under(self.grid, window, source)
        on = inside(source, rows, cols)
        if not on.any():
            return
        rows, cols = rows[on], cols[on]
        box = Window(int(rows.min()), int(cols.min()), int(np.ptp(rows)) + 1, int(np.ptp(cols)) + 1)
        if box.height * box.width > MOST_PX and valid.size > 1:  # a raster much finer than the grid
            for part in blocks(window.height, window.width, _half(window)):
                there = Window(window.row + part.row, window.col + part.col, *part[2:])
                self._fill(there, data[(slice(None), *part.slices)], valid[part.slices])
            return
        found, known = self.reader.read(box)
        data[:, on] = found[:, rows - box.row, cols - box.col]
        valid[on] = known[rows - box.row, cols - box.col]


class Measured:
    """A raster of numbers as what they mean: float32, scale and offset applied."""

    def __init__(self, reader: Reader) -> None:
        self.reader, self.grid = reader, reader.raster.grid

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Values and what of them is valid."""
        data, valid = self.reader.read(window)
        return physical(data, self.reader.raster.bands), valid


def _half(window: Window) -> tuple[int, int]:
    if window.height >= window.width:
        return -(-window.height // 2), window.width
    return window.height, -(-window.width // 2)


def same_pixels(source: Grid, grid: Grid) -> bool:
    """Whether the pixels of one grid, carried on beyond its rim, are those of another."""
    a, b = source.transform, grid.transform
    if not same_crs(source.crs, grid.crs):
        return False
    away = np.array([(b.c - a.c) / a.a, (b.f - a.f) / a.e])
    growth = np.array([(b.a / a.a - 1) * grid.width, (b.e / a.e - 1) * grid.height])
    return bool(
        (np.abs(away - np.round(away)) < SNUG_PX).all() and (np.abs(growth) < SNUG_PX).all()
    )


def view_of(raster: Raster, grid: Grid, kind: str) -> View:
    """The raster on a grid; opened once by each thread, and closed when others are looked at."""
    views = _OPEN.views
    key = (_version(raster.path), raster, grid, kind)
    if key in views:
        views.move_to_end(key)
        return views[key][1]
    reader = Reader(raster)
    views[key] = reader, _laid(reader, grid, kind)
    if len(views) > OPEN:
        views.popitem(last=False)[1][0].close()
    return views[key][1]


def _laid(reader: Reader, grid: Grid, kind: str) -> View:
    source = reader.raster.grid
    plain: View = Plain(reader) if kind == "classes" else Measured(reader)
    if same_pixels(source, grid):
        return Cropped(plain, grid)
    if kind == "classes":
        return Nearest(reader, grid)
    return Warped(plain, grid, "average" if shrinking(source, grid) > 1 else "bilinear")


class _PerThread(threading.local):
    def __init__(self) -> None:
        self.views: OrderedDict[object, tuple[Reader, View]] = OrderedDict()


_OPEN = _PerThread()


def _version(path: str) -> object:
    """What tells a file from others of its name: it is opened anew when it changes."""
    try:
        seen = os.stat(path)
    except OSError:  # remote, or inside of another file
        return None
    return seen.st_dev, seen.st_ino, seen.st_mtime_ns, seen.st_size
