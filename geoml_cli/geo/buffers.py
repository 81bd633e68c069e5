"""Points and lines widened by metres on the ground, at any latitude."""

from functools import lru_cache

import numpy as np
import shapely
from pyproj import Transformer

from geoml_cli.geo.bounds import cut, footprint
from geoml_cli.geo.grid import LONLAT

CELL_DEG = 4.0  # longer lines are widened piece by piece, each in a plane of its own
EDGE_DEG = 0.05  # an edge is cut into such pieces before it is laid on a plane
QUARTER = 16  # edges of a quarter circle: its area is right to 0.2 %


def widened(shapes: np.ndarray, width_m: float) -> np.ndarray:
    """Polygons, in CRS84, of all ground within `width_m` of points and lines (n,) in CRS84."""
    pieces, owner = _pieces(shapely.segmentize(shapes, EDGE_DEG))
    middle = _middles(pieces)
    places, place = np.unique(np.floor(middle) + 0.5, axis=0, return_inverse=True)
    round_: np.ndarray = np.empty(len(pieces), object)
    for i, (lon, lat) in enumerate(places):
        mine = np.flatnonzero(place.ravel() == i)
        round_[mine] = _on_plane(pieces[mine], width_m, lon, lat)
    out: np.ndarray = np.empty(len(shapes), object)
    order = np.argsort(owner, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(owner[order])) + 1):
        out[owner[group[0]]] = (
            round_[group[0]] if len(group) == 1 else shapely.union_all(round_[group])
        )
    return out


def _middles(shapes: np.ndarray) -> np.ndarray:
    west, south, east, north = shapely.bounds(shapes).T
    return np.stack([(west + east) / 2, np.clip((south + north) / 2, -89.5, 89.5)], axis=1)


def _pieces(shapes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shapes, with long ones cut at a lattice of degrees, and the number of the shape of each."""
    box = shapely.bounds(shapes)
    long = np.maximum(box[:, 2] - box[:, 0], box[:, 3] - box[:, 1]) > CELL_DEG
    pieces, owner = [shapes[~long]], [np.flatnonzero(~long)]
    for i in np.flatnonzero(long):
        low, high = np.floor(box[i, :2] / CELL_DEG), np.floor(box[i, 2:] / CELL_DEG)
        cols, rows = (np.arange(a, b + 1) * CELL_DEG for a, b in zip(low, high, strict=True))
        west, south = (v.ravel() for v in np.meshgrid(cols, rows))
        cells = shapely.box(west, south, west + CELL_DEG, south + CELL_DEG)
        here = shapely.intersection(shapes[i], cells)
        pieces.append(here[~shapely.is_empty(here)])
        owner.append(np.full(len(pieces[-1]), i))
    return np.concatenate(pieces), np.concatenate(owner)


def _on_plane(shapes: np.ndarray, width_m: float, lon: float, lat: float) -> list[shapely.Geometry]:
    plane = _plane(lon, lat)

    def laid(xy: np.ndarray) -> np.ndarray:
        return np.stack(plane.transform(xy[:, 0], xy[:, 1]), axis=1)

    def lifted(xy: np.ndarray) -> np.ndarray:
        x, y = plane.transform(xy[:, 0], xy[:, 1], direction="INVERSE")
        return np.stack([x + 360 * np.round((lon - x) / 360), y], axis=1)

    flat = shapely.buffer(shapely.transform(shapes, laid), width_m, quad_segs=QUARTER)
    pole = shapely.points(*plane.transform(lon, np.copysign(90.0, lat)))
    round_pole = shapely.intersects(flat, pole)
    out = shapely.transform(flat, lifted)
    for i in np.flatnonzero(round_pole):
        rim = shapely.segmentize(shapely.get_exterior_ring(flat[i]), width_m / QUARTER)
        out[i] = footprint(lifted(shapely.get_coordinates(rim)))
    return [shape if pole else cut(shape) for shape, pole in zip(out, round_pole, strict=True)]


@lru_cache(64)
def _plane(lon: float, lat: float) -> Transformer:
    return Transformer.from_crs(
        LONLAT, f"+proj=aeqd +lon_0={lon} +lat_0={lat} +datum=WGS84 +units=m", always_xy=True
    )
