"""Cloud-optimised GeoTIFFs, written block by block through a raw file and a journal.

A GeoTIFF reopened for update after a kill loses blocks, so blocks go to a raw file and one
done-byte each to a journal, data before mark; the COG is one translate of the raw file.
"""

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import rasterio
from rasterio._err import CPLE_BaseError  # what rasterio.shutil lets through
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile
from rasterio.shutil import copy as translate

from geoml_cli.errors import GeomlError, UsageMistake
from geoml_cli.formats.bands import Band
from geoml_cli.formats.commit import whole_file
from geoml_cli.formats.digest import note_written
from geoml_cli.geo.grid import Grid, Window
from geoml_cli.geo.windows import blocks

GDAL_TYPES = {
    "uint8": "Byte",
    "int8": "Int8",
    "uint16": "UInt16",
    "int16": "Int16",
    "uint32": "UInt32",
    "int32": "Int32",
    "float32": "Float32",
    "float64": "Float64",
}
COG_BLOCK = 512
FULL, EMPTY = 1, 2  # marks of blocks that are on disk


@dataclass(frozen=True)
class Layout:
    """What a COG is to hold, besides its pixels."""

    grid: Grid
    bands: tuple[Band, ...]
    dtype: str
    categorical: bool = False
    colors: Mapping[int, tuple[int, int, int]] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes of the raw file."""
        return len(self.bands) * self.grid.height * self.grid.width * np.dtype(self.dtype).itemsize


class Journal:
    """A raster in the making: `NAME.raw` (bands one after another) and `NAME.done` (a byte a block)."""

    def __init__(
        self, folder: Path, name: str, layout: Layout, block: tuple[int, int] | Sequence[Window]
    ) -> None:
        """`block` is height and width of all, or each of them."""
        if layout.dtype not in GDAL_TYPES:
            raise GeomlError(f"{name}: cannot write values of type {layout.dtype}")
        self.layout = layout
        if len(block) == 2 and isinstance(block[0], int):
            block = list(blocks(layout.grid.height, layout.grid.width, block))  # type: ignore[arg-type]
        self.blocks: list[Window] = list(block)  # type: ignore[arg-type]
        self.raw, self.marks = folder / f"{name}.raw", folder / f"{name}.done"
        new = not (self.marks.is_file() and self.raw.is_file())
        new = new or self.marks.stat().st_size != len(self.blocks)
        new = new or self.raw.stat().st_size != layout.nbytes
        self._raw = os.open(self.raw, os.O_RDWR | os.O_CREAT, 0o666)
        self._marks = os.open(self.marks, os.O_RDWR | os.O_CREAT, 0o666)
        self._open = [self._raw, self._marks]
        if new:
            try:
                self._lay_out()
            except OSError as error:
                self.close()
                raise OSError(error.errno, error.strerror, str(self.raw)) from None
        self._said = np.frombuffer(os.pread(self._marks, len(self.blocks), 0), np.uint8).copy()
        self._pending: list[tuple[int, int]] = []

    @property
    def done(self) -> np.ndarray:
        """Which blocks (n,) are on disk."""
        return self._said > 0

    @property
    def empty(self) -> bool:
        """Whether all blocks on disk were said to hold nothing."""
        return not (self._said == FULL).any()

    def _lay_out(self) -> None:
        os.ftruncate(self._marks, 0)
        if hasattr(os, "posix_fallocate"):  # a full disk is told now, not at the last block
            os.posix_fallocate(self._raw, 0, self.layout.nbytes)
        os.ftruncate(self._raw, self.layout.nbytes)
        os.pwrite(self._marks, bytes(len(self.blocks)), 0)

    def write(self, index: int, data: np.ndarray, empty: bool = False) -> None:
        """Write block `index`, data (C, h, w); it counts as done after the next `sync`.

        `empty` is a note that it holds nothing but nodata.
        """
        window, grid = self.blocks[index], self.layout.grid
        data = np.ascontiguousarray(data, self.layout.dtype)
        assert data.shape == (len(self.layout.bands), window.height, window.width)
        size = data.itemsize
        for band in range(data.shape[0]):
            start = ((band * grid.height + window.row) * grid.width + window.col) * size
            if window.width == grid.width:
                _write_all(self._raw, memoryview(data[band]).cast("B"), start)
                continue
            for row in range(window.height):
                _write_all(
                    self._raw,
                    memoryview(data[band, row]).cast("B"),
                    start + row * grid.width * size,
                )
        self._pending.append((index, EMPTY if empty else FULL))

    def sync(self) -> None:
        """Flush data, then mark what is pending as done."""
        if not self._pending:
            return
        os.fdatasync(self._raw)
        for index, said in self._pending:
            os.pwrite(self._marks, bytes([said]), index)
            self._said[index] = said
        os.fdatasync(self._marks)
        self._pending.clear()

    def close(self) -> None:
        """Let go of the files; what is done stays done."""
        while self._open:
            os.close(self._open.pop())

    def finish(self, path: Path, options: Mapping[str, str] | None = None) -> None:
        """Translate to a COG at `path`, then drop the raw file and the journal."""
        self.sync()
        assert self.done.all()
        self.close()
        write_cog(self.raw, path, self.layout, options)
        self.raw.unlink()
        self.marks.unlink()


def drop_journal(folder: Path, name: str) -> None:
    """Forget a raster that will not be finished."""
    for suffix in ("raw", "done"):
        (folder / f"{name}.{suffix}").unlink(missing_ok=True)


def _write_all(handle: int, view: memoryview, start: int) -> None:
    while view:
        n = os.pwrite(handle, view, start)
        view, start = view[n:], start + n


def write_cog(
    raw: Path, path: Path, layout: Layout, options: Mapping[str, str] | None = None
) -> None:
    """Translate a raw file of bands (C, H, W) to a COG."""
    vrt = raw.with_suffix(".vrt")
    vrt.write_text(_vrt(raw.name, layout), encoding="utf-8")
    try:
        with whole_file(path) as temporary:
            # COG's overviews go through temporary files beside the target: raw data again at most
            with rasterio.Env(GDAL_PAM_ENABLED="NO"):
                translate(str(vrt), str(temporary), driver="COG", **_how(layout, options))
                with rasterio.open(temporary) as dataset:  # a full disk leaves a torn file
                    last = (dataset.height - 1, dataset.height), (0, dataset.width)
                    dataset.read(1, window=last)
    except (RasterioError, CPLE_BaseError) as error:
        free = os.statvfs(path.parent)
        room = 2 * layout.nbytes  # for pixels and overviews, at their worst
        if free.f_bavail * free.f_frsize < room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from None
        raise GeomlError(f"{path}: could not be written ({error.__cause__ or error})") from None
    finally:
        vrt.unlink(missing_ok=True)
        for left in path.parent.glob(f".{path.name}.tmp*"):
            left.unlink()


def save_cog(
    path: Path, data: np.ndarray, layout: Layout, options: Mapping[str, str] | None = None
) -> None:
    """Write an array (C, H, W) that is in memory; the bytes are those of `write_cog`."""
    data = np.ascontiguousarray(data, layout.dtype)
    folder = uuid4().hex
    try:
        with (
            MemoryFile(data.data.cast("B"), dirname=folder, filename="a.raw"),
            MemoryFile(_vrt("a.raw", layout).encode(), dirname=folder, filename="a.vrt") as vrt,
            MemoryFile(dirname=folder, filename="a.tif") as made,
            rasterio.Env(GDAL_PAM_ENABLED="NO"),
        ):
            translate(vrt.name, made.name, driver="COG", **_how(layout, options))
            with whole_file(path) as temporary:
                temporary.write_bytes(made.getbuffer())
            note_written(path, made.getbuffer())
    except (RasterioError, CPLE_BaseError) as error:
        raise GeomlError(f"{path}: could not be written ({error.__cause__ or error})") from None


OPTIONS = (
    *("ADD_ALPHA", "BIGTIFF", "BLOCKSIZE", "COMPRESS", "GEOTIFF_VERSION", "LEVEL", "MAX_Z_ERROR"),
    *("MAX_Z_ERROR_OVERVIEW", "NBITS", "NUM_THREADS", "OVERVIEWS", "OVERVIEW_COMPRESS"),
    *("OVERVIEW_COUNT", "OVERVIEW_PREDICTOR", "OVERVIEW_QUALITY", "OVERVIEW_RESAMPLING"),
    *("PREDICTOR", "QUALITY", "RESAMPLING", "SPARSE_OK", "STATISTICS"),
)


def check_options(given: Sequence[str]) -> None:
    """Refuse `KEY=VALUE` that GDAL's COG driver does not know."""
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not value:
            raise UsageMistake(f"--co {text}: write KEY=VALUE, such as COMPRESS=ZSTD")
        if key.upper() not in OPTIONS:
            raise UsageMistake(f"--co {text}: GDAL's COG driver has {', '.join(OPTIONS)}")


