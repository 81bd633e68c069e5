"""Convolutions along time, the same for every pixel.

Source: Pelletier, Webb, Petitjean 2019 (Remote Sensing 11, TempCNN): three convolutions, one dense layer.
"""

import torch
from torch import nn

from geoml_cli.core.batch import Batch

time = "native"


class TempCNN(nn.Module):
    """(B, T, C, H, W) -> one map of stride 1; dates without data are told by a channel of their own."""

    def __init__(
        self, in_channels: int, frames: int, width: int, kernel: int, dense: int, dropout: float
    ) -> None:
        super().__init__()
        self.channels, self.strides = [dense], [1]
        before = (in_channels + 1, width, width)
        self.levels = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(c, width, kernel, padding=kernel // 2),
                nn.BatchNorm1d(width),
                nn.ReLU(inplace=True),
                nn.Dropout(dropout),
            )
            for c in before
        )
        self.dense = nn.Sequential(
            nn.Linear(width * frames, dense), nn.ReLU(inplace=True), nn.Dropout(dropout)
        )

    def forward(self, x: torch.Tensor, batch: Batch) -> list[torch.Tensor]:
        """Features of every pixel's series."""
        b, t, _, h, w = x.shape
        known = batch.valid[:, :, None].to(x.dtype)
        series = torch.cat([x, known], dim=2).permute(0, 3, 4, 2, 1).reshape(b * h * w, -1, t)
        for level in self.levels:
            series = level(series)
        return [self.dense(series.flatten(1)).view(b, h, w, -1).permute(0, 3, 1, 2)]


def build(
    in_channels: int,
    frames: int,
    *,
    width: int = 64,
    kernel: int = 5,
    dense: int = 256,
    dropout: float = 0.5,
) -> nn.Module:
    """Build for `frames` dates: `width` filters of `kernel` dates, then `dense` features."""
    return TempCNN(in_channels, frames, width, kernel, dense, dropout)
