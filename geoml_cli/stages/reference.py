"""Opening reference data of any kind."""

from collections.abc import Sequence

import geopandas

from geoml_cli.errors import GeomlError, UsageMistake
from geoml_cli.formats.vectors import class_value, read_vectors
from geoml_cli.geo.classes import Class
from geoml_cli.geo.grid import crs_name
from geoml_cli.stages.labels import is_raster
from geoml_cli.stages.truth import Truth
from geoml_cli.stages.truth_points import Points
from geoml_cli.stages.truth_polygons import Polygons


def vectors_or_none(
    path: str, column: str | None, layer: str | None
) -> geopandas.GeoDataFrame | None:
    """The features of a vector file with their class column; None for a raster."""
    if is_raster(path):
        for given, name in ((column, "--label-column"), (layer, "--layer")):
            if given:
                raise UsageMistake(f"{path} is a raster: {name} is for vector files")
        return None
    table = read_vectors(path, [column] if column else [], layer)
    if column is None:
        have = ", ".join(str(c) for c in table.columns if c != table.geometry.name)
        raise GeomlError(
            f"{path}: which column holds the class? give --label-column; it has {have or 'none'}"
        )
    return table


def open_vectors(
    path: str, table: geopandas.GeoDataFrame, column: str, classes: Sequence[Class]
) -> Truth:
    """Points or polygons as truth; class names of the legend, or its ids where no name fits."""
    kinds = set(table.geometry.geom_type)
    if not (kinds <= {"Point", "MultiPoint"} or kinds <= {"Polygon", "MultiPolygon"}):
        raise GeomlError(
            f"{path}: holds {', '.join(sorted(kinds))}; truth is points, or polygons, or a class raster"
        )
    make: type[Points] | type[Polygons] = Polygons
    if kinds <= {"Point", "MultiPoint"}:
        make, table = Points, table.explode(index_parts=False, ignore_index=True)
    values = [class_value(v) for v in table[column]]
    if not any(values):
        raise GeomlError(f"{path}: column {column!r} is empty; no feature has a class")
    return make(table.geometry.to_numpy(), crs_name(table.crs.to_wkt()), values, classes)
