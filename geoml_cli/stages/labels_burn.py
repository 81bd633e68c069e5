"""Labels burnt into windows of a grid."""

import hashlib
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Union

import numpy as np
import shapely
from rasterio.features import rasterize

from geoml_cli.formats.raster import Raster
from geoml_cli.geo.classes import IGNORE
from geoml_cli.geo.grid import Grid, Window
from geoml_cli.stages.labels_raster import view_of

MANY = 64  # vertices: a shape with more is cut to the window before it is burnt
RIM_PX = 2  # of ground round the window that is left where shapes are cut


@dataclass(frozen=True, eq=False)
class Burn:
    """Shapes to burn on one grid, in burn order, and the label of each; plain data.

    `ranks` and `point_ranks` are positions in `values` (uint8 ids or float32); points are
    in order of y. Two are equal where their keys are.
    """

    kind: str
    per: str
    all_touched: bool
    shapes: tuple[bytes, ...]  # polygons, WKB
    ranks: np.ndarray  # (shapes,) int32, ascending
    points: np.ndarray  # (points, 2) x, y
    point_ranks: np.ndarray  # (points,) int32
    values: np.ndarray  # (features,)
    background: float | None = None
    area: Union["Burn", "Warp", None] = None
    key: str = field(default="")

    def __post_init__(self) -> None:
        if not self.key:
            object.__setattr__(self, "key", _key(self))

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Burn) and self.key == other.key


@dataclass(frozen=True)
class Warp:
    """A raster of labels to bring onto a grid: the class id of each of its values, or its values."""

    raster: Raster
    kind: str = "classes"
    per: str = "pixel"
    ids: tuple[tuple[int, int], ...] = ()
    rest: int = IGNORE  # the class id of any other value
    background: float | None = None
    area: Union[Burn, "Warp", None] = None


def _key(burn: Burn) -> str:
    sha = hashlib.sha256(repr((burn.kind, burn.per, burn.all_touched, burn.background)).encode())
    for shape in burn.shapes:
        sha.update(shape)
    for array in (burn.ranks, burn.points, burn.point_ranks, burn.values):
        sha.update(repr((array.shape, array.dtype.str)).encode() + array.tobytes())
    sha.update(repr(burn.area.key if isinstance(burn.area, Burn) else burn.area).encode())
    return sha.hexdigest()


def burn(labels: Burn | Warp, grid: Grid, window: Window) -> np.ndarray:
    """Labels (h, w) of a window: class ids uint8, 255 ignored; or values float32, NaN ignored."""
    out = (
        _shapes(labels, grid, window) if isinstance(labels, Burn) else _raster(labels, grid, window)
    )
    if labels.area is not None:
        out[burn(labels.area, grid, window) == IGNORE] = nothing(labels.kind)
    return out


def nothing(kind: str) -> float:
    """What stands where nothing is labelled."""
    return IGNORE if kind == "classes" else np.nan


def _shapes(labels: Burn, grid: Grid, window: Window) -> np.ndarray:
    top, table = _on_top(labels, grid, window), _label_of(labels)
    rows, cols, ranks = _points_in(labels, grid, window)
    if not len(ranks):
        return table[top]
    dots = np.zeros_like(top)
    np.maximum.at(dots, (rows, cols), ranks + 1)
    above = dots >= np.maximum(top, 1)
    out = table[np.maximum(top, dots)]
    if labels.kind == "values":  # the mean of all points in a pixel
        place = rows * window.width + cols
        sums = np.bincount(place, labels.values[ranks], minlength=top.size).reshape(top.shape)
        counts = np.bincount(place, minlength=top.size).reshape(top.shape)
        out[above] = sums[above] / counts[above]
    return out


@lru_cache(maxsize=8)
def _label_of(labels: Burn) -> np.ndarray:
    """The label of each rank + 1; of 0 that of ground that nothing covers."""
    empty = nothing(labels.kind) if labels.background is None else labels.background
    dtype = "uint8" if labels.kind == "classes" else "float32"
    return np.concatenate([[empty], labels.values]).astype(dtype)