def _how(layout: Layout, options: Mapping[str, str] | None) -> dict[str, str]:
    """Options of GDAL's COG driver."""
    floats = layout.dtype.startswith("float")
    return {
        "BLOCKSIZE": str(COG_BLOCK),
        "COMPRESS": "DEFLATE",
        "PREDICTOR": "YES" if floats or not layout.categorical else "NO",
        "OVERVIEW_RESAMPLING": "NEAREST" if layout.categorical else "AVERAGE",
        "BIGTIFF": "IF_SAFER",
        **{key.upper(): value for key, value in (options or {}).items()},
    }


def _vrt(raw: str, layout: Layout) -> str:
    grid, kind = layout.grid, GDAL_TYPES[layout.dtype]
    size = np.dtype(layout.dtype).itemsize
    lines = [
        f'<VRTDataset rasterXSize="{grid.width}" rasterYSize="{grid.height}">',
        *([f"<SRS>{escape(_wkt(grid.crs))}</SRS>"] if grid.placed else []),
        f"<GeoTransform>{', '.join(repr(float(v)) for v in grid.transform.to_gdal())}</GeoTransform>",
        "<Metadata>",
        *(f"<MDI key={quoteattr(k)}>{escape(v)}</MDI>" for k, v in sorted(layout.tags.items())),
        "</Metadata>",
    ]
    for i, band in enumerate(layout.bands):
        lines += [
            f'<VRTRasterBand dataType="{kind}" band="{i + 1}" subClass="VRTRawRasterBand">',
            f"<Description>{escape(band.name)}</Description>",
            *([f"<UnitType>{escape(band.unit)}</UnitType>"] if band.unit else []),
            *(_number("Offset", band.offset) if (band.scale, band.offset) != (1, 0) else []),
            *(_number("Scale", band.scale) if (band.scale, band.offset) != (1, 0) else []),
            *(_number("NoDataValue", band.nodata) if band.nodata is not None else []),
            *(_color_table(layout.colors) if layout.colors and len(layout.bands) == 1 else []),
            f'<SourceFilename relativetoVRT="1">{escape(raw)}</SourceFilename>',
            f"<ImageOffset>{i * grid.height * grid.width * size}</ImageOffset>",
            f"<PixelOffset>{size}</PixelOffset><LineOffset>{grid.width * size}</LineOffset>",
            "<ByteOrder>LSB</ByteOrder>",
            "</VRTRasterBand>",
        ]
    return "\n".join([*lines, "</VRTDataset>"])


def _number(tag: str, value: float) -> list[str]:
    return [f"<{tag}>{float(value)!r}</{tag}>"]


def _wkt(crs: str) -> str:
    return rasterio.crs.CRS.from_user_input(crs).to_wkt()


def _color_table(colors: Mapping[int, Sequence[int]]) -> list[str]:
    rows = []
    for i in range(256):
        r, g, b = colors.get(i, (0, 0, 0))
        rows.append(f'<Entry c1="{r}" c2="{g}" c3="{b}" c4="{255 if i in colors else 0}"/>')
    return ["<ColorInterp>Palette</ColorInterp>", "<ColorTable>", *rows, "</ColorTable>"]
