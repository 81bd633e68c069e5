"""Convolution blocks."""

import torch
from torch import nn


def conv_norm_relu(channels: int, outputs: int) -> nn.Sequential:
    """3 x 3 convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(channels, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class DoubleConv(nn.Module):
    """Two convolution blocks, with dropout of whole channels between them."""

    def __init__(self, channels: int, outputs: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.first = conv_norm_relu(channels, outputs)
        self.drop = nn.Dropout2d(dropout)
        self.second = conv_norm_relu(outputs, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, outputs, H, W)."""
        return self.second(self.drop(self.first(x)))
