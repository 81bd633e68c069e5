"""Label features dealt by a column: all that share a value, such as a field or a region, on one side."""

import geopandas
import numpy as np
import shapely
from pyproj import Geod

from geoml_cli.errors import GeomlError, UsageMistake
from geoml_cli.formats.vectors import class_value
from geoml_cli.geo.deal import deal
from geoml_cli.geo.regions import Regions, in_degrees, thick


def by_column(
    table: geopandas.GeoDataFrame | None,
    column: str,
    shares: tuple[int, ...],
    *,
    buffer_m: float,
    thin_m: float,
    plain: bool,
    seed: int,
) -> Regions:
    """Deal the values of a column so that the features of each fold have its share of their area.

    Features without a value are on no side.
    """
    if table is None:
        raise UsageMistake(f"--split-by {column}: needs labels from a vector file: --labels FILE")
    if column not in table.columns:
        have = ", ".join(str(c) for c in table.columns if c != table.geometry.name)
        raise GeomlError(f"--split-by: the labels have no column {column!r}; they have {have}")
    values = [class_value(value) for value in table[column]]
    kept = np.array([value is not None for value in values], bool)
    names = sorted({value for value in values if value is not None})
    if len(names) < len(shares):
        raise GeomlError(
            f"--split-by {column}: {len(names)} values; {len(shares)} sides need as many at least"
        )
    shapes = in_degrees(table.geometry[kept].to_list(), table.crs.to_wkt())
    number = {name: i for i, name in enumerate(names)}
    mine = np.array([number[value] for value in values if value is not None])
    square_m = np.bincount(mine, areas_m(shapes, thin_m), len(names))
    dealt = deal(np.round(square_m)[:, None], shares, seed)
    folds = tuple(int(fold) for fold in dealt[mine])
    return Regions(shapes, folds, len(shares), buffer_m, thin_m, plain)


def areas_m(wkb: tuple[bytes, ...], thin_m: float) -> np.ndarray:
    """Ground (n,) under shapes in CRS84, m2; points and lines are as wide as the pixels under them."""
    geod = Geod(ellps="WGS84")
    shapes = [thick(shape, thin_m) for shape in shapely.from_wkb(np.array(wkb, object))]
    return np.array(
        [abs(geod.geometry_area_perimeter(shapely.orient_polygons(s))[0]) for s in shapes]
    )
