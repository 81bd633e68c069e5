"""A window of a raster copied to a COG pixel for pixel, block by block, so that a kill loses little.

What is invalid in the source is nodata in the copy. Where the source says so by nodata values
its pixels are copied as they are. Where a mask or an alpha band says so, and there is no nodata
value, one is chosen that no valid pixel has: NaN for floats; else 0, the type's largest, its
smallest, or the largest that is free. Integers whose 256 or 65536 values are all taken are
widened by a step.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from geoml_cli.errors import GeomlError
from geoml_cli.formats.bands import Band
from geoml_cli.formats.cog import Journal, Layout, save_cog, write_cog
from geoml_cli.formats.cut import Cut
from geoml_cli.geo.grid import Window

BURN_BYTES = 8 * 2**20
SAMPLE = 2**14  # valid values of a block that are looked at
SMALL_BYTES = 2 * 2**20  # what is no larger is read at once; a kill loses it
LONE_PX = 1024  # what is no larger is shown without overviews
SYNC_S = 0.5  # a kill loses at most so much reading, and one block
WIDER = {"uint8": "int16", "int8": "int16", "uint16": "int32", "int16": "int32"}


def copy(cut: Cut, path: Path, check: Callable[[], None]) -> np.ndarray:
    """Copy the pixels of a cut to a COG at `path`; `check` is called before each block and may raise.

    What is done stays beside `path` until the copy is whole, and is not read again. Gives some of
    the valid values as stored, (C, n), of those read now.
    """
    layout = cut.layout
    chosen = cut.masked and any(band.nodata is None for band in layout.bands)
    if layout.nbytes <= SMALL_BYTES:
        return _copy_at_once(cut, path, check, chosen)
    work = replace(layout, bands=(*layout.bands, Band("valid"))) if chosen else layout
    journal = Journal(path.parent, path.stem, work, cut.block)
    try:
        some = _fill(cut, journal, check, chosen)
    except BaseException as error:
        if isinstance(error, GeomlError):  # not where the disk is full
            journal.sync()
        journal.close()
        if not journal.done.any():
            journal.raw.unlink()
            journal.marks.unlink()
        raise
    if not chosen:
        journal.finish(path, _how(layout))
        return some
    journal.close()
    raw, layout = _burn(journal, layout)
    write_cog(raw, path, layout, _how(layout))
    for left in {raw, journal.raw, journal.marks}:
        left.unlink()
    return some


def _how(layout: Layout) -> dict[str, str]:
    """Options of the COG: fast to write and to read; an overview shows no value that is not there."""
    how = {"COMPRESS": "ZSTD", "LEVEL": "1", "OVERVIEW_RESAMPLING": "NEAREST"}
    small = max(layout.grid.height, layout.grid.width) <= LONE_PX
    return how | ({"OVERVIEWS": "NONE"} if small else {})


def _copy_at_once(cut: Cut, path: Path, check: Callable[[], None], chosen: bool) -> np.ndarray:
    """As `copy`, in one read and in memory."""
    check()
    layout, grid = cut.layout, cut.grid
    with cut.opened() as view:
        data, valid = view.read(Window(0, 0, grid.height, grid.width))
    some = _some(data, valid)
    if cut.scaled:
        data = _physical(data, cut)
    if chosen:
        data = np.concatenate([data, valid[None].astype(data.dtype)])
        nodata = _free_value(data, [slice(None)])
        if nodata is None:
            layout, nodata = _widened(layout)
        data = data[:-1].astype(layout.dtype)
        layout = _with_nodata(layout, nodata)
    if layout.bands[0].nodata is not None and (chosen or cut.masked or cut.scaled):
        data[:, ~valid] = layout.bands[0].nodata
    check()
    save_cog(path, data, layout, _how(layout))
    return some


def _some(data: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Some of the valid values, (C, n)."""
    step = max(1, int((valid.size / SAMPLE) ** 0.5))
    return data[:, ::step, ::step][:, valid[::step, ::step]]


def _fill(cut: Cut, journal: Journal, check: Callable[[], None], chosen: bool) -> np.ndarray:
    """Read and write the blocks that are not done."""
    todo = np.flatnonzero(~journal.done)
    some = [np.zeros((len(cut.raster.bands), 0), cut.raster.dtype)]
    if not len(todo):
        return some[0]
    synced = time.monotonic()
    nodata = cut.layout.bands[0].nodata
    check()
    with cut.opened() as view:
        for index in todo:
            check()
            data, valid = view.read(journal.blocks[index])
            some.append(_some(data, valid))
            if cut.scaled:
                data = _physical(data, cut)
            if chosen:
                data = np.concatenate([data, valid[None].astype(data.dtype)])
            elif cut.masked or cut.scaled:
                data[:, ~valid] = nodata
            journal.write(int(index), data)
            if time.monotonic() - synced > SYNC_S:
                journal.sync()
                synced = time.monotonic()
    journal.sync()
    return np.concatenate(some, axis=1)


def _physical(data: np.ndarray, cut: Cut) -> np.ndarray:
    """Stored values (C, h, w) to physical ones, in the copy's type; rounded once."""
    out = np.empty(data.shape, cut.dtype)
    for i, band in enumerate(cut.raster.bands):
        out[i] = data[i] * np.float64(band.scale) + np.float64(band.offset)
    return out


def _burn(journal: Journal, layout: Layout) -> tuple[Path, Layout]:
    """Put a free value where the last band of the raw file is 0: the raw file and its layout."""
    grid, count = layout.grid, len(layout.bands)
    shape = (count + 1, grid.height, grid.width)
    data = np.memmap(journal.raw, layout.dtype, "r+", shape=shape)
    rows = max(1, BURN_BYTES // (data.itemsize * grid.width * (count + 1)))
    parts = [slice(row, row + rows) for row in range(0, grid.height, rows)]
    nodata = _free_value(data, parts)
    raw, dtype, target = journal.raw, layout.dtype, data
    if nodata is None:
        layout, nodata = _widened(layout)
        dtype = layout.dtype
        raw = journal.raw.with_suffix(".wide.raw")
        target = np.memmap(raw, dtype, "w+", shape=shape)
    for part in parts:
        values = data[:count, part].astype(dtype)
        values[:, data[count, part] == 0] = nodata
        target[:count, part] = values
    target.flush()
    return raw, _with_nodata(layout, nodata)


def _widened(layout: Layout) -> tuple[Layout, float]:
    """The layout with a type a step wider, and a value that only this has."""
    dtype = WIDER.get(layout.dtype, "float64")
    nodata = float("nan") if dtype == "float64" else float(np.iinfo(dtype).min)
    return replace(layout, dtype=dtype, colors={}), nodata


def _with_nodata(layout: Layout, nodata: float) -> Layout:
    bands = tuple(replace(band, nodata=float(nodata)) for band in layout.bands)
    return replace(layout, bands=bands)


def _free_value(data: np.ndarray, parts: list[slice]) -> float | None:
    """A value of the type that no valid pixel has; None where all are taken."""
    span = np.iinfo(data.dtype)
    small = data.itemsize < 4
    some = [0, *range(span.max, span.max - 64, -1), *range(span.min, span.min + 64)]
    wanted = np.arange(span.min, span.max + 1) if small else np.unique(some)
    taken = np.zeros(len(wanted), bool)
    for part in parts:
        values = np.unique(data[:-1, part][:, data[-1, part] != 0])
        taken |= np.isin(wanted, values)
    free = wanted[~taken]
    if not len(free):
        return None
    first = [value for value in (0, span.max, span.min) if value in free]
    return float(first[0] if first else free[-1])
