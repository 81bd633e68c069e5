"""How far polygons are off, how that varies, and how much of it simple transforms would explain.

What is measured is after Manzini et al., "Non-Uniform Spatial Alignment Errors in sUAS Imagery From
Wide-Area Disasters" (2024). Medians and quantiles do not add up over parts, so this is no metric.
"""

from typing import NamedTuple

import numpy as np
import shapely

from geoml_cli.geo.overlaps import translate

SHARES = (0.5, 0.8)
FITS = {"global": 0, "affine": 1, "quadratic": 2}  # degree of the polynomial


class Pairs(NamedTuple):
    """Polygons (n,) as they should be, as they were and as they were moved, in metres.

    `error` (n,) is how far each is off, `needed` (n, 2) by what it should have been moved.
    """

    truth: np.ndarray
    before: np.ndarray
    after: np.ndarray
    error: np.ndarray
    needed: np.ndarray
    areal: bool

    def only(self, rows: np.ndarray) -> "Pairs":
        """Some of them."""
        truth, before, after, error, needed = (one[rows] for one in self[:5])
        return Pairs(truth, before, after, error, needed, self.areal)


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union (n,) of polygons (n,)."""
    both = shapely.area(shapely.intersection(a, b))
    either = shapely.area(a) + shapely.area(b) - both
    return both / np.where(either > 0, either, 1)


def middles(shapes: np.ndarray) -> np.ndarray:
    """Centroids (n, 2)."""
    return np.asarray(shapely.get_coordinates(shapely.centroid(shapes)))


def circular_variance(shift: np.ndarray) -> float:
    """1 - length of the mean unit vector of shifts (n, 2); those of no length have no direction."""
    length = np.hypot(*shift.T)
    unit = shift[length > 0] / length[length > 0, None]
    return float(1 - np.hypot(*unit.mean(0))) if len(unit) else float("nan")


def variation(values: np.ndarray) -> float:
    """Coefficient of variation: standard deviation / mean."""
    return float(values.std() / values.mean()) if values.mean() else float("nan")


def fit(xy: np.ndarray, shift: np.ndarray, degree: int) -> np.ndarray:
    """Shifts (n, 2) by least squares: a polynomial of x and y (n, 2) of a degree."""
    scaled = (xy - xy.mean(0)) / max(float(np.abs(xy - xy.mean(0)).max()), 1e-9)
    x, y = scaled.T
    powers = [x**i * y**j for i in range(degree + 1) for j in range(degree + 1 - i)]
    design = np.stack(powers, axis=1)
    return np.asarray(design @ np.linalg.lstsq(design, shift, rcond=None)[0])


def scores(pairs: Pairs, iou_before: np.ndarray, iou_after: np.ndarray) -> dict[str, float]:
    """Scores of moved shapes; those of overlap only of polygons. Lengths are in metres."""
    length = np.hypot(*pairs.needed.T)
    out = {
        "error_mean_m": float(pairs.error.mean()),
        "error_median_m": float(np.median(pairs.error)),
        "error_p90_m": float(np.quantile(pairs.error, 0.9)),
        "offset_mean_m": float(length.mean()),
        "circular_variance": circular_variance(pairs.needed),
        "length_variation": variation(length),
    }
    if pairs.areal:
        before, after = float(iou_before.mean()), float(iou_after.mean())
        out |= {
            "iou": after,
            "iou_before": before,
            "relative_gain": (after - before) / (1 - before) if before < 1 else float("nan"),
        }
        for least in SHARES:
            out[f"share_above_{round(10 * least):02d}"] = float((iou_after > least).mean())
    return out


def explained(pairs: Pairs) -> dict[str, float]:
    """What a global, an affine and a quadratic transform, fitted to the truth, would leave."""
    out = {}
    xy = middles(pairs.before)
    for name, degree in FITS.items():
        shift = fit(xy, pairs.needed, degree)
        out[f"{name}_error_mean_m"] = float(np.hypot(*(pairs.needed - shift).T).mean())
        if pairs.areal:
            out[f"{name}_iou"] = float(iou(pairs.truth, translate(pairs.before, shift)).mean())
    return out


def redraw(
    pairs: Pairs,
    iou_before: np.ndarray,
    iou_after: np.ndarray,
    blocks: int,
    draws: int,
    seed: int,
) -> dict[str, tuple[float, float]]:
    """95 % intervals of `scores` from redrawing blocks x blocks of ground; none of one block."""
    xy = middles(pairs.truth)
    span = np.maximum(np.ptp(xy, axis=0), 1e-9)
    cell = np.minimum(((xy - xy.min(0)) / span * blocks).astype(int), blocks - 1)
    block = np.unique(cell[:, 0] * blocks + cell[:, 1], return_inverse=True)[1]
    members = np.split(np.argsort(block, kind="stable"), np.cumsum(np.bincount(block))[:-1])
    if len(members) < 2 or not draws:
        return {}
    rng = np.random.default_rng(seed)
    found: dict[str, list[float]] = {}
    for _ in range(draws):
        rows = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        drawn = pairs.only(rows)
        for key, value in scores(drawn, iou_before[rows], iou_after[rows]).items():
            found.setdefault(key, []).append(value)
    return {
        key: (float(np.nanquantile(v, 0.025)), float(np.nanquantile(v, 0.975)))
        if np.isfinite(v).any()
        else (float("nan"), float("nan"))
        for key, v in found.items()
    }
