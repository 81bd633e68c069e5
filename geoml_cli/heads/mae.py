"""Decoder of a masked autoencoder: images, from what an encoder says of the patches that it was shown.

Source: He et al. 2022 (MAE, CVPR); of Prithvi's size (arXiv:2310.18660) if nothing else is said. Several sensors are
decoded together, so that one tells what another did not see (as MultiMAE, Bachmann et al. 2022).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from geoml_cli.core.layers.masked import Decoder, Tokens, images_of

MAPS = "tokens"


class MaskedDecoder(nn.Module):
    """Tokens of each sensor -> its images (B, T, C, H, W); all go through the blocks of the first."""

    def __init__(
        self, decoders: Sequence[Decoder], patches: Sequence[tuple[int, int, int]]
    ) -> None:
        super().__init__()
        self.decoders = nn.ModuleList(decoders)
        self.patches = list(patches)
        width = decoders[0].width
        if len(decoders) > 1:  # which sensor a token is of
            self.sensor_token = nn.Parameter(0.02 * torch.randn(len(decoders), 1, 1, width))

    def forward(self, seen: Sequence[Tokens]) -> list[torch.Tensor]:
        """Images of every sensor, of whole patches."""
        decoders: list[Any] = list(self.decoders)
        entered = [
            one.enter(t.latent, t.grid, t.restore, t.known, t.real)
            for one, t in zip(decoders, seen, strict=True)
        ]
        if len(entered) > 1:
            entered = [x + mine for x, mine in zip(entered, self.sensor_token, strict=True)]
        x = torch.cat(entered, dim=1)
        for block in decoders[0].decoder_blocks:
            x = block(x)
        parts = x.split([one.shape[1] for one in entered], dim=1)
        return [
            images_of(one.leave(part), t.grid, patch).transpose(1, 2)
            for one, part, t, patch in zip(decoders, parts, seen, self.patches, strict=True)
        ]


def build(
    encoders: Sequence[Any],
    bands: Sequence[int],
    *,
    width: int = 512,
    layers: int = 8,
    heads: int = 16,
) -> nn.Module:
    """Build for encoders that give tokens, and the bands of each one's images."""
    decoders = [
        Decoder(
            count,
            one.grid,
            one.patch,
            one.width,
            width,
            layers if i == 0 else 0,
            heads,
            codes=one.codes,
            eps=one.norm.eps,
        )
        for i, (one, count) in enumerate(zip(encoders, bands, strict=True))
    ]
    return MaskedDecoder(decoders, [one.patch for one in encoders])


def rename(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Keys of the decoder in either checkpoint layout of Prithvi, as they are called here; place codes are computed."""
    found = {}
    for key, value in state.items():
        key = key.replace("_timm_module.", "").removeprefix("decoder.")
        mine = key.startswith(
            ("decoder_", "mask_token", "temporal_embed_dec", "location_embed_dec")
        )
        if mine and key != "decoder_pos_embed":
            found[f"decoders.0.{key}"] = value
    return found
