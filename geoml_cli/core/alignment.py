"""What an aligner gives: where a moving image lies on a reference, how exactly, and how sure that is."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from geoml_cli.core.bending import Bend
from geoml_cli.core.ties import Ties


@dataclass(frozen=True)
class Estimate:
    """Where a moving image lies on a reference.

    `matrix` (3, 3) takes pixel coordinates x, y of the reference (0, 0 is the centre of the first pixel) to
    those of the moving image, to which `bend` adds, where there is one. `covariance` (2, 2) is of the place
    at the centre of the reference, px squared; `confidence` is from 0, chance, to 1, sure. `more` are numbers
    that the aligner has besides, plain JSON values.
    """

    matrix: np.ndarray
    covariance: np.ndarray
    confidence: float
    ties: Ties | None = None
    bend: Bend | None = None
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def shift(self) -> tuple[float, float]:
        """What the matrix adds to x, y px; all there is to a pure shift."""
        return float(self.matrix[0, 2]), float(self.matrix[1, 2])

    def places(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where in the moving image the places x, y of the reference are."""
        u, v = applied(self.matrix, x, y)
        if self.bend is not None:
            dx, dy = self.bend.at(x, y)
            u, v = u + dx, v + dy
        return u, v


def shifted(dx: float, dy: float) -> np.ndarray:
    """The matrix of a shift."""
    return np.array([[1.0, 0.0, dx], [0.0, 1.0, dy], [0.0, 0.0, 1.0]])


def applied(matrix: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places under a projective matrix (3, 3)."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    u, v, w = (row[0] * x + row[1] * y + row[2] for row in matrix)
    return u / w, v / w
