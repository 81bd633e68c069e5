"""Foreground-scene relation (FarSeg): levels of a pyramid weighed by what the scene is.

Source: Zheng et al. 2020 (FarSeg, CVPR), section 3.1-3.3. The scene is a mean over the whole map:
there is no finite receptive field.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import interpolate

from geoml_cli.core.layers.block import norm_of
from geoml_cli.core.layers.fpn import FPN, Rise

MINE = ("fpn.", "sr.", "decoder.", "cls_pred_conv.")


class SceneRelation(nn.Module):
    """Pyramid levels times how well each pixel's content agrees with the scene, 0..1."""

    def __init__(self, scene: int, width: int, levels: int, norm: str) -> None:
        super().__init__()
        self.scene_encoder = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(scene, width, 1), nn.ReLU(inplace=True), nn.Conv2d(width, width, 1)
            )
            for _ in range(levels)
        )
        self.content_encoders = nn.ModuleList(_pointwise(width, norm) for _ in range(levels))
        self.feature_reencoders = nn.ModuleList(_pointwise(width, norm) for _ in range(levels))

    def forward(self, scene: torch.Tensor, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """scene (B, C, 1, 1), levels (B, width, h, w) -> levels of the same shapes."""
        parts = zip(
            self.scene_encoder, self.content_encoders, self.feature_reencoders, maps, strict=True
        )
        return [
            torch.sigmoid((of_scene(scene) * of_content(x)).sum(1, keepdim=True)) * again(x)
            for of_scene, of_content, again, x in parts
        ]


def _pointwise(width: int, norm: str) -> nn.Sequential:
    """1 x 1 convolution with bias, norm, ReLU."""
    return nn.Sequential(nn.Conv2d(width, width, 1), norm_of(norm, width), nn.ReLU(inplace=True))


class FarSegHead(nn.Module):
    """Maps fine to coarse -> (B, outputs, H, W), the finest map times its stride."""

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        outputs: int,
        sizes: tuple[int, int],
        norm: str,
    ) -> None:
        super().__init__()
        width, decoded = sizes
        self.stride = strides[0]
        self.fpn = FPN(channels, width)
        self.sr = SceneRelation(channels[-1], width, len(channels), norm)
        self.decoder = Rise(width, decoded, strides, norm, corners=True)
        self.cls_pred_conv = nn.Conv2d(decoded, outputs, 1)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Pyramid, relation to the scene, mean of the levels at the finest, outputs."""
        scene = maps[-1].mean((2, 3), keepdim=True)
        levels = self.sr(scene, self.fpn(maps))
        x = self.cls_pred_conv(self.decoder(levels) / len(levels))
        if self.stride == 1:
            return x
        return interpolate(x, scale_factor=self.stride, mode="bilinear", align_corners=True)


def rename(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The authors' checkpoint (`module.` before every key, the encoder's within) to this head's."""
    plain = {key.removeprefix("module."): value for key, value in state.items()}
    return {key: value for key, value in plain.items() if key.startswith(MINE)}


def build(
    channels: Sequence[int],
    strides: Sequence[int],
    outputs: int,
    *,
    width: int = 256,
    decoded: int = 128,
    norm: str = "batch",
) -> nn.Module:
    """Build with `width` channels a pyramid level and `decoded` after; norm batch or group."""
    return FarSegHead(channels, strides, outputs, (width, decoded), norm)
