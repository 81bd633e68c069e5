"""Aligned images: pixels moved once from where they were, or the grid alone, or neither."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from affine import Affine

from geoml_cli.formats.bands import Band
from geoml_cli.formats.cog import Journal, Layout
from geoml_cli.formats.crop import copy
from geoml_cli.formats.cut import Cut, Way
from geoml_cli.formats.raster import Raster, Reader, opened
from geoml_cli.geo.grid import Grid, Window, apply, between, same_crs
from geoml_cli.geo.resample import RADIUS, sample
from geoml_cli.geo.snap import shrinking
from geoml_cli.geo.windows import blocks
from geoml_cli.stages.align_measure import Motion

BLOCK_PX = 512


def warp(
    raster: Raster,
    path: Path,
    grid: Grid,
    motion: Motion,
    how: str,
    tags: Mapping[str, str],
    options: Mapping[str, str],
    check: Callable[[], None],
) -> None:
    """Write a raster, moved, as a COG on a grid; after a kill it goes on from the last block."""
    layout = _layout(raster, grid, how, tags)
    side = int(max(32, BLOCK_PX / shrinking(raster.grid, grid)))
    journal = Journal(
        path.parent, path.stem, layout, list(blocks(grid.height, grid.width, (side, side)))
    )
    try:
        with Reader(raster) as reader:
            for i in np.flatnonzero(~journal.done):
                check()
                block = journal.blocks[i]
                data, valid = _moved(reader, grid, block, motion, how)
                journal.write(int(i), _stored(data, valid, layout), not valid.any())
                if i % 8 == 0:
                    journal.sync()
    except BaseException:
        journal.sync()
        journal.close()
        raise
    journal.finish(path, options)


def _layout(raster: Raster, grid: Grid, how: str, tags: Mapping[str, str]) -> Layout:
    nodata = raster.bands[0].nodata
    if nodata is None:
        nodata = float("nan") if raster.dtype[0] == "f" else 0.0
        if how == "nearest" and raster.dtype[0] != "f":
            nodata = float(np.iinfo(raster.dtype).max)
    bands = tuple(replace(band, nodata=nodata) for band in raster.bands)
    with opened(raster.path) as dataset:
        colors: dict[int, tuple[int, int, int]] = {}
        if raster.dtype == "uint8" and len(bands) == 1:
            try:
                colors = {k: v[:3] for k, v in dataset.colormap(raster.indexes[0]).items() if v[3]}
            except ValueError:
                pass
    return Layout(grid, bands, raster.dtype, how == "nearest", colors, tags)


def _moved(
    reader: Reader, grid: Grid, block: Window, motion: Motion, how: str
) -> tuple[np.ndarray, np.ndarray]:
    """Values (C, h, w) as floats, and what is valid, of a block of the grid."""
    own = reader.raster.grid
    parts = int(min(8, max(1, round(shrinking(own, grid))))) if how != "nearest" else 1
    at = (np.arange(block.height * parts) + 0.5) / parts - 0.5 + block.row
    to = (np.arange(block.width * parts) + 0.5) / parts - 0.5 + block.col
    rows, cols = np.meshgrid(at, to, indexing="ij")
    x, y = grid.xy(rows, cols)
    crs = motion.ground.reference.crs
    x, y = motion.places(*_between(grid.crs, crs, x, y))
    x, y = _between(crs, own.crs, x, y)
    u, v = apply(~own.transform, x, y)
    u, v = u - 0.5, v - 0.5
    good = np.isfinite(u) & np.isfinite(v)
    shape = (len(reader.raster.bands), block.height, block.width)
    kind = (
        np.float64
        if np.dtype(reader.raster.dtype).itemsize > 2 and reader.raster.dtype != "float32"
        else np.float32
    )
    if not good.any():
        return np.zeros(shape, kind), np.zeros(shape[1:], bool)
    u, v = np.where(good, u, -9.0), np.where(good, v, -9.0)
    radius = RADIUS[how] + 1
    left, top = (
        int(max(-1, np.floor(u[good].min()) - radius)),
        int(max(-1, np.floor(v[good].min()) - radius)),
    )
    right = int(min(own.width + 1, np.ceil(u[good].max()) + radius + 1))
    bottom = int(min(own.height + 1, np.ceil(v[good].max()) + radius + 1))
    if right <= left or bottom <= top:
        return np.zeros(shape, kind), np.zeros(shape[1:], bool)
    data, valid = reader.read(Window(top, left, bottom - top, right - left))
    values, seen = sample(data.astype(kind), valid, u - left, v - top, how)
    seen &= good
    if parts == 1:
        return values, seen
    cells = (block.height, parts, block.width, parts)
    count = seen.reshape(cells).sum((1, 3))
    total = np.where(seen, values, 0).reshape(len(values), *cells).sum((2, 4))
    return total / np.maximum(count, 1), count * 2 >= parts**2


def _between(
    source: str, target: str, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    if same_crs(source, target):
        return x, y
    u, v = between(source, target).transform(x.ravel(), y.ravel())
    return u.reshape(x.shape), v.reshape(x.shape)


def _stored(data: np.ndarray, valid: np.ndarray, layout: Layout) -> np.ndarray:
    """Values in the file's type, nodata where nothing is valid; a value that looks like it is moved by one."""
    kind = np.dtype(layout.dtype)
    none = layout.bands[0].nodata
    if kind.kind == "f":
        return np.where(valid, data, np.asarray(none)).astype(kind)
    span = np.iinfo(kind)
    out = np.clip(np.rint(np.where(valid, data, 0)), span.min, span.max).astype(kind)
    if none is None or not span.min <= none <= span.max:
        return out
    if not layout.categorical:
        near = none + 1 if none < span.max else none - 1
        out[(out == none) & valid] = near
    return np.where(valid, out, kind.type(none))


