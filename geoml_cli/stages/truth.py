"""What reference data is to a comparison, whatever its kind: points, polygons or a class raster.

A `Truth` is laid on one map's grid by `place`; what comes back names the windows that hold
truth and the samples of each. `note` is told what became of every sample.
"""

from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import NamedTuple, Protocol

import numpy as np

from geoml_cli.geo.classes import Class
from geoml_cli.geo.grid import Bounds, Grid, Window
from geoml_cli.stages.shapes import bring

BLOCK = 512
CONFLICT = -1  # label of a pixel to which truth gives several classes


class Fate(IntEnum):
    """What becomes of a sample; all but SCORED are counted under their names."""

    SCORED = 0
    OUTSIDE = 1
    NODATA = 2
    TRAINED = 3
    CONFLICTING = 4
    UNLABELLED = 5


class Samples(NamedTuple):
    """Samples in a window: rows and columns within it, positions in the legend, numbers of points."""

    rows: np.ndarray
    cols: np.ndarray
    label: np.ndarray
    point: np.ndarray | None = None


class Placed(Protocol):
    """Truth on one map's grid."""

    def windows(self) -> Iterator[Window]:
        """Windows that may hold truth."""

    def samples(self, window: Window) -> Samples:
        """Samples of a window of `windows`."""


class Truth(Protocol):
    """Reference data; `unknown` collects classes met on a map that no map knows."""

    kind: str
    unknown: set[str]
    repeated: int  # samples met again on a further map

    def extent(self, grid: Grid) -> Bounds | None:
        """Bounds, in the grid's CRS, of the truth that lies on the grid."""

    def place(self, grid: Grid) -> Placed:
        """Lay it on a grid."""

    def note(self, samples: Samples, fate: np.ndarray) -> None:
        """Keep what became of samples: a Fate each."""

    def left_out(self) -> dict[str, int | None]:
        """Count what was not scored, by the reason."""


def label_of(values: Sequence[str | None], classes: Sequence[Class]) -> dict[str, int]:
    """Position in the legend of each value that the legend knows: by name, by id where no name fits."""
    names = {c.name: i for i, c in enumerate(classes)}
    ids = {str(c.id): i for i, c in enumerate(classes)}
    return names if any(v in names for v in values) else ids


class Features:
    """What points and polygons share."""

    def __init__(
        self, shapes: np.ndarray, crs: str, values: list[str | None], classes: Sequence[Class]
    ) -> None:
        known = label_of(values, classes)
        labelled = np.array([v is not None for v in values])
        self.unlabelled = int((~labelled).sum())
        self.shapes, self.crs = shapes[labelled], crs
        self.values = [v for v in values if v is not None]
        self.label = np.array([known.get(v, CONFLICT) for v in self.values])
        self.unknown: set[str] = set()
        self.repeated = 0
        self._moved: dict[str, np.ndarray] = {}

    def moved(self, crs: str) -> np.ndarray:
        """Its shapes in a CRS."""
        if crs not in self._moved:
            self._moved = {crs: self.move(crs)}  # of the last CRS alone: maps come in runs of one
        return self._moved[crs]

    def move(self, crs: str) -> np.ndarray:
        """Reproject its shapes."""
        return bring(self.shapes, self.crs, crs)

    def know(self, numbers: np.ndarray) -> np.ndarray:
        """Of features on a map, those whose class the maps know; the others' are noted."""
        strange = self.label[numbers] < 0
        self.unknown |= {self.values[i] for i in numbers[strange]}
        return numbers[~strange]


class PixelFates:
    """What truth made of pixels shares: fates are only counted."""

    def __init__(self) -> None:
        self._counts = np.zeros(len(Fate), np.int64)

    def note(self, samples: Samples, fate: np.ndarray) -> None:
        """See Truth."""
        self._counts += np.bincount(fate, minlength=len(Fate))

    def counted(self) -> dict[str, int | None]:
        """Fates but SCORED by name."""
        return {f.name.lower(): int(self._counts[f]) for f in Fate if f}
