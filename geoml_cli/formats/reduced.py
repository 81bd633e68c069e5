"""A raster read at a fraction of its size: from its overviews, where it has them."""

import math

import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterioWindow

from geoml_cli.errors import GeomlError
from geoml_cli.formats.raster import Raster
from geoml_cli.geo.grid import Window


def read_reduced(
    dataset: rasterio.DatasetReader, raster: Raster, window: Window, factor: int
) -> tuple[np.ndarray, np.ndarray]:
    """Means (C, h, w) float32 of `factor` x `factor` pixels, and which of them are valid.

    `window` is in reduced pixels; what lies outside of the raster is not valid.
    """
    high, wide = (-(-n // factor) for n in (raster.grid.height, raster.grid.width))
    data = np.zeros((len(raster.indexes), window.height, window.width), np.float32)
    valid = np.zeros((window.height, window.width), bool)
    top, left = max(window.row, 0), max(window.col, 0)
    bottom, right = min(window.row + window.height, high), min(window.col + window.width, wide)
    if bottom <= top or right <= left:
        return data, valid
    # at the rim the last pixel may be of fewer than factor pixels
    box = RasterioWindow(
        left * factor,
        top * factor,
        min(right * factor, raster.grid.width) - left * factor,
        min(bottom * factor, raster.grid.height) - top * factor,
    )
    shape = (bottom - top, right - left)
    how = Resampling.average if factor > 1 else Resampling.nearest
    try:
        seen = dataset.read(
            list(raster.indexes),
            window=box,
            out_shape=(len(raster.indexes), *shape),
            resampling=how,
        )
        masks = dataset.read_masks(
            list(raster.indexes), window=box, out_shape=(len(raster.indexes), *shape)
        )
    except RasterioError as error:
        where = f"rows {box.row_off}-{box.row_off + box.height}, columns {box.col_off}-{box.col_off + box.width}"
        raise GeomlError(f"{raster.path}: {where}: not readable ({error}); make it again") from None
    there = (masks > 0).all(0)
    for k, band in enumerate(raster.bands):
        if band.nodata is not None and not math.isnan(band.nodata):
            there &= seen[k] != band.nodata
    if seen.dtype.kind == "f":
        there &= np.isfinite(seen).all(0)
        seen = np.nan_to_num(seen, posinf=0, neginf=0)
    here = (
        slice(top - window.row, bottom - window.row),
        slice(left - window.col, right - window.col),
    )
    data[(slice(None), *here)], valid[here] = seen, there
    return data, valid
