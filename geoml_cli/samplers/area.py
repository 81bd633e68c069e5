"""Windows anywhere in the scenes, every square metre of ground with the same chance."""

import numpy as np
from pyproj import CRS, Geod

from geoml_cli.errors import GeomlError
from geoml_cli.geo.field import Field, Pick, choose
from geoml_cli.geo.grid import LONLAT, Grid, apply, between

GEOD = Geod(ellps="WGS84")
CELL_M = 25_000  # over which the scale of a projection is taken to be even
MOST_CELLS = 64  # a side


def draw(field: Field, rng: np.random.Generator, *, count: int | None = None) -> list[Pick]:
    """Draw `count` windows, with replacement, evenly over the ground instead of over pixels.

    A scene has the chance of its geodesic area; in it, a window has that of the ground under
    its central pixel: on a geographic grid rows count by the cosine of their latitude, on
    others pixels by the local scale of the projection. All windows lie wholly inside. Without
    a count there are as many as windows side by side would need.
    """
    many, positions = field.how_many(count), field.positions
    if not positions.total:
        return []
    whole = np.zeros(len(field.grids))
    for place in np.flatnonzero(positions.fits):
        grid = field.grids[place]
        if not grid.placed:
            raise GeomlError("a scene without a CRS has no ground area; use --sampler random")
        whole[place] = _cells(grid, (0, 0), (grid.height, grid.width))[1].sum()
    if not whole.any():
        raise GeomlError("the scenes' CRS does not reach the ground; use --sampler random")
    numbers = []
    middle = (field.size[0] / 2 - 0.5, field.size[1] / 2 - 0.5)
    dealt = np.bincount(choose(rng, whole, many), minlength=len(field.grids))
    for place in np.flatnonzero(dealt):
        down, across = positions.room[place].tolist()
        cells, areas = _cells(field.grids[place], middle, (down, across))
        chosen = cells[choose(rng, areas, int(dealt[place]))]  # (n, 4)
        rows = chosen[:, 0] + rng.integers(0, chosen[:, 2])
        cols = chosen[:, 1] + rng.integers(0, chosen[:, 3])
        numbers.append(positions.join(np.full(len(rows), place), rows, cols))
    return field.picks(np.concatenate(numbers))


def _cells(
    grid: Grid, first: tuple[float, float], shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Cells of a region of pixels: row, column, height, width (n, 4) from its first pixel, and m2 (n,)."""
    flat = CRS.from_user_input(grid.crs).is_geographic and grid.north_up
    if flat:
        down, across = _parts(shape[0], shape[0]), _parts(shape[1], 1)
    else:
        each = CELL_M / grid.gsd_m()
        down, across = (
            _parts(n, int(np.clip(np.ceil(n / each), 1, min(n, MOST_CELLS)))) for n in shape
        )
    r, c = (
        v.ravel() for v in np.meshgrid(np.arange(len(down)), np.arange(len(across)), indexing="ij")
    )
    cells = np.stack([down[r, 0], across[c, 0], down[r, 1], across[c, 1]], axis=1)
    rows = first[0] + cells[:, 0] + cells[:, 2] / 2
    cols = first[1] + cells[:, 1] + cells[:, 3] / 2
    if flat:
        areas = _row_area(grid, rows) * cells[:, 3]
    else:
        areas = _cell_area(grid, rows, cols, cells[:, 2], cells[:, 3])
    return cells, np.where(np.isfinite(areas), areas, 0)


def _parts(length: int, count: int) -> np.ndarray:
    """First pixel and length (count, 2) of nearly equal parts of an axis."""
    ends = np.arange(count + 1) * length // count
    return np.stack([ends[:-1], np.diff(ends)], axis=1)


def _row_area(grid: Grid, rows: np.ndarray) -> np.ndarray:
    """Ground m2 of one pixel of a geographic grid: M N cos(latitude), the ellipsoid's element."""
    unit = CRS.from_user_input(grid.crs).axis_info[0].unit_conversion_factor  # radians
    lat = apply(grid.transform, 0.0, rows)[1] * unit
    element = GEOD.a**2 * (1 - GEOD.es) * np.cos(lat) / (1 - GEOD.es * np.sin(lat) ** 2) ** 2
    return np.maximum(element, 0) * abs(grid.transform.determinant) * unit**2


def _cell_area(
    grid: Grid, rows: np.ndarray, cols: np.ndarray, high: np.ndarray, wide: np.ndarray
) -> np.ndarray:
    """Ground m2 of cells by their middle: geodesic height x width x sine of the angle between."""

    def lonlat(down: float, right: float) -> tuple[np.ndarray, np.ndarray]:
        x, y = apply(grid.transform, cols + right * wide, rows + down * high)
        lon, lat = between(grid.crs, LONLAT).transform(x, y)
        return np.asarray(lon), np.asarray(lat)

    def straight(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        good = np.isfinite([*a, *b]).all(axis=0)
        lon, lat, to_lon, to_lat = (np.where(good, v, 0) for v in (*a, *b))
        azimuth, _, metres = GEOD.inv(lon, lat, to_lon, to_lat)
        return np.where(good, [azimuth, metres], np.nan)

    centre = lonlat(0, 0)
    across, down = straight(centre, lonlat(0, 0.5))[0], straight(centre, lonlat(0.5, 0))[0]
    width = straight(lonlat(0, -0.5), lonlat(0, 0.5))[1]
    height = straight(lonlat(-0.5, 0), lonlat(0.5, 0))[1]
    return height * width * np.abs(np.sin(np.radians(across - down)))
