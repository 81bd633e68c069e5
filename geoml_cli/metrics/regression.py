"""RMSE, MAE, bias, R2 and Pearson's r of values, all together and of each output.

Sums about 0 lose what is asked for where values are large beside their spread: of 10000 +- 1 the
squares agree in eight digits. So every value is parted into thousands (of 4096), ones and a rest
of at most a half. Sums and products of the first two are whole numbers, exact in float64 for
values below 2^24 and 2^29 pairs, in any order of batches and processes, and what cancels does so
in integers.
"""

import math

import numpy as np

from geoml_cli.errors import GeomlError

SUMS = ("error", "absolute", "square")
THOUSAND = 4096
EACH = np.array([0, THOUSAND, 1, 1, THOUSAND, 1, 1])
WORTH = np.outer(EACH, EACH)  # of each of the moments
IS_REST = np.isin(np.arange(7), (0, 3, 6))
IS_WHOLE = ~(IS_REST[:, None] | IS_REST)
T, G = slice(1, 4), slice(4, 7)  # rows of the truth, of the guess
NOISE = 1e-13  # share of the products with rests below which a spread is rounding


def stats(
    truth: np.ndarray, guess: np.ndarray, valid: np.ndarray, classes: int
) -> dict[str, np.ndarray]:
    """Add up pairs of values (n, classes) where `valid`; elsewhere they may be anything.

    `n` int64, `error`, `absolute` and `square`: sums (classes,) of guess - truth, of its size and
    of its square. `moments` (classes, 7, 7): sums of products of (1, thousands, ones, rest of the
    truth, those of the guess). All float64 but n.
    """
    if np.ndim(truth) != 2 or np.shape(truth)[1] != classes:
        raise GeomlError("metric regression: wants values, not classes")
    seen = np.asarray(valid, bool)
    t, g = (np.where(seen, one, 0).astype(np.float64) for one in (truth, guess))
    error = g - t
    parts = np.stack([seen.astype(np.float64), *_parts(t), *_parts(g)]).transpose(2, 0, 1)
    return {
        "n": seen.sum(axis=0, dtype=np.int64),
        "error": error.sum(axis=0),
        "absolute": np.abs(error).sum(axis=0),
        "square": (error**2).sum(axis=0),
        "moments": parts @ parts.transpose(0, 2, 1),
    }


def score(stats: dict[str, np.ndarray]) -> dict[str, float | np.ndarray]:
    """Score sums; NaN is what they leave undefined, such as R2 where the truth is one value.

    `rmse`, `mae`, `bias` (mean of guess - truth), `r2` (1 - squares of errors / squares about the
    mean of the truth) and `r` (Pearson's) of all pairs together; `rmse_each` and so on of each
    output (classes,).
    """
    each = [
        _scores(stats["n"][k], [stats[key][k] for key in SUMS], stats["moments"][k])
        for k in range(len(stats["n"]))
    ]
    sums = [stats[key].sum() for key in SUMS]
    pooled = _scores(stats["n"].sum(), sums, stats["moments"].sum(axis=0))
    return pooled | {f"{key}_each": np.array([one[key] for one in each], float) for key in pooled}


def _parts(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values as thousands, ones and a rest."""
    thousands = np.rint(x / THOUSAND)
    below = x - THOUSAND * thousands
    ones = np.rint(below)
    return thousands, ones, below - ones


def _scores(n: float, sums: list[float], moments: np.ndarray) -> dict[str, float]:
    """Scores of one output, or of all."""
    error, absolute, square = (float(one) for one in sums)
    if n == 0 or not np.isfinite(moments).all():
        return dict.fromkeys(("rmse", "mae", "bias", "r2", "r"), float("nan"))
    tt, gg, tg = _scatter(int(n), moments)
    return {
        "rmse": math.sqrt(square / n),
        "mae": absolute / n,
        "bias": error / n,
        "r2": 1 - square / tt if tt > 0 else float("nan"),
        "r": tg / math.sqrt(tt * gg) if tt > 0 and gg > 0 else float("nan"),
    }


def _scatter(n: int, moments: np.ndarray) -> tuple[float, float, float]:
    """Sums of squares of truth and of guess about their means, and of their product."""
    whole = np.vectorize(int, otypes=[object])(moments)
    exact = (n * whole - np.outer(whole[0], whole[0])) * WORTH  # n times the sums, in integers
    rest = (moments - np.outer(moments[0], moments[0]) / n) * WORTH
    exact[~IS_WHOLE], rest[IS_WHOLE] = 0, 0

    def about(a: slice, b: slice) -> float:
        return float(exact[a, b].sum() / n + rest[a, b].sum())

    squares = []
    for one, last in ((T, 3), (G, 6)):  # products with the rest are what rounding makes noise of
        noise = NOISE * np.abs(moments[last, one] * WORTH[last, one]).sum()
        squares.append(found if (found := about(one, one)) > noise else 0.0)
    return squares[0], squares[1], about(T, G)
