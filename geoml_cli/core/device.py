"""The device that a run computes on: chosen once, said once, never changed in silence."""

import contextlib
import platform
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from geoml_cli.errors import GeomlError


@dataclass(frozen=True)
class Device:
    """A torch device and how it computes."""

    torch: torch.device
    precision: str  # 32 or bf16

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Context of forward passes."""
        if self.precision == "32":
            return contextlib.nullcontext()
        return torch.autocast(self.torch.type, torch.bfloat16)

    @property
    def memory_format(self) -> Any:
        """Layout of images and weights: channels last where convolutions are faster so."""
        return torch.channels_last if self.torch.type == "cuda" else torch.contiguous_format

    def describe(self) -> dict[str, Any]:
        """What the bytes of a result depend on besides inputs and arguments."""
        kind = self.torch.type
        name = torch.cuda.get_device_name(self.torch) if kind == "cuda" else platform.machine()
        return {
            "kind": kind,
            "name": name,
            "precision": self.precision,
            "threads": torch.get_num_threads() if kind == "cpu" else None,
            "torch": torch.__version__,
        }

    def __str__(self) -> str:
        about = self.describe()
        threads = f", {about['threads']} threads" if about["threads"] else ""
        return f"{self.torch} ({about['name']}, precision {self.precision}{threads})"


def pick(name: str, precision: str = "auto") -> Device:
    """Open `auto`, `cpu`, `cuda`, `cuda:N` or `mps`; one that is named and missing is an error."""
    if name == "auto":
        name = (
            "cuda"
            if torch.cuda.is_available()
            else "mps"
            if torch.backends.mps.is_available()
            else "cpu"
        )
    try:
        device = torch.device(name)
    except RuntimeError:
        raise GeomlError(f"--device {name}: write auto, cpu, cuda, cuda:N or mps") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise GeomlError(
            f"--device {name}: there are {torch.cuda.device_count()} CUDA devices here"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise GeomlError("--device mps: there is none here")
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "32"
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32
        torch.backends.cudnn.benchmark = False  # a choice by timing would change bytes
        torch.backends.cudnn.deterministic = True
    return Device(device, precision)


def place(module: nn.Module, device: Device) -> nn.Module:
    """Move a module to a device, in the layout that is fast there."""
    return module.to(device.torch, memory_format=device.memory_format)  # type: ignore[call-overload]
