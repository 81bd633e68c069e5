"""Part of a raster, and what its copy is to be: bands, grid, scale, mask; nothing of it is read yet."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from rasterio import DatasetReader
from rasterio.enums import MaskFlags

from geoml_cli.errors import GeomlError
from geoml_cli.formats.bands import Band, said_of
from geoml_cli.formats.cog import Layout
from geoml_cli.formats.raster import Raster, Reader, close_raster, described, open_raster
from geoml_cli.formats.remote import Head, settings
from geoml_cli.formats.views import Cropped, Plain, Screen, Screened, View, Warped, float_for
from geoml_cli.formats.web import PLAIN, Access, unsigned
from geoml_cli.geo.grid import Grid
from geoml_cli.geo.snap import Target

BLOCK_PX = 512
BLOCK_BYTES = 64 * 2**20
SCALING = "SCALING"  # tag: the scale and offset that were applied, by band
NOT_OURS = {"GEOML", "OVR_RESAMPLING_ALG"}  # tags that are about the source file, not its pixels
NO_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Way:
    """What is done to the pixels of a raster on the way into its copy.

    `indexes` picks bands (GDAL's numbers, from 1); `said` is what is known of them beside the file,
    `scaling` (scale, offset) what holds for each of them whatever the file says. With `raw` stored
    values stay as they are. `target` puts them on another grid, `screen` hides some.
    """

    said: tuple[dict[str, Any], ...] = ()
    indexes: tuple[int, ...] | None = None
    names: tuple[str, ...] | None = None  # for the bands, instead of their own
    scaling: tuple[tuple[float, float, str | None], ...] | None = None
    categorical: bool = False
    raw: bool = False
    target: Target | None = None
    resampling: str | None = None
    screen: Screen | None = None


@dataclass(frozen=True)
class Cut:
    """Part of a raster, and what its copy is to hold besides pixels."""

    reader: Reader  # open: for one use, by the thread that opened it
    raster: Raster  # scale and offset of its bands are what its stored values mean
    grid: Grid  # of the copy
    block: tuple[int, int]  # height, width
    masked: bool  # whether nodata values alone do not tell what is valid
    way: Way = Way()
    colors: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def scaled(self) -> bool:
        """Whether the copy holds physical values where the raster holds stored ones."""
        return not self.way.raw and any((b.scale, b.offset) != (1, 0) for b in self.raster.bands)

    @property
    def dtype(self) -> str:
        """Type of the copy's values."""
        stored = self.raster.dtype
        return np.dtype(float_for(np.dtype(stored))).name if self.scaled else stored

    @property
    def layout(self) -> Layout:
        """What the COG is to hold, if its nodata need not be chosen."""
        raster, values = self.raster, {str(band.nodata) for band in self.raster.bands}
        nodata = raster.bands[0].nodata if len(values) == 1 else None
        bands = tuple(replace(band, nodata=nodata) for band in raster.bands)
        tags = dict(self.tags)
        if self.scaled:
            tags[SCALING] = json.dumps([[b.scale, b.offset] for b in bands])
            bands = tuple(replace(b, nodata=float("nan"), scale=1.0, offset=0.0) for b in bands)
        elif self.masked and nodata is None and np.dtype(raster.dtype).kind == "f":
            bands = tuple(replace(band, nodata=float("nan")) for band in bands)
        return Layout(
            grid=self.grid,
            bands=bands,
            dtype=self.dtype,
            categorical=bool(self.colors) or self.way.categorical,
            colors=self.colors,
            tags=tags,
        )

    @contextmanager
    def opened(self) -> Iterator[View]:
        """The pixels of the copy, as stored in the raster."""
        with self.reader as reader:
            view: View = Plain(reader)
            if self.way.screen:
                view = Screened(view, self.way.screen)
            if self.way.target:
                view = Warped(view, self.grid, self.resampling)
            else:
                view = Cropped(view, self.grid)
            yield view

    @property
    def resampling(self) -> str:
        """How pixels come to lie on another grid."""
        classes = self.colors or self.way.categorical
        return "nearest" if classes else self.way.resampling or "bilinear"


def lay_cut(
    path: str,
    way: Way,
    where: Callable[[Raster], Grid | None],
    access: Access = PLAIN,
    head: Head | None = None,
) -> Cut | None:
    """Describe a raster and what `where` wants of it; None where that is nothing.

    The raster stays open for `copy`, or until the cut's reader is closed.
    """
    dataset, far = open_raster(path, access, head)
    try:
        with settings(path):
            raster = described(dataset, path, () if way.indexes else way.said)
            raster = _meant(raster, way, dataset)
            grid = where(raster)
            if grid:
                reader = Reader(raster, access, head, (dataset, far))
                return _cut(reader, grid, way, dataset)
    except BaseException:
        close_raster(dataset, far)
        raise
    close_raster(dataset, far)
    return None


def _meant(raster: Raster, way: Way, dataset: DatasetReader) -> Raster:
    """The raster with the bands that are wanted of it, and what is known of them."""
    pairs = list(zip(raster.indexes, raster.bands, strict=True))
    if way.indexes:
        have = dict(pairs)
        missing = [i for i in way.indexes if i not in have]
        if missing:
            raise GeomlError(f"{unsigned(raster.path)}: has {len(pairs)} bands, no {missing[0]}")
        pairs = [(i, have[i]) for i in way.indexes]
    bands = []
    for n, (index, band) in enumerate(pairs):
        known = dataset.descriptions[index - 1] or band.name != f"B{index}"
        if way.indexes:
            band = Band.from_dict(said_of(way.said, n) | band.to_dict())
        if way.names and len(way.names) == len(pairs):
            band, known = replace(band, name=way.names[n]), True
        if way.scaling:
            scale, offset, unit = way.scaling[min(n, len(way.scaling) - 1)]
            band = replace(band, scale=scale, offset=offset, unit=unit or band.unit)
        bands.append(_fitting(band if known else replace(band, name=""), raster.dtype))
    indexes = tuple(index for index, _ in pairs)
    return replace(raster, bands=tuple(bands), indexes=indexes)


def _cut(reader: Reader, grid: Grid, way: Way, dataset: DatasetReader) -> Cut:
    raster = reader.raster
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
    cut = Cut(
        reader=reader,
        raster=raster,
        grid=grid,
        block=_block(raster, grid, striped),
        masked=masked or bool(way.screen or way.target),
        way=way,
        colors={value: rgba[:3] for value, rgba in colors.items() if rgba[3]},
        tags={key: text for key, text in tags.items() if key not in NOT_OURS},
    )
    if way.target:
        side = Warped.side(raster.grid, grid)
        cut = replace(cut, block=(side, side))
    return cut


def _block(raster: Raster, grid: Grid, striped: bool) -> tuple[int, int]:
    """Height and width of a block: square, or as wide as the window where the source lies in strips."""
    pixel = (len(raster.bands) + 1) * np.dtype(raster.dtype).itemsize
    wide = grid.width if striped else BLOCK_PX
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
