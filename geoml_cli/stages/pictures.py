"""Pictures of scored maps: the map itself, and where truth finds it right or wrong."""

from collections.abc import Sequence

import numpy as np
from pyproj import CRS

from geoml_cli.formats.figures import OUT, RIGHT, RIGHT_COLOR, WRONG, WRONG_COLOR, Mark, Picture
from geoml_cli.formats.raster import opened
from geoml_cli.geo.classes import Class
from geoml_cli.geo.grid import Grid
from geoml_cli.stages.agreement import Agreement, Drawn, drawn_size
from geoml_cli.stages.truth import Fate

SAYS = {Fate.NODATA: "no data in the map", Fate.TRAINED: "on ground that the model trained on"}


def pictures(found: Agreement, classes: Sequence[Class]) -> list[Picture]:
    """A picture of each map that was kept for it, those with most samples first."""
    return [picture(drawn, classes) for drawn in found.drawn]


def picture(drawn: Drawn, classes: Sequence[Class]) -> Picture:
    """The picture of one map."""
    image = painted(drawn, classes)
    agreement = None
    if drawn.right is not None and drawn.wrong is not None:
        agreement = shaded(
            image, drawn.right.reshape(image.shape[:2]), drawn.wrong.reshape(image.shape[:2])
        )
    return Picture(drawn.map.id, image, aspect(drawn.map.grid), marks(drawn, classes), agreement)


def painted(drawn: Drawn, classes: Sequence[Class]) -> np.ndarray:
    """The map in the colours of its classes, (h, w, 4) uint8; clear where there is no data."""
    shape = drawn_size(drawn.map.grid)
    with opened(drawn.map.raster.path) as dataset:  # nearest, from overviews where there are any
        index = drawn.map.raster.indexes[0]
        values = dataset.read(index, out_shape=shape)
        valid = dataset.read_masks(index, out_shape=shape) > 0
    image = np.zeros((*shape, 4), np.uint8)
    for one in classes:
        image[valid & (values == one.id)] = (*one.rgb, 255)
    return image


def shaded(image: np.ndarray, right: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """The map faint and grey; truth on it from blue (all right) to red (all wrong)."""
    grey = image[..., :3].mean(axis=2, keepdims=True) * 0.18 + 190
    out = np.concatenate([np.repeat(grey, 3, axis=2), image[..., 3:]], axis=2)
    count = right + wrong
    share = (wrong / np.maximum(count, 1))[..., None]
    right_rgb, wrong_rgb = (list(bytes.fromhex(c[1:])) for c in (RIGHT_COLOR, WRONG_COLOR))
    paint = (1 - share) * right_rgb + share * wrong_rgb
    seen = count > 0
    out[seen, :3], out[seen, 3] = paint[seen], 255
    return out.round().astype(np.uint8)


def marks(drawn: Drawn, classes: Sequence[Class]) -> tuple[Mark, ...]:
    """Points of truth, in the picture's pixels."""
    grid = drawn.map.grid
    height, width = drawn_size(grid)
    out = []
    for row, col, label, guess, fate in drawn.points:
        x, y = (col + 0.5) * width / grid.width, (row + 0.5) * height / grid.height
        truth = classes[label].name
        if fate == Fate.SCORED:
            kind = RIGHT if guess == label else WRONG
            text = f"truth: {truth}; map: {classes[guess].name}"
        else:
            kind, text = OUT, f"truth: {truth}; left out, {SAYS[Fate(fate)]}"
        out.append(Mark(x, y, kind, text))
    return tuple(out)


def aspect(grid: Grid) -> float:
    """How much taller than wide a pixel of the picture is on the ground."""
    height, width = drawn_size(grid)
    shape = (
        abs(grid.transform.e) * grid.height / height / (abs(grid.transform.a) * grid.width / width)
    )
    if CRS.from_user_input(grid.crs).is_geographic:
        middle = (grid.bounds.south + grid.bounds.north) / 2
        return float(shape / max(0.05, np.cos(np.radians(middle))))
    return float(shape)
