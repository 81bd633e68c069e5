"""Features of a label file: cleaned, widened where asked, and found where a grid is."""

import logging
from functools import cached_property
from typing import Any

import numpy as np
import shapely
from pyproj import CRS

from geoml_cli.errors import GeomlError
from geoml_cli.geo.bending import bent
from geoml_cli.geo.bounds import SNAP_DEG, cut, footprint
from geoml_cli.geo.buffers import widened
from geoml_cli.geo.grid import LONLAT, Grid, same_crs

CLOSE_PX = 0.02  # that an edge may stray, on its way to another CRS
CLOSE_DEG = 2e-8  # 2 mm
SHORT = 64  # parts of a shape's size: an edge that is no longer does not reach round the world
MANY = 64  # vertices: a shape with more is cut to the ground of the grid
AROUND = 0.1  # of its size, round the ground of a grid
log = logging.getLogger("geoml")


class Features:
    """Simple shapes (n,) and, of each, the number of its feature; edges are straight in `crs`."""

    def __init__(self, path: str, shapes: np.ndarray, crs: str, buffer_m: float = 0.0) -> None:
        self.path, self.crs = path, crs
        self.shapes, self.owner = _simple(path, shapes)
        self._geographic = bool(CRS.from_user_input(crs).is_geographic)
        if self._geographic:
            self._turn_inside()
        thin = shapely.get_dimensions(self.shapes) < 2
        if not buffer_m:
            self._refuse_lines()
        elif thin.any():
            flat = self._in_degrees(self.shapes)
            flat[thin] = widened(flat[thin], buffer_m)
            self.crs, self._geographic = LONLAT, True
            self.shapes, parts = _parts(flat)
            self.owner = self.owner[parts]

    def _refuse_lines(self) -> None:
        if (shapely.get_dimensions(self.shapes) == 1).any():
            raise GeomlError(
                f"{self.path}: holds lines, which have no width; give a buffer in metres"
            )

    def _turn_inside(self) -> None:
        """Bring what lies beyond, or leaps over, 180 degrees back to -180..180."""
        xy = shapely.get_coordinates(self.shapes)
        if not (np.isfinite(xy).all() and (np.abs(xy[:, 1]) <= 90 + SNAP_DEG).all()):
            raise GeomlError(
                f"{self.path}: coordinates that are no degrees in {self.crs}; check its CRS"
            )
        box = shapely.bounds(self.shapes)
        odd = np.union1d(
            _leaping(self.shapes), np.flatnonzero(np.abs(box[:, ::2]).max(axis=1) > 180)
        )
        if len(odd):
            shapes = self.shapes.copy()
            shapes[odd] = [_turned(shape) for shape in shapes[odd]]
            self.shapes, parts = _parts(shapes)
            self.owner = self.owner[parts]

    def _in_degrees(self, shapes: np.ndarray) -> np.ndarray:
        """Shapes in CRS84; one that crosses the antimeridian is cut there."""
        flat = bent(shapes, self.crs, LONLAT, CLOSE_DEG).copy()
        if shapely.is_empty(flat).any():
            raise GeomlError(
                f"{self.path}: coordinates that mean nothing in its CRS ({self.crs}); check the CRS"
            )
        if not self._geographic and len(odd := _leaping(flat)):
            box = shapely.bounds(shapes[odd])
            longest = (box[:, 2:] - box[:, :2]).max(axis=1) / SHORT
            flat[odd] = bent(shapely.segmentize(shapes[odd], longest), self.crs, LONLAT, CLOSE_DEG)
            odd = odd[np.isin(odd, _leaping(flat))]  # now an edge that leaps is none that is long
            flat[odd] = [_turned(shape) for shape in flat[odd]]
        return flat

    @cached_property
    def _tree(self) -> shapely.STRtree:
        return shapely.STRtree(self.shapes)

    @cached_property
    def _flat(self) -> tuple[np.ndarray, shapely.STRtree]:
        flat = self._in_degrees(self.shapes)
        return flat, shapely.STRtree(flat)

    def on(self, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
        """Shapes (n,), in the CRS of a grid, that lie on it, and the number of the feature of each."""
        round_ = bool(CRS.from_user_input(grid.crs).is_geographic)
        turns = (-360.0, 0.0, 360.0) if round_ else (0.0,)  # its columns may run beyond 180 degrees
        if same_crs(self.crs, grid.crs):
            chosen = self._query(self._tree, [_shift(shapely.box(*grid.bounds), t) for t in turns])
            shapes, parts = _parts(_cut_to(self.shapes[chosen], np.array(grid.bounds), round_))
        else:
            ground = shapely.make_valid(footprint(grid.outline()))
            wide = shapely.buffer(ground, 0.01 * np.sqrt(ground.area) + CLOSE_DEG)
            chosen = self._query(self._flat[1], [wide])
            source = LONLAT if round_ else self.crs
            bounds = self._bounds_of(grid, ground, source)
            shapes, parts = _parts(
                _cut_to((self._flat[0] if round_ else self.shapes)[chosen], bounds)
            )
            step = min(abs(grid.transform.a), abs(grid.transform.e))
            shapes = bent(shapes, source, grid.crs, CLOSE_PX * step)
        owner = self.owner[chosen][parts]
        moved = np.concatenate([_shift(shapes, turn) for turn in turns])
        owner = np.tile(owner, len(turns))
        on = np.flatnonzero(shapely.intersects(moved, shapely.box(*grid.bounds)))
        on = on[np.argsort(owner[on], kind="stable")]
        return moved[on], owner[on]

    @staticmethod
    def _query(tree: shapely.STRtree, grounds: list[shapely.Geometry]) -> np.ndarray:
        return np.unique(tree.query(np.array(grounds), predicate="intersects")[1])

    def _bounds_of(self, grid: Grid, ground: shapely.Geometry, source: str) -> np.ndarray | None:
        """Bounds of a grid in the CRS of the shapes; None where they cannot be told."""
        if source == LONLAT or self._geographic:
            return np.array(shapely.bounds(ground))
        try:
            ring = grid.outline(source)
        except GeomlError:
            return None
        return np.concatenate([ring.min(axis=0), ring.max(axis=0)])


def _cut_to(shapes: np.ndarray, bounds: np.ndarray | None, round_: bool = False) -> np.ndarray:
    """Polygons with many vertices, or much larger than bounds, cut to what is in and around these."""
    if bounds is None or not len(shapes) or (round_ and np.abs(bounds[::2]).max() > 180):
        return shapes
    pad = AROUND * (bounds[2:] - bounds[:2]).max()
    box = bounds + [-pad, -pad, pad, pad]
    low, high = shapely.bounds(shapes)[:, :2], shapely.bounds(shapes)[:, 2:]
    out = ((low < box[:2]) | (high > box[2:])).any(axis=1)
    big = (high - low > 4 * (box[2:] - box[:2])).any(axis=1)
    big |= shapely.get_num_coordinates(shapes) > MANY
    large = out & big & (shapely.get_dimensions(shapes) == 2)
    shapes = shapes.copy()
    shapes[large] = shapely.clip_by_rect(shapes[large], *box)
    return shapes


def _shift(shape: Any, degrees: float) -> Any:
    """A shape, or an array of them, further east."""
    return shapely.transform(shape, lambda xy: xy + [degrees, 0]) if degrees else shape


def _leaping(shapes: np.ndarray) -> np.ndarray:
    """Numbers of the shapes, in degrees, with an edge of over 180: it crosses the antimeridian."""
    xy, owner = shapely.get_coordinates(shapes, return_index=True)
    step = np.abs(np.diff(xy[:, 0]))
    return np.unique(owner[1:][(step > 180) & (step < 360 - SNAP_DEG) & (owner[1:] == owner[:-1])])


def _turned(shape: shapely.Geometry) -> shapely.Geometry:
    """A shape in degrees that reaches, or leaps, over 180: cut there, and inside -180..180."""
    if shapely.get_dimensions(shape) < 2:
        xy = shapely.get_coordinates(shape)
        xy[:, 0] = np.unwrap(xy[:, 0], period=360)
        return cut(shapely.set_coordinates(shape, xy))
    if not len(_leaping(np.array([shape]))):
        return cut(shape)
    rings = [shapely.get_coordinates(ring) for ring in shapely.get_rings(shape)]
    for ring in rings:
        ring[:, 0] = np.unwrap(ring[:, 0], period=360)
        ring[:, 0] += 360 * np.round((rings[0][:, 0].mean() - ring[:, 0].mean()) / 360)
    if abs(rings[0][-1, 0] - rings[0][0, 0]) > 180:  # round a pole
        return footprint(shapely.get_coordinates(shapely.get_exterior_ring(shape)))
    return cut(shapely.Polygon(rings[0], rings[1:]))


def _simple(path: str, shapes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points, lines and valid polygons (n,) in two dimensions, and the number of the shape of each."""
    shapes = shapely.force_2d(shapes)
    broken = np.flatnonzero(~shapely.is_valid(shapes))
    if len(broken):
        log.info("%s: %d features cross themselves; mended", path, len(broken))
        kind = shapely.get_dimensions(shapes[broken])
        for i, dimensions in zip(broken, kind, strict=True):
            parts = shapely.get_parts(shapely.make_valid(shapes[i]))
            parts = parts[shapely.get_dimensions(parts) == dimensions]
            shapes[i] = shapely.geometrycollections(parts)
    simple, owner = shapely.get_parts(shapes, return_index=True)
    while (shapely.get_type_id(simple) >= shapely.GeometryType.MULTIPOINT).any():
        simple, inner = shapely.get_parts(simple, return_index=True)
        owner = owner[inner]
    kept = ~shapely.is_empty(simple)
    return simple[kept], owner[kept]


def _parts(shapes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Simple parts that are not empty, and the position of the shape of each."""
    parts, owner = shapely.get_parts(shapes, return_index=True)
    kept = ~shapely.is_empty(parts)
    return parts[kept], owner[kept]
