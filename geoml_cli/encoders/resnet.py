"""Residual network of 18, 34, 50 or 101 layers, with torchvision's key names.

Source: He, Zhang, Ren, Sun 2016 (CVPR); halving in the 3 x 3 convolution of a bottleneck.
"""

import torch
from torch import nn

from geoml_cli.core.layers.block import norm_of
from geoml_cli.errors import UsageMistake

time = "folded"
LAYERS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
STEMS = ("imagenet", "small")


def conv(channels: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """Convolution without bias that keeps the size but for its stride."""
    pad = dilation * (kernel // 2)
    return nn.Conv2d(channels, outputs, kernel, stride, pad, dilation, bias=False)


class Basic(nn.Module):
    """Two 3 x 3 convolutions beside the input."""

    widen = 1

    def __init__(self, channels: int, width: int, stride: int, dilation: int, norm: str) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(channels, width, 3, stride, dilation), norm_of(norm, width)
        self.conv2, self.bn2 = conv(width, width, 3, 1, dilation), norm_of(norm, width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = beside(channels, width, stride, norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, width, H / stride, W / stride)."""
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """A 3 x 3 convolution between two 1 x 1, beside the input."""

    widen = 4

    def __init__(self, channels: int, width: int, stride: int, dilation: int, norm: str) -> None:
        super().__init__()
        outputs = 4 * width
        self.conv1, self.bn1 = conv(channels, width, 1), norm_of(norm, width)
        self.conv2, self.bn2 = conv(width, width, 3, stride, dilation), norm_of(norm, width)
        self.conv3, self.bn3 = conv(width, outputs, 1), norm_of(norm, outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = beside(channels, outputs, stride, norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, 4 width, H / stride, W / stride)."""
        y = self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))))
        y = self.bn3(self.conv3(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


def beside(channels: int, outputs: int, stride: int, norm: str) -> nn.Sequential | None:
    """What fits the input of a block to its output; None where it does already."""
    if stride == 1 and channels == outputs:
        return None
    return nn.Sequential(conv(channels, outputs, 1, stride), norm_of(norm, outputs))


class ResNet(nn.Module):
    """(B, C, H, W) -> the maps of the four stages, fine to coarse."""

    def __init__(self, in_channels: int, depth: int, norm: str, stem: str, stride: int) -> None:
        super().__init__()
        kind = Basic if depth < 50 else Bottleneck
        large = stem == "imagenet"
        self.conv1 = conv(in_channels, 64, 7, 2) if large else conv(in_channels, 64, 3)
        self.bn1, self.relu = norm_of(norm, 64), nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if large else nn.Identity()
        at = 4 if large else 1
        self.strides: list[int] = []
        self.channels: list[int] = []
        most, channels = stride if large else max(stride // 4, 1), 64
        for i, count in enumerate(LAYERS[depth]):
            step, dilation = (2 if i else 1), 1
            if at * step > most:  # the field grows by dilation instead
                step, dilation = 1, 2 ** (i - len(set(self.strides)) + 1)
            at *= step
            blocks = []
            for k in range(count):
                before = dilation if k or step > 1 or dilation == 1 else max(dilation // 2, 1)
                blocks.append(kind(channels, 64 * 2**i, step if k == 0 else 1, before, norm))
                channels = 64 * 2**i * kind.widen
            setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
            self.strides.append(at)
            self.channels.append(channels)
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        for part in self.modules():
            if isinstance(part, (Basic, Bottleneck)):  # each block begins as its input (Goyal 2017)
                last = part.bn2 if isinstance(part, Basic) else part.bn3
                nn.init.zeros_(last.weight)  # type: ignore[arg-type]

    def by_depth(self) -> list[nn.Module]:
        """Stem, then every block, from input to output."""
        stem = nn.ModuleList([self.conv1, self.bn1])
        return [stem, *(block for i in range(1, 5) for block in getattr(self, f"layer{i}"))]

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Maps c2 to c5."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        maps = []
        for i in range(1, 5):
            x = getattr(self, f"layer{i}")(x)
            maps.append(x)
        return maps


def build(
    in_channels: int,
    *,
    depth: int = 18,
    norm: str = "batch",
    stem: str = "imagenet",
    stride: int = 32,
) -> nn.Module:
    """Build of `depth` 18, 34, 50 or 101 layers.

    `stem=small` is a 3 x 3 convolution that keeps the resolution, for small tiles: strides 1 to 8
    instead of 4 to 32. `stride` 16 or 8 holds the coarsest maps there, by dilation.
    """
    if depth not in LAYERS:
        raise UsageMistake(f"resnet:depth={depth}: one of {', '.join(map(str, LAYERS))}")
    if stem not in STEMS:
        raise UsageMistake(f"resnet:stem={stem}: one of {', '.join(STEMS)}")
    if stride not in (8, 16, 32):
        raise UsageMistake(f"resnet:stride={stride}: 8, 16 or 32")
    return ResNet(in_channels, depth, norm, stem, stride)


def rename(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Keys with a prefix of their own (module., encoder., backbone., en.resnet.); the classifier is left out."""
    prefixes = ("module.", "encoder.", "backbone.", "resnet.", "en.resnet.")
    ours = ("conv1.", "bn1.", "layer1.", "layer2.", "layer3.", "layer4.")
    found = {}
    for key, value in state.items():
        while (prefix := next((p for p in prefixes if key.startswith(p)), None)) is not None:
            key = key.removeprefix(prefix)
        if key.startswith(ours):
            found[key] = value
    return found
