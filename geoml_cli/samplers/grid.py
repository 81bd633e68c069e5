"""Windows side by side, row by row, over every scene."""

import numpy as np

from geoml_cli.errors import UsageMistake
from geoml_cli.geo.field import Field, Pick
from geoml_cli.geo.grid import Grid, Window
from geoml_cli.geo.windows import EDGES, starts

ORIGINS = ("upper-left", "lower-left")


def draw(
    field: Field,
    rng: np.random.Generator,
    *,
    edge: str = "shift",
    origin: str = "upper-left",
    like: str | None = None,
) -> list[Pick]:
    """Lay windows a stride apart over each scene; `rng` is not used.

    The last row and column are moved back inside (`edge=shift`: real pixels throughout; where
    the stride is no smaller than the window, `own` leaves out the ground that the neighbour
    already holds), stick out and are masked there (`pad`), or are left out (`drop`). A scene
    smaller than a window gets one that sticks out with `shift` and `pad`, none with `drop`.
    Rows start at the scene's upper edge, or with `origin=lower-left` at its lower one.

    `like=torchgeo` gives the windows of TorchGeo's GridGeoSampler in its order: from the
    south-west corner, the last row and column stick out (with a stride beyond the window's size
    even wholly, where nothing is left of the scene), and a scene smaller than a window has none.
    """
    _check(edge, origin, like)
    picks: list[Pick] = []
    for place, grid in enumerate(field.grids):
        if like:
            axes = _as_torchgeo(grid, field.size, field.stride)
        else:
            axes = [
                _axis(*along, edge)
                for along in zip((grid.height, grid.width), field.size, field.stride, strict=True)
            ]
            if origin == "lower-left":
                axes[0] = _mirrored(axes[0], grid.height, field.size[0])
        picks += _product(place, axes, field.size)
    return picks


Axis = list[tuple[int, int, int]]  # of each window: first pixel, and first and length of its own


def _check(edge: str, origin: str, like: str | None) -> None:
    for word, given, known in (("edge", edge, EDGES), ("origin", origin, ORIGINS)):
        if given not in known:
            raise UsageMistake(f"grid:{word}={given}: {word} is {' or '.join(known)}")
    if like not in (None, "torchgeo"):
        raise UsageMistake(f"grid:like={like}: like is torchgeo")
    if like and (edge, origin) != ("shift", "upper-left"):
        raise UsageMistake("grid:like=torchgeo sets edge and origin; leave these out")


def _axis(length: int, size: int, stride: int, edge: str) -> Axis:
    axis: Axis = []
    for first in starts(length, size, stride, edge):
        begin = max(first, axis[-1][0] + size) if axis and stride >= size else first
        axis.append((first, begin, first + size - begin))
    return axis


def _mirrored(axis: Axis, length: int, size: int) -> Axis:
    return [(length - size - first, length - begin - long, long) for first, begin, long in axis]


def _as_torchgeo(grid: Grid, size: tuple[int, int], stride: tuple[int, int]) -> list[Axis]:
    """Axes of TorchGeo's layout: ceil((length - size) / stride) + 1 windows, the last sticking out."""
    if grid.height < size[0] or grid.width < size[1]:
        return [[], []]
    axes = []
    for length, high, step in zip((grid.height, grid.width), size, stride, strict=True):
        count = -(-(length - high) // step) + 1
        axes.append([(i * step, i * step, high) for i in range(count)])
    if grid.transform.e < 0:  # else the first row is the southernmost
        axes[0] = _mirrored(axes[0], grid.height, size[0])
    return axes


def _product(place: int, axes: list[Axis], size: tuple[int, int]) -> list[Pick]:
    high, wide = size
    return [
        Pick(
            place,
            Window(row, col, high, wide),
            None if (tall, long) == size else Window(top, left, tall, long),
        )
        for row, top, tall in axes[0]
        for col, left, long in axes[1]
    ]
