"""How much neighbours on the ground are alike: Moran's I of all dimensions together.

Source: Moran 1950 (Biometrika); weights are 1 / k for the k nearest rows by great circle. The sum over
dimensions of numerators, over that of denominators: each dimension counts by its variance.
"""

import numpy as np
from scipy.spatial import cKDTree

from geoml_cli.core.probing import Probed, Told

LABELS = ()


def measure(rows: Probed, *, k: int = 8) -> Told:
    """Moran's I; about -1 / (n - 1) where places say nothing, 1 where neighbours are equal."""
    lon, lat = np.radians(rows.lonlat.astype(np.float64)).T
    there = np.isfinite(lon)
    z = rows.z[there].astype(np.float64)
    z = z - z.mean(axis=0)
    lon, lat = lon[there], lat[there]
    k = min(k, len(z) - 1)
    total = float((z**2).sum())
    if k < 1 or total == 0:
        return Told(value=float("nan"))
    xyz = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)
    at = cKDTree(xyz).query(xyz, k + 1)[1]
    # the row itself may come second where several lie at one place
    own = at == np.arange(len(z))[:, None]
    own[~own.any(axis=1), -1] = True
    near = at[~own].reshape(len(z), k)
    return Told(value=float((z * z[near].mean(axis=1)).sum() / total), about={"k": k})
