"""Points as truth: one sample each."""

from collections.abc import Iterator, Sequence

import numpy as np
import shapely

from geoml_cli.geo.bounds import project
from geoml_cli.geo.classes import Class
from geoml_cli.geo.grid import Bounds, Grid, Window
from geoml_cli.geo.nearest import inside, turned
from geoml_cli.stages.truth import BLOCK, Fate, Features, Placed, Samples


class Points(Features):
    """One sample a point: the pixel that holds it, on the first map, in order of id, with data there."""

    kind = "points"

    def __init__(
        self, shapes: np.ndarray, crs: str, values: list[str | None], classes: Sequence[Class]
    ) -> None:
        super().__init__(shapes, crs, values, classes)
        self.fate = np.full(len(self.shapes), int(Fate.OUTSIDE))

    def move(self, crs: str) -> np.ndarray:
        """Coordinates (n, 2)."""
        return shapely.get_coordinates(project(self.shapes, self.crs, crs))

    def _rowcol(self, grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Numbers of the points on a grid, and their rows and columns."""
        xy = self.moved(grid.crs)
        seen = np.flatnonzero(np.isfinite(xy).all(axis=1))
        rows, cols = grid.rowcol(turned(xy[seen, 0], grid), xy[seen, 1])
        on = inside(grid, rows, cols)
        return seen[on], rows[on], cols[on]

    def extent(self, grid: Grid) -> Bounds | None:
        """See Truth."""
        _, rows, cols = self._rowcol(grid)
        if not len(rows):
            return None
        x, y = grid.xy(rows, cols)
        return Bounds(x.min(), y.min(), x.max(), y.max())

    def place(self, grid: Grid) -> Placed:
        """See Truth."""
        numbers, rows, cols = self._rowcol(grid)
        settled = np.isin(self.fate[numbers], (Fate.SCORED, Fate.TRAINED))
        self.repeated += int(settled.sum())
        known = np.isin(numbers, self.know(numbers)) & ~settled
        self.fate[numbers[known]] = Fate.NODATA  # until a pixel with data is met
        return PlacedPoints(numbers[known], rows[known], cols[known], self.label, grid)

    def note(self, samples: Samples, fate: np.ndarray) -> None:
        """See Truth."""
        self.fate[samples.point] = fate

    def left_out(self) -> dict[str, int | None]:
        """See Truth."""
        counts = np.bincount(self.fate, minlength=len(Fate))
        found: dict[str, int | None] = {f.name.lower(): int(counts[f]) for f in Fate if f}
        return found | {"unlabelled": self.unlabelled}


class PlacedPoints:
    """Points on a grid, by block."""

    def __init__(
        self, numbers: np.ndarray, rows: np.ndarray, cols: np.ndarray, label: np.ndarray, grid: Grid
    ) -> None:
        block = rows // BLOCK * -(-grid.width // BLOCK) + cols // BLOCK
        order = np.argsort(block, kind="stable")
        self.grid, self.label = grid, label
        self._found, firsts = np.unique(block[order], return_index=True)
        parts = zip(*(np.split(v[order], firsts[1:]) for v in (numbers, rows, cols)), strict=True)
        self._of = {int(b): part for b, part in zip(self._found, parts, strict=False)}

    def windows(self) -> Iterator[Window]:
        """Blocks that hold points."""
        across = -(-self.grid.width // BLOCK)
        for block in self._of:
            row, col = block // across * BLOCK, block % across * BLOCK
            yield Window(
                row, col, min(BLOCK, self.grid.height - row), min(BLOCK, self.grid.width - col)
            )

    def samples(self, window: Window) -> Samples:
        """See Placed."""
        block = window.row // BLOCK * -(-self.grid.width // BLOCK) + window.col // BLOCK
        numbers, rows, cols = self._of[block]
        return Samples(rows - window.row, cols - window.col, self.label[numbers], numbers)
