"""A window of a raster copied to a COG pixel for pixel, block by block, so that a kill loses little.

What is invalid in the source is nodata in the copy. Where the source says so by nodata values
its pixels are copied as they are. Where a mask or an alpha band says so, and there is no nodata
value, one is chosen that no valid pixel has: NaN for floats; else 0, the type's largest, its
smallest, or the largest that is free. Integers whose 256 or 65536 values are all taken are
widened by a step.
"""

import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rasterio import DatasetReader
from rasterio.enums import MaskFlags

from geoml_cli.errors import GeomlError
from geoml_cli.formats.bands import Band
from geoml_cli.formats.cog import Journal, Layout, write_cog
from geoml_cli.formats.raster import Raster, Reader, described, opened
from geoml_cli.geo.grid import Window

BLOCK_PX = 512
BLOCK_BYTES = 64 * 2**20
BURN_BYTES = 8 * 2**20
SYNC_S = 0.5  # a kill loses at most so much reading, and one block
WIDER = {"uint8": "int16", "int8": "int16", "uint16": "int32", "int16": "int32"}
NOT_OURS = {"GEOML", "OVR_RESAMPLING_ALG"}  # tags that are about the source file, not its pixels
NO_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Cut:
    """A window of a raster, and what its copy is to hold besides pixels."""

    raster: Raster
    window: Window
    block: tuple[int, int]  # height, width
    masked: bool  # whether nodata values alone do not tell what is valid
    colors: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def layout(self) -> Layout:
        """What the COG is to hold, if its nodata need not be chosen."""
        raster, values = self.raster, {str(band.nodata) for band in self.raster.bands}
        nodata = raster.bands[0].nodata if len(values) == 1 else None
        if self.masked and nodata is None and np.dtype(raster.dtype).kind == "f":
            nodata = float("nan")
        return Layout(
            grid=raster.grid.crop(self.window),
            bands=tuple(replace(band, nodata=nodata) for band in raster.bands),
            dtype=raster.dtype,
            categorical=bool(self.colors),
            colors=self.colors,
            tags=self.tags,
        )


def lay_cut(
    path: str, said: Sequence[dict[str, Any]], where: Callable[[Raster], Window | None]
) -> Cut | None:
    """Describe a raster and the window `where` finds on it; None where it finds none.

    `said` is what the raster's STAC asset says of its bands.
    """
    with opened(path) as dataset:
        raster = described(dataset, path, said)
        window = where(raster)
        if window is None:
            return None
        bands = []
        for index, band in zip(raster.indexes, raster.bands, strict=True):
            known = dataset.descriptions[index - 1] or band.name != f"B{index}"
            bands.append(_fitting(band if known else replace(band, name=""), raster.dtype))
        return _cut(replace(raster, bands=tuple(bands)), window, dataset)


def _cut(raster: Raster, window: Window, dataset: DatasetReader) -> Cut:
    flags = {flag for i in raster.indexes for flag in dataset.mask_flag_enums[i - 1]}
    masked = not flags <= {MaskFlags.all_valid, MaskFlags.nodata}
    masked = (
        masked or len({str(band.nodata) for band in raster.bands}) > 1
    )  # a TIFF has one for all
    tags = {key: NO_XML.sub("", text) for key, text in dataset.tags().items()}
    striped = dataset.block_shapes[raster.indexes[0] - 1][1] >= raster.grid.width
    colors = {}
    if len(raster.bands) == 1 and raster.dtype == "uint8":
        with suppress(ValueError):  # it has none
            colors = dataset.colormap(raster.indexes[0])
    return Cut(
        raster=raster,
        window=window,
        block=_block(raster, window, striped),
        masked=masked,
        colors={value: rgba[:3] for value, rgba in colors.items() if rgba[3]},
        tags={key: text for key, text in tags.items() if key not in NOT_OURS},
    )


def _block(raster: Raster, window: Window, striped: bool) -> tuple[int, int]:
    """Height and width of a block: square, or as wide as the window where the source lies in strips."""
    pixel = (len(raster.bands) + 1) * np.dtype(raster.dtype).itemsize
    wide = window.width if striped else BLOCK_PX
    while wide * pixel * 16 > BLOCK_BYTES and wide > 16:
        wide = -(-wide // 2)
    return max(1, min(BLOCK_PX, BLOCK_BYTES // (wide * pixel))), wide


def _fitting(band: Band, dtype: str) -> Band:
    """The band without a nodata value that its pixels cannot have."""
    value, kind = band.nodata, np.dtype(dtype)
    if value is None or kind.kind == "f":
        return band
    span = np.iinfo(kind)
    fits = value == value and float(value).is_integer() and span.min <= value <= span.max
    return band if fits else replace(band, nodata=None)


def copy(cut: Cut, path: Path, check: Callable[[], None]) -> None:
    """Copy the pixels of a cut to a COG at `path`; `check` is called before each block and may raise.

    What is done stays beside `path` until the copy is whole, and is not read again.
    """
    layout = cut.layout
    chosen = cut.masked and any(band.nodata is None for band in layout.bands)
    work = replace(layout, bands=(*layout.bands, Band("valid"))) if chosen else layout
    journal = Journal(path.parent, path.stem, work, cut.block)
    try:
        _fill(cut, journal, check, chosen)
    except BaseException as error:
        if isinstance(error, GeomlError):  # not where the disk is full
            journal.sync()
        journal.close()
        if not journal.done.any():
            journal.raw.unlink()
            journal.marks.unlink()
        raise
    how = {"OVERVIEW_RESAMPLING": "NEAREST"}  # an overview shows no value that is not there
    if not chosen:
        journal.finish(path, how)
        return
    journal.close()
    raw, layout = _burn(journal, layout)
    write_cog(raw, path, layout, how)
    for left in {raw, journal.raw, journal.marks}:
        left.unlink()


def _fill(cut: Cut, journal: Journal, check: Callable[[], None], chosen: bool) -> None:
    """Read and write the blocks that are not done."""
    todo = np.flatnonzero(~journal.done)
    if not len(todo):
        return
    synced = time.monotonic()
    nodata = cut.layout.bands[0].nodata
    check()
    with Reader(cut.raster) as reader:
        for index in todo:
            check()
            row, col, height, width = journal.blocks[index]
            window = Window(cut.window.row + row, cut.window.col + col, height, width)
            data, valid = reader.read(window)
            if chosen:
                data = np.concatenate([data, valid[None].astype(data.dtype)])
            elif cut.masked:
                data[:, ~valid] = nodata
            journal.write(int(index), data)
            if time.monotonic() - synced > SYNC_S:
                journal.sync()
                synced = time.monotonic()
    journal.sync()


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
        dtype = WIDER.get(dtype, "float64")
        nodata = float("nan") if dtype == "float64" else float(np.iinfo(dtype).min)
        raw = journal.raw.with_suffix(".wide.raw")
        target = np.memmap(raw, dtype, "w+", shape=shape)
    for part in parts:
        values = data[:count, part].astype(dtype)
        values[:, data[count, part] == 0] = nodata
        target[:count, part] = values
    target.flush()
    bands = tuple(replace(band, nodata=float(nodata)) for band in layout.bands)
    colors = layout.colors if dtype == layout.dtype else {}
    return raw, replace(layout, bands=bands, dtype=dtype, colors=colors)


def _free_value(data: np.memmap, parts: list[slice]) -> float | None:
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
