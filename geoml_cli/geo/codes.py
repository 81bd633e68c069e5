"""Numbers that say where, when and on what ground, each 0..1, and the usual scalings of inputs.

Cosine and sine of an angle, brought from -1..1 to 0..1: what is near stays near across the turn.
Formulas of AGBD (Sialelli et al. 2024). float64, NaN where a number is unknown.
"""

import numpy as np

EARTH_RADIUS_M = 6_371_000.0
ORIGIN_DAY = 17_897  # 2019-01-01 in days since 1970-01-01; their day 0, 17 April 2019, is 106 later
YEAR_DAYS = 365.0
NO_COVER = 255
NO_DATA_DB = -9999.0
Array = np.ndarray


def turned(angle: Array) -> tuple[Array, Array]:
    """Cosine and sine of an angle in radians, each 0..1."""
    return (np.cos(angle) + 1) / 2, (np.sin(angle) + 1) / 2


def place(lat: Array, lon: Array) -> tuple[Array, Array, Array, Array]:
    """Codes of places in degrees: cosine and sine of latitude, then of longitude.

    A turn is 180 degrees of latitude and 360 of longitude: the poles are of one code.
    """
    lat, lon = np.asarray(lat, np.float64), np.asarray(lon, np.float64)
    return *turned(np.pi * lat / 90), *turned(np.pi * lon / 180)


def patch_degrees(
    lat: float, lon: float, size_px: int, resolution_m: float, north_up: bool = False
) -> tuple[Array, Array]:
    """Latitude and longitude (size, size) of the pixels around a middle, on a sphere.

    The authors' rows go north, as if the first row were the southern one; `north_up` is for
    patches whose first row is the northern one.
    """
    steps = np.degrees((np.arange(size_px) - size_px // 2) * resolution_m / EARTH_RADIUS_M)
    rows = lat + (-steps if north_up else steps)[:, None]
    lats = np.broadcast_to(rows, (size_px, size_px)).copy()
    return lats, lon + steps / np.cos(np.radians(lats))


def place_of_patch(
    lat: float, lon: float, size_px: int, resolution_m: float, north_up: bool = False
) -> tuple[Array, Array, Array, Array]:
    """Codes (size, size) of every pixel of a patch, as `place` gives them."""
    return place(*patch_degrees(lat, lon, size_px, resolution_m, north_up))


def season(
    day: Array, origin_day: float = ORIGIN_DAY, year_days: float = YEAR_DAYS
) -> tuple[Array, Array]:
    """Codes of the time of year of days since 1970: cosine and sine, 1 and 0.5 on 1 January 2019.

    The authors' year has 365 days: twenty years off the code is five days late.
    """
    return turned(2 * np.pi * (np.asarray(day, np.float64) - origin_day) / year_days)


def relief(dem: Array, resolution_m: float) -> tuple[Array, Array, Array]:
    """Slope (rise over run) of heights (H, W) in metres; cosine and sine of the way up.

    The angle of the gradient runs from along the columns towards along the rows, downwards. On
    flat ground it is 0.
    """
    down, across = np.gradient(np.asarray(dem, np.float64), resolution_m)
    return np.hypot(down, across), *turned(np.arctan2(down, across))


def cover(code: Array, percent: Array) -> tuple[Array, Array, Array]:
    """Codes of a land-cover class 0..100 (cosine, sine) and its probability 0..1; 0 where it is 255."""
    code, percent = np.asarray(code, np.float64), np.asarray(percent, np.float64)
    cosine, sine = turned(2 * np.pi * code / 100)
    known = code != NO_COVER
    share = np.where(percent != NO_COVER, percent / 100, 0)
    return np.where(known, cosine, 0), np.where(known, sine, 0), share


def _scaled(values: Array, low: float, span: float, nodata: float | None) -> Array:
    values = np.asarray(values, np.float64)
    scaled = (values - low) / span
    return scaled if nodata is None else np.where(values == nodata, 0.0, scaled)


def mean_std(values: Array, mean: float, std: float, nodata: float | None = 0.0) -> Array:
    """Values less their mean, in standard deviations; 0 where there is no data."""
    return _scaled(values, mean, std, nodata)


def percentiles(values: Array, p1: float, p99: float, nodata: float | None = 0.0) -> Array:
    """Values between their 1st and 99th percentile as 0..1, clipped; 0 where there is no data."""
    return np.clip(_scaled(values, p1, p99 - p1, nodata), 0, 1)


def min_max(values: Array, low: float, high: float, nodata: float | None = 0.0) -> Array:
    """Values between two bounds as 0..1, not clipped; 0 where there is no data."""
    return _scaled(values, low, high - low, nodata)


def alos_db(dn: Array) -> Array:
    """Backscatter in dB of ALOS PALSAR-2 mosaic numbers, 10 log10(DN^2) - 83; -9999 where they are 0."""
    dn = np.asarray(dn, np.float64)
    return np.where(dn > 0, 20 * np.log10(np.maximum(dn, 1e-9)) - 83, NO_DATA_DB)