def copied(
    raster: Raster,
    path: Path,
    grid: Grid,
    tags: Mapping[str, str],
    categorical: bool,
    check: Callable[[], None],
) -> None:
    """Write the pixels of a raster as they are, on a grid of the same shape."""
    placed = replace(raster, grid=grid)
    with opened(raster.path) as dataset:
        nodata = (
            len({str(b.nodata) for b in raster.bands}) == 1 and raster.bands[0].nodata is not None
        )
        flags = [dataset.mask_flag_enums[i - 1] for i in raster.indexes]
        masked = not nodata and any("all_valid" not in {f.name for f in one} for one in flags)
    cut = Cut(
        Reader(placed),
        placed,
        grid,
        (BLOCK_PX, BLOCK_PX),
        masked,
        Way(raw=True, categorical=categorical),
        {},
        dict(tags),
    )
    copy(cut, path, check)


def regridded(grid: Grid, motion: Motion, transform: str) -> Grid:
    """The grid of a moving image, moved to where its pixels truly are: by a shift, or by an affine transform."""
    crs = motion.ground.reference.crs
    if transform == "shift":
        cols, rows = np.array([grid.width / 2]), np.array([grid.height / 2])
    else:
        cols, rows = np.array([0.0, grid.width, 0.0]), np.array([0.0, 0.0, grid.height])
    x, y = apply(grid.transform, cols, rows)
    fx, fy = _between(crs, grid.crs, *motion.undone(*_between(grid.crs, crs, x, y)))
    t = grid.transform
    if transform == "shift":
        moved = Affine(t.a, t.b, t.c + float(fx[0] - x[0]), t.d, t.e, t.f + float(fy[0] - y[0]))
    else:
        w, h = grid.width, grid.height
        a, d = (fx[1] - fx[0]) / w, (fy[1] - fy[0]) / w
        b, e = (fx[2] - fx[0]) / h, (fy[2] - fy[0]) / h
        moved = Affine(float(a), float(b), float(fx[0]), float(d), float(e), float(fy[0]))
    return replace(grid, transform=moved)


def described_as(path: Path, raster: Raster, grid: Grid, bands: tuple[Band, ...]) -> Raster:
    """A written raster, described without opening it: its grid may be turned."""
    return Raster(str(path), grid, bands, tuple(range(1, len(bands) + 1)), raster.dtype)
