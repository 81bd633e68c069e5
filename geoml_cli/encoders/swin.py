"""Swin transformer, version 1: attention in shifted windows.

Source: Liu et al. 2021 (ICCV), with transformers.
"""

import torch
from torch import nn

from geoml_cli.core.layers.sizes import missing
from geoml_cli.core.layers.swin import SwinMaps, shape_of

time = "folded"
MERGED = (0, 2, 1, 3)  # neighbours of a merged patch: rows first here, columns first in mmseg's


def build(
    in_channels: int,
    *,
    size: str = "tiny",
    width: int | None = None,
    depths: str | None = None,
    heads: str | None = None,
    patch: int = 4,
    window: int = 7,
    drop_path: float = 0.1,
) -> nn.Module:
    """Build `size` tiny, small, base or large, or of the `width`, `depths` and `heads` given (2-2-6-2)."""
    try:
        from transformers import SwinConfig, SwinModel
    except ImportError:
        raise missing("swin") from None
    wide, deep, many = shape_of(size, width, depths, heads)
    config = SwinConfig(
        num_channels=in_channels,
        embed_dim=wide,
        depths=deep,
        num_heads=many,
        patch_size=patch,
        window_size=window,
        drop_path_rate=drop_path,
        image_size=window * patch * 2 ** len(deep),
    )
    return SwinMaps(SwinModel(config, add_pooling_layer=False), wide, len(deep), patch)


def rename(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Keys of the mmsegmentation layout, with or without `backbone.`; merging weights in our order."""
    found: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        key = key.removeprefix("module.").removeprefix("backbone.")
        if "relative_position_index" in key or not key.startswith(("patch_embed.", "stages.")):
            continue
        if key.startswith("patch_embed."):
            tail = key.removeprefix("patch_embed.")
            tail = tail if tail.startswith("norm") else f"patch_embeddings.{tail}"
            found[f"model.embeddings.{tail}"] = value
            continue
        _, stage, tail = key.split(".", 2)
        if tail.startswith("norm"):
            found[f"norms.{stage}.{tail.removeprefix('norm.')}"] = value
        elif tail.startswith("downsample"):
            found[f"model.encoder.layers.{stage}.{tail}"] = _merged(value)
        else:
            _, block, name = tail.split(".", 2)
            found |= _block(f"model.encoder.layers.{stage}.blocks.{block}", name, value)
    return found


def _block(where: str, name: str, value: torch.Tensor) -> dict[str, torch.Tensor]:
    """One tensor of a block: joined queries, keys and values are taken apart."""
    if name.startswith("attn.w_msa.qkv."):
        end = name.rpartition(".")[2]
        parts = zip("qkv", value.chunk(3), strict=True)
        return {f"{where}.attention.{one}_proj.{end}": part.contiguous() for one, part in parts}
    names = {
        "attn.w_msa.proj": "attention.o_proj",
        "attn.w_msa.relative_position_bias_table": "attention.relative_position_bias.relative_position_bias_table",
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "ffn.layers.0.0": "mlp.fc1",
        "ffn.layers.1": "mlp.fc2",
    }
    for theirs, ours in names.items():
        if name == theirs or name.startswith(f"{theirs}."):
            return {f"{where}.{ours}{name.removeprefix(theirs)}": value}
    return {f"{where}.{name}": value}


def _merged(value: torch.Tensor) -> torch.Tensor:
    """A tensor over (channel, neighbour) to one over (neighbour, channel), in our order of neighbours."""
    apart = value.unflatten(-1, (-1, 4))[..., list(MERGED)]
    return apart.transpose(-1, -2).flatten(-2).contiguous()
