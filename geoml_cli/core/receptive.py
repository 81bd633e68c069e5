"""The receptive field of a network, measured, not declared.

One row (or column) of the input is made NaN and the outputs that become NaN are counted:
every arithmetic path passes NaN on, whatever the weights are. In float64 on the CPU, where
no convolution works on tiles that would spread it.
"""

import copy

import torch

from geoml_cli.core.batch import Batch
from geoml_cli.core.network import Network


def reach(network: Network, frames: int, limit: int = 1024) -> int | None:
    """Halo in pixels: how far an input reaches to outputs, the worst of all phases; None if everywhere.

    An output at row r depends on input rows r - halo .. r + halo only.
    """
    probe = copy.deepcopy(network).double().cpu().eval()
    length = max(16 * probe.stride, 64)
    while length <= 4 * limit:
        found = max(_along(probe, frames, length, axis) for axis in (0, 1))
        if found < length // 2 - probe.stride:
            return found
        length *= 2
    return None


@torch.no_grad()
def _along(network: Network, frames: int, length: int, axis: int) -> int:
    """Largest distance between a NaN input line and a NaN output line, over all phases of the stride."""
    stride, bands = network.stride, network.mean.numel()
    across = 2 * stride
    shape = (length, across) if axis == 0 else (across, length)
    worst = 0
    for phase in range(stride):
        line = length // 2 // stride * stride + phase
        images = torch.zeros(1, frames, bands, *shape, dtype=torch.float64)
        images.select(3 + axis, line).fill_(torch.nan)
        batch = Batch(images, torch.ones(1, frames, *shape, dtype=torch.bool))
        touched = torch.isnan(network(batch)).any(dim=1)[0].any(dim=1 - axis).nonzero().flatten()
        if len(touched):
            worst = max(worst, int((touched - line).abs().max()))
    return worst
