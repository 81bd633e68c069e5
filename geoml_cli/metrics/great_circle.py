"""How far from the truth places are: mean and median km, share within 1, 25, 200, 750 and 2500 km."""

import numpy as np

from geoml_cli.errors import GeomlError
from geoml_cli.geo.places import great_circle_km

WITHIN_KM = (1, 25, 200, 750, 2500)  # street, city, region, country, continent
LEAST_KM, MOST_KM, A_DOUBLING = 1e-3, 20_037.6, 1024  # bins that the median is read from
MM = 1e6  # a kilometre: sums of whole numbers are the same in any order
BINS = int(np.ceil(np.log2(MOST_KM / LEAST_KM) * A_DOUBLING)) + 1


def stats(
    truth: np.ndarray, guess: np.ndarray, valid: np.ndarray, classes: int
) -> dict[str, np.ndarray]:
    """Add up distances between places (n, 2), longitude and latitude in degrees, where `valid` (n,).

    All int64: `n`, `within` (5,), `bins` (BINS,): how many in all, no further than each of WITHIN_KM, and of
    each distance; `mm` their sum in millimetres. On a sphere of 6371.0088 km.
    """
    if np.ndim(truth) != 2 or np.shape(truth)[1] != 2:
        raise GeomlError("metric great-circle: wants places, not classes; give it two tables")
    seen = np.asarray(valid, bool)
    km = great_circle_km(np.asarray(truth)[seen], np.asarray(guess)[seen])
    at = np.ceil(np.log2(np.maximum(km, LEAST_KM) / LEAST_KM) * A_DOUBLING).astype(int)
    return {
        "n": np.array(len(km), np.int64),
        "mm": np.rint(km * MM).astype(np.int64).sum(),
        "within": np.array([(km <= most).sum() for most in WITHIN_KM], np.int64),
        "bins": np.bincount(np.minimum(at, BINS - 1), minlength=BINS).astype(np.int64),
    }


def score(stats: dict[str, np.ndarray]) -> dict[str, float | np.ndarray]:
    """Score sums: `mean_km`, `median_km` (to 0.07 %, and 1 m), `within_1km` and so on, shares no further.

    All NaN where there is nothing.
    """
    n = float(stats["n"])
    if not n:
        names = ("mean_km", "median_km", *(f"within_{most}km" for most in WITHIN_KM))
        return {name: float("nan") for name in names}
    rising = np.cumsum(stats["bins"])
    # the middle of an odd number, the mean of the two in the middle of an even one
    middle = [int(np.searchsorted(rising, k)) for k in (np.ceil(n / 2), np.floor(n / 2) + 1)]
    found: dict[str, float | np.ndarray] = {
        "mean_km": float(stats["mm"]) / MM / n,
        "median_km": float(np.mean([LEAST_KM * 2 ** (k / A_DOUBLING) for k in middle])),
    }
    shares = np.asarray(stats["within"], float) / n
    return found | {
        f"within_{most}km": float(share) for most, share in zip(WITHIN_KM, shares, strict=True)
    }
