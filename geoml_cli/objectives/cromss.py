"""Noisy labels learnt by two sensors, each believing those that both find likely.

Source: Liu, Albrecht, Wang, Zhu 2024 (CromSS). Every sensor learns the labels that it and the
other are confident of, and what the other says where that one is sure of itself. At first all
labels count; the choice is made stricter over `epochs`. Of the authors' prior for smoothing only
the spatial part is here: it needs no labels of other seasons.
"""

import math

import torch
from torch import nn
from torch.nn.functional import one_hot

from geoml_cli.core.batch import Batch
from geoml_cli.core.targets import TINY, known, logits_of, share_of
from geoml_cli.errors import GeomlError

TARGETS = ("classes",)
SIGMA, TRUNCATE = 3.0, 4.0  # pixels of the Gaussian, and its reach in sigmas


def smoother(n: int) -> torch.Tensor:
    """Gaussian filter along n pixels as a matrix (n, n); beyond the ends they come again in reverse."""
    radius = int(TRUNCATE * SIGMA + 0.5)
    steps = torch.arange(-radius, radius + 1)
    weights = torch.exp(-0.5 * (steps.double() / SIGMA) ** 2)
    at = (torch.arange(n)[:, None] + steps) % (2 * n)
    at = torch.minimum(at, 2 * n - 1 - at)
    rows = (weights / weights.sum()).expand(n, -1)
    return torch.zeros(n, n, dtype=torch.float64).scatter_add_(1, at, rows).float()


def spatial_prior(truth: torch.Tensor) -> torch.Tensor:
    """Frequency of the classes among the labels around (B, K, *S), of one-hot truth; even where none is."""
    if truth.ndim == 2:  # a label of a tile has no surroundings
        return torch.full_like(truth, 1 / truth.shape[1])
    height, width = (smoother(n).to(truth.device) for n in truth.shape[-2:])
    with torch.autocast(truth.device.type, enabled=False):  # products would be rounded to bfloat16
        near = height @ truth @ width.T
    total = near.sum(1, keepdim=True)
    return torch.where(total > TINY, near / total.clamp(min=TINY), 1 / truth.shape[1])


def refined(own: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Confidence of one sensor, less where the other has none."""
    return (own + own * other) / 2


def certainty(p: torch.Tensor) -> torch.Tensor:
    """1 - entropy / log K of probabilities (B, K, *S), (B, *S)."""
    return 1 + torch.special.xlogy(p, p).sum(1) / math.log(p.shape[1])


def label_mask(
    confidence: torch.Tensor, target: torch.Tensor, seen: torch.Tensor, keep: float
) -> torch.Tensor:
    """Weights (B, *S) 0..1: 1 for the share `keep` of each class that is most confident, then less."""
    mask = seen.to(confidence.dtype)
    for k in target[seen].unique().tolist():
        mine = seen & (target == k)
        values = confidence[mine]
        place = len(values) - max(int(keep * len(values)), 1) + 1
        least = values.kthvalue(place).values
        mask[mine] = torch.where(least > 0, (values / least.clamp(min=TINY)).clamp(0, 1), 1.0)
    return mask


def weighted_mean(each: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Mean of what is (B, *S), 0 where nothing weighs."""
    return (each * weight).sum() / weight.sum().clamp(min=TINY)


def entropy(logits: torch.Tensor, soft: torch.Tensor) -> torch.Tensor:
    """Cross-entropy (B, *S) of logits against probabilities (B, K, *S)."""
    return -(soft * logits.log_softmax(dim=1)).sum(1)


def dice(logits: torch.Tensor, soft: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """1 - 2 sum(w p t) / sum(w (p + t)), mean over all classes."""
    p, w = logits.softmax(dim=1), weight[:, None]
    dims = [d for d in range(p.ndim) if d != 1]
    return (1 - 2 * (w * p * soft).sum(dims) / (w * (p + soft)).sum(dims).clamp(min=TINY)).mean()


class CromSS(nn.Module):
    """Cross-entropy and Dice of every sensor on chosen labels, and cross-entropy between the two."""

    def __init__(self, prior: float, uniform: float, keep: float, epochs: int) -> None:
        super().__init__()
        self.prior, self.uniform, self.keep, self.asked = prior, uniform, keep, epochs
        self.ramp, self.an_epoch = float(epochs), 1

    def plan(self, steps: int, steps_an_epoch: int) -> None:
        """Count steps in epochs; the choice is at its strictest when a shorter run ends."""
        self.an_epoch = max(1, steps_an_epoch)
        self.ramp = min(self.asked, steps / self.an_epoch)

    def strictness(self, step: int) -> float:
        """From nearly 0 to 1: exp(-5 (1 - epoch / epochs)^2)."""
        left = 1 - (step // self.an_epoch) / max(self.ramp, 1)
        return math.exp(-5 * max(left, 0.0) ** 2)

    def smoothed(self, truth: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
        """One-hot truth (B, K, *S) with shares of the prior and of all classes alike."""
        own = 1 - self.prior - self.uniform
        return own * truth + self.prior * prior + self.uniform / truth.shape[1]

    @torch.no_grad()
    def masks(
        self, logits: list[torch.Tensor], target: torch.Tensor, seen: torch.Tensor, step: int
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """How far (B, *S) 0..1 each sensor believes the labels, and how far each is to be believed."""
        strict = self.strictness(step)
        ps = [one.softmax(dim=1) for one in logits]
        own = [p.gather(1, target[:, None])[:, 0] for p in ps]
        sure = [certainty(p) for p in ps]
        keep = 1 - strict * (1 - self.keep)
        labels = [label_mask(refined(own[i], own[1 - i]), target, seen, keep) for i in (0, 1)]
        said = [1 - strict + strict * refined(sure[i], sure[1 - i]) for i in (0, 1)]
        return labels, [one * seen for one in said]

    def loss(
        self,
        logits: list[torch.Tensor],
        soft: torch.Tensor,
        labels: list[torch.Tensor],
        said: list[torch.Tensor],
    ) -> torch.Tensor:
        """Loss of logits (B, K, *S) twice against smoothed labels, weighed by masks (B, *S)."""
        total = logits[0].new_zeros(())
        for i in (0, 1):
            other = logits[1 - i].detach().softmax(dim=1)
            total = total + weighted_mean(entropy(logits[i], soft), labels[i])
            total = total + dice(logits[i], soft, labels[i])
            total = total + weighted_mean(entropy(logits[i], other), said[1 - i])
        return total

    def forward(self, model: nn.Module, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        """Loss of one (part of a) batch, in proportion to its share of the labelled weight."""
        outputs = model(batch, each=True)
        if len(outputs) != 2:
            raise GeomlError(f"objective cromss compares two sensors; here is {len(outputs)}")
        logits = [logits_of(one, batch) for one in outputs]
        target, weight = known(batch)
        seen = weight > 0
        truth = one_hot(target, logits[0].shape[1]).movedim(-1, 1).float()
        soft = self.smoothed(truth, spatial_prior(truth * seen[:, None]))
        labels, said = self.masks(logits, target, seen, step)
        labels = [one * weight for one in labels]
        return {"loss": share_of(batch) * self.loss(logits, soft, labels, said)}


def build(
    *, prior: float = 0.15, uniform: float = 0.05, keep: float = 0.5, epochs: int = 80
) -> nn.Module:
    """Build; `prior` and `uniform` smooth the labels, `keep` of them are believed after `epochs`."""
    return CromSS(prior, uniform, keep, epochs)
