"""How well scores rank what is present above what is absent: area under the ROC curve."""

import numpy as np

from geoml_cli.errors import GeomlError

SCORES = True  # not decisions
A_UNIT, MOST = 64, 16  # bins a unit of logit, and where they end
BINS = 2 * MOST * A_UNIT + 1


def stats(
    truth: np.ndarray, guess: np.ndarray, valid: np.ndarray, classes: int
) -> dict[str, np.ndarray]:
    """Count scores of absent and of present things where `valid`; arrays (n, classes), scores 0 to 1.

    `bins` (classes, 2, BINS) int32 by logit: scores that agree to 1/64 of it count as equal; `n` (classes,).
    """
    if np.ndim(truth) != 2 or np.shape(truth)[1] != classes or np.asarray(guess).dtype.kind != "f":
        raise GeomlError("metric ranking: wants scores of what is present, not classes")
    p = np.clip(np.nan_to_num(np.asarray(guess, np.float64)), 1e-12, 1 - 1e-12)
    at = np.rint(np.clip(np.log(p) - np.log1p(-p), -MOST, MOST) * A_UNIT).astype(int)
    bins = np.zeros((classes, 2, BINS), np.int32)
    side = (np.asarray(truth) > 0.5).astype(int)
    seen = np.asarray(valid, bool)
    for k in range(classes):
        mine = seen[:, k]
        np.add.at(bins[k], (side[mine, k], at[mine, k] + MOST * A_UNIT), 1)
    return {"bins": bins, "n": seen.sum(axis=0, dtype=np.int64)}


def score(stats: dict[str, np.ndarray]) -> dict[str, float | np.ndarray]:
    """Score counts: `auc` (classes,), NaN where nothing is present or nothing absent, and `auc_mean` of the rest.

    The share of pairs of a present and an absent one that are ranked right, ties counting half.
    """
    absent, present = np.moveaxis(np.asarray(stats["bins"], float), 1, 0)
    below = np.cumsum(absent, axis=1) - absent
    right = (present * (below + absent / 2)).sum(axis=1)
    pairs = present.sum(axis=1) * absent.sum(axis=1)
    auc = np.divide(right, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)
    some = auc[np.isfinite(auc)]
    return {"auc_mean": float(some.mean()) if len(some) else float("nan"), "auc": auc}
