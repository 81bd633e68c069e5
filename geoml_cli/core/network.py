"""Encoder and head put together, with the normalisation inside: physical values in, outputs out."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from geoml_cli import registry
from geoml_cli.core.batch import Batch


class Network(nn.Module):
    """Normalise, fold time, encode, decode; outputs (B, K, H, W)."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, encoder: nn.Module, head: nn.Module, bands: int) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head
        self.register_buffer("mean", torch.zeros(bands))
        self.register_buffer("std", torch.ones(bands))

    @property
    def stride(self) -> int:
        """Pixels between the coarsest features: windows lie on this lattice."""
        return int(max(self.encoder.strides))  # type: ignore[arg-type]

    def forward(self, batch: Batch) -> torch.Tensor:
        """Outputs (B, K, H, W); what is not valid enters as the mean."""
        b, t, c, h, w = batch.images.shape
        x = (batch.images - self.mean[:, None, None]) / self.std[:, None, None]
        x = torch.where(batch.valid[:, :, None], x, 0.0).reshape(b, t * c, h, w)
        return self.head(self.encoder(x))


def build(spec: Mapping[str, Any]) -> Network:
    """Build from a plain description: encoder, head, bands (count), frames, outputs."""
    encoder = registry.make("encoders", spec["encoder"], spec["bands"] * spec["frames"])
    head = registry.make("heads", spec["head"], encoder.channels, spec["outputs"])
    return Network(encoder, head, spec["bands"])


class Sum(nn.Module):
    """Several objectives added up: `cross-entropy+dice`; the model runs once."""

    def __init__(self, parts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, model: nn.Module, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        """Sum of the losses."""
        once = _Once(model)
        return {"loss": torch.stack([part(once, batch, step)["loss"] for part in self.parts]).sum()}


class _Once:
    """A model that remembers its answer to the one batch of this step."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._answer: torch.Tensor | None = None

    def __call__(self, batch: Batch) -> torch.Tensor:
        if self._answer is None:
            self._answer = self._model(batch)
        return self._answer


def objective(spec: str) -> nn.Module:
    """Build `name:options`, or several joined by +."""
    parts = [registry.make("objectives", one) for one in spec.split("+")]
    return parts[0] if len(parts) == 1 else Sum(parts)
