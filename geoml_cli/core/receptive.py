"""The receptive field of a network, measured, not declared.

One row (or column) of the input is made NaN and the outputs that become NaN are counted:
every arithmetic path passes NaN on, whatever the weights are. In float64 on the CPU, where
no convolution works on tiles that would spread it.
"""

import copy
from collections.abc import Iterable
from dataclasses import replace

import torch

from geoml_cli.core.batch import Batch
from geoml_cli.core.network import Network

FEW = 8  # phases that are all tried


def reach(network: Network, limit: int = 512) -> int | None:
    """Halo in pixels: how far an input reaches to outputs, the worst of all phases; None if everywhere.

    An output at row r depends on input rows r - halo .. r + halo only. Exact for strides up to 8,
    beyond at most stride - 1 too large. Networks whose outputs are a tile's, and encoders that say
    `equivariant = False` (attention within windows that lie on a lattice of their own), have none.
    """
    if network.per == "tile" or not all(
        getattr(one.encoder, "equivariant", True) for one in network.sensors
    ):
        return None
    probe, stride = copy.deepcopy(network).double().cpu().eval(), network.stride
    longest = max(4 * limit // stride, 8) * stride
    # one line decides first: there are networks that see everything, and they are slow
    found = max(_along(probe, longest, axis, (0,)) for axis in (0, 1))
    if found >= longest // 2 - 2 * stride:
        return None
    length = 2 * (found // stride + 4) * stride
    if stride <= FEW:
        return max(_along(probe, length, axis, range(stride)) for axis in (0, 1))
    # what a line touches moves on with the line: between the first and the last phase of a stride
    # it reaches at most stride - 1 further than these two
    ends = (0, stride - 1)
    return max(_along(probe, length, axis, ends) for axis in (0, 1)) + stride - 1


@torch.no_grad()
def _along(network: Network, length: int, axis: int, phases: Iterable[int]) -> int:
    """Largest distance between a NaN input line and a NaN output line, over some phases of the stride."""
    stride = across = network.stride
    shape = (length, across) if axis == 0 else (across, length)
    worst = 0
    for phase in phases:
        line = length // 2 // stride * stride + phase
        batch = _marked(network, shape, axis, line)
        touched = torch.isnan(network(batch)).any(dim=1)[0].any(dim=1 - axis).nonzero().flatten()
        if len(touched):
            worst = max(worst, int((touched - line).abs().max()))
    return worst


def _marked(network: Network, shape: tuple[int, int], axis: int, line: int) -> Batch:
    """Zeros for every sensor of a network, one line of them NaN."""
    each = []
    for about in network.spec["sensors"]:
        frames, bands = about["frames"], about["bands"]
        images = torch.zeros(1, frames, bands, *shape, dtype=torch.float64)
        images.select(3 + axis, line).fill_(torch.nan)
        codes = torch.zeros(1, frames, network.spec.get("codes", 0), dtype=torch.float64)
        valid = torch.ones(1, frames, *shape, dtype=torch.bool)
        each.append(Batch(images, valid, codes=codes if codes.shape[2] else None))
    return replace(each[0], others=tuple(each[1:]))
