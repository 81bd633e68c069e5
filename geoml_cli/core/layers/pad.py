"""Images made to fit what an encoder divides them by."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import pad


def fitted(x: torch.Tensor, multiple: int) -> torch.Tensor:
    """An image (B, C, H, W) with its lower and right rim repeated up to whole multiples of `multiple` px."""
    h, w = x.shape[-2:]
    more = (0, -w % multiple, 0, -h % multiple)
    return pad(x, more, mode="replicate") if any(more) else x


def cropped(
    maps: Sequence[torch.Tensor], size: Sequence[int], strides: Sequence[int]
) -> list[torch.Tensor]:
    """Maps of a padded image without what lies wholly outside: ceil(H / stride) x ceil(W / stride)."""
    return [
        one[..., : -(-size[0] // s), : -(-size[1] // s)]
        for one, s in zip(maps, strides, strict=True)
    ]


class Fitted(nn.Module):
    """`fitted` as a step of a network; it remembers the size (H, W) of what it gave last."""

    def __init__(self, multiple: int) -> None:
        super().__init__()
        self.multiple, self.size = multiple, (0, 0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, C, H', W')."""
        x = fitted(x, self.multiple)
        self.size = (x.shape[-2], x.shape[-1])
        return x

    @property
    def grid(self) -> tuple[int, int]:
        """Patches across the last image: rows, columns."""
        return self.size[0] // self.multiple, self.size[1] // self.multiple
