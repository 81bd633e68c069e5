"""What travels into a model."""

from dataclasses import dataclass, fields, replace
from typing import Any

import torch


@dataclass(frozen=True)
class Batch:
    """Images with their validity, place and time, and what to learn from them.

    images (B, T, C, H, W) float32, physical values; valid (B, T, H, W) bool;
    lonlat (B, 2) degrees, or (B, 2, H, W) a pixel, NaN where unknown; day (B, T) days since 1970-01-01, NaN where unknown;
    wavelength_nm (C,) NaN where unknown; gsd_m metres; std (C,) standard deviation of each band
    over the ground that trains; codes (B, T, K), or (B, T, K, H, W) a pixel, numbers that say where and when,
    given to the network as channels; others: the same ground seen by further sensors.

    target: class ids int64 (B, *S), or values (or 0 and 1: absent, present) float32 (B, K, *S);
    S is (H, W) for labels a pixel, () for labels a tile. weight float32 of the target's shape: 0
    where nothing is to be learnt (the target may be anything there), else the weight of its class.
    total: sum of weights over the whole effective batch, of which this may be a part.
    rows: positions of the tiles in their index.
    hide: bool (B, T, C, H, W), or (B, T, 1, H, W) of all bands alike: what the network may not see, valid or not.
    """

    images: torch.Tensor
    valid: torch.Tensor
    lonlat: torch.Tensor | None = None
    day: torch.Tensor | None = None
    wavelength_nm: torch.Tensor | None = None
    gsd_m: float | None = None
    std: torch.Tensor | None = None
    codes: torch.Tensor | None = None
    others: tuple["Batch", ...] = ()
    target: torch.Tensor | None = None
    weight: torch.Tensor | None = None
    total: float = 0.0
    rows: tuple[int, ...] = ()
    hide: torch.Tensor | None = None

    def __post_init__(self) -> None:
        b, t, _, h, w = self.images.shape
        assert self.valid.shape == (b, t, h, w), (self.valid.shape, self.images.shape)
        if self.target is not None and self.weight is not None:
            shape = self.target.shape
            assert self.weight.shape == shape, (self.weight.shape, shape)
            assert shape[0] == b and (len(shape) < 3 or shape[-2:] == (h, w)), shape

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device."""
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=True)
            for name, value in vars(self).items()
            if isinstance(value, torch.Tensor)
        }
        return replace(self, **moved, others=tuple(one.to(device) for one in self.others))

    @property
    def missing(self) -> torch.Tensor:
        """What the network does not see (B, T, H, W): not valid, or hidden in any band."""
        return ~self.valid if self.hide is None else ~self.valid | self.hide.any(2)

    def part(self, start: int, stop: int) -> "Batch":
        """Samples start..stop; the total stays that of the whole."""
        cut: dict[str, Any] = {
            one.name: value[start:stop]
            for one in fields(self)
            if one.name in A_SAMPLE and (value := getattr(self, one.name)) is not None
        }
        return replace(self, **cut, others=tuple(one.part(start, stop) for one in self.others))


A_SAMPLE = (
    "images",
    "valid",
    "lonlat",
    "day",
    "codes",
    "target",
    "weight",
    "rows",
    "hide",
)  # first axis: samples
