"""Swin transformers of any version to maps: the map of each stage before it is merged, normed."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from geoml_cli.core.layers.pad import cropped, fitted
from geoml_cli.core.layers.sizes import numbers, size_called


class SwinMaps(nn.Module):
    """(B, C, H, W) -> maps at strides p, 2p, 4p, 8p of patches of p px.

    Attention is within windows that lie on a lattice of their own: the field is not the same
    everywhere.
    """

    equivariant = False

    def __init__(self, model: nn.Module, width: int, stages: int, patch: int) -> None:
        super().__init__()
        model.layernorm = nn.Identity()  # each map has a norm of its own
        self.model: Any = model
        self.channels = [width * 2**i for i in range(stages)]
        self.strides = [patch * 2**i for i in range(stages)]
        self.norms = nn.ModuleList(nn.LayerNorm(c) for c in self.channels)
        self._patch = patch

    def blocks(self) -> list[nn.Module]:
        """Embedding, blocks with the merging after each stage, and norms, from input to output."""
        found: list[nn.Module] = [self.model.embeddings]
        for stage in self.model.encoder.layers:
            found += [*stage.blocks, *([stage.downsample] if stage.downsample is not None else [])]
        return [*found, self.norms]

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Maps fine to coarse."""
        tokens, (h, w) = self.model.embeddings(fitted(x, self._patch))
        maps = []
        for stage, norm in zip(self.model.encoder.layers, self.norms, strict=True):
            for block in stage.blocks:
                tokens = self._block(block, tokens, (h, w))
            maps.append(norm(tokens).transpose(1, 2).unflatten(2, (h, w)))
            if stage.downsample is not None:
                tokens = stage.downsample(tokens, (h, w))
                h, w = (h + 1) // 2, (w + 1) // 2
        return cropped(maps, x.shape[-2:], self.strides)

    def _block(self, block: Any, tokens: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        if hasattr(block, "set_shift_and_window_size"):  # version 1 would shrink small windows
            return block(tokens, size, always_partition=True)[0]
        return block(tokens, size)[0]


def shape_of(
    size: str, width: int | None, depths: str | None, heads: str | None
) -> tuple[int, list[int], list[int]]:
    """Width, depths and heads: of a size by its name, or what is given instead (2-2-6-2)."""
    usual = size_called(size, SIZES)
    return (
        width or usual[0],
        list(numbers(depths, "depths") if depths else usual[1]),
        list(numbers(heads, "heads") if heads else usual[2]),
    )


SIZES: dict[str, tuple[int, Sequence[int], Sequence[int]]] = {  # width, depths, heads
    "tiny": (96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "small": (96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "base": (128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "large": (192, (2, 2, 18, 2), (6, 12, 24, 48)),
}
