"""Tie points on a grid: windows laid over the reference, each found again in the moving image."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree

from geoml_cli import registry
from geoml_cli.core.alignment import Estimate, applied
from geoml_cli.core.bending import Bend, bent
from geoml_cli.core.correlation import Found
from geoml_cli.core.ties import FLOOR_PX, Ties, fit

BATCH_PIXELS = 1 << 20
LEAST_SEEN = 0.4  # of a window, in both images
NEIGHBOURS = 8
ODD = 4.0  # deviations from its neighbours at which a tie is dropped
LEAST_ODD_PX = 0.25
LEAST_SURE = 0.5  # of a tie alone, to be heard
FEW = 12  # ties that carry no field

# first row and column and side of a window, whole dx and dy of the moving image: both (h, w), what of each is valid
Read = Callable[[int, int, int, int, int], tuple[np.ndarray, ...]]


def lay(height: int, width: int, window: int, step: int) -> np.ndarray:
    """First rows and columns (n, 2) of windows a step apart, in the middle of the image."""

    def along(length: int) -> np.ndarray:
        count = max(1, (length - window) // step + 1)
        rest = length - window - (count - 1) * step
        return np.arange(count) * step + rest // 2

    rows, cols = np.meshgrid(along(height), along(width), indexing="ij")
    return np.stack([rows.ravel(), cols.ravel()], 1)


def tie(
    read: Read,
    corners: np.ndarray,
    window: int,
    by: str,
    matrix: np.ndarray,
    device: torch.device | str = "cpu",
    check: Callable[[], None] = lambda: None,
) -> Ties:
    """Measure a tie in the middle of each window; the moving image is first looked for where `matrix` says."""
    middle = (window - 1) / 2
    at = corners[:, ::-1] + middle
    u, v = applied(matrix, at[:, 0], at[:, 1])
    whole = np.round(np.stack([u, v], 1) - at).astype(int)
    count = len(at)
    shift = np.full((count, 2), np.nan)
    covariance, sure = np.tile(np.eye(2), (count, 1, 1)), np.zeros(count)
    size = max(1, BATCH_PIXELS // window**2)
    for first in range(0, count, size):
        check()
        some, images, seen = [], [], []
        for i in range(first, min(first + size, count)):
            (row, col), (dx, dy) = corners[i].tolist(), whole[i].tolist()
            a, b, va, vb = read(row, col, window, dx, dy)
            if min(va.mean(), vb.mean(), (va & vb).mean()) < LEAST_SEEN:
                continue
            some.append(i)
            images.append(np.stack([a, b]))
            seen.append(np.stack([va, vb]))
        if not some:
            continue
        pairs = torch.from_numpy(np.stack(images)).float().to(device)
        valid = torch.from_numpy(np.stack(seen, 1)).to(device)
        found = measured(by, pairs[:, 0], pairs[:, 1], valid)
        shift[some] = found.shift + whole[some]
        covariance[some], sure[some] = found.covariance, found.confidence
    return Ties.of(at, shift, covariance, sure)


def measured(by: str, a: torch.Tensor, b: torch.Tensor, valid: torch.Tensor) -> Found:
    """Shifts of many pairs (N, H, W) by the aligner `by`, together if it can."""
    name, chosen = registry.parse("aligners", by)
    part: Any = registry.load("aligners", name)
    if hasattr(part, "measure"):
        return part.measure(a, b, valid, **chosen)
    one = [part.estimate(a[i], b[i], valid[:, i], **chosen) for i in range(len(a))]
    middle = np.array([(a.shape[-1] - 1) / 2, (a.shape[-2] - 1) / 2])
    shifts = np.array([np.array(e.places(*middle)) - middle for e in one])
    agreement = np.array([float(e.more.get("agreement", 0)) for e in one])
    sure = np.array([e.confidence for e in one])
    return Found(shifts, np.stack([e.covariance for e in one]), sure, agreement)


def agreed_on(
    ties: Ties, model: str, size: tuple[int, int], reach: float, share: float, step: float
) -> Estimate | None:
    """The transform, or with `field` the smooth field, that ties over a height and width agree on."""
    centre = np.array([(size[1] - 1) / 2, (size[0] - 1) / 2])
    heard = replace(ties, keep=ties.keep & (ties.confidence >= LEAST_SURE))
    if heard.keep.sum() < max(4, 0.1 * len(ties)):  # each alone is too weak: let them agree
        heard = ties
    if model != "field":
        best = fit(heard, model, centre, reach, share)
        if best is None:
            return None
        judged = ties.judged(best.matrix, best.keep)
        return Estimate(best.matrix, best.covariance, best.confidence, judged)
    heard = replace(heard, keep=heard.keep & ~odd(heard))
    base = fit(heard, "affine" if heard.keep.sum() >= FEW else "shift", centre, reach, share)
    if base is None:
        return None
    judged = ties.judged(base.matrix, heard.keep)
    use = np.flatnonzero(heard.keep)
    if len(use) < FEW:
        return Estimate(base.matrix, base.covariance, base.confidence, judged)
    error = np.sqrt(np.trace(ties.covariance[use], axis1=1, axis2=2) / 2 + FLOOR_PX**2)
    bend, pull, told = bent(ties.at[use], judged.residual[use], error, size, step)
    return _bent(judged, use, pull, bend, base.matrix, told, base.confidence)


def _bent(
    ties: Ties,
    use: np.ndarray,
    pull: np.ndarray,
    bend: Bend,
    matrix: np.ndarray,
    told: float,
    sure: float,
) -> Estimate:
    keep = np.zeros(len(ties), bool)
    keep[use[pull > 0]] = True
    residual = ties.residual - np.stack(bend.at(ties.at[:, 0], ties.at[:, 1]), 1)
    judged = replace(ties, keep=keep, residual=residual)
    # the field itself is more exact than the tie held back that told this
    covariance = np.eye(2) * told**2 / 2
    share = float(keep.sum() / max(1, len(use)))
    return Estimate(
        matrix, covariance, max(sure, 0.0), judged, bend, {"held_back_px": told, "kept": share}
    )


def odd(ties: Ties) -> np.ndarray:
    """Which ties (n,) are unlike their neighbours, by medians."""
    out = np.zeros(len(ties), bool)
    use = np.flatnonzero(ties.keep)
    if len(use) <= NEIGHBOURS:
        return out
    _, near = cKDTree(ties.at[use]).query(ties.at[use], NEIGHBOURS + 1)
    shift = ties.shift[use]
    middle = np.median(shift[near[:, 1:]], axis=1)
    off = np.linalg.norm(shift - middle, axis=1)
    # where the field is steep, neighbours differ among themselves
    apart = np.median(np.linalg.norm(shift[near[:, 1:]] - middle[:, None], axis=2), axis=1)
    limit = ODD * np.maximum(apart, float(np.median(off)))
    out[use] = off > np.maximum(limit, LEAST_ODD_PX)
    return out


def reader(a: np.ndarray, b: np.ndarray, valid: Sequence[np.ndarray]) -> Read:
    """Windows of two arrays (H, W); outside nothing is valid."""

    def cut(image: np.ndarray, row: int, col: int, side: int) -> np.ndarray:
        out = np.zeros((side, side), image.dtype)
        top, left = max(row, 0), max(col, 0)
        part = image[top : max(row + side, 0), left : max(col + side, 0)]
        out[top - row : top - row + part.shape[0], left - col : left - col + part.shape[1]] = part
        return out

    def read(row: int, col: int, side: int, dx: int, dy: int) -> tuple[np.ndarray, ...]:
        there = (row + dy, col + dx, side)
        return (
            cut(a, row, col, side),
            cut(b, *there),
            cut(valid[0], row, col, side),
            cut(valid[1], *there),
        )

    return read
