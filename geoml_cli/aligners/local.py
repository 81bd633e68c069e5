"""Smooth field over tie points on a grid, those that are unlike their neighbours left out."""

import torch

from geoml_cli import registry
from geoml_cli.core.alignment import Estimate
from geoml_cli.core.tying import agreed_on, lay, reader, tie


def estimate(
    reference: torch.Tensor,
    moving: torch.Tensor,
    valid: torch.Tensor,
    *,
    by: str = "phase",
    of: str = "values",
    window: int = 64,
    step: int = 40,
    reach: float = 32.0,
    model: str = "field",
) -> Estimate:
    """Find the field of a moving image (H, W); `valid` (2, H, W) is of the reference and of the moving image.

    `by` is the aligner of each window of `window` px, one every `step` px; what it compares is `of`. `model` is
    field, or the one transform that most windows agree on: shift, similarity, affine, projective.
    """
    spec = f"{by}:of={of}" if by == "phase" else by
    start = registry.make("aligners", f"phase:of={of},reach={reach}", reference, moving, valid)
    height, width = reference.shape
    side = min(window, height, width)
    near = min(reach, side / 4)
    joint = "," if ":" in spec else ":"
    pair = [one.cpu().numpy() for one in (reference, moving)]
    seen = [one.cpu().numpy() for one in valid]
    corners = lay(height, width, side, step)
    ties = tie(
        reader(pair[0], pair[1], seen),
        corners,
        side,
        f"{spec}{joint}reach={near}",
        start.matrix,
        reference.device,
    )
    share = min(1.0, (step / side) ** 2)
    found = agreed_on(ties, model, (height, width), near, share, step)
    return found or start
