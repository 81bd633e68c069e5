"""Tiles as GeoTIFF files: one a sensor and frame, one a layer; the mask is inside."""

from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from geoml_cli.formats.bands import Band
from geoml_cli.formats.commit import whole_file
from geoml_cli.formats.copies import safe_name
from geoml_cli.geo.classes import IGNORE, read_classes
from geoml_cli.geo.grid import Grid

PLAIN = {"driver": "GTiff", "compress": "deflate", "zlevel": 1, "predictor": 1}


def image_name(sensor: dict[str, Any], tile: str, frame: int) -> str:
    """Where a frame of a tile lies in the folder of its set."""
    tail = f"-{frame}" if sensor["frames"] > 1 else ""
    return f"images-{sensor['name']}/{safe_name(tile)}{tail}.tif"


def label_name(layer: dict[str, Any], tile: str) -> str:
    """Where the labels of a tile lie."""
    return f"labels-{layer['name']}/{safe_name(tile)}.tif"


def write_tiles(shard: Any, held: Any, rows: list[dict[str, Any]]) -> None:
    """Write what is kept of a shard, a file a tile; rows get the name of the first as `href`."""
    plan, folder = shard.plan, Path(shard.plan.folder)
    for room in [f"images-{s['name']}" for s in plan.sensors]:
        (folder / room).mkdir(exist_ok=True)
    for layer, array in zip(plan.layers, held.labels, strict=True):
        if array is not None:
            (folder / f"labels-{layer['name']}").mkdir(exist_ok=True)
    for n, row in enumerate(rows):
        crs, transform = row["proj:code"], row["proj:transform"]
        grid = Grid.from_dict(
            {"proj:code": crs, "proj:transform": transform, "proj:shape": plan.size}
        )
        for sensor, images, valid in zip(plan.sensors, held.images, held.valid, strict=True):
            for frame in range(sensor["frames"]):
                path = folder / image_name(sensor, row["id"], frame)
                _write_image(path, grid, sensor, images[n, frame], valid[n, frame])
        for layer, labels in zip(plan.layers, held.labels, strict=True):
            if labels is not None:
                _write_labels(folder / label_name(layer, row["id"]), grid, layer, labels[n])
        row["href"] = image_name(plan.sensors[0], row["id"], 0)


def _profile(grid: Grid, count: int, dtype: Any) -> dict[str, Any]:
    place = {"crs": grid.crs, "transform": grid.transform} if grid.placed else {}
    return {**PLAIN, **place, "count": count, "dtype": dtype} | {
        "height": grid.height,
        "width": grid.width,
    }


def _write_image(
    path: Path, grid: Grid, sensor: dict[str, Any], image: np.ndarray, valid: np.ndarray
) -> None:
    bands = [Band.from_dict(band) for band in sensor["bands"]]
    with whole_file(path) as temporary, rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        with rasterio.open(temporary, "w", **_profile(grid, len(bands), image.dtype)) as out:
            for i, band in enumerate(bands, 1):
                out.set_band_description(i, band.name)
            out.scales = [band.scale for band in bands]
            out.offsets = [band.offset for band in bands]
            out.units = [band.unit or "" for band in bands]
            out.write(image)
            if not valid.all():
                out.write_mask(valid)


def _write_labels(path: Path, grid: Grid, layer: dict[str, Any], labels: np.ndarray) -> None:
    nothing = IGNORE if layer["kind"] == "classes" else np.nan
    profile = _profile(grid, 1, labels.dtype) | {"nodata": nothing}
    with whole_file(path) as temporary:
        with rasterio.open(temporary, "w", **profile) as out:
            out.set_band_description(1, layer["name"])
            out.write(labels, 1)
            if layer["kind"] == "classes":
                found = read_classes(layer["classes"])
                out.write_colormap(1, {c.id: (*c.rgb, 255) for c in found})
                out.update_tags(**{f"CLASS_{c.id}": c.name for c in found})
