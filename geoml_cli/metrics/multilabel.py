"""F1 of what is present, over all labels and mean over classes; each class; samples all right."""

import numpy as np

from geoml_cli.errors import GeomlError


def stats(
    truth: np.ndarray, guess: np.ndarray, valid: np.ndarray, classes: int
) -> dict[str, np.ndarray]:
    """Count 0 and 1 where `valid`; arrays (n, classes).

    `both`, `missed`, `alarm` (truth and guess, truth alone, guess alone) and `n` (classes,);
    `whole` (2,): samples whose valid labels are all right, samples that have any. All int64.
    """
    if np.ndim(truth) != 2 or np.shape(truth)[1] != classes:
        raise GeomlError("metric multilabel: wants what is present of each class, not one class id")
    t, g = (np.asarray(one) > 0.5 for one in (truth, guess))
    right = ((t == g) | ~valid).all(axis=1)
    some = valid.any(axis=1)
    return {
        "both": (t & g & valid).sum(axis=0, dtype=np.int64),
        "missed": (t & ~g & valid).sum(axis=0, dtype=np.int64),
        "alarm": (~t & g & valid).sum(axis=0, dtype=np.int64),
        "n": valid.sum(axis=0, dtype=np.int64),
        "whole": np.array([(right & some).sum(), some.sum()], np.int64),
    }


def score(stats: dict[str, np.ndarray]) -> dict[str, float | np.ndarray]:
    """Score counts; NaN is what the counts leave undefined.

    `f1_micro` counts all labels together, `f1_macro` is the mean of `f1` over the classes that are
    present in truth or guess, `exact` the share of samples with every label right. Per class
    (classes,): `f1`, `precision`, `recall`, `accuracy`.
    """
    both, missed, alarm, n = (
        np.asarray(stats[key], float) for key in ("both", "missed", "alarm", "n")
    )
    f1 = _ratio(2 * both, 2 * both + missed + alarm)
    right, samples = np.asarray(stats["whole"], float)
    return {
        "f1_micro": float(_ratio(2 * both.sum(), (2 * both + missed + alarm).sum())),
        "f1_macro": float(f1[np.isfinite(f1)].mean()) if np.isfinite(f1).any() else float("nan"),
        "exact": float(_ratio(right, samples)),
        "f1": f1,
        "precision": _ratio(both, both + alarm),
        "recall": _ratio(both, both + missed),
        "accuracy": _ratio(n - missed - alarm, n),
    }


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divide; NaN where the whole is nothing."""
    part, whole = np.asarray(part, float), np.asarray(whole, float)
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole != 0)
