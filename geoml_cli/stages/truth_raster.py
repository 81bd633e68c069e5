"""A class raster as reference data: on each map pixel, the class of the pixel that holds its centre."""

from collections.abc import Iterator, Sequence

import numpy as np
from affine import Affine

from geoml_cli.errors import GeomlError
from geoml_cli.formats.raster import Raster, Reader, describe
from geoml_cli.geo.classes import IGNORE, Class
from geoml_cli.geo.grid import Bounds, Grid, Window
from geoml_cli.geo.nearest import inside, overlap, pixels_under
from geoml_cli.geo.windows import blocks
from geoml_cli.stages.maps import names_in
from geoml_cli.stages.truth import BLOCK, PixelFates, Samples

MOST_PX = 1 << 24  # of the truth to hold in memory at once
COARSE = 64


class ClassRaster(PixelFates):
    """A sample for every map pixel on whose centre the raster has a class.

    It is read only where maps are, so what it holds outside of them is not counted.
    """

    kind = "raster"

    def __init__(self, path: str, classes: Sequence[Class]) -> None:
        super().__init__()
        self.raster = open_classes(path)
        self.unknown: set[str] = set()
        self.repeated = 0
        self.ids, self.position, self.names = ids_of(path, classes)
        self._ignore = IGNORE not in self.names

    def extent(self, grid: Grid) -> Bounds | None:
        """See Truth; looked at in 64 x 64 places of the map and as many of the raster."""
        mine = self.raster.grid
        coarse, whole = _coarse(grid), Window(0, 0, COARSE, COARSE)
        r, c = np.nonzero(inside(mine, *pixels_under(coarse, whole, mine)))
        rows, cols = pixels_under(_coarse(mine), whole, grid)
        on = inside(grid, rows, cols)
        x, y = coarse.xy(r, c)
        more_x, more_y = grid.xy(rows[on], cols[on])
        x, y = np.append(x, more_x), np.append(y, more_y)
        if len(x):
            return Bounds(x.min(), y.min(), x.max(), y.max())
        return grid.bounds if overlap(mine, grid) else None

    def place(self, grid: Grid) -> "PlacedRaster":
        """See Truth."""
        return PlacedRaster(self, grid)

    def left_out(self) -> dict[str, int | None]:
        """See Truth."""
        return self.counted() | {"outside": None, "unlabelled": None}

    def look_up(self, values: np.ndarray) -> np.ndarray:
        """Positions in the legend of raster values; -1 for the ignore id and for what is noted as unknown."""
        place = np.minimum(np.searchsorted(self.ids, values), len(self.ids) - 1)
        found = np.where(self.ids[place] == values, self.position[place], -1)
        strange = np.unique(values[found < 0])
        if self._ignore:
            strange = strange[strange != IGNORE]
        self.unknown |= {self.names.get(int(v), str(v)) for v in strange}
        return found


class PlacedRaster:
    """A class raster under a map's grid."""

    def __init__(self, truth: ClassRaster, grid: Grid) -> None:
        self.truth, self.grid = truth, grid

    def windows(self) -> Iterator[Window]:
        """Blocks of the map; an open truth is closed after the last."""
        with Reader(self.truth.raster) as self._reader:
            yield from blocks(self.grid.height, self.grid.width, (BLOCK, BLOCK))

    def samples(self, window: Window) -> Samples:
        """See Placed."""
        label = np.full((window.height, window.width), -1)
        self._fill(window, label)
        rows, cols = np.nonzero(label >= 0)
        return Samples(rows, cols, label[rows, cols])

    def _fill(self, window: Window, label: np.ndarray) -> None:
        rows, cols = pixels_under(self.grid, window, self.truth.raster.grid)
        on = inside(self.truth.raster.grid, rows, cols)
        if not on.any():
            return
        rows, cols = rows[on], cols[on]
        box = Window(int(rows.min()), int(cols.min()), int(np.ptp(rows)) + 1, int(np.ptp(cols)) + 1)
        if box.height * box.width > MOST_PX and label.size > 1:
            for part in _halves(window):  # a truth much finer than the map
                top, left = part.row - window.row, part.col - window.col
                self._fill(part, label[top : top + part.height, left : left + part.width])
            return
        values, valid = self._reader.read(box)
        at = rows - box.row, cols - box.col
        seen = valid[at]
        found = np.full(len(rows), -1)
        found[seen] = self.truth.look_up(values[0][at][seen])
        label[on] = found


def _halves(window: Window) -> list[Window]:
    row, col, height, width = window
    if height >= width:
        return [
            Window(row, col, height // 2, width),
            Window(row + height // 2, col, height - height // 2, width),
        ]
    return [
        Window(row, col, height, width // 2),
        Window(row, col + width // 2, height, width - width // 2),
    ]


def _coarse(grid: Grid) -> Grid:
    scale = Affine.scale(grid.width / COARSE, grid.height / COARSE)
    return Grid(grid.crs, grid.transform * scale, COARSE, COARSE)


def open_classes(path: str) -> Raster:
    """Describe a class raster: one band of whole numbers."""
    raster = describe(path)
    if len(raster.bands) != 1 or not np.issubdtype(np.dtype(raster.dtype), np.integer):
        raise GeomlError(
            f"{path}: truth is one band of class ids, this is {len(raster.bands)} of {raster.dtype}"
        )
    return raster


def ids_of(path: str, classes: Sequence[Class]) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
    """Known raster values in order, their positions in the legend, and the raster's own names.

    By name where both sides have names, else by id.
    """
    names, _ = names_in(path)
    bare = all(c.name == str(c.id) for c in classes)
    if names and not bare:
        places = {c.name: i for i, c in enumerate(classes)}
        pairs = sorted((value, places[name]) for value, name in names.items() if name in places)
    else:
        pairs = [(c.id, i) for i, c in enumerate(classes)]
    if not pairs:
        have, know = ", ".join(names.values()), ", ".join(c.name for c in classes)
        raise GeomlError(f"{path}: none of its classes ({have}) is one of the maps' ({know})")
    values, positions = zip(*pairs, strict=True)
    return np.array(values), np.array(positions), names
