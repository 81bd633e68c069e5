"""What any raster is, as plain data: also one that no command takes as it is."""

import os
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import hypot
from typing import Any

import numpy as np
import rasterio
from pyproj import CRS
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning

from geoml_cli.errors import GeomlError
from geoml_cli.formats.bands import Band
from geoml_cli.formats.items import bbox_of
from geoml_cli.formats.raster import described, opened
from geoml_cli.formats.remote import settings
from geoml_cli.geo.bounds import footprint
from geoml_cli.geo.grid import Grid, crs_name

SAMPLE_PX = 1024  # side, at most, of what the shares of classes are counted on


def raster(path: str) -> dict[str, Any]:
    """Describe a raster, also one that no command takes as it is; `note` says why not."""
    with looked_at(path) as dataset:
        found: dict[str, Any] = {
            "kind": "raster",
            "driver": dataset.driver,
            "shape": [dataset.height, dataset.width],
            "dtypes": sorted(set(dataset.dtypes)),
            "bands": [_band(dataset, i) for i in range(dataset.count)],
            "grid": grid_of(dataset),
            "mask": _mask(dataset),
            "storage": _storage(dataset),
        }
        if dataset.subdatasets:
            found["subdatasets"] = list(dataset.subdatasets)
        classes = classes_in(dataset)
        if classes:
            found["classes"] = classes
            found["sampled"] = _count(dataset, classes)
        try:
            described(dataset, path)
        except GeomlError as error:
            found["note"] = str(error).removeprefix(f"{path}: ")
    return found


@contextmanager
def looked_at(path: str) -> Iterator[rasterio.DatasetReader]:
    """A raster open without a warning where it lies nowhere: that is told with its grid."""
    with warnings.catch_warnings(), settings(path):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with opened(path) as dataset:
            yield dataset


def grid_of(dataset: rasterio.DatasetReader) -> dict[str, Any]:
    """Where a raster lies, as far as it says."""
    found: dict[str, Any] = {"transform": list(dataset.transform)[:6]}
    if dataset.crs is None:
        return {"crs": None, "gcps": len(dataset.gcps[0]), **found}
    grid = Grid(crs_name(dataset.crs.to_wkt()), dataset.transform, dataset.height, dataset.width)
    return told_grid(grid) | found


def told_grid(grid: Grid) -> dict[str, Any]:
    """CRS, its name, size of a pixel in it, bounds in degrees, ground size of a pixel in metres."""
    crs = CRS.from_user_input(grid.crs)
    found: dict[str, Any] = {"crs": grid.crs, "crs_name": crs.name, "unit": unit_of(crs)}
    t = grid.transform
    found["pixel"] = [hypot(t.a, t.d), hypot(t.b, t.e)]
    with suppress(GeomlError):
        found["lonlat"] = bbox_of(footprint(grid.outline()))
        found["gsd_m"] = grid.gsd_m()
    return found


def unit_of(crs: CRS) -> str:
    """Unit of the axes: metre, degree, ..."""
    return crs.axis_info[0].unit_name if crs.axis_info else "unit"


def _band(dataset: rasterio.DatasetReader, i: int) -> dict[str, Any]:
    nodata = dataset.nodatavals[i]
    one = Band(
        dataset.descriptions[i] or f"B{i + 1}",
        unit=dataset.units[i] or None,
        scale=dataset.scales[i],
        offset=dataset.offsets[i],
        nodata=nodata,
    ).to_dict()
    color = dataset.colorinterp[i]
    if color not in (ColorInterp.undefined, ColorInterp.gray):
        one["color"] = color.name
    return one


def _mask(dataset: rasterio.DatasetReader) -> str:
    flags = {flag for band in dataset.mask_flag_enums for flag in band}
    words = {
        MaskFlags.alpha: "alpha band",
        MaskFlags.nodata: "nodata value",
        MaskFlags.per_dataset: "mask",
    }
    return next((word for flag, word in words.items() if flag in flags), "none")


def _storage(dataset: rasterio.DatasetReader) -> dict[str, Any]:
    structure = dataset.tags(ns="IMAGE_STRUCTURE")
    height, width = dataset.block_shapes[0] if dataset.count else (0, 0)
    return {
        "cog": structure.get("LAYOUT") == "COG",
        "compression": structure.get("COMPRESSION"),
        "block": [height, width],
        "overviews": dataset.overviews(1) if dataset.count else [],
        "files": [os.path.basename(name) for name in dataset.files[1:]],
    }


def classes_in(dataset: rasterio.DatasetReader) -> list[dict[str, Any]]:
    """Classes that a raster names (tags CLASS_id) or paints (colour table), in order of id."""
    if dataset.count != 1 or not np.issubdtype(np.dtype(dataset.dtypes[0]), np.integer):
        return []
    tags = {**dataset.tags(), **dataset.tags(1)}
    names = {k.removeprefix("CLASS_"): v for k, v in tags.items() if k.startswith("CLASS_")}
    known = {int(k): name for k, name in names.items() if k.isdigit()}
    table = dataset.colormap(1) if dataset.colorinterp[0] == ColorInterp.palette else {}
    if not known:
        known = {i: str(i) for i, color in table.items() if color[3] and color[:3] != (0, 0, 0)}
    paint = {i: "#" + bytes(color[:3]).hex() for i, color in table.items()}
    return [{"id": i, "name": known[i], "color": paint.get(i, "#808080")} for i in sorted(known)]


def _count(dataset: rasterio.DatasetReader, classes: list[dict[str, Any]]) -> dict[str, Any]:
    """Count pixels of each class, in place; of a large raster on a thinned copy of it."""
    step = max(1, -(-max(dataset.shape) // SAMPLE_PX))
    shape = -(-dataset.height // step), -(-dataset.width // step)
    values = dataset.read(1, out_shape=shape)
    valid = dataset.read_masks(1, out_shape=shape) > 0
    counts = Counter(values[valid].tolist())
    for one in classes:
        one["count"] = counts.pop(one["id"], 0)
    return {
        "step": step,
        "pixels": int(valid.size),
        "valid": int(valid.sum()),
        "other": sum(counts.values()),
    }
