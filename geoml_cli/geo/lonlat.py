"""Longitude and latitude in degrees: which numbers are a place, and how the two are told apart by name."""

import math
from collections.abc import Sequence

import numpy as np

from geoml_cli.errors import GeomlError

LON = ("lon", "longitude", "lng", "long", "decimallongitude", "x")
LAT = ("lat", "latitude", "decimallatitude", "y")


def no_place(lon: float, lat: float) -> str | None:
    """What is wrong with a pair, or None."""
    if abs(lon) <= 360 and abs(lat) <= 90:
        return None
    if not (math.isfinite(lon) and math.isfinite(lat)):
        return f"{lon}, {lat} is no place; leave rows without coordinates out"
    if abs(lon) <= 90 and abs(lat) <= 360:
        return (
            f"latitude {lat:g} is beyond 90 degrees; are the columns swapped? The order is lon, lat"
        )
    return f"{lon:g}, {lat:g} is no longitude and latitude in degrees; are they projected?"


def check_lonlat(lonlat: np.ndarray, where: str, before: int = 0) -> None:
    """Refuse an array (n, 2) with a row that is no place, and say which; `before` rows went before."""
    with np.errstate(invalid="ignore"):
        bad = ~((np.abs(lonlat[:, 0]) <= 360) & (np.abs(lonlat[:, 1]) <= 90))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise GeomlError(f"{where}: row {before + row + 1}: {no_place(*map(float, lonlat[row]))}")


def coordinate_columns(names: Sequence[str], asked: Sequence[str], where: str) -> tuple[str, str]:
    """The columns of longitude and latitude: the two asked for, in this order, or those of a usual name."""
    plain = {name.strip().lower(): name for name in names}
    if asked:
        for name in asked:
            if name not in names:
                raise GeomlError(f"{where}: no column {name!r}; it has {', '.join(names)}")
        if asked[0].lower() in LAT or asked[1].lower() in LON:
            raise GeomlError(f"--lonlat {','.join(asked)}: longitude comes first, then latitude")
        return asked[0], asked[1]
    lon = next((plain[one] for one in LON if one in plain), None)
    lat = next((plain[one] for one in LAT if one in plain), None)
    if lon is None or lat is None:
        raise GeomlError(
            f"{where}: no geometry, and no columns lon and lat; name them with --lonlat LON,LAT: {', '.join(names)}"
        )
    return lon, lat
