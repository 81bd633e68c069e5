"""What pixels and steps of a CRS are on the ground: degrees of pixel centres, metres of a step."""

import numpy as np
from pyproj import CRS

from geoml_cli.geo.grid import LONLAT, Grid, apply, between

MAJOR_M, FLAT = 6378137.0, 1 / 298.257223563  # WGS 84
EVERY_PX = 16  # between pixels that are reprojected one by one
NEAR_PX = 0.02  # what pixels between them may be off by


def earth(lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """Geocentric x, y, z (..., 3) in metres of degrees on WGS 84."""
    lon, lat = np.radians(lon), np.radians(lat)
    squared = FLAT * (2 - FLAT)
    across = MAJOR_M / np.sqrt(1 - squared * np.sin(lat) ** 2)
    flat = across * np.cos(lat)
    return np.stack(
        [flat * np.cos(lon), flat * np.sin(lon), across * (1 - squared) * np.sin(lat)], axis=-1
    )


def stretch(crs: str, x: np.ndarray, y: np.ndarray, step: float) -> np.ndarray:
    """Lower triangles L (n, 2, 2): a step d (units of the CRS) at x, y is |d @ L| metres long.

    It is taken over `step` units to either side; right at poles and across the antimeridian.
    """
    x, y = np.atleast_1d(np.asarray(x, float)), np.atleast_1d(np.asarray(y, float))
    move, h = between(crs, LONLAT), step / 2
    ends = [earth(*move.transform(x + dx, y + dy)) for dx, dy in ((h, 0), (-h, 0), (0, h), (0, -h))]
    slopes = np.stack([ends[0] - ends[1], ends[2] - ends[3]], axis=-1) / step  # (n, 3, 2)
    square = np.swapaxes(slopes, -1, -2) @ slopes
    lost = ~np.isfinite(square).all(axis=(1, 2))
    square[lost] = np.eye(2)
    # at a pole, degrees of longitude have no length: a little is left for the root to exist
    square += 1e-12 * np.trace(square, axis1=1, axis2=2)[:, None, None] * np.eye(2)
    out = np.linalg.cholesky(square)
    out[lost] = np.nan
    return out


def pixel_m(grid: Grid) -> float:
    """The longer side of a pixel at the grid's centre, metres."""
    t = grid.transform
    x, y = apply(t, grid.width / 2, grid.height / 2)
    step = max(abs(t.a), abs(t.b), abs(t.d), abs(t.e))
    sides = np.array([[t.a, t.d], [t.b, t.e]]) @ stretch(grid.crs, x, y, step)[0]
    return float(np.linalg.norm(sides, axis=1).max())


def lonlat(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Degrees (H, W) of all pixel centres, to a fiftieth of a pixel; not finite where there is no ground."""
    if (
        min(grid.height, grid.width) > 2 * EVERY_PX
        and not CRS.from_user_input(grid.crs).is_geographic
    ):
        found = _between_knots(grid)
        if found is not None:
            return found
    rows, cols = np.mgrid[: grid.height, : grid.width]
    return _places(grid, rows, cols)


def _places(grid: Grid, rows: np.ndarray, cols: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    lon, lat = between(grid.crs, LONLAT).transform(*grid.xy(rows, cols))
    return lon, lat


def _normals(lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """Unit vectors (3, ...) that point up."""
    lon, lat = np.radians(lon), np.radians(lat)
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])


def _between_knots(grid: Grid) -> tuple[np.ndarray, np.ndarray] | None:
    """As `lonlat` by interpolation of upward vectors; None where that is not near enough."""
    rows = np.arange(-(-(grid.height - 1) // EVERY_PX) + 1) * EVERY_PX
    cols = np.arange(-(-(grid.width - 1) // EVERY_PX) + 1) * EVERY_PX
    knots = _normals(*_places(grid, *np.meshgrid(rows, cols, indexing="ij")))
    middles = np.meshgrid(rows[:-1] + EVERY_PX / 2, cols[:-1] + EVERY_PX / 2, indexing="ij")
    exact = _normals(*_places(grid, *middles))
    guess = (knots[:, 1:, 1:] + knots[:, 1:, :-1] + knots[:, :-1, 1:] + knots[:, :-1, :-1]) / 4
    guess /= np.linalg.norm(guess, axis=0)
    if not np.isfinite(knots).all() or not np.isfinite(exact).all():
        return None
    sides = np.linalg.norm(knots[:, 1:, 1:] - knots[:, :-1, :-1], axis=0) / EVERY_PX
    if (np.linalg.norm(guess - exact, axis=0) > NEAR_PX * sides).any():
        return None
    down = knots[:, :-1, None] + (np.diff(knots, axis=1)[:, :, None] * _share()[:, None])
    down = np.concatenate([down.reshape(3, -1, len(cols)), knots[:, -1:]], axis=1)[:, : grid.height]
    out = down[..., :-1, None] + np.diff(down, axis=2)[..., None] * _share()
    out = np.concatenate([out.reshape(3, grid.height, -1), down[..., -1:]], axis=2)
    x, y, z = out[..., : grid.width]
    return np.degrees(np.arctan2(y, x)), np.degrees(np.arctan2(z, np.hypot(x, y)))


def _share() -> np.ndarray:
    return np.arange(EVERY_PX) / EVERY_PX
