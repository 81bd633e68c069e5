"""Cross-entropy that turns into a focal loss of the same size over the run: foreground-aware.

Source: Zheng, Zhong, Wang, Ma 2020 (FarSeg). Where one class is nearly everywhere its easy labels
soon outweigh the rest; at first, though, the probabilities are not worth listening to.
"""

import math

import torch
from torch import nn

from geoml_cli.core.batch import Batch
from geoml_cli.core.targets import TINY, crossed, known, share_of
from geoml_cli.errors import UsageMistake

TARGETS = ("classes", "present")
STEPS = 10_000  # the authors', of 60 000
POWER = 0.9
EASE = {  # share of plain cross-entropy at a share of the annealing, 1 to 0
    "cosine": lambda at: (1 + math.cos(math.pi * at)) / 2,
    "poly": lambda at: (1 - at) ** POWER,
    "linear": lambda at: 1 - at,
}


class FarSeg(nn.Module):
    """Sum of weight * s * -log p over (labels + samples); s goes from 1 to norm * (1 - p)^gamma.

    norm keeps the sum that of plain cross-entropy. s is a weight: no gradient runs through it.
    """

    def __init__(self, fn: str, gamma: float, steps: int | None, norm: bool) -> None:
        super().__init__()
        self.ease, self.gamma, self.norm = EASE[fn], gamma, norm
        self.asked, self.steps = steps, STEPS if steps is None else steps

    def plan(self, steps: int, steps_an_epoch: int) -> None:
        """Anneal over the first half of a run that is shorter than two of the authors' annealings."""
        if self.asked is None:
            self.steps = min(STEPS, steps // 2)

    def scales(self, each: torch.Tensor, weight: torch.Tensor, step: int) -> torch.Tensor:
        """Weight s of every label, given its cross-entropy."""
        focus = (-torch.expm1(-each)) ** self.gamma
        if self.norm:
            focus = focus * (each * weight).sum() / (each * focus * weight).sum().clamp(min=TINY)
        plain = self.ease(step / self.steps) if step < self.steps else 0.0
        return focus + plain * (1 - focus)

    def forward(self, model: nn.Module, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        """Loss of one (part of a) batch, in proportion to its share of the labelled weight."""
        each, (target, weight) = crossed(model(batch), batch), known(batch)
        with torch.no_grad():
            scales = self.scales(each, weight, step)
        size = weight.sum() + len(target)
        return {"loss": share_of(batch) * (each * scales * weight).sum() / size}


def build(
    *, fn: str = "cosine", gamma: float = 2.0, steps: int | None = None, norm: bool = True
) -> nn.Module:
    """Build; `fn` cosine, poly or linear over `steps` (usually 10000, or half of a shorter run)."""
    if fn not in EASE:
        raise UsageMistake(f"farseg:fn={fn}: one of {', '.join(EASE)}")
    return FarSeg(fn, gamma, steps, norm)
