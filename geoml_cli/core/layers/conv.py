"""Convolution blocks."""

import torch
from torch import nn

from geoml_cli.core.layers.block import block


def conv_norm_relu(channels: int, outputs: int, norm: str = "batch") -> nn.Sequential:
    """3 x 3 convolution, norm (batch or group), ReLU."""
    return block(channels, outputs, 3, norm)


class DoubleConv(nn.Module):
    """Two convolution blocks, with dropout of whole channels between them."""

    def __init__(
        self, channels: int, outputs: int, dropout: float = 0.0, norm: str = "batch"
    ) -> None:
        super().__init__()
        self.first = conv_norm_relu(channels, outputs, norm)
        self.drop = nn.Dropout2d(dropout)
        self.second = conv_norm_relu(outputs, outputs, norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, outputs, H, W)."""
        return self.second(self.drop(self.first(x)))
