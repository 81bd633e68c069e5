"""How much is labelled in each block of ground, before it is dealt out."""

from collections.abc import Sequence

import numpy as np
from affine import Affine

from geoml_cli.geo.classes import IGNORE
from geoml_cli.geo.grid import Grid, Window
from geoml_cli.geo.splits import Lattice
from geoml_cli.stages.labels import burn
from geoml_cli.stages.layers import Layered
from geoml_cli.stages.place import Place
from geoml_cli.stages.sides import labelled

SIDE_PX = 1024  # of the coarser grid that labels are counted on, at most


def block_counts(
    lattice: Lattice, places: Sequence[Place], layers: Sequence[Layered]
) -> np.ndarray | None:
    """Labelled pixels (rows, cols, classes) of the first layer in every block, on a coarser grid.

    None where no layer has pixels.
    """
    layer = next((layer for layer in layers if layer.per != "folder"), None)
    if layer is None:
        return None
    count = len(layer.classes) if layer.kind == "classes" else 1
    found = np.zeros((lattice.rows * lattice.cols, count), np.int64)
    for place in places:
        grid, step = coarser(place.grid)
        near = Place(place.id, grid, place.shots)
        pixels = burn(layer.on_place(near), grid, Window(0, 0, grid.height, grid.width))
        blocks = lattice.numbers(grid)
        known = labelled(pixels, IGNORE if layer.kind == "classes" else None)
        ids = pixels[known].astype(np.int64) if pixels.dtype == np.uint8 else 0
        pairs = np.bincount(blocks[known] * count + ids, minlength=found.size)
        found += pairs.reshape(found.shape) * step**2
    return found.reshape(lattice.rows, lattice.cols, count)


def coarser(grid: Grid) -> tuple[Grid, int]:
    """The grid with as many pixels taken as one as keep it small, and how many along each axis."""
    step = -(-max(grid.height, grid.width) // SIDE_PX)
    t = grid.transform
    wide = Affine(t.a * step, t.b * step, t.c, t.d * step, t.e * step, t.f)
    return Grid(grid.crs, wide, -(-grid.height // step), -(-grid.width // step)), step
