"""The processes of one run: alone, or started by `torchrun`, where Lightning Fabric joins them.

Nothing heavy is imported before `join`.
"""

from __future__ import annotations

import contextlib
import logging
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from geoml_cli.errors import GeomlError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from geoml_cli.core.device import Device


class Ranks:
    """This process among those of the run; alone, everything here does nothing."""

    def __init__(self) -> None:
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        self.number = int(os.environ.get("RANK", "0")) if self.count > 1 else 0
        self._fabric: Any = None

    @property
    def main(self) -> bool:
        """Whether this process writes."""
        return self.number == 0

    def join(self, device: Device) -> Device:
        """Meet the other processes; gives the device that is this one's."""
        if self.count == 1:
            return device
        from dataclasses import replace

        from lightning_fabric import Fabric
        from lightning_fabric.strategies import DDPStrategy

        cuda = device.torch.type == "cuda"
        here = int(os.environ.get("LOCAL_WORLD_SIZE", self.count))
        # what it says while it starts is not of this program
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
        strategy = DDPStrategy(process_group_backend="nccl" if cuda else "gloo")
        self._fabric = Fabric(
            accelerator="cuda" if cuda else "cpu",
            devices=here,
            num_nodes=self.count // here,
            strategy=strategy,
        )
        self._fabric.launch()
        return replace(device, torch=self._fabric.device)

    def wrap(self, model: nn.Module, optimizer: Any) -> tuple[Any, Any]:
        """The model to call and the optimizer to step: gradients are averaged over processes."""
        if self._fabric is None:
            return model, optimizer
        wrapped = self._fabric.setup_module(model, move_to_device=False)
        return wrapped, self._fabric.setup_optimizers(optimizer)

    def backward(self, loss: torch.Tensor) -> None:
        """Add to the gradients."""
        if self._fabric is None:
            loss.backward()
        else:
            self._fabric.backward(loss)

    def apart(self, model: Any, until_later: bool) -> contextlib.AbstractContextManager[Any]:
        """While `until_later`, gradients stay in this process: more parts of the batch are to come."""
        if self._fabric is None:
            return contextlib.nullcontext()
        return self._fabric.no_backward_sync(model, enabled=until_later)

    def share(self, rows: np.ndarray) -> np.ndarray:
        """This process's rows of those that all together are to do."""
        return rows if self.count == 1 else np.array_split(rows, self.count)[self.number]

    def sum(self, array: np.ndarray) -> np.ndarray:
        """Sum of an array over the processes, exact for counts."""
        if self._fabric is None:
            return array
        import torch

        found = torch.from_numpy(np.atleast_1d(array).astype(np.float64)).to(self._fabric.device)
        total = self._fabric.all_reduce(found, reduce_op="sum").cpu().numpy()
        return total.reshape(np.shape(array)).astype(array.dtype)

    def total(self, value: float) -> float:
        """Sum of a number over the processes."""
        return value if self._fabric is None else float(self.sum(np.array(value, np.float64)))

    def tell(self, what: Any) -> Any:
        """What the main process says, in all of them."""
        return what if self._fabric is None else self._fabric.broadcast(what)

    def leave(self) -> None:
        """Part from the other processes: those that end while still joined may be aborted."""
        if self._fabric is not None:
            import torch

            torch.distributed.destroy_process_group()
            self._fabric = None

    def check(self, network: nn.Module) -> nn.Module:
        """Make batch norms count over all processes; where they cannot, say so."""
        if self.count == 1:
            return network
        from torch import nn

        if not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.modules()):
            return network
        if self._fabric.device.type == "cpu":
            raise GeomlError(
                "batch norm does not count over several processes on CPUs; take a network with group norm,"
                " such as --encoder unet:norm=group --head unet:norm=group"
            )
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
