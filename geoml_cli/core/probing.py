"""What a probe of embeddings is given, and what it gives."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from geoml_cli.errors import GeomlError


def _nothing() -> None:
    """Stop for nothing."""


@dataclass(frozen=True)
class Probed:
    """Embeddings z (n, D) float32 and what is known of each row.

    labels (n,): class ids 0 .. classes - 1, -1 unknown (int64); or values, NaN unknown (float64);
    None where there are none. fold (n,): rows of one fold lie together on the ground, and none is told from
    rows of its own fold. block (n,): finer, for intervals. lonlat (n, 2) degrees.
    """

    z: np.ndarray
    labels: np.ndarray | None
    classes: int
    fold: np.ndarray
    block: np.ndarray
    lonlat: np.ndarray
    seed: int = 0
    device: Any = "cpu"
    check: Callable[[], None] = field(default=_nothing)

    @property
    def known(self) -> np.ndarray:
        """Which rows (n,) have a label."""
        if self.labels is None:
            return np.zeros(len(self.z), bool)
        return self.labels >= 0 if self.labels.dtype.kind == "i" else np.isfinite(self.labels)

    def sides(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Rows that teach and rows that are told, for each fold; only those with a label."""
        known, found = self.known, []
        for fold in np.unique(self.fold[known]):
            told = np.flatnonzero(known & (self.fold == fold))
            teach = np.flatnonzero(known & (self.fold != fold))
            if len(told) and len(teach):
                found.append((teach, told))
        if not found:
            raise GeomlError("labelled rows lie in one fold only; there is nothing to learn from")
        return found


@dataclass(frozen=True)
class Told:
    """What a probe found: a label for each row (`guess`, as labels; -1 or NaN where none was told), a number
    for each row (`each`, NaN where there is none, whose mean counts), or one number (`value`).
    """

    guess: np.ndarray | None = None
    each: np.ndarray | None = None
    value: float | None = None
    about: dict[str, Any] = field(default_factory=dict)
