"""Mixtures of frequencies beside frozen transformer blocks: patches, their low and high waves.

Source: Hu et al. 2025 (Earth-Adapter, arXiv:2504.06220), written from its equations. After a block, patches x become
x + s M(x); in the layers named, x + s sum_i w_i M_i(x_i) of x, its low and its high frequencies, with w the softmax of
a linear function of x. Class tokens pass.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import nn

from geoml_cli.core.layers.pad import Fitted
from geoml_cli.errors import GeomlError, UsageMistake

EXPERTS = 3  # on patches, on their low and on their high frequencies


class Mixture(nn.Module):
    """What is added after one block."""

    def __init__(
        self, width: int, dim: int, scale: float, cutoff: float, waves: bool, fit: Fitted
    ) -> None:
        super().__init__()
        self.cutoff, self._fit = cutoff, [fit]  # in a list: it is the encoder's, not a part of this
        self.scale = nn.Parameter(torch.tensor(scale))
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.Linear(width, dim), nn.ReLU(), nn.Linear(dim, width))
            for _ in range(EXPERTS if waves else 1)
        )
        self.router: Any = nn.Linear(width, EXPERTS) if waves else None

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(..., 1 + N, D) -> the same; N are patches, of one image or several one after another."""
        cls, x = tokens[..., :1, :], tokens[..., 1:, :]
        said = self.mlps[0](x) if self.router is None else self.mixed(x)
        return torch.cat([cls, x + self.scale * said], dim=-2)

    def mixed(self, x: torch.Tensor) -> torch.Tensor:
        """What the experts say of patches (..., N, D), each by its share."""
        h, w = self._fit[0].grid
        if not h * w or x.shape[-2] % (h * w):
            raise GeomlError("earth-adapter: frequencies are those of whole images, and patches are hidden here; layers=none does without them")  # fmt: skip
        low, high = split(x.unflatten(-2, (-1, h, w)), self.cutoff)
        shares = self.router(x).softmax(-1)
        views = (x, low.flatten(-4, -2), high.flatten(-4, -2))
        each = [mlp(view) for mlp, view in zip(self.mlps, views, strict=True)]
        parts = [share * one for share, one in zip(shares.split(1, -1), each, strict=True)]
        return torch.stack(parts).sum(0)

    def after(self, block: nn.Module, given: Any, tokens: torch.Tensor) -> torch.Tensor:
        """A hook of a block."""
        return self(tokens)


def split(x: torch.Tensor, cutoff: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Low and high frequencies of maps (..., h, w, D), which add up to them.

    Low are those less than half the share `cutoff` of the shorter side from the middle of the spectrum, in rows and in columns.
    """
    h, w = x.shape[-3:-1]
    reach = int(min(h, w) * cutoff // 2)
    down, across = (tuple(one.to(x) for one in _pass(n, reach)) for n in (h, w))
    rows = [torch.einsum("yi,...iwd->...ywd", part, x) for part in down]
    real, imaginary = (
        torch.einsum("xi,...hid->...hxd", part, one) for part, one in zip(across, rows, strict=True)
    )
    low = real - imaginary
    return low, x - low


@lru_cache(maxsize=64)
def _pass(count: int, reach: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Real and imaginary part of the matrix (count, count) that keeps the frequencies -reach to reach - 1 of a row.

    A product with it is a Fourier transform there and back, in any precision and on any device.
    """
    kept = torch.arange(-reach, reach, dtype=torch.float64)
    place = torch.arange(count, dtype=torch.float64)
    angle = 2 * torch.pi * (place[:, None] - place)[..., None] * kept / count
    return angle.cos().sum(-1) / count, angle.sin().sum(-1) / count


def layers_of(text: str, depth: int) -> range:
    """Layers that `0-2`, `first:3`, `last:3`, `all` or `none` names, counted from 0."""
    word, _, number = text.partition(":")
    low, dash, high = text.partition("-")
    if text in ("all", "none"):
        return range(depth if text == "all" else 0)
    if word in ("first", "last") and number.isdigit():
        few = min(int(number), depth)
        return range(few) if word == "first" else range(depth - few, depth)
    if dash and low.isdigit() and high.isdigit() and int(low) <= int(high) < depth:
        return range(int(low), int(high) + 1)
    raise UsageMistake(f"earth-adapter:layers={text}: first:N, last:N, all, none, or A-B of layers 0 to {depth - 1}")  # fmt: skip


def apply(
    encoder: nn.Module,
    *,
    dim: int = 32,
    layers: str = "last:3",
    cutoff: float = 0.3,
    scale: float = 0.1,
) -> nn.Module:
    """Freeze an encoder and add to what its blocks give, in place.

    Networks of width `dim` after every block; those of the `layers` named (first:3, last:3, 18-23, all, none) also see the low and the
    high frequencies of the patches, parted at the share `cutoff` of the spectrum. `scale` is what additions begin with.
    """
    if not hasattr(encoder, "transformer"):
        raise GeomlError("earth-adapter: the encoder is no transformer of patches; it fits vit, prithvi, less-vit; lora fits any")  # fmt: skip
    if dim < 1 or not 0 <= cutoff <= 1:
        raise UsageMistake(f"earth-adapter:dim={dim},cutoff={cutoff}: dim is 1 or more, cutoff a share of 0 to 1")  # fmt: skip
    blocks, width = encoder.transformer()  # type: ignore[operator]
    chosen = layers_of(layers, len(blocks))
    encoder.requires_grad_(False)
    for i, block in enumerate(blocks):
        added = Mixture(width, dim, scale, cutoff, i in chosen, encoder.fit)  # type: ignore[arg-type]
        block.add_module("earth_adapter", added)
        block.register_forward_hook(added.after)
    return encoder
