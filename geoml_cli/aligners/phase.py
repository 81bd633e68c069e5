"""Shift of the peak of the phase correlation."""

import numpy as np
import torch

from geoml_cli.core.alignment import Estimate, shifted


def estimate(reference: torch.Tensor, moving: torch.Tensor, valid: torch.Tensor) -> Estimate:
    """Find the shift of a moving image (H, W); `valid` (2, H, W) is of the reference and of the moving image."""
    a = torch.where(valid[0], reference - reference[valid[0]].mean(), 0.0)
    b = torch.where(valid[1], moving - moving[valid[1]].mean(), 0.0)
    cross = torch.fft.rfft2(b) * torch.fft.rfft2(a).conj()
    surface = torch.fft.irfft2(cross / cross.abs().clamp_min(1e-12), s=a.shape)
    row, col = np.unravel_index(int(surface.argmax()), tuple(a.shape))
    high, wide = a.shape
    dx, dy = ((p + n // 2) % n - n // 2 for p, n in ((int(col), wide), (int(row), high)))
    return Estimate(shifted(dx, dy), np.eye(2) / 12, 1.0)
