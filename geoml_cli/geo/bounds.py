"""Bounds in degrees: reading, antimeridian, reprojection."""

import numpy as np
import shapely

from geoml_cli.errors import UsageMistake
from geoml_cli.geo.grid import LONLAT, Bounds, between


def parse_bbox(text: str) -> Bounds:
    """Read `W,S,E,N` in degrees; W > E means that it crosses the antimeridian."""
    try:
        west, south, east, north = (float(part) for part in text.replace(" ", "").split(","))
    except ValueError:
        raise UsageMistake(f"--bbox {text!r}: write west,south,east,north in degrees") from None
    if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south < north <= 90):
        raise UsageMistake(
            f"--bbox {text!r}: longitudes are within -180..180, latitudes within -90..90, south < north"
        )
    if west == east:
        raise UsageMistake(f"--bbox {text!r}: west and east are the same")
    return Bounds(west, south, east, north)


def area_of(bounds: Bounds) -> shapely.Geometry:
    """Polygon in CRS84, or two where the bounds cross the antimeridian."""
    if bounds.west < bounds.east:
        return shapely.box(*bounds)
    return shapely.MultiPolygon(
        [
            shapely.box(bounds.west, bounds.south, 180, bounds.north),
            shapely.box(-180, bounds.south, bounds.east, bounds.north),
        ]
    )


def project(geometry: shapely.Geometry, source: str, target: str) -> shapely.Geometry:
    """Reproject a geometry vertex by vertex; densify first where edges are long."""
    move = between(source, target)

    def moved(xy: np.ndarray) -> np.ndarray:
        return np.stack(move.transform(xy[:, 0], xy[:, 1]), axis=1)

    return shapely.transform(geometry, moved)


def bounds_in(geometry: shapely.Geometry, crs: str) -> Bounds | None:
    """Bounds, in a CRS, of a CRS84 geometry whose edges are densified; None where it is not finite."""
    longest = max(np.ptp(shapely.get_coordinates(geometry), axis=0).max() / 64, 1e-9)
    dense = shapely.get_coordinates(project(shapely.segmentize(geometry, longest), LONLAT, crs))
    dense = dense[np.isfinite(dense).all(axis=1)]
    if not len(dense):
        return None
    return Bounds(*dense.min(axis=0), *dense.max(axis=0))


def footprint(ring: np.ndarray) -> shapely.Geometry:
    """Polygon of a CRS84 ring; a ring that jumps the antimeridian is cut there in two."""
    if np.abs(np.diff(ring[:, 0])).max() < 180:
        return shapely.Polygon(ring)
    east = shapely.Polygon(np.stack([ring[:, 0] % 360, ring[:, 1]], axis=1))
    left = shapely.intersection(east, shapely.box(0, -90, 180, 90))
    right = shapely.intersection(east, shapely.box(180, -90, 360, 90))
    right = shapely.transform(right, lambda xy: xy - [360, 0])
    return shapely.MultiPolygon([p for p in (left, right) if not p.is_empty])
