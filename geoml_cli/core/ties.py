"""Tie points, and the transform that most of them agree on: shift, similarity, affine or projective."""

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import binom

MODELS = {"shift": 1, "similarity": 2, "affine": 3, "projective": 4}  # points that fix one
TRIES = 400  # random minimal sets
AGREE_PX = 1.0  # ties this near to a transform agree with it, at first
TUKEY = 4.685  # standard errors at which an observation counts no longer
FLOOR_PX = 0.02  # no tie is more exact than this: what is alike is never quite the same ground


@dataclass(frozen=True)
class Ties:
    """Points `at` (n, 2) x, y px of the reference and their `shift` (n, 2) in the moving image.

    `covariance` (n, 2, 2) px squared, `confidence` (n,) of each alone; `keep` (n,) those that agree, `residual`
    (n, 2) what the transform leaves of each.
    """

    at: np.ndarray
    shift: np.ndarray
    covariance: np.ndarray
    confidence: np.ndarray
    keep: np.ndarray
    residual: np.ndarray

    @classmethod
    def of(
        cls, at: np.ndarray, shift: np.ndarray, covariance: np.ndarray, confidence: np.ndarray
    ) -> "Ties":
        """Ties that nothing is yet known of."""
        good = np.isfinite(shift).all(1) & np.isfinite(covariance).all((1, 2))
        return cls(at, shift, covariance, confidence, good, np.full(shift.shape, np.nan))

    def judged(self, matrix: np.ndarray, keep: np.ndarray) -> "Ties":
        """With what a transform leaves of each."""
        return replace(self, keep=keep, residual=self.at + self.shift - _under(matrix, self.at))

    def __len__(self) -> int:
        return len(self.at)


def _under(matrix: np.ndarray, at: np.ndarray) -> np.ndarray:
    full = np.concatenate([at, np.ones((len(at), 1))], 1) @ matrix.T
    return full[:, :2] / full[:, 2:]


@dataclass(frozen=True)
class Fit:
    """A transform (3, 3), covariance (2, 2) of the place at `centre`, which ties agree, and how sure."""

    matrix: np.ndarray
    covariance: np.ndarray
    keep: np.ndarray
    confidence: float


def fit(ties: Ties, model: str, centre: np.ndarray, reach: float, share: float = 1.0) -> Fit | None:
    """The transform that most ties agree on; None where there are too few.

    `reach` is how far off a tie by chance may lie, px; `share` how much of each tie's ground is its own.
    """
    least = MODELS[model]
    use = np.flatnonzero(ties.keep)
    if len(use) < least:
        return None
    at, to = ties.at[use], ties.at[use] + ties.shift[use]
    middle, scale = at.mean(0), max(float(np.abs(at - at.mean(0)).max()), 1.0)
    p, q = (at - middle) / scale, (to - middle) / scale
    rng = np.random.default_rng(0)
    best, most = None, -1.0
    tries = len(use) if least == 1 else TRIES
    for i in range(min(tries, TRIES)):
        some = (
            np.array([i])
            if least == 1 and len(use) <= TRIES
            else rng.choice(len(use), least, False)
        )
        matrix = _solve(p[some], q[some], np.ones(least), model)
        if matrix is None:
            continue
        off = np.linalg.norm(_under(matrix, p) - q, axis=1) * scale
        score = float(np.maximum(0, 1 - (off / AGREE_PX) ** 2).sum())
        if score > most:
            best, most = matrix, score
    if best is None:
        return None
    error = np.sqrt(np.trace(ties.covariance[use], axis1=1, axis2=2) / 2 + FLOOR_PX**2)
    matrix, weight, spread = _polished(best, p, q, error / scale, model)
    keep = np.zeros(len(ties), bool)
    keep[use] = weight > 0
    turn = np.array([[scale, 0, middle[0]], [0, scale, middle[1]], [0, 0, 1]])
    off = np.linalg.norm(_under(matrix, p) - q, axis=1) * scale
    sure = agreed(len(use), int((off < AGREE_PX).sum()), least, reach, share)
    found = (centre - middle) / scale
    covariance = _covariance(matrix, p, weight, spread, found, model) * scale**2
    full = turn @ matrix @ np.linalg.inv(turn)
    return Fit(full / full[2, 2], covariance, keep, sure)


