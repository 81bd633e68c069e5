"""Nothing: the encoder's last channels are the answer, as in networks that were published whole."""

from collections.abc import Sequence

import torch
from torch import nn

from geoml_cli.errors import UsageMistake

MAPS = "last"


class Identity(nn.Module):
    """Last map (B, C, h, w) as it is; C is the number of outputs."""

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """The last map."""
        return maps[-1]


def build(channels: Sequence[int], strides: Sequence[int], outputs: int) -> nn.Module:
    """Build for an encoder whose last map has as many channels as there are outputs."""
    if channels[-1] != outputs:
        raise UsageMistake(
            f"--head identity: the encoder gives {channels[-1]} channels where {outputs} are wanted"
        )
    return Identity()
