"""Outputs and targets of any kind put side by side: logits, probabilities, errors, their weights.

Targets come as class ids (B, *S), as 0 and 1 of what is present (B, K, *S) or as values
(B, K, *S). Where the weight is 0 a target may be anything, NaN too: it is replaced before any
arithmetic, so that neither the loss nor a gradient ever meets it.
"""

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, one_hot

from geoml_cli.core.batch import Batch

TINY = 1e-12  # keeps a share of nothing finite


def known(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Target with 0 where nothing is to be learnt, and the weight, of one shape."""
    assert batch.target is not None and batch.weight is not None
    return torch.where(batch.weight > 0, batch.target, 0), batch.weight


def are_classes(batch: Batch) -> bool:
    """Whether the target is class ids."""
    assert batch.target is not None
    return not batch.target.is_floating_point()


def full(outputs: torch.Tensor) -> torch.Tensor:
    """Outputs in float32, or in float64 where they are that."""
    return outputs if outputs.dtype == torch.float64 else outputs.float()


def logits_of(outputs: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Logits (B, K, *S); a single one of two classes, z, becomes 0 and z."""
    logits = full(outputs)
    if are_classes(batch) and logits.shape[1] == 1:
        return torch.cat([torch.zeros_like(logits), logits], dim=1)  # softmax(0, z) = sigmoid(z)
    return logits


def crossed(outputs: torch.Tensor, batch: Batch, smoothing: float = 0.0) -> torch.Tensor:
    """Cross-entropy of every label, of the weight's shape; a share `smoothing` goes to all classes alike."""
    logits, (target, _) = logits_of(outputs, batch), known(batch)
    if are_classes(batch):
        return cross_entropy(logits, target, reduction="none", label_smoothing=smoothing)
    soft = target * (1 - smoothing) + smoothing / 2
    return binary_cross_entropy_with_logits(logits, soft, reduction="none")


def chances(outputs: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities and truth (B, K, *S), both 0 where nothing is to be learnt.

    K = 1 of two classes is the second; the truth of classes is one-hot.
    """
    target, weight = known(batch)
    seen = weight > 0
    if not are_classes(batch):
        return full(outputs).sigmoid() * seen, target * seen
    seen = seen[:, None]
    if outputs.shape[1] == 1:
        return full(outputs).sigmoid() * seen, target[:, None].float() * seen
    truth = one_hot(target, outputs.shape[1]).movedim(-1, 1)
    return full(outputs).softmax(dim=1) * seen, truth.float() * seen


def errors(outputs: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Output less value (B, K, *S); 0 where nothing is to be learnt."""
    target, weight = known(batch)
    return torch.where(weight > 0, full(outputs) - target, 0.0)


def mean_of(each: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Weighted sum over the labels of a part, by the total of the whole: parts add up."""
    assert batch.weight is not None
    return (each * batch.weight).sum() / max(batch.total, TINY)


def share_of(batch: Batch) -> torch.Tensor:
    """Share of a part in the labels of the whole: what a value that is no sum counts by."""
    assert batch.weight is not None
    return batch.weight.sum() / max(batch.total, TINY)
