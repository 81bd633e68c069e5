"""Places on the sphere: distances along great circles, and as points in space."""

import numpy as np

RADIUS_KM = 6371.0088  # mean radius of the WGS 84 ellipsoid


def great_circle_km(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Kilometres (...,) between places (..., 2), longitude and latitude in degrees: the haversine formula.

    On a sphere; the geodesic on the ellipsoid is up to 0.6 % longer or shorter.
    """
    (lon_a, lat_a), (lon_b, lat_b) = (
        np.moveaxis(np.radians(np.asarray(one, np.float64)), -1, 0) for one in (a, b)
    )
    half = (
        np.sin((lat_b - lat_a) / 2) ** 2
        + np.cos(lat_a) * np.cos(lat_b) * np.sin((lon_b - lon_a) / 2) ** 2
    )
    return 2 * RADIUS_KM * np.arcsin(np.sqrt(np.clip(half, 0, 1)))


def xyz(lonlat: np.ndarray) -> np.ndarray:
    """Points (n, 3) on the unit sphere of places (n, 2) in degrees."""
    lon, lat = np.radians(np.asarray(lonlat, np.float64)).T
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)


def chord_of(km: float) -> float:
    """The straight line, on the unit sphere, under an arc of some kilometres."""
    return float(2 * np.sin(min(km / RADIUS_KM, np.pi) / 2))


def cell_km2(
    west: np.ndarray, south: np.ndarray, east: np.ndarray, north: np.ndarray
) -> np.ndarray:
    """Square kilometres of cells between meridians and parallels in degrees, on the sphere of RADIUS_KM."""
    high, low = np.sin(np.radians(north)), np.sin(np.radians(south))
    return RADIUS_KM**2 * np.radians((np.asarray(east) - west) % 360) * (high - low)
