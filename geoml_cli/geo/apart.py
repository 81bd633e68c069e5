"""How far tiles that test lie from tiles that train: which touch, and how many metres are between."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas
import shapely
from pyproj import Geod

from geoml_cli.geo.bounds import project
from geoml_cli.geo.grid import LONLAT

TOUCH_DEG = 1e-7  # 1 cm: what is no further apart is one place
THIN_DEG = 1e-6  # 0.1 m: how much of a bend in a footprint's rim counts for nothing
TRAIN, TEST = 0, 2
SIDE_DEG = 1.0  # tiles of one patch of ground are measured in one plane


def pairs_of(folds: np.ndarray, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Which tiles test and which train, a pair of (n,) bool a member; `count` 0: a plain split.

    Tiles on several sides (fold null, negative or 255) are neither.
    """
    folds = pandas.Series(folds, dtype="Int16").fillna(-1).to_numpy(int)
    if not count:
        yield folds == TEST, folds == TRAIN
    for f in range(count):
        yield folds == f, (folds != f) & (folds >= 0) & (folds < count)


def leakage(geometries: Sequence[shapely.Geometry], folds: np.ndarray, count: int = 0) -> float:
    """Share of test tiles whose ground (CRS84) touches or overlaps that of tiles which train."""
    shapes = np.array(list(geometries), object)
    hits = total = 0
    for test, train in pairs_of(folds, count):
        test, train = test & ~shapely.is_missing(shapes), train & ~shapely.is_missing(shapes)
        total += int(test.sum())
        if test.any() and train.any():
            hits += int(_touching(shapes[test], shapes[train]).sum())
    return hits / total if total else 0.0


def _touching(tests: np.ndarray, trains: np.ndarray) -> np.ndarray:
    """Which tests (n,) share ground or a border with any of the trains, across the antimeridian too."""
    tree = shapely.STRtree(trains)
    near = np.zeros(len(tests), bool)
    near[tree.query(tests, predicate="dwithin", distance=TOUCH_DEG)[0]] = True
    bounds = shapely.bounds(tests)
    for sign, at_rim in (
        (1, bounds[:, 0] <= TOUCH_DEG - 180),
        (-1, bounds[:, 2] >= 180 - TOUCH_DEG),
    ):
        rim = np.flatnonzero(at_rim & ~near)
        if len(rim):
            moved = shapely.transform(tests[rim], lambda xy, sign=sign: xy + [360 * sign, 0])
            hit = tree.query(moved, predicate="dwithin", distance=TOUCH_DEG)[0]
            near[rim[hit]] = True
    return near


def distances(
    geometries: Sequence[shapely.Geometry], folds: np.ndarray, count: int = 0
) -> dict[str, float] | None:
    """Metres from tiles that test to the nearest that trains: least and median; None where there are none.

    Geodesic to 1 %; 0 where they share ground. With `count` folds each is held against the others.
    """
    shapes = np.array(list(geometries), object)
    found = []
    for test, train in pairs_of(folds, count):
        test, train = test & ~shapely.is_missing(shapes), train & ~shapely.is_missing(shapes)
        if test.any() and train.any():
            found.append(apart_m(shapes[test], shapes[train]))
    if not found:
        return None
    every = np.concatenate(found)
    return {"min_m": float(every.min()), "median_m": float(np.median(every))}


def apart_m(tests: np.ndarray, trains: np.ndarray) -> np.ndarray:
    """Metres (n,) from each footprint (CRS84) to the nearest of some others."""
    out = np.zeros(len(tests))
    far = np.flatnonzero(~_touching(tests, trains))
    if not len(far):
        return out
    trains = np.unique(shapely.to_wkb(shapely.simplify(trains, THIN_DEG)))
    plain = shapely.from_wkb(trains)
    tests = shapely.simplify(tests[far], THIN_DEG)
    middles = _middles(tests)
    patches, owner = np.unique(np.floor(middles / SIDE_DEG), axis=0, return_inverse=True)
    for k in range(len(patches)):
        mine = np.flatnonzero(owner.ravel() == k)
        out[far[mine]] = _in_plane(tests[mine], plain, middles[mine].mean(axis=0))
    return out


def _middles(shapes: np.ndarray) -> np.ndarray:
    """A place (n, 2) on each footprint; of one in parts, as across the antimeridian, on its first part."""
    first = np.array([shapely.get_geometry(s, 0) for s in shapes], object)
    bounds = shapely.bounds(first)
    return np.column_stack([bounds[:, [0, 2]].mean(axis=1), bounds[:, [1, 3]].mean(axis=1)])


def _in_plane(tests: np.ndarray, trains: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """Metres (n,) to the nearest train, sought in a plane that keeps distances from `middle`."""
    lon, lat = middle
    crs = f"+proj=aeqd +lon_0={lon:.9f} +lat_0={lat:.9f} +datum=WGS84 +units=m"
    here, there = project(tests, LONLAT, crs), project(trains, LONLAT, crs)
    there = there[np.isfinite(shapely.bounds(there)).all(axis=1)]  # the far side of the Earth
    asked, nearest = shapely.STRtree(there).query_nearest(here, all_matches=False)
    lines = shapely.shortest_line(here[asked], there[nearest])
    ends = shapely.get_coordinates(project(lines, crs, LONLAT)).reshape(-1, 2, 2)
    _, _, metres = Geod(ellps="WGS84").inv(*ends[:, 0].T, *ends[:, 1].T)
    out = np.full(len(tests), np.nan)
    out[asked] = metres
    return out