def _on_top(labels: Burn, grid: Grid, window: Window) -> np.ndarray:
    """1 + the rank of the polygon on top of each pixel (h, w) int32; 0 where there is none."""
    top: np.ndarray = np.zeros((window.height, window.width), np.int32)
    tree, shapes, sizes = _tree(labels)
    here = grid.crop(window)
    near = np.sort(tree.query(shapely.box(*here.bounds), predicate="intersects"))
    if not len(near):
        return top
    found, many = shapes[near], sizes[near] > MANY
    if many.any():
        t = grid.transform
        west, south, east, north = here.bounds
        x, y = RIM_PX * abs(t.a), RIM_PX * abs(t.e)
        found[many] = shapely.clip_by_rect(found[many], west - x, south - y, east + x, north + y)
    pairs = [
        (shape, int(rank) + 1)
        for shape, rank in zip(found, labels.ranks[near], strict=True)
        if not shape.is_empty
    ]
    if pairs:
        touched = labels.all_touched
        rasterize(pairs, out=top, transform=here.transform, all_touched=touched, dtype="int32")
    return top


@lru_cache(maxsize=8)
def _tree(labels: Burn) -> tuple[shapely.STRtree, np.ndarray, np.ndarray]:
    shapes = shapely.from_wkb(np.array(labels.shapes, dtype=object))
    return shapely.STRtree(shapes), shapes, shapely.get_num_coordinates(shapes)


def _points_in(
    labels: Burn, grid: Grid, window: Window
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, columns, in the window, and ranks of the points that lie in it."""
    band = band_of(labels, grid, window)
    x, y = labels.points[band].T
    rows, cols = grid.rowcol(x, y)
    rows, cols = rows - window.row, cols - window.col
    on = (rows >= 0) & (rows < window.height) & (cols >= 0) & (cols < window.width)
    return rows[on], cols[on], labels.point_ranks[band][on]


def band_of(labels: Burn, grid: Grid, window: Window) -> slice:
    """The points as far north and south as the window, and a pixel more."""
    _, south, _, north = grid.crop(window).bounds
    pixel = abs(grid.transform.e)
    low, high = np.searchsorted(labels.points[:, 1], [south - pixel, north + pixel])
    return slice(int(low), int(high))


def _raster(labels: Warp, grid: Grid, window: Window) -> np.ndarray:
    data, valid = view_of(labels.raster, grid, labels.kind).read(window)
    if labels.kind == "values":
        out = np.where(valid, data[0].astype(np.float32), np.float32(np.nan))
    else:
        out = _classes(labels, data[0])
    out[~valid] = nothing(labels.kind) if labels.background is None else labels.background
    return out


def _classes(labels: Warp, data: np.ndarray) -> np.ndarray:
    """Class ids (h, w) uint8 of raster values."""
    if data.dtype.itemsize <= 2:
        low, table = _table(labels.ids, labels.rest, data.dtype.str)
        return table[data.astype(np.int32) - low] if low else table[data]
    if not labels.ids:
        return np.full(data.shape, labels.rest, np.uint8)
    values, ids = _sorted(labels.ids)
    place = np.minimum(np.searchsorted(values, data), len(values) - 1)
    return np.where(values[place] == data, ids[place], np.uint8(labels.rest))


@lru_cache(maxsize=16)
def _table(ids: tuple[tuple[int, int], ...], rest: int, dtype: str) -> tuple[int, np.ndarray]:
    """The class id of every value of a small type, from its lowest value on."""
    limits = np.iinfo(dtype)
    table = np.full(int(limits.max) - int(limits.min) + 1, rest, np.uint8)
    for value, i in ids:
        if limits.min <= value <= limits.max:
            table[value - int(limits.min)] = i
    return int(limits.min), table


@lru_cache(maxsize=16)
def _sorted(ids: tuple[tuple[int, int], ...]) -> tuple[np.ndarray, np.ndarray]:
    values, found = zip(*sorted(ids), strict=True)
    return np.array(values), np.array(found, np.uint8)
