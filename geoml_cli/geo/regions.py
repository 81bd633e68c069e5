"""A split given by shapes: fields, regions or survey areas, each in a fold; other ground is on no side."""

from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import shapely
from pyproj import CRS
from rasterio.features import rasterize

from geoml_cli.geo.bounds import cut, footprint, project
from geoml_cli.geo.grid import LONLAT, Grid, apply
from geoml_cli.geo.metric import stretch
from geoml_cli.geo.splits import NONE

METRES_A_DEGREE = 110_500.0  # of latitude, at the least
CORNERS = 8  # to a quarter of a circle, where shapes are widened
PIECES = 64  # that an edge over a grid is cut into before it is bent

Burnt = list[tuple[shapely.Geometry, int]]


@dataclass(frozen=True)
class Regions:
    """Shapes (WKB, CRS84) in order, each in a fold; later ones lie on top.

    `buffer_m` is the width of the strip along other folds that must not train. Points and
    lines stand for the pixels under them, `thin_m` to either side where ground is told.
    `plain`: the folds mean train, validation and test.
    """

    shapes: tuple[bytes, ...]
    folds: tuple[int, ...]
    count: int
    buffer_m: float
    thin_m: float
    plain: bool
    grids_only = False

    def on(self, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
        """Fold (H, W) uint8, 255 under no shape, and near bits (H, W) uint32 of every pixel.

        A pixel is of the shape that holds its centre, else of one that touches it. Near are
        folds with ground within the buffer of any part of the pixel.
        """
        shape = grid.height, grid.width
        fold, near = np.full(shape, NONE, np.uint8), np.zeros(shape, np.uint32)
        found = self._around(grid)
        if not found:
            return fold, near
        for touched in (True, False):
            rasterize(found, out=fold, transform=grid.transform, all_touched=touched)
        wide = _widened([shape for shape, _ in found], grid, self.buffer_m)
        for f in sorted({f for _, f in found}):
            mine = [(one, 1) for one, (_, of) in zip(wide, found, strict=True) if of == f]
            bit = rasterize(
                mine, out_shape=shape, transform=grid.transform, all_touched=True, dtype="uint8"
            )
            near |= bit.astype(np.uint32) << np.uint32(f)
        return fold, near

    def _around(self, grid: Grid) -> Burnt:
        """Parts of shapes within the buffer of a grid, in its CRS, and their folds; in order."""
        tree, shapes = _opened(self.shapes)
        ground = shapely.make_valid(footprint(grid.outline()))
        reach = (self.buffer_m + 2 * grid.gsd_m()) / METRES_A_DEGREE
        out: Burnt = []
        box = _reach(ground, reach)
        hit = np.unique(tree.query(shapely.get_parts(box), predicate="intersects")[1])
        west, south, east, north = shapely.bounds(box)
        step = max(min(east - west, north - south), 1e-9) / PIECES
        for i in hit:
            kind = shapely.get_dimensions(shapes[i])
            parts = shapely.get_parts(shapely.intersection(shapes[i], box))
            parts = parts[(shapely.get_dimensions(parts) == kind) & ~shapely.is_empty(parts)]
            moved = [project(p, LONLAT, grid.crs) for p in shapely.segmentize(parts, step)]
            out += [(p, self.folds[i]) for p in moved if np.isfinite(shapely.bounds(p)).all()]
        return _turned(out, grid)

    def areas(self, ground: shapely.Geometry) -> list[tuple[int, shapely.Geometry]]:
        """Ground (CRS84) of each fold within some; where shapes overlap it is the later one's."""
        tree, shapes = _opened(self.shapes)
        hit = np.unique(tree.query(shapely.get_parts(ground), predicate="intersects")[1])
        if not len(hit):
            return []
        whole = np.array([thick(shapes[i], self.thin_m) for i in hit], object)
        parts, fold = shapely.intersection(whole, ground), np.array(self.folds)[hit]
        inside = shapely.STRtree(parts)
        shown = parts.copy()
        for k, part in enumerate(parts):
            above = inside.query(part, predicate="intersects")
            above = above[(above > k) & (fold[above] != fold[k])]
            if len(above):
                shown[k] = shapely.difference(part, shapely.union_all(parts[above]))
        found = [(int(f), shapely.union_all(shown[fold == f])) for f in np.unique(fold)]
        return [(f, area) for f, area in found if area.area > 0]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        pairs = zip(self.folds, self.shapes, strict=True)
        return {
            "kind": "regions",
            "count": self.count,
            "plain": self.plain,
            "buffer_m": self.buffer_m,
            "thin_m": self.thin_m,
            "shapes": [[fold, b64encode(wkb).decode()] for fold, wkb in pairs],
        }

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "Regions":
        """Read what `to_dict` gave."""
        return cls(
            tuple(b64decode(wkb) for _, wkb in plain["shapes"]),
            tuple(int(fold) for fold, _ in plain["shapes"]),
            plain["count"],
            plain["buffer_m"],
            plain["thin_m"],
            plain["plain"],
        )


def in_degrees(shapes: Sequence[shapely.Geometry], crs: str) -> tuple[bytes, ...]:
    """Shapes of any CRS as WKB in CRS84: valid, flat, cut at the antimeridian, long edges bent."""
    flat = shapely.make_valid(shapely.force_2d(np.array(list(shapes), object)))
    units = CRS.from_user_input(crs)
    if not units.is_geographic:
        flat = shapely.segmentize(flat, 1000 / (units.axis_info[0].unit_conversion_factor or 1))
    moved = [cut(project(shape, crs, LONLAT)) for shape in flat]
    return tuple(shapely.to_wkb(shapely.make_valid(np.array(moved, object))))


@lru_cache(maxsize=2)
def _opened(wkb: tuple[bytes, ...]) -> tuple[shapely.STRtree, np.ndarray]:
    shapes = shapely.from_wkb(np.array(wkb, object))
    shapely.prepare(shapes)
    return shapely.STRtree(shapes), shapes


def _reach(ground: shapely.Geometry, reach: float) -> shapely.Geometry:
    """Boxes round the parts of some ground (CRS84), wider by `reach` degrees of latitude."""
    boxes = []
    for west, south, east, north in shapely.bounds(shapely.get_parts(ground)):
        south, north = max(-90.0, south - reach), min(90.0, north + reach)
        aside = reach / max(np.cos(np.radians(max(abs(south), abs(north)))), 1e-6)
        if east - west + 2 * aside >= 360:
            west, east, aside = -180.0, 180.0, 0.0
        boxes.append(cut(shapely.box(west - aside, south, east + aside, north)))
    return shapely.union_all(boxes)


def _turned(found: Burnt, grid: Grid) -> Burnt:
    """Shapes again a turn away, for grids in degrees whose columns run beyond 180."""
    if not CRS.from_user_input(grid.crs).is_geographic:
        return found
    if grid.bounds.west >= -180 and grid.bounds.east <= 180:
        return found
    return [
        (shapely.transform(shape, lambda xy, turn=turn: xy + [turn, 0]), fold)
        for shape, fold in found
        for turn in (-360.0, 0.0, 360.0)
    ]


def thick(shape: shapely.Geometry, thin_m: float) -> shapely.Geometry:
    """A shape with an area: points and lines (CRS84) widened to either side."""
    if shapely.get_dimensions(shape) == 2 or not thin_m:
        return shape
    lat = abs(shapely.bounds(shape)[[1, 3]]).max()
    narrow = [max(np.cos(np.radians(lat)), 1e-3), 1.0]
    wide = shapely.buffer(
        shapely.transform(shape, lambda xy: xy * narrow), thin_m / METRES_A_DEGREE
    )
    return cut(shapely.transform(wide, lambda xy: xy / narrow))


def _widened(
    shapes: Sequence[shapely.Geometry], grid: Grid, buffer_m: float
) -> Sequence[shapely.Geometry]:
    """Shapes near a grid, in its CRS, wider by at least `buffer_m` on the ground; hardly more."""
    if not buffer_m:
        return shapes
    middle, to_m, distance = _local(grid, buffer_m)
    back = np.linalg.inv(to_m)
    flat = [shapely.transform(one, lambda xy: (xy - middle) @ to_m) for one in shapes]
    # a circle is drawn by its corners: the edges between them lie further in
    wide = shapely.buffer(flat, distance / np.cos(np.pi / 4 / CORNERS), quad_segs=CORNERS)
    return [shapely.transform(one, lambda xy: xy @ back + middle) for one in wide]


def _local(grid: Grid, buffer_m: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Middle of a grid, matrix from steps of its CRS to metres there, and a distance in those metres.

    What is `buffer_m` apart anywhere on the grid or that near it is no further apart than that
    distance by the middle's measure.
    """
    t, size = grid.transform, max(grid.gsd_m(), 1e-9)
    pad = buffer_m / size + 1
    along = np.linspace(-0.0, 1.0, 5)
    cols, rows = np.meshgrid(
        -pad + along * (grid.width + 2 * pad), -pad + along * (grid.height + 2 * pad)
    )
    x, y = apply(t, cols.ravel(), rows.ravel())
    every = stretch(grid.crs, x, y, max(abs(t.a), abs(t.b), abs(t.d), abs(t.e)))
    here = every[len(every) // 2]
    most = 1.0
    for there in every[np.isfinite(every).all(axis=(1, 2))]:
        most = max(most, float(np.linalg.norm(np.linalg.solve(there, here), 2)))
    return np.array([x[len(x) // 2], y[len(y) // 2]]), here, buffer_m * most
