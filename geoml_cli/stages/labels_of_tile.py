"""The one label of a tile, out of the labels of its pixels."""

import numpy as np

from geoml_cli.geo.classes import IGNORE
from geoml_cli.geo.grid import Grid, Window, apply
from geoml_cli.stages.labels_burn import Burn, Warp, band_of

SNUG_PX = 1e-6  # points no further apart than this are at one place


def of_tile(
    labels: Burn | Warp, pixels: np.ndarray, grid: Grid, window: Window
) -> int | float | list[int] | None:
    """The label of a tile out of its burnt pixels (h, w); None where it has none.

    `present` gives a list of class ids, `mean` and the centre of values a number.
    """
    seen = pixels != IGNORE if labels.kind == "classes" else np.isfinite(pixels)
    if labels.per == "centre":
        return _at_centre(labels, pixels, seen, grid, window)
    if not seen.any():
        return None
    if labels.per == "mean":
        return float(pixels[seen].mean(dtype=np.float64))
    counts = np.bincount(pixels[seen])
    if labels.per == "present":
        return [int(i) for i in np.flatnonzero(counts)]
    return int(counts.argmax())  # of equals the first


def _at_centre(
    labels: Burn | Warp, pixels: np.ndarray, seen: np.ndarray, grid: Grid, window: Window
) -> int | float | None:
    if isinstance(labels, Burn) and len(labels.points):
        found = _nearest(labels, seen, grid, window)
        if found is not None:
            return found
    at = window.height // 2, window.width // 2
    return pixels[at].item() if seen[at] else None


def _nearest(labels: Burn, seen: np.ndarray, grid: Grid, window: Window) -> int | float | None:
    """The label of the point nearest to a tile's centre; of several at one place the last, or the mean."""
    band = band_of(labels, grid, window)
    cols, rows = apply(~grid.transform, *labels.points[band].T)
    rows, cols = rows - window.row, cols - window.col
    on = (rows >= 0) & (rows < window.height) & (cols >= 0) & (cols < window.width)
    on[on] = seen[np.floor(rows[on]).astype(int), np.floor(cols[on]).astype(int)]
    if labels.kind == "classes":
        on &= labels.values[labels.point_ranks[band]] != IGNORE
    if not on.any():
        return None
    away = np.hypot(rows[on] - window.height / 2, cols[on] - window.width / 2)
    first = labels.point_ranks[band][on][away <= away.min() + SNUG_PX]
    if labels.kind == "values":
        return float(labels.values[first].mean(dtype=np.float64))
    return int(labels.values[first.max()])
