"""Labels from vector files and class rasters, burnt into windows of a scene."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import rasterio
import shapely
from rasterio.enums import Resampling
from rasterio.features import rasterize
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as RasterioWindow

from geoml_cli.errors import GeomlError
from geoml_cli.formats.raster import describe, opened
from geoml_cli.formats.vectors import class_value, digest_vectors, read_vectors
from geoml_cli.geo.bounds import project
from geoml_cli.geo.classes import IGNORE, Class, legend
from geoml_cli.geo.grid import Grid, Window
from geoml_cli.stages.inputs import digest_source

log = logging.getLogger("geoml")
RASTERS = (".tif", ".tiff", ".vrt", ".img", ".jp2")


@dataclass(frozen=True)
class Burn:
    """Shapes to burn into one scene's windows, in file order: WKB and class id; plain data."""

    shapes: tuple[tuple[bytes, int], ...]
    all_touched: bool


@dataclass(frozen=True)
class Warp:
    """A class raster to bring onto a scene's grid: path, and class id of each raster value."""

    path: str
    ids: tuple[tuple[int, int], ...]


class Labels:
    """A label file opened: its classes, and what to burn on a given scene."""

    def __init__(self, path: str, column: str | None, layer: str | None, all_touched: bool) -> None:
        self.path, self._touched = path, all_touched
        self.is_raster = path.lower().endswith(RASTERS)
        if self.is_raster:
            self._open_raster()
        else:
            self._open_vectors(column, layer)

    def _open_raster(self) -> None:
        describe(self.path)
        with opened(self.path) as dataset:
            if dataset.count != 1 or not np.issubdtype(dataset.dtypes[0], np.integer):
                raise GeomlError(f"{self.path}: labels are one band of whole numbers")
            values: set[int] = set()
            for _, window in dataset.block_windows(1):
                data, mask = dataset.read(1, window=window), dataset.read_masks(1, window=window)
                values |= set(np.unique(data[mask > 0]).tolist())
            tags = dataset.tags() | dataset.tags(1)
            colors = dataset.colormap(1) if dataset.colorinterp[0].name == "palette" else {}
        ordered = sorted(values)
        names = [tags.get(f"CLASS_{v}", str(v)) for v in ordered]
        paint = {
            n: "#" + bytes(colors[v][:3]).hex()
            for n, v in zip(names, ordered, strict=True)
            if v in colors
        }
        self.classes: list[Class] = legend(names, paint)
        self._ids = tuple((value, i) for i, value in enumerate(ordered))
        self._check()

    def _open_vectors(self, column: str | None, layer: str | None) -> None:
        table = read_vectors(self.path, [column] if column else [], layer)
        if column is None:
            raise GeomlError(
                f"{self.path}: which column holds the class? give --label-column;"
                f" it has {', '.join(str(c) for c in table.columns if c != table.geometry.name)}"
            )
        names = [class_value(v) for v in table[column]]
        kinds = set(table.geometry.geom_type)
        if not kinds <= {"Polygon", "MultiPolygon", "Point", "MultiPoint"}:
            raise GeomlError(
                f"{self.path}: {', '.join(sorted(kinds))}; labels are polygons or points"
            )
        self.classes = legend(sorted({n for n in names if n}))
        if without := sum(n is None for n in names):
            log.warning(
                "%s: %d of %d features have no class; left out", self.path, without, len(names)
            )
        ids = {c.name: c.id for c in self.classes}
        self._shapes = [(g, ids[n]) for g, n in zip(table.geometry, names, strict=True) if n]
        self._crs = table.crs.to_wkt()
        self._check()

    def _check(self) -> None:
        if not self.classes:
            raise GeomlError(f"{self.path}: no feature or pixel has a class")
        if len(self.classes) > IGNORE:
            raise GeomlError(
                f"{self.path}: {len(self.classes)} classes; there is room for {IGNORE}"
            )

    def digest(self) -> str:
        """Digest of the label file's content."""
        return digest_source(self.path) if self.is_raster else digest_vectors(self.path)

    def on(self, grid: Grid) -> Burn | Warp:
        """What to burn on a grid, in its CRS."""
        if self.is_raster:
            return Warp(self.path, self._ids)
        moved = [(project(g, self._crs, grid.crs), i) for g, i in self._shapes]
        inside = shapely.box(*grid.bounds)
        kept = tuple((shapely.to_wkb(g), i) for g, i in moved if shapely.intersects(g, inside))
        return Burn(kept, self._touched)


def burn(labels: Burn | Warp, grid: Grid, window: Window) -> np.ndarray:
    """Class ids (h, w) uint8 of a window; 255 where nothing is labelled, later features on top."""
    if isinstance(labels, Warp):
        return _warp(labels, grid, window)
    here = grid.crop(window)
    near = _near(labels, shapely.box(*here.bounds).wkb)
    if not near:
        return np.full((window.height, window.width), IGNORE, np.uint8)
    return rasterize(
        near,
        out_shape=(window.height, window.width),
        transform=here.transform,
        fill=IGNORE,
        all_touched=labels.all_touched,
        dtype="uint8",
    )


@lru_cache(maxsize=4)
def _tree(labels: Burn) -> tuple[shapely.STRtree, Sequence[tuple[shapely.Geometry, int]]]:
    shapes = [(shapely.from_wkb(wkb), i) for wkb, i in labels.shapes]
    return shapely.STRtree([g for g, _ in shapes]), shapes


def _near(labels: Burn, box: bytes) -> list[tuple[shapely.Geometry, int]]:
    tree, shapes = _tree(labels)
    return [shapes[i] for i in sorted(tree.query(shapely.from_wkb(box), predicate="intersects"))]


def _warp(labels: Warp, grid: Grid, window: Window) -> np.ndarray:
    here = grid.crop(window)
    with (
        opened(labels.path) as dataset,
        WarpedVRT(
            dataset,
            crs=rasterio.crs.CRS.from_user_input(grid.crs),
            transform=here.transform,
            height=window.height,
            width=window.width,
            resampling=Resampling.nearest,
            add_alpha=dataset.nodata is None,
        ) as vrt,
    ):
        box = RasterioWindow(0, 0, window.width, window.height)
        data, mask = vrt.read(1, window=box), vrt.read_masks(1, window=box)
    out = np.full(data.shape, IGNORE, np.uint8)
    for value, i in labels.ids:
        out[(data == value) & (mask > 0)] = i
    return out
