"""Decoder of LESS ViT's masked autoencoder: images, from channels and patches that were shown.

Source: Si et al. 2025 (arXiv:2503.12843), Hyper-MAE. The authors' key names; several sensors are decoded apart.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from geoml_cli.core.layers.less import KINDS, Decoder, Tokens, joined
from geoml_cli.errors import UsageMistake

MAPS = "tokens"


class HyperDecoder(nn.Module):
    """Tokens of each sensor -> its images (B, T, C, H, W)."""

    def __init__(self, decoders: Sequence[Decoder]) -> None:
        super().__init__()
        self.decoders = nn.ModuleList(decoders)

    def forward(self, seen: Sequence[Tokens]) -> list[torch.Tensor]:
        """Images of every sensor, of whole patches."""
        found = []
        for one, part in zip(seen, self.decoders, strict=True):
            patches = part(one.latent, one.grid, one.seen, one.kept)
            images = joined(patches, one.grid, part.side)  # type: ignore[arg-type]
            found.append(images.unflatten(0, (-1, one.dates)))
        return found


def build(
    encoders: Sequence[Any],
    bands: Sequence[int],
    *,
    width: int = 512,
    layers: int = 4,
    heads: int = 16,
    share: int = 2,
    rank: int = 8,
) -> nn.Module:
    """Build for less-vit, of blocks like its own: of `width`, `layers` deep."""
    for one in encoders:
        if not hasattr(one, "spectrum"):
            raise UsageMistake(
                "--head hyper-mae: is for the encoder less-vit; the head mae for others"
            )
    return HyperDecoder(
        [
            Decoder(
                one.width, width, layers, heads,
                patch=one.side, share=share, rank=rank, radius_m=one.radius_m,
                kinds=[kind for i, kind in enumerate(KINDS) if any(r == bool(i) for _, r in one.bands)],
            )
            for one in encoders
        ]
    )  # fmt: skip


def rename(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The decoder's keys in a checkpoint of the authors'."""
    mine = {k: v for k, v in state.items() if k.startswith("decoder.")}
    return {f"decoders.0.{k.removeprefix('decoder.')}": v for k, v in mine.items()}
