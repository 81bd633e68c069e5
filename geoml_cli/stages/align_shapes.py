"""Vector files to be moved onto an ortho: read into its pixels, and written as what they were."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import shapely
from pyproj import Geod

from geoml_cli.errors import GeomlError, UsageMistake
from geoml_cli.formats.crasar import (
    CUSTOM,
    DRAWN_BY,
    Objects,
    is_arrows,
    is_crasar,
    read_arrows,
    read_objects,
    write_objects,
)
from geoml_cli.formats.vectors import GEOJSON, GPKG, PARQUET, read_vectors, write_vectors
from geoml_cli.geo.bounds import project
from geoml_cli.geo.grid import LONLAT, Grid, apply, between, crs_name

POLYGONS, LINES = {"Polygon", "MultiPolygon"}, {"LineString", "MultiLineString"}
JSON = ".json"


@dataclass(frozen=True)
class Source:
    """Shapes (n,) in pixels of the ortho (column, row), of a vector file or of CRASAR's JSON."""

    path: str
    shapes: np.ndarray
    roads: bool
    custom: np.ndarray  # (n,) bool: never moved
    table: geopandas.GeoDataFrame | None = None
    objects: Objects | None = None


def read_source(path: str, layer: str | None, grid: Grid) -> Source:
    """Read polygons, or lines, that are to be moved."""
    if is_crasar(path):
        objects = read_objects(path, grid)
        roads = objects.kind == "roads"
        make: Any = shapely.LineString if roads else shapely.Polygon
        shapes = np.array([make(xy) for xy in objects.xy] + [None], object)[:-1]
        return Source(path, shapes, roads, objects.custom, objects=objects)
    if is_arrows(path):
        raise UsageMistake(f"{path}: holds adjustments; give them with --adjustments")
    table = read_vectors(path, (), layer)
    kinds = set(table.geometry.geom_type)
    if not (kinds <= POLYGONS or kinds <= LINES):
        raise GeomlError(
            f"{path}: holds {', '.join(sorted(kinds))}; polygons or lines can be aligned, one kind a file"
        )
    shapes = to_pixels(table.geometry.to_numpy(), crs_name(table.crs.to_wkt()), grid)
    if not np.isfinite(shapely.get_coordinates(shapes)).all():
        raise GeomlError(f"{path}: some shapes lie where {grid.crs} has no coordinates")
    drawn = next((table[c] for c in DRAWN_BY if c in table), None)
    custom = np.zeros(len(table), bool)
    if drawn is not None:
        custom = (drawn.astype(str).str.lower() == CUSTOM).to_numpy()
    return Source(path, shapes, kinds <= LINES, custom, table=table)


def to_pixels(shapes: np.ndarray, crs: str, grid: Grid) -> np.ndarray:
    """Shapes in pixels (column, row) of a grid, vertex by vertex; flat."""
    if not grid.placed:
        raise GeomlError("the ortho has no CRS; give it one: gdal_edit.py -a_srs EPSG:CODE FILE")
    there = project(shapely.force_2d(shapes), crs, grid.crs)
    return np.asarray(_mapped(there, ~grid.transform))


def _mapped(shapes: np.ndarray, transform: Any) -> np.ndarray:
    return np.asarray(
        shapely.transform(shapes, lambda xy: np.stack(apply(transform, xy[:, 0], xy[:, 1]), axis=1))
    )


def read_adjustments(path: str, layer: str | None, grid: Grid) -> np.ndarray:
    """Read arrows (n, 2, 2) in pixels: from and to; of lines the first and the last vertex."""
    if is_arrows(path):
        return read_arrows(path, grid)
    table = read_vectors(path, (), layer)
    if not set(table.geometry.geom_type) <= LINES:
        raise GeomlError(
            f"{path}: adjustments are lines from where a corner is to where it should be"
        )
    lines = to_pixels(
        shapely.get_parts(table.geometry.to_numpy()), crs_name(table.crs.to_wkt()), grid
    )
    return np.array([shapely.get_coordinates(one)[[0, -1]] for one in lines])


def check_out(out: str, source: str, crasar: bool) -> None:
    """Refuse a name that says no format that the shapes can be written in."""
    suffix = Path(out).suffix.lower()
    if suffix == JSON and crasar:
        return
    if suffix not in (*PARQUET, GPKG, *GEOJSON):
        also = ", or NAME.json as CRASAR's" if crasar else ""
        raise UsageMistake(f"-o {out}: name NAME.parquet, NAME.gpkg or NAME.geojson{also}")


def write_source(
    path: Path,
    source: Source,
    moved: np.ndarray,
    told: Mapping[str, np.ndarray],
    grid: Grid,
    record: dict[str, Any],
) -> None:
    """Write the moved shapes with what is told of each: columns, or keys of CRASAR's objects."""
    if source.objects is not None and path.suffix.lower() == JSON:
        rows = [
            {k: (v[i] if isinstance(v[i], str) else round(float(v[i]), 6)) for k, v in told.items()}
            for i in range(len(moved))
        ]
        xy = [shapely.get_coordinates(one) for one in moved]
        write_objects(path, source.objects, xy, grid, rows, record)
        return
    write_vectors(path, as_table(source, moved, told, grid), record)


def as_table(
    source: Source, moved: np.ndarray, told: Mapping[str, np.ndarray], grid: Grid
) -> geopandas.GeoDataFrame:
    """A table of the input's columns and CRS; what was not moved has the geometry that it had."""
    if source.table is not None:
        table = source.table.copy()
        crs = crs_name(table.crs.to_wkt())
        same = shapely.equals_exact(moved, source.shapes, 0)
        shapes = table.geometry.to_numpy().copy()
        if not same.all():
            shapes[~same] = project(_mapped(moved[~same], grid.transform), grid.crs, crs)
        return table.set_geometry(geopandas.GeoSeries(shapes, table.index, table.crs)).assign(
            **told
        )
    assert source.objects is not None
    keep = ("id", "view_id", "building_id", "label", *DRAWN_BY)
    rows = {
        k: [o.get(k) for o in source.objects.plain]
        for k in keep
        if any(k in o for o in source.objects.plain)
    }
    shapes = project(_mapped(moved, grid.transform), grid.crs, LONLAT)
    return geopandas.GeoDataFrame({**rows, **told}, geometry=shapes, crs=LONLAT)


def metres(xy: np.ndarray, shift: np.ndarray, grid: Grid) -> np.ndarray:
    """Shifts (n, 2) in pixels at `xy` as metres on the ground, east and north."""
    move = between(grid.crs, LONLAT)
    ends = [move.transform(*apply(grid.transform, *v.T)) for v in (xy, xy + shift)]
    turn, _, length = Geod(ellps="WGS84").inv(*ends[0], *ends[1])
    length = np.where((shift == 0).all(1), 0.0, length)
    turn = np.radians(turn)
    return np.stack([length * np.sin(turn), length * np.cos(turn)], axis=1)
