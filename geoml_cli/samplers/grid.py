"""Windows side by side, row by row, over the whole scene."""

import numpy as np

from geoml_cli.geo.grid import Window
from geoml_cli.geo.windows import lay


def draw(
    shape: tuple[int, int], size: int, stride: int, rng: np.random.Generator, *, edge: str = "pad"
) -> list[Window]:
    """Lay windows of `size` px, `stride` px apart, on a scene of (height, width) px.

    The last ones may stick out and are masked there (`pad`), are moved back inside
    (`shift`) or left out (`drop`). `rng` is not used.
    """
    return lay(*shape, size, stride, edge)
