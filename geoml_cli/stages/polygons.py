"""A class map as polygons: class, geodesic area, mean probability."""

from collections.abc import Callable, Sequence
from pathlib import Path

import geopandas
import numpy as np
import pandas
import rasterio
import shapely
from affine import Affine
from pyproj import Geod
from rasterio.features import shapes
from rasterio.features import sieve as sieved
from scipy import ndimage

from geoml_cli.formats.raster import describe
from geoml_cli.geo.classes import IGNORE, Class
from geoml_cli.geo.coverage import junctions, noded, parts
from geoml_cli.geo.grid import LONLAT, Grid, between, same_crs

DENSE_PX, DENSE_M = 32, 10_000  # edges are followed at least so closely when areas are measured
PASSES = 64  # of the sieve, at most
GEOD = Geod(ellps="WGS84")


def polygons_of(
    path: Path,
    classes: Sequence[Class],
    probabilities: Path | None = None,
    *,
    scene: str,
    datetime: str | None,
    sieve: int = 0,
    simplify: float = 0.0,
    check: Callable[[], None] = lambda: None,
) -> geopandas.GeoDataFrame:
    """Patches (4-connected) of a class map (uint8, 255 nodata) as valid polygons in its CRS.

    `sieve`: patches of fewer pixels join their largest neighbour, if that is not as small; nodata stays. `simplify`
    is the tolerance of Visvalingam and Whyatt, pixels: edges between patches are straightened once
    for both sides, the outline towards nodata and the rim is kept. Columns: scene, datetime, class,
    class_id, area_m2 (geodesic, WGS84), pixels, probability (mean over the patch of its class's,
    from a raster of one band a class; NaN without), geometry. `check` is called between steps.
    """
    grid = describe(str(path), picture=True).grid
    with rasterio.open(path) as dataset:
        ids = dataset.read(1)
    check()
    ids = _sieved(ids, sieve)
    check()
    labels, owner = _labelled(ids)
    pixels = np.bincount(labels.ravel(), minlength=len(owner) + 1)[1:]
    share = _shares(probabilities, ids, labels, len(owner))
    check()
    found = [(shapely.geometry.shape(one), int(n)) for one, n in shapes(labels, labels > 0)]
    check()
    flat = np.array([one for one, _ in found], object)
    which = np.array([n for _, n in found], int) - 1
    flat = noded(flat, junctions(labels))
    check()
    if simplify and len(flat):
        flat = shapely.coverage_simplify(flat, simplify, simplify_boundary=False)
    pieces = list(parts(flat))
    rows = np.array([i for i, _ in pieces], int)
    flat, which = np.array([one for _, one in pieces], object), which[rows]
    names = {c.id: c.name for c in classes}
    class_ids = owner[which] if len(which) else np.zeros(0, int)
    table = {
        "scene": [scene] * len(flat),
        "datetime": [datetime] * len(flat),
        "class": [names.get(int(i), str(i)) for i in class_ids],
        "class_id": class_ids.astype(np.int64),
        "area_m2": areas(flat, grid),
        "pixels": pixels[which].astype(np.int64) if len(which) else np.zeros(0, np.int64),
        "probability": share[which] if len(which) else np.zeros(0),
    }
    placed = _placed(flat, grid)
    return geopandas.GeoDataFrame(table, geometry=list(placed), crs=grid.crs or None)


def gather_polygons(tables: Sequence[geopandas.GeoDataFrame]) -> geopandas.GeoDataFrame:
    """One table of several, in the CRS that they share, else in CRS84."""
    first = tables[0].crs
    alike = all(
        (one.crs is None) == (first is None)
        and (first is None or same_crs(one.crs.to_wkt(), first.to_wkt()))
        for one in tables
    )
    if not alike:
        tables = [one if one.crs is None else one.to_crs(LONLAT) for one in tables]
    filled = [one for one in tables if len(one)] or list(tables[:1])
    whole = pandas.concat(filled, ignore_index=True)
    return geopandas.GeoDataFrame(whole, geometry="geometry", crs=filled[0].crs)


def _sieved(ids: np.ndarray, size: int) -> np.ndarray:
    """The raster without small patches, pass by pass; one with none but small neighbours stays (GDAL's sieve)."""
    if size < 2:
        return ids
    height = len(ids)
    lack = max(0, min(size, ids.size + 1) + 1 - ids.size)  # GDAL wants more pixels than that
    ids = np.pad(ids, ((0, -(-lack // ids.shape[1])), (0, 0)), constant_values=IGNORE)
    size = min(size, ids.size - 1)
    valid = ids != IGNORE
    for _ in range(PASSES):
        after = np.where(valid, sieved(ids, size, mask=valid, connectivity=4), IGNORE)
        if (after == ids).all():
            break
        ids = after.astype(np.uint8)
    return ids[:height]


def _labelled(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number (H, W) int32 of each pixel's patch, 0 on nodata, and the class (n,) of patches 1, 2, ..."""
    labels = np.zeros(ids.shape, np.int32)
    owner: list[np.ndarray] = []
    last = 0
    for value in np.unique(ids[ids != IGNORE]):
        own, count = ndimage.label(ids == value)
        here = own > 0
        labels[here] = own[here] + last
        owner.append(np.full(count, value))
        last += count
    return labels, np.concatenate(owner) if owner else np.zeros(0, int)


def _shares(path: Path | None, ids: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Mean over each patch (n,) of the probability of its class; NaN where it is not known."""
    if path is None:
        return np.full(count, np.nan)
    total, known = np.zeros(count + 1), np.zeros(count + 1)
    with rasterio.open(path) as dataset:
        for band in range(dataset.count):
            stored = dataset.read(band + 1)
            mine = (ids == band) & (stored != IGNORE)
            total += np.bincount(labels[mine], stored[mine], count + 1) * dataset.scales[band]
            known += np.bincount(labels[mine], minlength=count + 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (total / known)[1:]


def areas(flat: np.ndarray, grid: Grid) -> np.ndarray:
    """Geodesic areas (n,) m2 of polygons in pixel coordinates; NaN where the grid lies nowhere."""
    if not grid.placed:
        return np.full(len(flat), np.nan)
    step = min(DENSE_PX, DENSE_M / grid.gsd_m())
    dense = _placed(shapely.segmentize(flat, step), grid)
    move = between(grid.crs, LONLAT)
    there = shapely.transform(dense, lambda xy: np.column_stack(move.transform(*xy.T)))
    return np.array([_area(one) for one in there], np.float64)


def _area(polygon: shapely.Polygon) -> float:
    """Area of a polygon in CRS84, its holes taken off."""
    rings = shapely.get_rings(polygon)
    each = [abs(GEOD.polygon_area_perimeter(*shapely.get_coordinates(r).T)[0]) for r in rings]
    return float(each[0] - sum(each[1:]))


def _placed(flat: np.ndarray, grid: Grid) -> np.ndarray:
    """Polygons from pixel coordinates to those of the grid's CRS."""
    t: Affine = grid.transform
    scale, move = np.array([t.a, t.e]), np.array([t.c, t.f])
    return np.asarray(shapely.transform(flat, lambda xy: xy * scale + move))
