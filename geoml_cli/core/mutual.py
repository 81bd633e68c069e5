"""Mutual information of two images at every whole shift, from joint histograms by Fourier transforms.

With indicator images of the quantiles of both, the joint histogram of all shifts is one product of
spectra a pair of bins; pixels that are not seen belong to no bin.
"""

import numpy as np
import torch

BINS = 8


def binned(image: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Indicator images (BINS, H, W) of the quantiles of what is valid."""
    seen = image[valid]
    if not len(seen):
        return torch.zeros((BINS, *image.shape), device=image.device)
    some = seen[:: max(1, len(seen) // 100_000)]
    edges = torch.quantile(some, torch.linspace(0, 1, BINS + 1, device=image.device)[1:-1])
    which = torch.bucketize(image, edges)
    return torch.stack([((which == i) & valid).float() for i in range(BINS)])


def information(
    a: torch.Tensor, b: torch.Tensor, valid: torch.Tensor, reach: float
) -> tuple[torch.Tensor, int, int]:
    """Mutual information in nats (2 rows + 1, 2 cols + 1) of shifts within reach; rows, cols to either side."""
    high, wide = a.shape
    rows, cols = min(int(reach), (high - 1) // 4), min(int(reach), (wide - 1) // 4)
    inner = torch.zeros_like(valid[0])
    inner[rows : high - rows, cols : wide - cols] = True
    one = torch.fft.rfft2(binned(a, valid[0] & inner)).conj()
    other = torch.fft.rfft2(binned(b, valid[1]))
    counts = []
    for spectrum in one:
        surface = torch.fft.irfft2(other * spectrum, s=(high, wide))
        rolled = torch.roll(surface, (rows, cols), (-2, -1))
        counts.append(rolled[:, : 2 * rows + 1, : 2 * cols + 1])
    joint = torch.stack(counts).clamp_min(0) + 1e-6  # (BINS, BINS, rows, cols)
    joint = joint / joint.sum((0, 1))
    apart = joint.sum(0, keepdim=True) * joint.sum(1, keepdim=True)
    return (joint * (joint / apart).log()).sum((0, 1)), rows, cols


def top(surface: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Column and row (2,) of the highest value to part of a pixel, covariance (2, 2), and height in deviations.

    The covariance is that of the top of a parabola under noise as large as the rest of the surface is.
    """
    row, col = np.unravel_index(int(surface.argmax()), surface.shape)
    rest = np.ones(surface.shape, bool)
    rest[max(0, row - 5) : row + 6, max(0, col - 5) : col + 6] = False
    noise = float(surface[rest].std()) if rest.any() else 1.0
    z = float((surface[row, col] - surface[rest].mean()) / max(noise, 1e-12)) if rest.any() else 0.0
    place, spread = np.array([col, row], float), np.zeros(2)
    for axis, (at, line) in enumerate(((col, surface[row]), (row, surface[:, col]))):
        if 0 < at < len(line) - 1:
            left, here, right = (float(line[at + k]) for k in (-1, 0, 1))
            bend = 2 * here - left - right
            if bend > 0:
                place[axis] += (right - left) / (2 * bend)
                spread[axis] = (noise / bend) ** 2 / 2
                continue
        spread[axis] = 1.0
    return place, np.diag(np.maximum(spread, 1 / 144)), z
