"""Labels by logistic or ridge regression on standardised embeddings, taught on other ground.

The strength of regularisation is chosen on the folds that teach alone, one of them held out at a time.
"""

import warnings
from typing import Any

import numpy as np

from geoml_cli.core.probing import Probed, Told

LABELS = ("classes", "values")
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # C of logistic regression, relative to one row a class


def measure(rows: Probed, *, steps: int = 300) -> Told:
    """Tell each labelled row by a model of the other folds; `steps` of the solver at most."""
    from sklearn.exceptions import ConvergenceWarning

    assert rows.labels is not None
    classes = rows.labels.dtype.kind == "i"
    guess = np.full(len(rows.z), -1 if classes else np.nan, rows.labels.dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a few steps short of the optimum
        for teach, told in rows.sides():
            rows.check()
            mean, std = rows.z[teach].mean(0), rows.z[teach].std(0)
            x = (rows.z - mean) / np.where(std > 1e-9, std, 1)
            strength = _chosen(rows, x, teach, classes, steps)
            guess[told] = _fitted(x[teach], rows.labels[teach], strength, classes, steps)(x[told])
    return Told(guess=guess)


def _fitted(x: np.ndarray, y: np.ndarray, strength: float, classes: bool, steps: int) -> Any:
    """A function from rows to labels."""
    from sklearn.linear_model import LogisticRegression, Ridge

    if not classes:
        shift = y.mean()
        model = Ridge(alpha=1 / strength).fit(x, y - shift)
        return lambda z: model.predict(z) + shift
    if len(np.unique(y)) == 1:
        return lambda z: np.full(len(z), y[0])
    return LogisticRegression(C=strength, max_iter=steps).fit(x, y).predict


def _chosen(rows: Probed, x: np.ndarray, teach: np.ndarray, classes: bool, steps: int) -> float:
    """The strength that tells held-out folds among those that teach best; of equals the smaller."""
    assert rows.labels is not None
    inner, y = rows.fold[teach], rows.labels
    if len(np.unique(inner)) < 2:
        return 1.0
    best, found = -np.inf, 1.0
    for strength in STRENGTHS:
        right = []
        for fold in np.unique(inner):
            a, b = teach[inner != fold], teach[inner == fold]
            said = _fitted(x[a], y[a], strength, classes, steps)(x[b])
            right.append((said == y[b]).astype(float) if classes else -((said - y[b]) ** 2))
        score = float(np.concatenate(right).mean())
        if score > best:
            best, found = score, strength
    return found
