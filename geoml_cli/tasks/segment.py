"""Give every pixel one of several classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Segment:
    """Defaults of the task, and how outputs become a map."""

    head: str = "unet"
    objective: str = "cross-entropy"
    metric: str = "segmentation"
    target: str = "labels"  # the arrays of a tile set that are learnt from
    artifact: str = "classes"

    def outputs(self, classes: int) -> int:
        """Channels that the head is to give."""
        return classes

    def watch(self, scores: Mapping[str, Any]) -> float:
        """The number that early stopping watches; larger is better."""
        return float(scores["miou"])

    def spread(self, outputs: torch.Tensor) -> torch.Tensor:
        """Outputs (B, K, H, W) to probabilities, which ensembles and overlaps average."""
        return outputs.softmax(dim=1)

    def decode(self, spread: torch.Tensor) -> torch.Tensor:
        """Probabilities (B, K, H, W) to class ids (B, H, W) uint8; the first of equals wins."""
        return spread.argmax(dim=1).byte()


def build() -> Segment:
    """Build the task."""
    return Segment()
