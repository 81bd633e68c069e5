"""What is said of an alignment: its estimate as JSON, its tie points, and a picture of before and after."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import shapely
from scipy import ndimage

from geoml_cli.core.ties import Ties
from geoml_cli.formats.commit import whole_file
from geoml_cli.formats.figures import png
from geoml_cli.formats.vectors import write_vectors
from geoml_cli.geo.grid import apply
from geoml_cli.geo.metric import stretch
from geoml_cli.stages.align_measure import How, Motion
from geoml_cli.stages.align_sides import Sight

PICTURE_PX = 640  # of a side, at most
CELLS = 8  # of the checkerboard along a side


def in_metres(motion: Motion, steps: np.ndarray) -> np.ndarray:
    """Steps (n, 2) x right and y down in px of the ground's grid, in metres right and up."""
    grid = motion.ground.reference
    t = grid.transform
    x, y = apply(t, grid.width / 2, grid.height / 2)
    square = stretch(grid.crs, np.array([x]), np.array([y]), abs(t.a))[0]
    return (steps * [t.a, t.e]) @ square


def told(motion: Motion, how: How, bands: tuple[str, str], moved: bool, why: str) -> dict[str, Any]:
    """The estimate as plain JSON values; `shift` is how far the image was off: where it showed the ground, less where that is."""
    found, steps = motion.estimate, motion.steps()
    std = np.sqrt(np.clip(np.diag(found.covariance), 0, None))
    metres = in_metres(motion, np.concatenate([steps, [[std[0], 0]], [[0, std[1]]]]))
    ground = motion.ground
    ties = found.ties
    left = None if ties is None else np.hypot(*ties.residual[ties.keep].T)
    return {
        "moved": moved,
        "why": why,
        "confidence": _round(found.confidence, 6),
        "asked": how.confidence,
        "aligner": how.aligner,
        "transform": how.transform,
        "bands": list(bands),
        "crs": ground.reference.crs,
        "shift_px": [_round(v) for v in steps[0]],
        "shift_m": [_round(v) for v in metres[0]],
        "std_px": [_round(v) for v in std],
        "std_m": [_round(np.hypot(*metres[-2])), _round(np.hypot(*metres[-1]))],
        "furthest_px": _round(float(np.hypot(*steps.T).max())),
        "covariance_px2": [[_round(v, 8) for v in row] for row in found.covariance],
        "matrix": [[float(f"{v:.12g}") for v in row] for row in found.matrix],
        "field": None
        if found.bend is None
        else {
            "first_px": [float(v) for v in found.bend.first],
            "step_px": float(found.bend.step),
            "knots": [[[_round(v) for v in row] for row in plane] for plane in found.bend.knots],
        },
        "reference_grid": ground.reference.to_dict(),
        "moving_grid": ground.moving.to_dict(),
        "ties": None
        if ties is None or left is None
        else {
            "count": len(ties),
            "kept": int(ties.keep.sum()),
            "residual_px": _round(float(np.sqrt((left**2).mean()))) if len(left) else None,
        },
        **{k: _round(v) for k, v in found.more.items()},
    }


def _round(value: float, digits: int = 5) -> float | None:
    value = float(value)
    return round(value, digits) + 0.0 if np.isfinite(value) else None


def write_ties(path: Path, motion: Motion, ties: Ties, record: dict[str, Any]) -> None:
    """Write tie points as GeoParquet, in the reference's CRS."""
    grid = motion.ground.reference
    use = np.flatnonzero(np.isfinite(ties.shift).all(1))
    x, y = grid.xy(ties.at[use, 1], ties.at[use, 0])
    # what the grids themselves are apart belongs to the shift
    u, v = apply(motion.ground.moving.transform, *(ties.at[use] + ties.shift[use] + 0.5).T)
    steps = np.stack([(u - x) / grid.transform.a, (v - y) / grid.transform.e], 1)
    metres = in_metres(motion, steps)
    std = np.sqrt(np.clip(np.trace(ties.covariance[use], axis1=1, axis2=2) / 2, 0, None))
    table = geopandas.GeoDataFrame(
        {
            "dx_px": steps[:, 0].round(4),
            "dy_px": steps[:, 1].round(4),
            "dx_m": metres[:, 0].round(4),
            "dy_m": metres[:, 1].round(4),
            "std_px": std.round(4),
            "reliability": ties.confidence[use].round(4),
            "residual_px": np.hypot(*ties.residual[use].T).round(4),
            "kept": ties.keep[use],
        },
        geometry=shapely.points(x, y),
        crs=grid.crs,
    )
    write_vectors(path, table, record)


def draw(
    path: Path, reference: Sight, moving: Sight, motion: Motion, check: Callable[[], None]
) -> tuple[float | None, float | None]:
    """Draw checkerboards of both images as they lay and as they lie now; gives their correlation before and after."""
    factor = max(1, max(motion.ground.shape) // PICTURE_PX)
    a, seen_a = reference.small(factor, check)
    b, seen_b = moving.small(factor, check)
    rows, cols = np.mgrid[: a.shape[0], : a.shape[1]]
    c = (factor - 1) / 2
    grids = motion.ground
    x, y = grids.reference.xy(rows * factor + c, cols * factor + c)
    before = apply(~grids.moving.transform, x, y)
    after = motion.estimate.places(cols * factor + c, rows * factor + c)
    boards, likeness = [], []
    for u, v in ((before[0] - 0.5, before[1] - 0.5), after):
        at = [(v - c) / factor, (u - c) / factor]
        there = ndimage.map_coordinates(np.where(seen_b, b, 0), at, order=1, mode="constant")
        share = ndimage.map_coordinates(seen_b.astype(np.float32), at, order=1, mode="constant")
        seen = share > 0.99
        boards.append(_board(a, seen_a, there, seen))
        both = seen & seen_a
        likeness.append(_likeness(a[both], there[both]))
    gap = np.full((len(a), 8, 4), 255, np.uint8)
    with whole_file(path) as temporary:
        temporary.write_bytes(png(np.concatenate([boards[0], gap, boards[1]], 1)))
    return likeness[0], likeness[1]


def _likeness(a: np.ndarray, b: np.ndarray) -> float | None:
    if len(a) < 2 or a.std() == 0 or b.std() == 0:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def _board(a: np.ndarray, seen_a: np.ndarray, b: np.ndarray, seen_b: np.ndarray) -> np.ndarray:
    """Cells (h, w, 4) of one image and the other in turn, each stretched by itself."""
    side = max(16, max(a.shape) // CELLS)
    rows, cols = np.mgrid[: a.shape[0], : a.shape[1]]
    ours = (rows // side + cols // side) % 2 == 0
    grey = np.where(ours, _grey(a, seen_a), _grey(b, seen_b))
    out = np.repeat(grey[..., None], 4, 2)
    out[..., 3] = np.where(np.where(ours, seen_a, seen_b), 255, 0)
    return out


def _grey(image: np.ndarray, seen: np.ndarray) -> np.ndarray:
    if not seen.any():
        return np.zeros(image.shape, np.uint8)
    low, high = np.percentile(image[seen], (2, 98))
    return (np.clip((image - low) / max(float(high - low), 1e-12), 0, 1) * 255).astype(np.uint8)
