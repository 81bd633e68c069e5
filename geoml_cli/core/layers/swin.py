"""Swin transformers of any version to maps: the map of each stage before it is merged, normed."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.functional import avg_pool2d

from geoml_cli.core.layers.masked import PARTLY
from geoml_cli.core.layers.pad import cropped, fitted
from geoml_cli.core.layers.sizes import numbers, size_called


class SwinMaps(nn.Module):
    """(B, C, H, W) -> maps at strides p, 2p, 4p, 8p of patches of p px.

    Attention is within windows that lie on a lattice of their own: the field is not the same
    everywhere.
    """

    equivariant = False

    def __init__(
        self, model: nn.Module, width: int, stages: int, patch: int, normed: bool = True
    ) -> None:
        super().__init__()
        model.layernorm = nn.Identity()  # each map has a norm of its own
        self.model: Any = model
        self.channels = [width * 2**i for i in range(stages)]
        self.strides = [patch * 2**i for i in range(stages)]
        self.norms = nn.ModuleList(
            nn.LayerNorm(c) if normed else nn.Identity() for c in self.channels
        )
        self._patch = patch

    def blocks(self) -> list[nn.Module]:
        """Embedding, blocks with the merging after each stage, and norms, from input to output."""
        found: list[nn.Module] = [self.model.embeddings]
        for stage in self.model.encoder.layers:
            found += [*stage.blocks, *([stage.downsample] if stage.downsample is not None else [])]
        return [*found, self.norms]

    def forward(self, x: torch.Tensor, hide: torch.Tensor | None = None) -> list[torch.Tensor]:
        """Maps fine to coarse; where more than a quarter of a patch is to be hidden (B, H, W), its token is the one for
        that.
        """
        tokens, (h, w) = self._embedded(x, hide)
        maps = []
        for stage, norm in zip(self.model.encoder.layers, self.norms, strict=True):
            for block in stage.blocks:
                tokens = self._block(block, tokens, (h, w))
            maps.append(norm(tokens).transpose(1, 2).unflatten(2, (h, w)))
            if stage.downsample is not None:
                tokens = stage.downsample(tokens, (h, w))
                h, w = (h + 1) // 2, (w + 1) // 2
        return cropped(maps, x.shape[-2:], self.strides)

    def _embedded(
        self, x: torch.Tensor, hide: torch.Tensor | None
    ) -> tuple[torch.Tensor, tuple[int, int]]:
        whole = fitted(x, self._patch)
        if getattr(self.model.embeddings, "mask_token", None) is None:
            return self.model.embeddings(whole)
        if hide is None:
            hide = torch.zeros(len(x), *x.shape[-2:], dtype=torch.bool, device=x.device)
        share = avg_pool2d(fitted(hide[:, None].float(), self._patch), self._patch)
        return self.model.embeddings(whole, share.flatten(1) > PARTLY)

    def _block(self, block: Any, tokens: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        if hasattr(block, "set_shift_and_window_size"):  # version 1 would shrink small windows
            return block(tokens, size, always_partition=True)[0]
        tokens = block(tokens, size)[0]
        return block.norm3(tokens) if hasattr(block, "norm3") else tokens


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


INSIDE = {  # of a block, in Microsoft's layout and here
    "attn.logit_scale": "attention.self.logit_scale",
    "attn.q_bias": "attention.self.query.bias",
    "attn.v_bias": "attention.self.value.bias",
    "attn.cpb_mlp.": "attention.self.continuous_position_bias_mlp.",
    "attn.proj.": "attention.output.dense.",
    "norm1.": "layernorm_before.",
    "norm2.": "layernorm_after.",
    "norm3.": "norm3.",
    "mlp.fc1.": "intermediate.dense.",
    "mlp.fc2.": "output.dense.",
}
AROUND = {
    "mask_token": "model.embeddings.mask_token",
    "patch_embed.proj.": "model.embeddings.patch_embeddings.projection.",
    "patch_embed.norm.": "model.embeddings.norm.",
}
TABLES = ("relative_coords_table", "relative_position_index", "attn_mask")  # are worked out


def renamed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Keys of version 2 in Microsoft's layout, as the parts here call them; heads and decoders are left out."""
    found: dict[str, torch.Tensor] = {}
    stages = 1 + max((int(k.split(".")[1]) for k in state if k.startswith("layers.")), default=0)
    for key, value in state.items():
        if key.endswith(TABLES):
            continue
        if key.startswith("norm."):
            found[f"norms.{stages - 1}.{key.removeprefix('norm.')}"] = value
        elif key.startswith("layers.") and ".blocks." in key:
            _, i, _, j, tail = key.split(".", 4)
            block = f"model.encoder.layers.{i}.blocks.{j}."
            if tail == "attn.qkv.weight":
                for one, part in zip(("query", "key", "value"), value.chunk(3), strict=True):
                    found[f"{block}attention.self.{one}.weight"] = part.contiguous()
            else:
                found |= {block + new + tail.removeprefix(old): value for old, new in INSIDE.items() if tail.startswith(old)}  # fmt: skip
        elif key.startswith("layers."):
            found[f"model.encoder.{key}"] = value
        else:
            found |= {new + key.removeprefix(old): value for old, new in AROUND.items() if key.startswith(old)}  # fmt: skip
    return found
