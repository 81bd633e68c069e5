"""What an aligner is given and gives: two images, what of them is valid, and where one lies on the other."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """Where a moving image lies on a reference.

    `matrix` (3, 3) takes pixel coordinates x, y (column, row) of the reference to those of the moving image;
    `covariance` (2, 2) is of the place, px squared, at the centre of the reference; `confidence` is between 0, no
    idea, and 1, sure to within a pixel. `more` are numbers that the aligner has besides, plain JSON values.
    """

    matrix: np.ndarray
    covariance: np.ndarray
    confidence: float
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def shift(self) -> tuple[float, float]:
        """What the last column adds to x, y, px; all there is to a pure shift."""
        return float(self.matrix[0, 2]), float(self.matrix[1, 2])


def shifted(dx: float, dy: float) -> np.ndarray:
    """The matrix of a shift."""
    return np.array([[1.0, 0.0, dx], [0.0, 1.0, dy], [0.0, 0.0, 1.0]])
