"""Lovasz loss: the convex extension of 1 - IoU over the labels of the batch.

Source: Berman, Triki, Blaschko 2018. Softmax form, mean over the classes in the batch, for one
of several classes; hinge form for a single output of two classes and for what is present.
"""

import torch
from torch import nn

from geoml_cli.core.batch import Batch
from geoml_cli.core.targets import are_classes, chances, known, share_of

TARGETS = ("classes", "present")


def extension(errors: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Lovasz extension of the Jaccard loss at errors (n,) >= 0, truth (n,) 0 or 1."""
    errors, order = errors.sort(descending=True)
    truth = truth[order]
    left = truth.sum() - truth.cumsum(0)  # of the class, not yet wrong
    either = truth.sum() + (1 - truth).cumsum(0)
    jaccard = 1 - left / either
    return (errors * torch.diff(jaccard, prepend=jaccard.new_zeros(1))).sum()


class Lovasz(nn.Module):
    """Mean of the extension over classes or outputs; weights of classes do not enter."""

    def forward(self, model: nn.Module, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        """Loss of one (part of a) batch, in proportion to its share of the labelled weight."""
        outputs = model(batch).float()
        hinge = outputs.shape[1] == 1 or not are_classes(batch)
        p, t = chances(outputs, batch)
        seen = known(batch)[1] > 0
        seen = (seen[:, None] if are_classes(batch) else seen).expand_as(p)
        found = []
        for k in range(p.shape[1]):
            mine, truth = seen[:, k], t[:, k][seen[:, k]]
            if not len(truth) or not (hinge or truth.any()):
                continue
            if hinge:
                errors = (1 - outputs[:, k][mine] * (2 * truth - 1)).relu()
            else:
                errors = (truth - p[:, k][mine]).abs()
            found.append(extension(errors, truth))
        if not found:
            return {"loss": outputs.sum() * 0}
        return {"loss": share_of(batch) * torch.stack(found).mean()}


def build() -> nn.Module:
    """Build the objective."""
    return Lovasz()
