"""Sliding windows: each block is computed once, inside a window that is wider by the halo.

Windows lie on the network's stride lattice anchored at the raster's pixel 0, 0, so a block's
outputs are those of the whole image in one pass, to float noise, whatever the windows are.
Beyond the rim the raster is mirrored.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from geoml_cli.core.aim import Aim
from geoml_cli.core.batch import Batch
from geoml_cli.core.device import Device, place
from geoml_cli.core.network import Network
from geoml_cli.core.tta import averaged
from geoml_cli.geo.grid import Window
from geoml_cli.geo.splits import NONE


@dataclass(frozen=True)
class Tiling:
    """How a raster is cut: blocks of `height` x `width` px, each computed `halo` px wider."""

    height: int
    width: int
    halo: int  # a multiple of the stride, so that every window starts on the lattice

    def around(self, block: Window) -> Window:
        """Window to read for a block; all have one shape, also those that stick out."""
        return Window(
            block.row - self.halo,
            block.col - self.halo,
            self.height + 2 * self.halo,
            self.width + 2 * self.halo,
        )


def tiling(shape: tuple[int, int], window: int, halo: int, stride: int) -> Tiling:
    """Cut a raster of (height, width) px into blocks of at most `window` px, whole strides."""

    def up(n: int) -> int:
        return -(-n // stride) * stride

    return Tiling(min(up(window), up(shape[0])), min(up(window), up(shape[1])), up(halo))


def mirror(start: int, count: int, length: int) -> np.ndarray:
    """Indices (count,) into 0..length-1 of positions start, start+1, ..., mirrored at both rims.

    The rim's own pixel is not repeated (-1 -> 1); any distance beyond the rim works.
    """
    period = max(2 * (length - 1), 1)
    at = np.arange(start, start + count) % period
    return np.minimum(at, period - at) if length > 1 else np.zeros(count, int)


class Mapper:
    """Networks of an ensemble, ready to turn windows into class ids."""

    def __init__(
        self, networks: Sequence[Network], aim: Aim, device: Device, tta: str = "none"
    ) -> None:
        self.networks = [place(n.eval(), device) for n in networks]
        self.aim, self.device, self.tta = aim, device, tta

    @torch.inference_mode()
    def classes(
        self, images: np.ndarray, valid: np.ndarray, halo: int, folds: np.ndarray | None = None
    ) -> np.ndarray:
        """Class ids (B, h, w) of the inner parts of windows, images (B, T, C, H, W), valid (B, T, H, W).

        With `folds` (B, h, w) each pixel is given by the one member of that number, one of no
        fold (255) by the mean of all members; without, every pixel by that mean.
        """
        batch = Batch(torch.from_numpy(images), torch.from_numpy(valid)).to(self.device.torch)
        inner = slice(halo, images.shape[-2] - halo), slice(halo, images.shape[-1] - halo)
        if folds is None:
            return self._mean(batch, inner)
        out = np.zeros(folds.shape, np.uint8)
        for member in np.unique(folds):
            if member == NONE:  # ground that no member saw
                ids = self._mean(batch, inner)
            else:
                spread = self._spread(self.networks[member], batch, inner)
                ids = self.aim.decode(spread).cpu().numpy()
            out[folds == member] = ids[folds == member]
        return out

    def _mean(self, batch: Batch, inner: tuple[slice, slice]) -> np.ndarray:
        spread = torch.stack([self._spread(n, batch, inner) for n in self.networks]).sum(0)
        return self.aim.decode(spread).cpu().numpy()

    def _spread(self, network: nn.Module, batch: Batch, inner: tuple[slice, slice]) -> torch.Tensor:
        def spread(one: Batch) -> torch.Tensor:
            with self.device.autocast():
                outputs = network(one)
            return self.aim.spread(outputs.float())

        if self.tta == "none":  # the halo need not be spread out
            with self.device.autocast():
                outputs = network(batch)
            return self.aim.spread(outputs[(..., *inner)].float())
        return averaged(spread, batch, self.tta)[(..., *inner)]
