"""Test-time augmentation: answers for turned images, turned back and averaged."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from geoml_cli.core.augment import moved, turn, turn_back
from geoml_cli.core.batch import Batch
from geoml_cli.errors import UsageMistake

KINDS = {  # symmetries, as `turn` counts them; 0 is none
    "none": (0,),
    "flips": (0, 2, 4, 6),
    "dihedral": tuple(range(8)),
}


def averaged(
    spread_of: Callable[[Batch], torch.Tensor], batch: Batch, kind: str = "none"
) -> torch.Tensor:
    """Mean of `spread_of` over symmetries of the images: (B, K, H, W), or (B, K) for a tile's.

    `spread_of` gives what may be averaged: probabilities or values. Labels are left behind.
    """
    if kind not in KINDS:
        raise UsageMistake(f"test-time augmentation {kind!r}: one of {', '.join(KINDS)}")
    bare = replace(batch, target=None, weight=None)
    total: torch.Tensor | None = None
    for k in KINDS[kind]:
        out = spread_of(moved(bare, partial(turn, k=k)))
        out = turn_back(out, k) if out.ndim == 4 else out
        total = out if total is None else total + out
    assert total is not None
    return total / len(KINDS[kind])
