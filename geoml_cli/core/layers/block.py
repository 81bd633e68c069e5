"""Convolution, norm and ReLU for decoders: norms that also train on one sample of one pixel."""

import torch
from torch import nn

from geoml_cli.errors import UsageMistake

NORMS = ("batch", "group")
GROUPS, SHARE = (
    32,
    4,
)  # at most so many groups, at least so many channels each: one value has no spread


class BatchNorm(nn.BatchNorm2d):
    """Batch norm that takes its running statistics where a batch has one value a channel.

    One value has no spread: the plain layer raises there (a map pooled to 1 x 1, one sample).
    What it computes everywhere else, and its key names, are those of the plain layer.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        if self.training and input.shape[0] * input.shape[2] * input.shape[3] == 1:
            return nn.functional.batch_norm(
                input,
                self.running_mean,
                self.running_var,
                self.weight,
                self.bias,
                False,
                0.0,
                self.eps,
            )
        return super().forward(input)


def norm_of(kind: str, channels: int) -> nn.Module:
    """The norm layer called `batch` or `group` (32 groups of channels, fewer for few channels)."""
    if kind not in NORMS:
        raise UsageMistake(f"norm={kind}: there are {', '.join(NORMS)}")
    if kind == "batch":
        return BatchNorm(channels)
    most = max(1, min(GROUPS, channels // SHARE))
    return nn.GroupNorm(next(g for g in range(most, 0, -1) if channels % g == 0), channels)


def block(
    channels: int, outputs: int, kernel: int = 3, norm: str = "batch", dilation: int = 1
) -> nn.Sequential:
    """Convolution without bias (size kept), norm, ReLU, as a sequence 0, 1, 2."""
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(channels, outputs, kernel, padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(conv, norm_of(norm, outputs), nn.ReLU(inplace=True))


class Block(nn.Module):
    """The same with the names that decoders of the mmsegmentation family give it: conv, norm."""

    def __init__(self, channels: int, outputs: int, kernel: int = 3, norm: str = "batch") -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, outputs, kernel, padding=kernel // 2, bias=False)
        self.norm = norm_of(norm, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, outputs, H, W)."""
        return nn.functional.relu(self.norm(self.conv(x)), inplace=True)
