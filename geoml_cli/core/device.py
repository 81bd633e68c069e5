"""The device that a run computes on: chosen once, said once, never changed in silence."""

import contextlib
import ctypes
import platform
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from geoml_cli.errors import GeomlError

MALLOC = {-4: 0, -1: 2**31 - 1}  # M_MMAP_MAX: none; M_TRIM_THRESHOLD: none is given back


@dataclass(frozen=True)
class Device:
    """A torch device and how it computes."""

    torch: torch.device
    precision: str  # 32, bf16 or 64
    layout: str = "auto"  # of images and weights: auto, contiguous or channels-last

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Context of forward passes."""
        if self.precision != "bf16":
            return contextlib.nullcontext()
        return torch.autocast(self.torch.type, torch.bfloat16)

    @property
    def channels_last(self) -> bool:
        """Layout of images and weights; `auto` is channels last on CUDA, where convolutions are faster so."""
        return self.layout == "channels-last" or (
            self.layout == "auto" and self.torch.type == "cuda"
        )

    def describe(self) -> dict[str, Any]:
        """What the bytes of a result depend on besides inputs and arguments."""
        kind = self.torch.type
        name = torch.cuda.get_device_name(self.torch) if kind == "cuda" else platform.machine()
        return {
            "kind": kind,
            "name": name,
            "precision": self.precision,
            "layout": "channels-last" if self.channels_last else "contiguous",
            "threads": torch.get_num_threads() if kind == "cpu" else None,
            "torch": torch.__version__,
        }

    def __str__(self) -> str:
        about = self.describe()
        threads = f", {about['threads']} threads" if about["threads"] else ""
        return f"{self.torch} ({about['name']}, precision {self.precision}{threads})"


def pick(name: str, precision: str = "auto", layout: str = "auto") -> Device:
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
    if device.type == "cpu":
        _keep_memory()
    return Device(device, precision, layout)


def _keep_memory() -> None:
    """Have the C library keep what large tensors leave, for the next: to be given fresh pages, zeroed by
    the kernel, for every map of a forward pass costs more than the arithmetic. Not where there is no mallopt.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    for option, value in MALLOC.items():
        mallopt(option, value)


def place(module: nn.Module, device: Device) -> nn.Module:
    """Move a module to a device, in the layout that is fast there."""
    if device.precision == "64":
        module = module.double()
    if not device.channels_last:
        return module.to(device.torch)
    for part in module.modules():
        if hasattr(part, "channels_last"):
            setattr(part, "channels_last", True)  # noqa: B010
    return module.to(device.torch, memory_format=torch.channels_last)  # type: ignore[call-overload]


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of an accelerator or of the machine."""
    said = str(error)
    return (
        isinstance(error, MemoryError | torch.cuda.OutOfMemoryError)
        or "can't allocate memory" in said
        or "out of memory" in said
    )
