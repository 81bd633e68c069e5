"""Votes of an ortho for the displacements of many things: each block is read once, votes lie on the disk."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio

from geoml_cli.core.edge_votes import edge_maps, sample_normals, vote
from geoml_cli.formats.raster import Raster
from geoml_cli.formats.reduced import read_reduced
from geoml_cli.geo.displacements import Votes, likelihood
from geoml_cli.geo.grid import Window
from geoml_cli.stages.align_things import Things

BLOCK = 1024  # reduced pixels
MARGIN = 64  # pixels that what is near by is looked for in
MOST = 2048  # side of what is read at once


class Stored:
    """Likelihoods (n, side, side) float16 in a file; slices of rows are arrays."""

    def __init__(self, path: Path, count: int, side: int) -> None:
        self.count, self.side = count, side
        self._file = open(path, "w+b")  # noqa: SIM115
        self._row = side * side * 2
        self._file.truncate(count * self._row)

    def __setitem__(self, row: int, grid: np.ndarray) -> None:
        """Put one row."""
        self._file.seek(row * self._row)
        self._file.write(grid.astype(np.float16).tobytes())

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Some rows, (k, side, side)."""
        start, stop, _ = rows.indices(self.count)
        self._file.seek(start * self._row)
        found = np.frombuffer(self._file.read((stop - start) * self._row), np.float16)
        return found.reshape(-1, self.side, self.side)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def collect(
    things: Things,
    dataset: rasterio.DatasetReader,
    raster: Raster,
    factor: int,
    centre: np.ndarray,
    radius: int,
    path: Path,
    check: Callable[[], None],
) -> Votes:
    """Votes of an ortho reduced by `factor` for displacements about `centre` (n, 2) whole reduced pixels."""
    side = 2 * radius + 1
    stored = Stored(path, things.count, side)
    bounds = things.bounds() / factor + np.tile(centre, 2)
    block = np.floor((things.xy / factor + centre) / BLOCK).astype(int)
    order = np.lexsort((block[:, 0], block[:, 1]))
    cuts = np.flatnonzero((np.diff(block[order], axis=0) != 0).any(1)) + 1
    for some in np.split(order, cuts):
        check()
        window = _window(bounds[some], block[some[0]], radius)
        maps = edge_maps(*read_reduced(dataset, raster, window, factor))
        for i in some:
            points, normal, length = things.outline(i, factor)
            samples = sample_normals(points / factor - [window.col, window.row], normal, length)
            stored[i] = likelihood(vote(maps, samples, centre[i], radius))
    return Votes(stored, centre * float(factor), float(factor), side)


def _window(bounds: np.ndarray, block: np.ndarray, radius: int) -> Window:
    """What things of a block can reach, but not more than a margin of MOST allows."""
    room = radius + MARGIN
    low = np.floor(bounds[:, :2].min(0)).astype(int) - room
    high = np.ceil(bounds[:, 2:].max(0)).astype(int) + room
    slack = (MOST - BLOCK) // 2
    low = np.maximum(low, block * BLOCK - slack)
    high = np.minimum(high, (block + 1) * BLOCK + slack)
    return Window(int(low[1]), int(low[0]), int(high[1] - low[1]), int(high[0] - low[0]))
