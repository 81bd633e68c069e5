"""Areas in degrees: reading, antimeridian, poles, reprojection, the pixels that they cover."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import shapely
from pyproj import CRS

from geoml_cli.errors import GeomlError, UsageMistake
from geoml_cli.geo.grid import LONLAT, Bounds, Grid, Window, apply, between

SEGMENTS = 1024  # an edge is cut into pieces this much shorter than the area before it is bent
STRIP_DEG = 1e-6  # half the width given to points and lines: 0.1 m, so that they cover pixels
SNAP_DEG = 1e-9  # 0.1 mm: what is no further apart is one place
MARGIN = 1.0  # of its size around a grid: an area is projected no further away


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


def footprint(ring: np.ndarray) -> shapely.Geometry:
    """Ground inside a CRS84 ring (n, 2) whose points lie close together, cut at the antimeridian.

    A step of over 180 degrees crosses it; a ring that ends a whole turn away runs round a pole.
    """
    ring = np.column_stack([np.unwrap(ring[:, 0], period=360), ring[:, 1]])
    if abs(ring[-1, 0] - ring[0, 0]) > 180:
        pole = 90.0 if ring[:, 1].mean() > 0 else -90.0
        ring = np.vstack([ring, [ring[-1, 0], pole], [ring[0, 0], pole], ring[:1]])
        parts = shapely.get_parts(cut(shapely.Polygon(ring)))
        return shapely.union_all(parts, grid_size=SNAP_DEG)  # they meet where the ring began
    return cut(shapely.Polygon(ring))


def cut(geometry: shapely.Geometry) -> shapely.Geometry:
    """A CRS84 geometry with what lies beyond -180..180 degrees cut off and brought back inside."""
    west, _, east, _ = shapely.bounds(geometry)
    if not np.isfinite([west, east]).all() or (west >= -180 and east <= 180):
        return geometry
    geometry, kind = shapely.make_valid(geometry), shapely.get_dimensions(geometry)
    found: list[shapely.Geometry] = []
    for turn in range(int(np.floor((west + 180) / 360)), int(np.floor((east + 180) / 360)) + 1):
        belt = shapely.box(360 * turn - 180, -90, 360 * turn + 180, 90)
        parts = shapely.get_parts(shapely.intersection(geometry, belt))
        parts = parts[shapely.get_dimensions(parts) == kind]  # not the rim where two belts touch
        found += list(_shift(parts, -360.0 * turn))
    return shapely.union_all(found)


def across(geometry: shapely.Geometry) -> shapely.Geometry | None:
    """The ground meant by polygons whose edges step over 180 degrees; None where no edge does.

    RFC 7946 wants them cut at the antimeridian; many catalogs draw them across it.
    """
    polygons = [p for p in shapely.get_parts(geometry) if shapely.get_dimensions(p) == 2]
    rings = [shapely.get_coordinates(shapely.get_exterior_ring(p)) for p in polygons]
    steps = [np.abs(np.diff(ring[:, 0])) for ring in rings]
    jumps = [bool(((step > 180) & (step < 360)).any()) for step in steps]
    if not any(jumps):
        return None
    pairs = zip(polygons, rings, jumps, strict=True)
    meant = [footprint(ring) if jump else cut(polygon) for polygon, ring, jump in pairs]
    return shapely.union_all(shapely.make_valid(meant))


def dissolve(shapes: np.ndarray, crs: str) -> shapely.Geometry:
    """One CRS84 area out of an array of shapes in a CRS; points and lines become thin strips."""
    shapes = shapely.force_2d(shapes)
    projected = not CRS.from_user_input(crs).is_geographic
    if projected:
        west, south, east, north = shapely.total_bounds(shapes)
        longest = max(east - west, north - south)
        shapes = shapely.segmentize(shapes, longest / SEGMENTS) if longest else shapes
    shapes = project(shapes, crs, LONLAT)
    if not np.isfinite(shapely.get_coordinates(shapes)).all():
        raise GeomlError(f"coordinates that mean nothing in their CRS ({crs}); check the CRS")
    thin = shapely.get_dimensions(shapes) < 2
    shapes[thin] = shapely.buffer(shapes[thin], STRIP_DEG, quad_segs=1)
    # edges are short here, so one that leaps over the world is one that crosses the antimeridian
    meant = [(across(shape) if projected else None) or cut(shape) for shape in shapes]
    return shapely.union_all(shapely.make_valid(meant))


@lru_cache(256)
def cover(area: shapely.Geometry, grid: Grid) -> Window | None:
    """Window of whole pixels that holds the bounds, on the grid, of a CRS84 area; None where they miss.

    Of an area in parts those count that share ground with the grid, not those whose bounds do.
    """
    ground = shapely.make_valid(footprint(grid.outline()))
    west, south, east, north = shapely.bounds(ground)
    reach = MARGIN * max(north - south, min(east - west, 360 - (east - west)))
    near = shapely.intersection(area, shapely.buffer(ground, reach, join_style="mitre"))
    near = shapely.intersection(near, shapely.box(-180, -90 + 1e-7, 180, 90 - 1e-7))
    if near.is_empty:
        return None
    west, south, east, north = shapely.bounds(near)
    bent = shapely.segmentize(near, max(east - west, north - south, 1e-9) / SEGMENTS)
    flat = shapely.make_valid(project(bent, LONLAT, grid.crs))
    if CRS.from_user_input(grid.crs).is_geographic:  # its columns may run beyond 180 degrees
        flat = shapely.union_all([_shift(flat, turn) for turn in (-360, 0, 360)])
    return _window_on(flat, grid)


def _shift(geometry: shapely.Geometry, degrees: float) -> shapely.Geometry:
    return shapely.transform(geometry, lambda xy: xy + [degrees, 0]) if degrees else geometry


def _window_on(flat: shapely.Geometry, grid: Grid) -> Window | None:
    """Window of a geometry in the grid's CRS."""
    if not np.isfinite(shapely.get_coordinates(flat)).all():
        return Window(0, 0, grid.height, grid.width)
    parts = shapely.get_parts(flat)
    parts = parts[shapely.intersects(parts, shapely.box(*grid.bounds))]
    windows = [grid.window_of(Bounds(*bounds)) for bounds in shapely.bounds(parts)]
    found = [window for window in windows if window]
    if not found:
        return None
    row, col = min(w.row for w in found), min(w.col for w in found)
    last_row = max(w.row + w.height for w in found)
    last_col = max(w.col + w.width for w in found)
    return Window(row, col, last_row - row, last_col - col)


