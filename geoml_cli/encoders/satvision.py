"""SatVision-TOA: SwinV2 with extra norms, pretrained on MODIS by filling in what is hidden.

Source: Spradlin et al. 2024 (arXiv:2411.17000). Code and weights of the authors: Apache-2.0. Equal to their modules to
float noise.
"""

from typing import Any

import torch
from torch import nn

from geoml_cli.core.layers.sizes import missing, numbers, size_called
from geoml_cli.core.layers.swin import SwinMaps, renamed
from geoml_cli.errors import UsageMistake

time = "folded"
DECODER = "pixel-shuffle"  # the head that SimMIM decodes with
SIZES = {  # width, depths, heads
    "tiny": (96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "huge": (352, (2, 2, 18, 2), (4, 8, 16, 32)),
    "giant": (512, (2, 2, 42, 2), (16, 32, 64, 128)),
}
BANDS = 14  # MODIS 1 2 3 6 7 21 26 27 28 29 30 31 32 33, or bands of ABI like them
WARM = (5, 7, 8, 9, 10, 11, 12, 13)  # those that are temperatures
RANGES = {  # of these temperatures in K, as the authors bring them to 0..1
    "modis": (
        (223.1222, 178.9174, 204.3739, 204.7677, 194.8686, 202.1759, 201.3823, 203.3537),
        (352.7182, 261.2920, 282.5529, 319.0373, 295.0209, 324.0677, 321.5254, 285.9848),
    ),
    "abi": (
        (117.04327, 152.00592, 157.96591, 176.15349, 210.60493, 210.52264, 218.10147, 225.9894),
        (221.07022, 224.44113, 242.3326, 307.42004, 290.8879, 343.72617, 345.72894, 323.5239),
    ),
}


class SatVision(SwinMaps):
    """(B, C, H, W) -> maps at strides p, 2p, 4p, 8p; a token of its own stands for what is hidden."""

    hides = True

    def __init__(self, model: Any, width: int, stages: int, patch: int, normed: bool, every: int) -> None:  # fmt: skip
        super().__init__(model, width, stages, patch, normed)
        for channels, stage in zip(self.channels, model.encoder.layers, strict=True):
            for i, block in enumerate(stage.blocks if every else ()):
                if (i + 1) % every == 0:
                    block.norm3 = nn.LayerNorm(channels)


def build(
    in_channels: int,
    *,
    size: str = "giant",
    width: int | None = None,
    depths: str | None = None,
    heads: str | None = None,
    patch: int = 4,
    window: int = 8,
    image: int = 128,
    norms: int = 6,
    normed: bool = True,
    scaling: str = "",
    percent: bool = False,
    drop_path: float = 0.0,
) -> nn.Module:
    """Build `size` tiny, huge or giant, or of the `width`, `depths` and `heads` given (2-2-6-2).

    Every `norms`-th block of a stage ends in an extra norm, as in pretraining; 0 is without, as the authors' own downstream models
    are. Windows are no larger than the maps of an image of `image` px. Maps are `normed`, each by a norm of its own.
    `scaling` modis or abi: the 14 bands are standardised as in pretraining, reflectances being shares, or `percent`, and the others K.
    """
    scales(BANDS if in_channels % BANDS == 0 else in_channels, scaling=scaling, percent=percent)
    try:
        from transformers import Swinv2Config, Swinv2Model
    except ImportError:
        raise missing("satvision") from None
    usual = size_called(size, SIZES)
    wide, deep = width or usual[0], numbers(depths, "depths") if depths else usual[1]
    many = numbers(heads, "heads") if heads else usual[2]
    if len(deep) != len(many) or any(wide * 2**i % h for i, h in enumerate(many)) or norms < 0:
        raise UsageMistake(f"satvision:width={wide},depths={depths},heads={heads},norms={norms}: heads of every stage divide its width")  # fmt: skip
    config = Swinv2Config(
        num_channels=in_channels,
        embed_dim=wide,
        depths=list(deep),
        num_heads=list(many),
        patch_size=patch,
        window_size=window,
        drop_path_rate=drop_path,
        image_size=image,
    )
    model = Swinv2Model(config, add_pooling_layer=False, use_mask_token=True)
    return SatVision(model, wide, len(deep), patch, normed, norms)


def scales(
    bands: int, *, scaling: str = "", percent: bool = False, **others: Any
) -> tuple[list[float], list[float]] | None:
    """What is taken from every band, and what it is then divided by, for options of the encoder; None: as the data say."""
    if not scaling:
        return None
    if scaling not in RANGES or bands != BANDS:
        raise UsageMistake(f"satvision:scaling={scaling}: one of {', '.join(RANGES)}, of {BANDS} bands, not {bands}")  # fmt: skip
    low, span = [0.0] * BANDS, [100.0 if percent else 1.0] * BANDS
    for i, least, most in zip(WARM, *RANGES[scaling], strict=True):
        low[i], span[i] = least, most - least
    return low, span


def rename(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Keys of the authors' checkpoints: a pretrained encoder and its decoder, or an encoder alone."""
    mine = {k.removeprefix("encoder."): v for k, v in state.items() if k.startswith("encoder.")}
    return renamed(mine or state)


def adapt(state: dict[str, torch.Tensor], encoder: Any) -> dict[str, torch.Tensor]:
    """Norms of the finer maps, which nobody pretrained, begin as made; norms that this encoder does without are left out."""
    own = encoder.state_dict()
    own_norms = {k: v for k, v in own.items() if k.startswith("norms.")}
    kept = {
        k: v for k, v in state.items() if k in own or not (".norm3." in k or k.startswith("norms."))
    }
    more = {k: v for k, v in own.items() if k.endswith(".mask_token")}
    return own_norms | more | kept
