"""ConvNeXt: depthwise 7 x 7 convolutions in the shape of a transformer.

Source: Liu et al. 2022 (CVPR), with transformers.
"""

import re
from typing import Any

import torch
from torch import nn

from geoml_cli.core.layers.pad import cropped, fitted
from geoml_cli.core.layers.sizes import missing, numbers, size_called

time = "folded"
SIZES = {  # depths, widths
    "tiny": ((3, 3, 9, 3), (96, 192, 384, 768)),
    "small": ((3, 3, 27, 3), (96, 192, 384, 768)),
    "base": ((3, 3, 27, 3), (128, 256, 512, 1024)),
    "large": ((3, 3, 27, 3), (192, 384, 768, 1536)),
}


class ConvNextMaps(nn.Module):
    """(B, C, H, W) -> maps at strides p, 2p, 4p, 8p, each with a norm over its channels."""

    def __init__(self, model: nn.Module, widths: list[int], patch: int) -> None:
        super().__init__()
        model.layernorm = nn.Identity()
        self.model: Any = model
        self.channels, self.strides = widths, [patch * 2**i for i in range(len(widths))]
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-6) for width in widths)

    def by_depth(self) -> list[nn.Module]:
        """Stem, halvings and layers, and the norms, from input to output."""
        found: list[nn.Module] = [self.model.embeddings]
        for stage in self.model.encoder.stages:
            found += [stage.downsampling_layer, *stage.layers]
        return [*found, self.norms]

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Maps fine to coarse."""
        y = self.model.embeddings(fitted(x, self.strides[-1]))
        maps = []
        for stage, norm in zip(self.model.encoder.stages, self.norms, strict=True):
            y = stage(y)
            maps.append(norm(y.movedim(1, -1)).movedim(-1, 1))
        return cropped(maps, x.shape[-2:], self.strides)


def build(
    in_channels: int,
    *,
    size: str = "tiny",
    depths: str | None = None,
    widths: str | None = None,
    patch: int = 4,
    drop_path: float = 0.1,
) -> nn.Module:
    """Build `size` tiny, small, base or large, or of the `depths` and `widths` given (3-3-9-3)."""
    try:
        from transformers import ConvNextConfig, ConvNextModel
    except ImportError:
        raise missing("convnext") from None
    usual = size_called(size, SIZES)
    deep = list(numbers(depths, "depths") if depths else usual[0])
    wide = list(numbers(widths, "widths") if widths else usual[1])
    config = ConvNextConfig(
        num_channels=in_channels,
        depths=deep,
        hidden_sizes=wide,
        num_stages=len(deep),
        patch_size=patch,
        drop_path_rate=drop_path,
    )
    return ConvNextMaps(ConvNextModel(config), wide, patch)


def rename(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Keys of timm's layout; the classifier is left out, norms of the maps are new and left at 1 and 0."""
    rules = [
        (r"^stem\.0\.", "embeddings.patch_embeddings."),
        (r"^stem\.1\.", "embeddings.layernorm."),
        (r"^stages\.(\d+)\.downsample\.", r"encoder.stages.\1.downsampling_layer."),
        (r"^stages\.(\d+)\.blocks\.(\d+)\.conv_dw\.", r"encoder.stages.\1.layers.\2.dwconv."),
        (r"^stages\.(\d+)\.blocks\.(\d+)\.norm\.", r"encoder.stages.\1.layers.\2.layernorm."),
        (r"^stages\.(\d+)\.blocks\.(\d+)\.mlp\.fc(\d)\.", r"encoder.stages.\1.layers.\2.pwconv\3."),
        (r"^stages\.(\d+)\.blocks\.(\d+)\.gamma$", r"encoder.stages.\1.layers.\2.layer_scale_parameter"),
    ]  # fmt: skip
    found: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        key = key.removeprefix("module.").removeprefix("encoder.")
        for theirs, ours in rules:
            if re.match(theirs, key):
                found["model." + re.sub(theirs, ours, key)] = value
    ends = sorted({int(k.split(".")[3]) for k in found if k.startswith("model.encoder.stages.")})
    for i in ends:
        inside = f"model.encoder.stages.{i}.layers.0.layernorm.weight"
        width = len(found[inside])
        found[f"norms.{i}.weight"], found[f"norms.{i}.bias"] = torch.ones(width), torch.zeros(width)
    return found
