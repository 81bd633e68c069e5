"""A smooth field over tie points: cubic B-splines on a lattice, bent no more than the ties hold out for.

Coefficients c minimise sum w |B c - d|^2 + stiffness * (bending energy); the stiffness is the one that
best foretells ties that were held back, and ties far from the field lose their weight.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

STIFFNESS = tuple(10.0**e for e in np.arange(-3, 4.5, 0.75))
FOLDS = 5
MOST_KNOTS = 40_000
TUKEY = 4.685


@dataclass(frozen=True)
class Bend:
    """Displacements x, y px on a lattice of knots `step` px apart; `knots` (2, rows, cols) are B-spline coefficients."""

    first: tuple[float, float]  # x, y of the knot 0, 0
    step: float
    knots: np.ndarray

    def at(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Displacements at places; beyond the lattice those of its rim."""
        u = np.clip(
            (np.asarray(x, float) - self.first[0]) / self.step, 1, self.knots.shape[2] - 2.000001
        )
        v = np.clip(
            (np.asarray(y, float) - self.first[1]) / self.step, 1, self.knots.shape[1] - 2.000001
        )
        col, row = np.floor(u).astype(int), np.floor(v).astype(int)
        across, down = _basis(u - col), _basis(v - row)
        out = np.zeros((2, *np.shape(u)))
        for i in range(4):
            for j in range(4):
                out += self.knots[:, row + i - 1, col + j - 1] * (down[i] * across[j])
        return out[0], out[1]


def _basis(t: np.ndarray) -> list[np.ndarray]:
    """The four cubic B-splines that reach a place t (0 to 1) between knots."""
    s = 1 - t
    return [s**3 / 6, (3 * t**3 - 6 * t**2 + 4) / 6, (3 * s**3 - 6 * s**2 + 4) / 6, t**3 / 6]


def bent(
    at: np.ndarray, off: np.ndarray, error: np.ndarray, size: tuple[int, int], step: float
) -> tuple[Bend, np.ndarray, float]:
    """Fit a field to displacements off (n, 2) at x, y (n, 2) with errors (n,), all px, over height and width.

    Gives the field, the weights (n,) that ties kept, 0 to 1, and the error foretold for a tie held back, px.
    """
    step = max(step, ((size[0] + step) * (size[1] + step) / MOST_KNOTS) ** 0.5)
    rows, cols = int(np.ceil(size[0] / step)) + 4, int(np.ceil(size[1] / step)) + 4
    first = (-1.5 * step, -1.5 * step)
    matrix = _design(at, first, step, rows, cols)
    stiff = _bending(rows, cols)
    fold = np.random.default_rng(0).permutation(len(at)) % FOLDS
    pull = np.ones(len(at))
    best, least = STIFFNESS[-1], np.inf
    for _ in range(2):  # outliers would choose the stiffness, so once more without them
        told = {}
        for stiffness in STIFFNESS:
            guess = np.zeros_like(off)
            for k in range(FOLDS):
                use = pull / error**2 * (fold != k)
                guess[fold == k] = (matrix @ _solve(matrix, stiff, use, off, stiffness))[fold == k]
            miss = np.linalg.norm(guess - off, axis=1)
            told[stiffness] = float(
                np.sqrt((miss**2 * pull / error**2).sum() / (pull / error**2).sum())
            )
        best = min(told, key=lambda one: told[one])
        least = told[best]
        for _ in range(8):
            found = _solve(matrix, stiff, pull / error**2, off, best)
            far = np.linalg.norm(matrix @ found - off, axis=1) / error
            spread = max(float(np.median(far)) / 1.1774, 1.0)  # of a Rayleigh variable
            pull = np.clip(1 - (far / (TUKEY * spread)) ** 2, 0, None) ** 2
    found = _solve(matrix, stiff, pull / error**2, off, best)
    return Bend(first, step, found.T.reshape(2, rows, cols)), pull, least


def _design(
    at: np.ndarray, first: tuple[float, float], step: float, rows: int, cols: int
) -> sparse.csr_matrix:
    u, v = (at[:, 0] - first[0]) / step, (at[:, 1] - first[1]) / step
    col, row = (
        np.clip(np.floor(u), 1, cols - 3).astype(int),
        np.clip(np.floor(v), 1, rows - 3).astype(int),
    )
    across, down = _basis(u - col), _basis(v - row)
    n = np.arange(len(at))
    parts = [
        (down[i] * across[j], n, (row + i - 1) * cols + col + j - 1)
        for i in range(4)
        for j in range(4)
    ]
    value, where, knot = (np.concatenate(one) for one in zip(*parts, strict=True))
    return sparse.csr_matrix((value, (where, knot)), (len(at), rows * cols))


def _bending(rows: int, cols: int) -> sparse.csc_matrix:
    """Second differences squared: along rows, along columns, and twice the mixed ones."""

    def second(n: int) -> sparse.csr_matrix:
        return sparse.diags([1.0, -2.0, 1.0], [0, 1, 2], (n - 2, n)).tocsr()

    def slope(n: int) -> sparse.csr_matrix:
        return sparse.diags([-1.0, 1.0], [0, 1], (n - 1, n)).tocsr()

    parts = [
        sparse.kron(sparse.eye(rows), second(cols)),
        sparse.kron(second(rows), sparse.eye(cols)),
        sparse.kron(slope(rows), slope(cols)) * 2**0.5,
    ]
    return sum(part.T @ part for part in parts).tocsc()


def _solve(
    matrix: sparse.csr_matrix,
    stiff: sparse.csc_matrix,
    weight: np.ndarray,
    off: np.ndarray,
    stiffness: float,
) -> np.ndarray:
    """Coefficients (knots, 2)."""
    weight = weight / max(weight.mean(), 1e-30)
    normal = matrix.T @ matrix.multiply(weight[:, None])
    little = sparse.eye(stiff.shape[0]) * 1e-9
    solver = splu((normal + stiffness * stiff + little).tocsc())
    return solver.solve(np.asarray(matrix.T @ (off * weight[:, None])))