def footprints(grid: Grid, windows: Sequence[Window]) -> np.ndarray:
    """CRS84 polygons (n,) of windows of a grid, their edges bent as the CRS bends them."""
    rows = np.array(windows, np.float64).reshape(-1, 4)
    points = _bends(grid, windows)
    along = np.arange(points) / points
    zero, one = np.zeros(points), np.ones(points)
    down = np.concatenate([zero, along, one, 1 - along, [0.0]])  # clockwise from the upper left
    right = np.concatenate([along, one, 1 - along, zero, [0.0]])
    y = rows[:, 0, None] + rows[:, 2, None] * down
    x = rows[:, 1, None] + rows[:, 3, None] * right
    lon, lat = between(grid.crs, LONLAT).transform(*apply(grid.transform, x, y))
    rings = np.stack([lon, lat], axis=-1)  # (n, points, 2)
    if not np.isfinite(rings).all():
        raise GeomlError("the tiles' outlines cannot be expressed in degrees; check the CRS")
    odd = (np.abs(np.diff(lon, axis=1)) > 180).any(axis=1) | (np.abs(lon) > 180).any(axis=1)
    found = np.asarray(shapely.polygons(rings), object).reshape(-1)
    for i in np.flatnonzero(odd):
        found[i] = footprint(rings[i])
    return found


def _bends(grid: Grid, windows: Sequence[Window]) -> int:
    """Points a side that keep a window's outline within 1 % of a pixel of its true, bent one."""
    largest = max(windows, key=lambda w: w.height * w.width)
    ring = grid.crop(largest).outline(points=33)
    sides = np.column_stack([np.unwrap(ring[:, 0], period=360), ring[:, 1]])
    for points in (1, 2, 4, 8, 16):
        kept = sides[:: 32 // points]
        where = np.linspace(0, len(kept) - 1, len(sides))
        drawn = np.column_stack([np.interp(where, np.arange(len(kept)), c) for c in kept.T])
        away = np.abs(drawn - sides).max() * 111_320
        if away < 0.01 * grid.gsd_m():
            return points
    return 20
