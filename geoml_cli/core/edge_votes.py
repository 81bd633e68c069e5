"""Votes of an image for where outlines lie: how much edge, in the right direction, they would lie on.

The gradient of all bands is divided by its size near by and saturated, so that no strong edge and no
busy place outvotes the rest; of each of `BINS` directions (an outline's normal, modulo 180 degrees) it
becomes one map, and the vote for a displacement is the mean of the maps along the outline there.
"""

from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import ndimage

BINS = 12
SIGMA_PX = 1.0  # of the gradient
NEAR_PX = 20.0  # how far "near by" reaches
GATHERED = 24_000_000  # numbers taken from the maps at a time


class Samples(NamedTuple):
    """Points of one outline, in pixels: where, in which direction its normal lies, and their worth."""

    xy: np.ndarray  # (n, 2) column, row
    bin: np.ndarray  # (n,) of 0..BINS-1
    weight: np.ndarray  # (n,) float32


def sample_normals(xy: np.ndarray, normal: np.ndarray, weight: np.ndarray) -> Samples:
    """Samples of points (n, 2) with unit normals (n, 2) of either sign."""
    angle = np.arctan2(normal[:, 1], normal[:, 0]) / np.pi * BINS
    return Samples(xy, np.rint(angle).astype(np.int64) % BINS, weight.astype(np.float32))


def edge_maps(image: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Edges (BINS, h, w) float32 of an image (C, h, w), 0..1; there are none at pixels not valid."""
    floats = image.astype(np.float32)
    if not valid.all():
        floats = np.where(valid, floats, _mean(floats, valid))
    across = [ndimage.gaussian_filter(band, SIGMA_PX, order=(0, 1)) for band in floats]
    down = [ndimage.gaussian_filter(band, SIGMA_PX, order=(1, 0)) for band in floats]
    xx = sum(g * g for g in across)
    yy = sum(g * g for g in down)
    xy = sum(g * k for g, k in zip(across, down, strict=True))
    known = valid
    if not valid.all():  # no edges where data end
        known = ndimage.binary_erosion(valid, iterations=int(3 * SIGMA_PX), border_value=1)
    near = _near(np.where(known, xx + yy, 0))
    if not known.all():
        near /= np.maximum(_near(known.astype(np.float32)), 1e-3)
    size = np.sqrt(xx + yy)
    scale = np.where(known, 1 / (size + np.sqrt(np.maximum(near, 0)) + 1e-6), 0).astype(np.float32)
    maps = np.empty((BINS, *valid.shape), np.float32)
    for k, angle in enumerate(np.arange(BINS) * np.pi / BINS):
        c, s = float(np.cos(angle)), float(np.sin(angle))
        maps[k] = np.sqrt(np.maximum(xx * (c * c) + yy * (s * s) + xy * (2 * c * s), 0)) * scale
    return maps


def _near(values: np.ndarray) -> np.ndarray:
    """Means about each pixel, near a Gaussian of NEAR_PX: three boxes after each other."""
    side = 2 * int(NEAR_PX) + 1  # three boxes of side s have a standard deviation of about s / 2
    out = values.astype(np.float32)
    for _ in range(3):
        out = ndimage.uniform_filter(out, side)
    return out


def _mean(image: np.ndarray, valid: np.ndarray) -> np.ndarray:
    if not valid.any():
        return np.zeros((len(image), 1, 1), np.float32)
    return image[:, valid].mean(axis=1)[:, None, None]


def vote(maps: np.ndarray, samples: Samples, centre: np.ndarray, radius: int) -> np.ndarray:
    """Votes (2 radius + 1, 2 radius + 1) for displacements (row, column) about `centre` (x, y), whole pixels.

    Points that come to lie outside the maps see no edge there.
    """
    side = 2 * radius + 1
    view = sliding_window_view(maps, (side, side), axis=(1, 2))
    left = np.floor(samples.xy[:, 0]).astype(np.int64) + int(centre[0]) - radius
    top = np.floor(samples.xy[:, 1]).astype(np.int64) + int(centre[1]) - radius
    inside = (left >= 0) & (top >= 0) & (left < view.shape[2]) & (top < view.shape[1])
    total = np.zeros((side, side), np.float32)
    few = max(1, GATHERED // side**2)
    picked = np.flatnonzero(inside)
    for start in range(0, len(picked), few):
        i = picked[start : start + few]
        total += np.tensordot(samples.weight[i], view[samples.bin[i], top[i], left[i]], 1)
    return total / max(float(samples.weight.sum()), 1e-9)
