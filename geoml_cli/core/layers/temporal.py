"""Attention over dates, one weight a date, pixel and group of channels.

Source: Garnot, Landrieu 2021 (U-TAE, ICCV), section 3.1: keys from the coarsest maps and the
date, one learnt query a head, the same weights resized for the finer maps.
"""

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from geoml_cli.core.batch import Batch

PERIOD = 10_000.0  # days: the longest wave of the date code


class Attention(nn.Module):
    """Maps (B, T, C, h, w), fine to coarse -> maps (B, C, h, w)."""

    def __init__(self, channels: Sequence[int], heads: int = 8, key: int = 4) -> None:
        super().__init__()
        coarse = channels[-1]
        self.heads = max(h for h in range(1, heads + 1) if all(c % h == 0 for c in channels))
        self.width, self.key = 2 * math.ceil(coarse / 2), key
        self.norm = nn.GroupNorm(self.heads, coarse)
        self.place = nn.Linear(self.width, coarse)
        self.keys = nn.Linear(coarse, self.heads * key)
        self.query = nn.Parameter(torch.randn(self.heads, key) * (2 / key) ** 0.5)

    def forward(self, maps: Sequence[torch.Tensor], batch: Batch) -> list[torch.Tensor]:
        """Weighted means over the dates; dates that are not valid beneath get no weight."""
        weights = self.weights(maps[-1], batch)  # (B, heads, T, h, w)
        return [self._joined(one, weights) for one in maps]

    def weights(self, coarse: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Weights (B, heads, T, h, w) that add up to 1 over the dates."""
        b, t, c, h, w = coarse.shape
        x = self.norm(coarse.flatten(0, 1)).view(b, t, c, h, w).movedim(2, -1)
        x = x + self.place(self._code(batch, x))[:, :, None, None]
        keys = self.keys(x).view(b, t, h, w, self.heads, self.key)
        score = torch.einsum("bthwnk,nk->bnthw", keys, self.query) / self.key**0.5
        seen = adaptive_avg_pool2d(batch.valid.float(), (h, w))[:, None] > 0
        seen = seen | ~seen.any(dim=2, keepdim=True)  # where no date is valid: all alike
        return score.float().masked_fill(~seen, -torch.inf).softmax(dim=2).to(coarse.dtype)

    def _code(self, batch: Batch, like: torch.Tensor) -> torch.Tensor:
        """Waves of the day of each date (B, T, width); of its number where the day is not known."""
        b, t = like.shape[:2]
        order = torch.arange(t, device=like.device, dtype=torch.float32).expand(b, t)
        day = order if batch.day is None else batch.day
        if batch.day is not None:
            day = day - torch.nan_to_num(day, nan=torch.inf).amin(1, keepdim=True)
            day = torch.where(day.isfinite(), day, order)
        rate = PERIOD ** (-torch.arange(0, self.width, 2, device=like.device) / self.width)
        angle = day[..., None] * rate
        return torch.cat([angle.sin(), angle.cos()], dim=-1).to(like.dtype)

    def _joined(self, maps: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """One level's maps (B, T, C, h, w) -> (B, C, h, w)."""
        b, t, c, h, w = maps.shape
        if weights.shape[-2:] != (h, w):
            flat = weights.flatten(1, 2)
            flat = interpolate(flat, size=(h, w), mode="bilinear", align_corners=False)
            weights = flat.view(b, self.heads, t, h, w)
        grouped = maps.view(b, t, self.heads, c // self.heads, h, w)
        return torch.einsum("btnchw,bnthw->bnchw", grouped, weights).reshape(b, c, h, w)
