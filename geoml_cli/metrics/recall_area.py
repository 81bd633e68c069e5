"""Recall against area: share of queries whose true cell lies in the best so many square kilometres.

Source: Zhu et al. 2024 (arXiv 2407.13862): cells are taken by falling score until the true one is in; the
area of all that were taken is what a query costs. By score, and by density (score per km2).
"""

import numpy as np

from geoml_cli.errors import GeomlError

AREAS_KM2 = (1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8)
RANKS = ("score", "density")


def stats(
    truth: np.ndarray,
    guess: np.ndarray,
    valid: np.ndarray,
    classes: int,
    areas_km2: tuple[float, ...] = AREAS_KM2,
) -> dict[str, np.ndarray]:
    """Count queries by what they cost: truth (n,) is the true cell's number, -1 where no cell holds it;
    guess (n, C, 2) score and km2 of each cell, valid (n, C) which cells there are.

    All int64: `n` queries, `held` those whose true cell is there, `score` and `density` (A,) those that cost
    no more than each area.
    """
    if np.ndim(guess) != 3:
        raise GeomlError("metric recall-area: wants ranked cells, not classes; give it two tables")
    found = {"n": np.array(len(truth), np.int64), "held": (np.asarray(truth) >= 0).sum()}
    for rank in RANKS:
        costs = [
            area_needed(one[:, 0][seen], one[:, 1][seen], rank)[_of(at, seen)]
            if at >= 0
            else np.inf
            for at, one, seen in zip(truth, guess, valid, strict=True)
        ]
        within = [(np.array(costs) <= most).sum() for most in areas_km2]
        found[rank] = np.array(within, np.int64)
    return found


def _of(at: int, seen: np.ndarray) -> int:
    """Number of a cell among those that there are."""
    return int(np.count_nonzero(seen[:at]))


def area_needed(score: np.ndarray, km2: np.ndarray, rank: str = "score") -> np.ndarray:
    """Square kilometres (C,) that are taken until each cell is in, itself included; of equals the first first."""
    by = score if rank == "score" else score / km2
    order = np.argsort(-by, kind="stable")
    out = np.empty(len(order))
    out[order] = np.cumsum(np.asarray(km2, float)[order])
    return out


def score(stats: dict[str, np.ndarray]) -> dict[str, float | np.ndarray]:
    """Recall (A,) at each area, `recall_by_score` and `recall_by_density`, and at all of them, `held`.

    NaN where there is no query.
    """
    n = float(stats["n"])
    held: dict[str, float | np.ndarray] = {"held": float(stats["held"]) / n if n else float("nan")}
    return held | {
        f"recall_by_{rank}": np.asarray(stats[rank], float) / n
        if n
        else np.full(len(stats[rank]), np.nan)
        for rank in RANKS
    }
