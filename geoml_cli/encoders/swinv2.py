"""Swin transformer, version 2: scaled cosine attention, positions of any window size.

Source: Liu et al. 2022 (CVPR), with transformers.
"""

from typing import Any

import torch
from torch import nn

from geoml_cli.core.layers.sizes import missing
from geoml_cli.core.layers.swin import SwinMaps, renamed, shape_of

time = "folded"


def build(
    in_channels: int,
    *,
    size: str = "tiny",
    width: int | None = None,
    depths: str | None = None,
    heads: str | None = None,
    patch: int = 4,
    window: int = 8,
    drop_path: float = 0.1,
) -> nn.Module:
    """Build `size` tiny, small, base or large, or of the `width`, `depths` and `heads` given (2-2-6-2)."""
    try:
        from transformers import Swinv2Config, Swinv2Model
    except ImportError:
        raise missing("swinv2") from None
    wide, deep, many = shape_of(size, width, depths, heads)
    config = Swinv2Config(
        num_channels=in_channels,
        embed_dim=wide,
        depths=deep,
        num_heads=many,
        patch_size=patch,
        window_size=window,
        drop_path_rate=drop_path,
        # windows shrink to the map of an image of this size: none does
        image_size=window * patch * 2 ** len(deep),
    )
    return SwinMaps(Swinv2Model(config, add_pooling_layer=False), wide, len(deep), patch)


def rename(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Keys of Microsoft's layout; norms of the finer maps are not in it."""
    return renamed(state)


def adapt(state: dict[str, torch.Tensor], encoder: Any) -> dict[str, torch.Tensor]:
    """Norms of the finer maps, which such checkpoints do not have, begin as they are made."""
    return {k: v for k, v in encoder.state_dict().items() if k.startswith("norms.")} | state
