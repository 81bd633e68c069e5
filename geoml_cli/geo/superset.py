"""Areas as a server understands them: simpler than what is asked for, never smaller."""

import math

import numpy as np
import shapely

REACH_DEG = 3.0  # 330 km: no scene that crosses the antimeridian is wider, on either side


def plain(area: shapely.Geometry, vertices: int) -> shapely.Geometry:
    """The area, or its hull or envelope where it has more vertices; CRS84, cut at the antimeridian."""
    shape = _near_antimeridian(area)
    if shape.geom_type != "GeometryCollection" and _size(shape) <= vertices:
        return shape
    halves = [_hull(shape, shapely.box(*side)) for side in ((-180, -90, 0, 90), (0, -90, 180, 90))]
    west, _, east, _ = shapely.bounds(shape)
    # one hull, except where it would run round the world
    shape = shapely.union_all(halves) if east - west > 180 else shapely.convex_hull(shape)
    return shape if _size(shape) <= vertices else shapely.envelope(shape)


def is_box(area: shapely.Geometry) -> bool:
    """Whether west, south, east, north say all about an area."""
    return area.geom_type == "Polygon" and bool(shapely.equals(area, shapely.envelope(area)))


def _size(shape: shapely.Geometry) -> int:
    return int(shapely.get_num_coordinates(shape))


def _hull(shape: shapely.Geometry, side: shapely.Geometry) -> shapely.Geometry:
    return shapely.convex_hull(shapely.intersection(shape, side))


def _near_antimeridian(area: shapely.Geometry) -> shapely.Geometry:
    """The area, with both sides of the antimeridian where it comes near it.

    A scene across it is often drawn to 181 degrees, or round the world from 179 to -179. A server
    takes either for what it looks like: its ground beyond 180 degrees is found by neither.
    """
    parts = shapely.get_parts(area)
    bounds = shapely.bounds(parts)
    farthest = np.minimum(np.abs(bounds[:, [1, 3]]).max(axis=1), 89)
    reach = np.minimum(REACH_DEG / np.cos(np.radians(farthest)), 90)
    near = (bounds[:, 0] < reach - 180) | (bounds[:, 2] > 180 - reach)
    if not near.any():
        return area
    wide = float(reach[near].max())
    south = max(-90.0, math.floor(bounds[near, 1].min() - REACH_DEG))
    north = min(90.0, math.ceil(bounds[near, 3].max() + REACH_DEG))
    rims = [shapely.box(180 - wide, south, 180, north), shapely.box(-180, south, wide - 180, north)]
    return shapely.union_all([area, *rims])
