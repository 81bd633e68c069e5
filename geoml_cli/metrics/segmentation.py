"""Accuracy, mean IoU and kappa of a class map; IoU, F1, precision and recall of each class."""

import numpy as np

from geoml_cli.core.scoring import confusion


def stats(
    truth: np.ndarray, guess: np.ndarray, valid: np.ndarray, classes: int
) -> dict[str, np.ndarray]:
    """Count pairs of class ids 0..classes-1 where `valid` (arrays of one shape).

    `confusion` (classes, classes) int64: rows truth, columns guess.
    """
    return {"confusion": confusion(truth, guess, valid, classes)}


def score(stats: dict[str, np.ndarray]) -> dict[str, float | np.ndarray]:
    """Score counts; NaN is what the counts leave undefined, such as a ratio of nothing.

    `accuracy` is the share of samples that are right; `miou` the mean of `iou` over the classes
    that are present in truth or guess; `kappa` Cohen's. Per class (classes,): `iou` = both /
    either, `f1`, `precision` (user's accuracy: of what the map calls the class, how much is) and
    `recall` (producer's accuracy: of what is the class, how much the map calls so).
    """
    counts = stats["confusion"].astype(np.float64)
    both = np.diag(counts)
    true, guessed, n = counts.sum(axis=1), counts.sum(axis=0), counts.sum()
    either = true + guessed - both
    iou = _ratio(both, either)
    agreed = _ratio(both.sum(), n)
    chance = _ratio((true * guessed).sum(), n * n)  # agreement of two blind draws
    return {
        "accuracy": float(agreed),
        "miou": float(iou[either > 0].mean()) if (either > 0).any() else float("nan"),
        "kappa": float(_ratio(agreed - chance, 1 - chance)),
        "iou": iou,
        "f1": _ratio(2 * both, true + guessed),
        "precision": _ratio(both, guessed),
        "recall": _ratio(both, true),
    }


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divide; NaN where the whole is nothing."""
    part, whole = np.asarray(part, float), np.asarray(whole, float)
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole != 0)
