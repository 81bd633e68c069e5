"""Plain vision transformer: patches attend to all others.

Source: Dosovitskiy et al. 2021 (ICLR), with transformers.
"""

from typing import Any

import torch
from torch import nn

from geoml_cli.core.layers.pad import Fitted, cropped
from geoml_cli.core.layers.sizes import missing, size_called

time = "folded"
SIZES = {  # width, layers, heads
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
}
TAPS = 4  # maps that are given, of layers evenly apart


class ViTMaps(nn.Module):
    """(B, C, H, W) -> four maps of one stride, of layers at each quarter of the depth."""

    equivariant = False

    def __init__(self, model: nn.Module, width: int, layers: int, patch: int) -> None:
        super().__init__()
        self.model: Any = model
        taps = min(TAPS, layers)
        self._taps = [(i + 1) * layers // taps - 1 for i in range(taps)]
        self.fit = Fitted(patch)
        self.channels, self.strides = [width] * taps, [patch] * taps

    def by_depth(self) -> list[nn.Module]:
        """Embedding, layers and the last norm, from input to output."""
        return [self.model.embeddings, *self.model.layers, self.model.layernorm]

    def transformer(self) -> tuple[list[nn.Module], int]:
        """Blocks over tokens (B, 1 + N, D), and D."""
        return list(self.model.layers), self.channels[0]

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Maps of patch tokens; the last one is normed."""
        maps, _ = self._run(x)
        return cropped(maps, x.shape[-2:], self.strides)

    def summary(self, x: torch.Tensor) -> torch.Tensor:
        """The class token (B, D), normed."""
        return self._run(x)[1]

    def _run(self, x: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        whole = self.fit(x)
        size = self.fit.grid
        tokens = self.model.embeddings(whole, interpolate_pos_encoding=True)
        maps = []
        for i, layer in enumerate(self.model.layers):
            tokens = layer(tokens, None)
            if i in self._taps:
                last = i == len(self.model.layers) - 1
                seen = (self.model.layernorm(tokens) if last else tokens)[:, 1:]  # no class token
                maps.append(seen.transpose(1, 2).unflatten(2, size))
        return maps, self.model.layernorm(tokens[:, 0])


def build(
    in_channels: int,
    *,
    size: str = "small",
    width: int | None = None,
    layers: int | None = None,
    heads: int | None = None,
    patch: int = 16,
    image: int = 224,
    dropout: float = 0.0,
) -> nn.Module:
    """Build `size` tiny, small, base or large, or of the `width`, `layers` and `heads` given.

    Positions are learnt for images of `image` px and resized bicubically for others.
    """
    try:
        from transformers import ViTConfig, ViTModel
    except ImportError:
        raise missing("vit") from None
    usual = size_called(size, SIZES)
    wide, deep = width or usual[0], layers or usual[1]
    config = ViTConfig(
        num_channels=in_channels,
        hidden_size=wide,
        num_hidden_layers=deep,
        num_attention_heads=heads or usual[2],
        intermediate_size=4 * wide,
        patch_size=patch,
        image_size=image,
        hidden_dropout_prob=dropout,
    )
    return ViTMaps(ViTModel(config, add_pooling_layer=False), wide, deep, patch)


def rename(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Keys of timm's layout; heads are left out."""
    names = {
        "cls_token": "embeddings.cls_token",
        "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj.": "embeddings.patch_embeddings.projection.",
        "norm.": "layernorm.",
    }
    inner = {
        "norm1.": "layernorm_before.",
        "norm2.": "layernorm_after.",
        "attn.proj.": "attention.o_proj.",
        "mlp.": "mlp.",
    }
    found: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        key = key.removeprefix("module.").removeprefix("encoder.")
        if key.startswith("blocks."):
            _, i, tail = key.split(".", 2)
            if tail.startswith("attn.qkv."):
                end = tail.rpartition(".")[2]
                for one, part in zip("qkv", value.chunk(3), strict=True):
                    found[f"model.layers.{i}.attention.{one}_proj.{end}"] = part.contiguous()
                continue
            for theirs, ours in inner.items():
                if tail.startswith(theirs):
                    found[f"model.layers.{i}.{ours}{tail.removeprefix(theirs)}"] = value
            continue
        for theirs, ours in names.items():
            if key.startswith(theirs):
                found[f"model.{ours}{key.removeprefix(theirs)}"] = value
    return found
