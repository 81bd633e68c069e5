"""A grid of places: what a model of places is shown where a map is wanted and there is no imagery."""

import math
from dataclasses import dataclass, replace

import numpy as np
import shapely
from affine import Affine

from geoml_cli.errors import GeomlError, UsageMistake
from geoml_cli.formats.raster import describe
from geoml_cli.geo.bounds import area_of, parse_bbox, project
from geoml_cli.geo.grid import LONLAT, Grid, Window, between, crs_name
from geoml_cli.stages.shown import Seen

WORLD = "-180,-90,180,90"
MOST_PX = 1 << 31


@dataclass(frozen=True)
class ShownGrid:
    """Longitude and latitude of the pixels of a grid, as two bands."""

    grid: Grid

    def open(self) -> "ShownGrid":
        """See Shown; there are no files."""
        return self

    def on(self, grid: Grid) -> "ShownGrid":
        """See Shown."""
        return replace(self, grid=grid)

    def read(self, window: Window) -> list[Seen]:
        """See Looking."""
        lon, lat = lonlat_of(self.grid, window)
        seen = np.isfinite(lon) & np.isfinite(lat)
        images = np.where(seen, np.stack([lon, lat]), 0).astype(np.float32)
        return [Seen(images[None], seen[None], np.full(1, np.nan, np.float32))]

    def close(self) -> None:
        """See Looking."""


def lonlat_of(grid: Grid, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """Longitudes -180 to 180 and latitudes (h, w) of pixels' middles; NaN where there is no ground."""
    rows, cols = np.mgrid[: window.height, : window.width]
    if not grid.placed:
        nowhere = np.full(rows.shape, np.nan)
        return nowhere, nowhere
    xy = grid.xy(rows + window.row, cols + window.col)
    lon, lat = between(grid.crs, LONLAT).transform(*xy)
    lost = ~(np.isfinite(lon) & np.isfinite(lat)) | (np.abs(lat) > 90)
    lon = np.where(lost, np.nan, (np.where(lost, 0, lon) + 180) % 360 - 180)
    return lon, np.where(lost, np.nan, lat)


def grid_of(like: str | None, bbox: str | None, crs: str | None, resolution: float | None) -> Grid:
    """The grid of a raster, or pixels of a size over some bounds; of no bounds over the world."""
    if like:
        if bbox or crs or resolution:
            raise UsageMistake("--like: gives the grid; no --bbox, --crs or --resolution beside it")
        return describe(like).grid
    if not resolution:
        raise UsageMistake(
            "name tables of places to answer, or a grid to map: --like FILE, or --bbox W,S,E,N --resolution SIZE"
        )
    if not 0 < resolution < math.inf:
        raise UsageMistake(f"--resolution {resolution}: the size of a pixel, more than 0")
    name = crs_name(crs) if crs else LONLAT
    west, south, east, north = parse_bbox(bbox or WORLD)
    if name == LONLAT:
        east = east + 360 if east < west else east
    else:
        area = project(shapely.segmentize(area_of(parse_bbox(bbox or WORLD)), 0.5), LONLAT, name)
        west, south, east, north = shapely.bounds(area)
        if not np.isfinite([west, south, east, north]).all():
            raise GeomlError(f"--crs {crs}: does not hold all of --bbox {bbox or WORLD}")
    width, height = (
        max(1, math.ceil(span / resolution - 1e-9)) for span in (east - west, north - south)
    )
    if width * height > MOST_PX:
        raise UsageMistake(
            f"--resolution {resolution:g}: {width} x {height} px; it is in units of the CRS"
        )
    return Grid(name, Affine(resolution, 0.0, west, 0.0, -resolution, north), height, width)
