"""Maps as vectors: polygons of classes, or a point for each label of a tile."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import rasterio

from geoml_cli.formats.raster import describe
from geoml_cli.formats.vectors import write_vectors
from geoml_cli.geo.classes import IGNORE, Class
from geoml_cli.stages.job import Job
from geoml_cli.stages.making import MAP, stem
from geoml_cli.stages.polygons import gather_polygons, polygons_of


def draw_maps(
    job: Job,
    path: Path,
    made: Sequence[Any],
    classes: Sequence[Class],
    per: str,
    sieve: int,
    simplify: float,
) -> None:
    """Write vectors of the maps in a part folder to `path`; what is there of this very run is left."""
    if job.is_made(path):
        return
    tables = []
    for one in made:
        job.check()
        files = [job.part / f"{stem(one.name, asset)}.tif" for asset in (MAP, "probabilities")]
        shares = files[1] if files[1].is_file() else None
        when = one.times.get("datetime")
        if per == "tile":
            tables.append(points_of(files[0], classes, shares, scene=one.id, datetime=when))
        else:
            tables.append(
                polygons_of(
                    files[0],
                    classes,
                    shares,
                    scene=one.id,
                    datetime=when,
                    sieve=sieve,
                    simplify=simplify,
                    check=job.check,
                )
            )
    write_vectors(path, gather_polygons(tables), job.record)


def points_of(
    path: Path, classes: Sequence[Class], probabilities: Path | None, *, scene: str, datetime: Any
) -> geopandas.GeoDataFrame:
    """The middle of every labelled tile, in the map's CRS: class, and the probability of it."""
    grid = describe(str(path), picture=True).grid
    with rasterio.open(path) as dataset:
        ids = dataset.read(1)
    rows, cols = np.nonzero(ids != IGNORE)
    found = ids[rows, cols].astype(int)
    share = np.full(len(found), np.nan)
    if probabilities is not None:
        with rasterio.open(probabilities) as dataset:
            share = dataset.read()[found, rows, cols] * dataset.scales[0]
    names = {c.id: c.name for c in classes}
    table = {
        "scene": scene,
        "datetime": datetime,
        "class": [names[i] for i in found],
        "class_id": found,
        "probability": share,
    }
    points = geopandas.points_from_xy(*grid.xy(rows, cols))
    return geopandas.GeoDataFrame(table, geometry=points, crs=grid.crs or None)
