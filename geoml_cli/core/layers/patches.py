"""Statistics of what is valid in square patches."""

from collections.abc import Sequence

import torch
from torch.nn.functional import pad

FAR = torch.finfo(torch.float32).max


def patched(x: torch.Tensor, size: int) -> torch.Tensor:
    """(..., H, W) to (..., ceil(H / size), ceil(W / size), size * size); zeros beyond the rim."""
    h, w = x.shape[-2:]
    x = pad(x, (0, -w % size, 0, -h % size))
    x = x.unflatten(-1, (-1, size)).unflatten(-3, (-1, size))  # (..., h, p, w, p)
    return x.movedim(-3, -2).flatten(-2)


def statistics(x: torch.Tensor, valid: torch.Tensor, kinds: Sequence[str]) -> torch.Tensor:
    """Statistics (..., K) along the last axis of x, where valid; 0 where nothing is.

    kinds: mean, std (of the population), min, max.
    """
    weight = valid.to(x.dtype)
    count = weight.sum(-1).clamp(min=1)
    mean = (x * weight).sum(-1) / count
    some = valid.any(-1)
    found = []
    for kind in kinds:
        if kind == "mean":
            one = mean
        elif kind == "std":
            one = (((x - mean[..., None]) ** 2 * weight).sum(-1) / count).sqrt()
        elif kind == "min":
            one = torch.where(valid, x, FAR).amin(-1)
        else:
            one = torch.where(valid, x, -FAR).amax(-1)
        found.append(torch.where(some, one, 0.0))
    return torch.stack(found, dim=-1)
