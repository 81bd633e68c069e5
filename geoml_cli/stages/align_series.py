"""A series aligned jointly: images against each other, then one shift each that suits all pairs best."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from geoml_cli.core.alignment import Estimate, shifted
from geoml_cli.errors import GeomlError
from geoml_cli.geo.grid import apply, same_crs
from geoml_cli.stages.align_measure import Motion
from geoml_cli.stages.align_sides import Ground

NEAR = 3  # dates before and after that an image is compared with; all of a series of up to 2 * NEAR
ODD = 5.0  # standard errors that a pair may be from what the others say
LEAST_ODD_PX = 0.3


def pairs_of(count: int) -> list[tuple[int, int]]:
    """Which images are compared: those near each other in time."""
    near = count if count <= 2 * NEAR else NEAR
    return [(i, j) for i, j in itertools.combinations(range(count), 2) if j - i <= near]


def joint(
    count: int, measure: Callable[[int, int], Motion], confidence: float
) -> list[Motion | None]:
    """Motions onto the mean of the series; None for an image that no pair is sure of.

    Shifts s minimise sum over pairs |s_j - s_i - d_ij|^2 / variance with mean 0; pairs that
    contradict the others are left out, worst first.
    """
    found = [(i, j, measure(i, j)) for i, j in pairs_of(count)]
    sure = [one for one in found if one[2].estimate.confidence >= confidence]
    if not sure:
        raise GeomlError("no two images of the series could be aligned surely")
    if len({m.ground.reference.crs for *_, m in sure}) > 1 and not all(
        same_crs(sure[0][2].ground.reference.crs, m.ground.reference.crs) for *_, m in sure
    ):
        raise GeomlError("a series in several CRS cannot be aligned jointly; name a reference")
    size = abs(sure[0][2].ground.reference.transform.a)
    steps = np.array([_step(m) for *_, m in sure])
    spread = np.array([np.trace(m.estimate.covariance) / 2 + 1e-6 for *_, m in sure]) * size**2
    while True:
        ends = np.array([(i, j) for i, j, _ in sure])
        shifts, covariance = _solve(count, ends, steps, spread)
        off = np.linalg.norm(steps - (shifts[ends[:, 1]] - shifts[ends[:, 0]]), axis=1)
        bad = off > np.maximum(ODD * np.sqrt(spread), LEAST_ODD_PX * size)
        if not bad.any() or len(sure) <= count - 1:
            break
        worst = int(np.argmax(off / np.sqrt(spread)))
        sure = [one for k, one in enumerate(sure) if k != worst]
        steps, spread = np.delete(steps, worst, 0), np.delete(spread, worst)
    ground = {i: m.ground.reference for i, _, m in found} | {
        j: m.ground.moving for _, j, m in found
    }
    joined = _joined(count, ends)
    out: list[Motion | None] = []
    for k in range(count):
        if not joined[k]:
            out.append(None)
            continue
        grid, t = ground[k], ground[k].transform
        best = max(m.estimate.confidence for i, j, m in sure if k in (i, j))
        matrix = shifted(shifts[k, 0] / t.a, shifts[k, 1] / t.e)
        estimate = Estimate(matrix, np.eye(2) * covariance[k] / size**2, best)
        out.append(Motion(Ground(grid, grid), estimate))
    return out


def _step(motion: Motion) -> tuple[float, float]:
    """How far the second image is from the first, in the middle of their ground, units of the CRS."""
    grid = motion.ground.reference
    x, y = apply(grid.transform, grid.width / 2, grid.height / 2)
    u, v = motion.places(np.array(x), np.array(y))
    return float(u - x), float(v - y)


def _solve(
    count: int, ends: np.ndarray, steps: np.ndarray, spread: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Shifts (count, 2) with mean 0, and the variance (count,) of each."""
    rows = np.zeros((len(ends), count))
    rows[np.arange(len(ends)), ends[:, 0]] = -1
    rows[np.arange(len(ends)), ends[:, 1]] = 1
    normal = np.linalg.pinv(rows.T @ (rows / spread[:, None]))
    shifts = normal @ rows.T @ (steps / spread[:, None])
    return shifts - shifts.mean(0), np.diag(normal)


def _joined(count: int, ends: Sequence[Sequence[int]] | np.ndarray) -> np.ndarray:
    """Which images (count,) hang together with the largest group of the series."""
    group = np.arange(count)
    for _ in range(count):
        for i, j in ends:
            group[[i, j]] = min(group[i], group[j])
    sizes = np.bincount(group, minlength=count)
    return group == int(np.argmax(sizes)) if sizes.max() > 1 else np.zeros(count, bool)
