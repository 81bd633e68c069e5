"""Reading any raster that GDAL opens: grid, bands, values and one validity mask."""

import logging
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp, Interleaving, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window as RasterioWindow

from geoml_cli.errors import GeomlError, Unreachable
from geoml_cli.formats.bands import Band, said_of
from geoml_cli.formats.remote import Far, Head, explain, is_remote, open_far, open_stored, settings
from geoml_cli.formats.web import PLAIN, Access, is_http, unsigned
from geoml_cli.geo.grid import Grid, Window, crs_name

logging.getLogger("rasterio").setLevel(logging.CRITICAL)  # its errors arrive as exceptions
warnings.filterwarnings(
    "ignore", category=NotGeoreferencedWarning
)  # what lies nowhere is told below


@dataclass(frozen=True)
class Raster:
    """A raster described: plain data, so that it can travel to workers."""

    path: str
    grid: Grid
    bands: tuple[Band, ...]
    indexes: tuple[int, ...]  # GDAL band numbers, from 1
    dtype: str

    def pick(self, names: Sequence[str]) -> "Raster":
        """The same raster with these bands, in this order."""
        have = {band.name: i for i, band in enumerate(self.bands)}
        for name in names:
            if name not in have:
                raise GeomlError(f"{self.path}: no band {name}; it has {', '.join(have)}")
        order = [have[name] for name in names]
        return replace(
            self,
            bands=tuple(self.bands[i] for i in order),
            indexes=tuple(self.indexes[i] for i in order),
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        bands = [band.to_dict() for band in self.bands]
        plain = {"path": self.path, "bands": bands, "indexes": list(self.indexes)}
        return plain | {"dtype": self.dtype, **self.grid.to_dict()}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "Raster":
        """Read what `to_dict` gave."""
        bands = tuple(Band.from_dict(band) for band in plain["bands"])
        grid = Grid.from_dict(plain)
        return cls(plain["path"], grid, bands, tuple(plain["indexes"]), plain["dtype"])


def open_raster(
    path: str, access: Access = PLAIN, head: Head | None = None
) -> tuple[rasterio.DatasetReader, Far | None]:
    """Open for reading, with the file behind a URL; what GDAL objects to becomes one line."""
    if not is_remote(path) and not path.startswith("/vsi") and ":" not in path:
        file = Path(path)
        if not file.exists():
            raise GeomlError(f"{path}: no such file")
        if file.is_file() and file.stat().st_size == 0:
            raise GeomlError(f"{path}: is empty (zero bytes); fetch or make it again")
    try:
        if is_http(path):
            return open_far(path, access, head)
        return (open_stored if is_remote(path) else rasterio.open)(path), None
    except RasterioError as error:
        raise _unreadable(path, error) from None


@contextmanager
def opened(
    path: str, access: Access = PLAIN, head: Head | None = None
) -> Iterator[rasterio.DatasetReader]:
    """A raster open for the length of a block; what a server would not send is raised at its end."""
    dataset, far = open_raster(path, access, head)
    try:
        with dataset, settings(path):
            yield dataset
    finally:
        if far:  # also where it is the reason behind another error
            far.close()
            far.check()


def close_raster(dataset: rasterio.DatasetReader, far: Far | None) -> None:
    """Let go of what `open_raster` gave; raises what a server would not send."""
    dataset.close()
    if far:
        far.close()
        far.check()


def _unreadable(path: str, error: Exception, where: str = "") -> GeomlError:
    said = str(error.__cause__ or error).replace(path, "").strip(" :'")
    if is_http(path):
        name = unsigned(path)
        said = re.sub(r"/vsi\S*", "", said).strip(" :'")
        return GeomlError(f"{name}{where}: damaged or no raster ({said}); tell who published it")
    if is_remote(path):
        return explain(path, said)
    return GeomlError(f"{path}{where}: not readable as a raster ({said}); fetch or make it again")


def describe(path: str, said: Sequence[dict[str, Any]] = (), picture: bool = False) -> Raster:
    """Open a raster and describe it; `said` is what its STAC asset says of its bands.

    A `picture` needs no CRS: its grid is in pixels then, and lies nowhere.
    """
    with opened(path) as dataset:
        return described(dataset, path, said, picture)


def described(
    dataset: rasterio.DatasetReader,
    path: str,
    said: Sequence[dict[str, Any]] = (),
    picture: bool = False,
) -> Raster:
    """As `describe`, for a raster that is open."""
    if dataset.count == 0:
        names = ", ".join(dataset.subdatasets[:3])
        raise GeomlError(f"{path}: holds several rasters; name one, such as {names}")
    placed = dataset.crs is not None
    if not placed:
        if dataset.gcps[0]:
            raise GeomlError(
                f"{path}: placed by ground control points; warp it first: gdalwarp {path} out.tif"
            )
    if not placed and not picture:
        raise GeomlError(f"{path}: no CRS; give it one: gdal_edit.py -a_srs EPSG:CODE {path}")
    crs, transform = (crs_name(dataset.crs.to_wkt()) if placed else ""), dataset.transform
    if not placed:
        transform = Affine.scale(1, -1)  # north up, in pixels
    grid = Grid(crs, transform, dataset.height, dataset.width)
    if not grid.north_up:
        raise GeomlError(f"{path}: rotated grid; warp it first: gdalwarp {path} out.tif")
    alpha = [i for i, c in enumerate(dataset.colorinterp) if c == ColorInterp.alpha]
    indexes = tuple(i + 1 for i in range(dataset.count) if i not in alpha)
    kinds = {dataset.dtypes[i - 1] for i in indexes}
    if len(kinds) > 1 or any("complex" in k for k in kinds):
        raise GeomlError(
            f"{path}: bands of types {', '.join(sorted(kinds))}; split it by type first"
        )
    gsd_m = grid.gsd_m() if placed else None
    bands = tuple(_band(dataset, i, said_of(said, n), gsd_m) for n, i in enumerate(indexes))
    if len({b.name for b in bands}) < len(bands):
        raise GeomlError(f"{path}: two bands share a name ({', '.join(b.name for b in bands)})")
    return Raster(path, grid, bands, indexes, kinds.pop())


def _band(
    dataset: rasterio.DatasetReader, index: int, said: dict[str, Any], gsd_m: float | None
) -> Band:
    scale, offset = dataset.scales[index - 1], dataset.offsets[index - 1]
    own: dict[str, Any] = {
        "name": dataset.descriptions[index - 1] or said.get("name") or f"B{index}",
        "unit": dataset.units[index - 1] or said.get("unit"),
        "gsd_m": said.get("gsd_m", gsd_m and round(gsd_m, 3)),
        "nodata": dataset.nodatavals[index - 1],
        # the file wins over the catalog: catalogs are known to contradict the pixels
        "scale": scale if (scale, offset) != (1, 0) else said.get("scale", 1.0),
        "offset": offset if (scale, offset) != (1, 0) else said.get("offset", 0.0),
    }
    if own["nodata"] is None:
        own["nodata"] = said.get("nodata")
    return Band.from_dict({**said, **{k: v for k, v in own.items() if v is not None}})


class Reader:
    """An open raster; one per thread."""

    def __init__(
        self,
        raster: Raster,
        access: Access = PLAIN,
        head: Head | None = None,
        already: tuple[rasterio.DatasetReader, Far | None] | None = None,
    ) -> None:
        self.raster, self._access, self._head = raster, access, head
        self._open(already)

    def _open(self, already: tuple[rasterio.DatasetReader, Far | None] | None = None) -> None:
        found = already or open_raster(self.raster.path, self._access, self._head)
        self._dataset, self._far = found
        flags = [self._dataset.mask_flag_enums[i - 1] for i in self.raster.indexes]
        # whole numbers that are nodata are found below; floats GDAL compares with some tolerance
        plain = [[MaskFlags.all_valid], [MaskFlags.nodata]][: 2 - (self.raster.dtype[0] == "f")]
        self._masked = any(f not in plain for f in flags)
        self._context = (
            copy_context()
        )  # in it rasterio knows the file behind the URL, in any thread
        if self._far:
            self._far.check()

    def close(self) -> None:
        """Close the file."""
        if self._far:
            self._context.run(self._dataset.close)
            self._far.close()
        else:
            self._dataset.close()

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def stored_bytes(self, window: Window) -> int | None:
        """Bytes of the blocks that a window lies in, as stored; None where the file does not tell."""
        tiff, several = self._dataset, self._dataset.interleaving != Interleaving.pixel
        if tiff.driver not in ("GTiff", "COG"):
            return None
        high, wide = tiff.block_shapes[0]
        rows = range(window.row // high, -(-(window.row + window.height) // high))
        cols = range(window.col // wide, -(-(window.col + window.width) // wide))
        names = [f"BLOCK_SIZE_{col}_{row}" for row in rows for col in cols]
        bands = self.raster.indexes if several else self.raster.indexes[:1]
        sizes = [tiff.get_tag_item(name, "TIFF", bidx=band) for band in bands for name in names]
        if self._far:
            self._far.check()
        return sum(int(size or 0) for size in sizes)

    def read(self, window: Window, out: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Values (C, h, w) in the native dtype and valid (h, w); outside the raster nothing is valid.

        A pixel is valid where every band is: not nodata, not masked, not NaN or infinite.
        Values are read straight into `out`, if there is one; beyond the raster they are 0.
        """
        grid = self.raster.grid
        top, left = max(window.row, 0), max(window.col, 0)
        bottom = min(window.row + window.height, grid.height)
        right = min(window.col + window.width, grid.width)
        if (top, left, bottom - top, right - left) == window:
            return self._somehow(window, out)
        shape = (len(self.raster.bands), window.height, window.width)
        data: np.ndarray = np.zeros(shape, self.raster.dtype) if out is None else out
        data[:] = 0
        valid = np.zeros((window.height, window.width), bool)
        if bottom <= top or right <= left:
            return data, valid
        inside = Window(top, left, bottom - top, right - left)
        here = Window(top - window.row, left - window.col, inside.height, inside.width).slices
        data[(slice(None), *here)], valid[here] = self._somehow(inside, None)
        return data, valid

    def _somehow(self, window: Window, out: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Read a window that lies inside, from wherever the file is."""
        if self._far:
            return self._context.run(self._once, window, out)
        far = is_remote(self.raster.path)
        return PLAIN.patience(self._patiently, window, out) if far else self._once(window, out)

    def _patiently(self, window: Window, out: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        if self._dataset.closed:
            self._open()
        try:
            with settings(self.raster.path):
                return self._once(window, out)
        except Unreachable:
            self._dataset.close()
            raise

    def _once(self, window: Window, out: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        raster, box = (
            self.raster,
            RasterioWindow(window.col, window.row, window.width, window.height),
        )
        try:
            data = self._dataset.read(list(raster.indexes), window=box, out=out)
            valid = np.ones(data.shape[1:], bool)
            if self._masked:
                valid &= (self._dataset.read_masks(list(raster.indexes), window=box) > 0).all(0)
        except RasterioError as error:
            where = f": rows {window.row}-{window.row + window.height}, columns {window.col}-{window.col + window.width}"
            if self._far:
                self._far.check()
            raise _unreadable(raster.path, error, where) from None
        if self._far:
            self._far.check()
        for i, band in enumerate(raster.bands):  # nodata that only the catalog tells
            if band.nodata is not None and not math.isnan(band.nodata):
                valid &= data[i] != band.nodata
        if data.dtype.kind == "f":
            valid &= np.isfinite(data).all(0)
        return data, valid


def physical(data: np.ndarray, bands: Sequence[Band]) -> np.ndarray:
    """Stored values (C, ...) to physical ones, float32: value * scale + offset."""
    out = data.astype(np.float32)
    for i, band in enumerate(bands):
        if (band.scale, band.offset) != (1, 0):
            out[i] = out[i] * np.float32(band.scale) + np.float32(band.offset)
    return out
