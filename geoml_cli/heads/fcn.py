"""Fully convolutional scores of the last map, with those of finer maps added on the way up.

Source: Long, Shelhamer, Darrell 2015 (FCN, CVPR), figure 3: skips 0, 1, 2 are FCN-32s, -16s, -8s
where strides end at 8, 16, 32.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import interpolate

from geoml_cli.core.layers.block import block


class FCNHead(nn.Module):
    """Maps fine to coarse -> (B, outputs, h, w) at the resolution of the finest map that is used."""

    def __init__(
        self,
        channels: Sequence[int],
        widths: Sequence[int],
        outputs: int,
        norm: str,
        dropout: float,
    ) -> None:
        super().__init__()
        pairs = zip([channels[-1], *widths], widths, strict=False)
        self.hidden = nn.Sequential(*(block(a, b, norm=norm) for a, b in pairs))
        self.drop = nn.Dropout2d(dropout)
        last = [channels[-1], *widths][-1]
        self.scores = nn.ModuleList(nn.Conv2d(c, outputs, 1) for c in [*channels[:-1], last])

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Scores of the last map, resized and added to those of each finer one."""
        used = [*maps[-len(self.scores) : -1], self.drop(self.hidden(maps[-1]))]
        total: torch.Tensor | None = None
        for x, score in zip(reversed(used), reversed(self.scores), strict=True):
            here = score(x)
            if total is not None:
                here = here + interpolate(
                    total, size=here.shape[-2:], mode="bilinear", align_corners=False
                )
            total = here
        assert total is not None
        return total


def build(
    channels: Sequence[int],
    strides: Sequence[int],
    outputs: int,
    *,
    skips: int = 2,
    width: int = 256,
    depth: int = 1,
    norm: str = "batch",
    dropout: float = 0.1,
) -> nn.Module:
    """Build with scores of `skips` finer maps and `depth` 3 x 3 convolutions of `width` before the last's."""
    return FCNHead(channels[-1 - max(skips, 0) :], [width] * depth, outputs, norm, dropout)


def rename(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Keys of the decode head of mmsegmentation's FCN, as Prithvi's fine-tuned models have it (`skips=0`)."""
    found = {}
    for key, value in state.items():
        name = key.removeprefix("decode_head.")
        if name == key:
            continue
        name = (
            name.replace("conv_seg.", "scores.0.").replace(".conv.", ".0.").replace(".bn.", ".1.")
        )
        found[name.replace("convs.", "hidden.")] = value
    return found
