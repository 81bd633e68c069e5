"""What travels into a model."""

from dataclasses import dataclass, field, replace
from typing import Any

import torch


@dataclass(frozen=True)
class Batch:
    """Images with their validity, place and time, and what to learn from them.

    images (B, T, C, H, W) float32, physical values; valid (B, T, H, W) bool;
    lonlat (B, 2) degrees; day (B, T) days since 1970-01-01, NaN where unknown;
    wavelength_nm (C,) NaN where unknown; gsd_m metres;
    target (B, H, W) int64, any value where weight is 0; weight (B, H, W) float32: 0 where a
    pixel is not to be learnt, else the weight of its class; total: sum of weights over the
    whole effective batch, of which this may be a part.
    """

    images: torch.Tensor
    valid: torch.Tensor
    lonlat: torch.Tensor | None = None
    day: torch.Tensor | None = None
    wavelength_nm: torch.Tensor | None = None
    gsd_m: float | None = None
    target: torch.Tensor | None = None
    weight: torch.Tensor | None = None
    total: float = field(default=0.0)

    def __post_init__(self) -> None:
        b, t, _, h, w = self.images.shape
        assert self.valid.shape == (b, t, h, w), (self.valid.shape, self.images.shape)
        for flat in (self.target, self.weight):
            assert flat is None or flat.shape == (b, h, w), (flat.shape, self.images.shape)

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device."""
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=True)
            for name, value in vars(self).items()
            if isinstance(value, torch.Tensor)
        }
        return replace(self, **moved)