def agreed(count: int, agree: int, least: int, reach: float, share: float) -> float:
    """How sure (0 to 1) it is that so many of the ties do not agree by chance.

    A tie by chance lies anywhere within reach, so it agrees with another with probability p; the odds that
    any transform finds so many friends are at most those of one times the number of transforms.
    """
    p = min(0.5, math.pi * (2 * AGREE_PX) ** 2 / (2 * reach) ** 2)
    n, k = max(1, round(count * share)), math.floor((agree - least) * share)
    if k <= 0:
        return 0.0
    return float(1 - min(1.0, binom.sf(k - 1, n, p) * n**least))


def _polished(
    matrix: np.ndarray, p: np.ndarray, q: np.ndarray, error: np.ndarray, model: str
) -> tuple[np.ndarray, np.ndarray, float]:
    """Reweighted least squares: matrix, weights (n,) per coordinate, and the size of what is left."""
    spread, weight = 1.0, np.ones(len(p))
    for _ in range(30):
        off = (_under(matrix, p) - q) / error[:, None]
        far = np.sqrt((off**2).mean(1))
        near = far[far < np.median(far) * 5 + 1e-12]
        spread = max(float(np.median(near)) / 0.8326, 0.05)  # of a Rayleigh variable over root 2
        pull = np.clip(1 - (far / (TUKEY * spread)) ** 2, 0, None) ** 2
        weight = pull / error**2
        if (weight > 0).sum() < MODELS[model]:
            break
        new = _solve(p, q, weight, model, matrix)
        if new is None:
            break
        change, matrix = np.abs(new - matrix).max(), new
        if change < 1e-12:
            break
    return matrix, weight, spread


def _rows(p: np.ndarray, model: str) -> np.ndarray:
    """Design (n, 2, k): place in the moving image = design @ parameters (for a projective one, times its divisor)."""
    x, y, one, none = p[:, 0], p[:, 1], np.ones(len(p)), np.zeros(len(p))
    if model == "shift":
        rows = [[one, none], [none, one]]
    elif model == "similarity":
        rows = [[x, -y, one, none], [y, x, none, one]]
    else:
        rows = [[x, y, one, none, none, none], [none, none, none, x, y, one]]
    return np.moveaxis(np.array(rows), 2, 0)


def _solve(
    p: np.ndarray, q: np.ndarray, weight: np.ndarray, model: str, before: np.ndarray | None = None
) -> np.ndarray | None:
    """Weighted least squares; a projective transform is weighed by the divisor of the one `before`."""
    if model == "shift":
        dx, dy = np.average(q - p, axis=0, weights=weight)
        return np.array([[1, 0, dx], [0, 1, dy], [0, 0, 1]])
    rows = _rows(p, model)
    goal = q.copy()
    root = np.sqrt(weight)
    if model == "projective":
        w = np.ones(len(p)) if before is None else np.c_[p, np.ones(len(p))] @ before[2]
        more = -q[:, :, None] * p[:, None, :]  # (n, 2, 2)
        rows = np.concatenate([rows, more], 2)
        root = root / np.abs(w).clip(1e-3)
    a = (rows * root[:, None, None]).reshape(-1, rows.shape[2])
    found, _, rank, _ = np.linalg.lstsq(a, (goal * root[:, None]).ravel(), rcond=1e-9)
    if rank < rows.shape[2] or not np.isfinite(found).all():
        return None
    if model == "similarity":
        a_, b_, dx, dy = found
        return np.array([[a_, -b_, dx], [b_, a_, dy], [0, 0, 1]])
    last = found[6:] if model == "projective" else (0.0, 0.0)
    return np.array([found[:3], found[3:6], [*last, 1.0]])


def _covariance(
    matrix: np.ndarray, p: np.ndarray, weight: np.ndarray, spread: float, at: np.ndarray, model: str
) -> np.ndarray:
    """Covariance (2, 2) of the place of `at`, in scaled units, of the parameters linearised."""

    def design(points: np.ndarray) -> np.ndarray:
        rows = _rows(points, model)
        if model == "projective":
            q = _under(matrix, points)
            w = np.c_[points, np.ones(len(points))] @ matrix[2]
            rows = np.concatenate([rows, -q[:, :, None] * points[:, None, :]], 2) / w[:, None, None]
        return rows

    rows = design(p)
    normal = np.einsum("nik,n,nil->kl", rows, weight, rows)
    here = design(at[None])[0]
    return here @ np.linalg.pinv(normal) @ here.T * max(spread, 1.0) ** 2
