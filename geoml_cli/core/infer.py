"""Networks of an ensemble asked about windows, and what their answers come to."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from geoml_cli.core.aim import Aim
from geoml_cli.core.augment import moved
from geoml_cli.core.batch import Batch
from geoml_cli.core.device import Device, out_of_memory, place
from geoml_cli.core.filling import filled, gaps
from geoml_cli.core.lattice import Axis, Lattice
from geoml_cli.core.tta import averaged
from geoml_cli.errors import GeomlError
from geoml_cli.geo.splits import NONE

log = logging.getLogger("geoml")
Result = TypeVar("Result")
SCALE = 250  # shares are stored as whole numbers of 1 / 250 in a byte; 255 is nodata


@dataclass(frozen=True)
class Answers:
    """What is kept of each pixel: the map, and on request shares and how sure they are.

    Channels that windows and votes are averaged over are what `Aim.spread` gives (values with
    their variances where the network says such), then, for `spread`, their squares, then, for images that are filled,
    which of them are gaps (a channel a date).
    """

    aim: Aim
    probabilities: bool = False
    uncertainty: bool = False
    dates: int = 0  # of all sensors together, where gaps are filled

    def squared(self, spread: torch.Tensor) -> torch.Tensor:
        """Channels to average, of one vote."""
        if not self.uncertainty:
            return spread
        first = spread[:, : len(self.aim.names)]
        return torch.cat([spread, first**2], dim=1)

    def channels(self, spread: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Channels to average, of one vote on a batch."""
        if not self.aim.fills:
            return self.squared(spread)
        return torch.cat([self.squared(filled(batch, spread)), gaps(batch)], dim=1)

    def of(self, mean: torch.Tensor) -> dict[str, np.ndarray]:
        """Arrays (B, C, H, W) by asset, of averaged channels: `map`, `probabilities`, `uncertainty`."""
        count = len(self.aim.names)
        found: dict[str, torch.Tensor] = {}
        if self.aim.fills:
            mean, missing = mean.split([count * (1 + self.uncertainty), self.dates], dim=1)
            found["filled"] = (missing > 0.5).byte()
        whole = mean[:, :-count] if self.uncertainty else mean
        first = whole[:, :count]
        decoded = self.aim.decode(whole)
        found["map"] = decoded[:, None] if self.aim.kind == "classes" else decoded
        if self.probabilities:
            found["probabilities"] = _byte(first)
        if self.uncertainty:
            variance = (mean[:, -count:] - first**2).clamp(min=0)
            if self.aim.kind == "values":
                own = whole[:, count:] if whole.shape[1] > count else 0
                found["uncertainty"] = (variance + own).sqrt()
            elif self.aim.kind == "present":
                found["uncertainty"] = _byte(torch.cat([_entropy(first), variance.sqrt()], dim=1))
            else:
                won = variance.gather(1, first.argmax(dim=1, keepdim=True)).sqrt()
                doubt = torch.special.entr(first).sum(1, keepdim=True) / np.log(max(count, 2))
                found["uncertainty"] = _byte(torch.cat([doubt, won], dim=1))
        return {name: array.cpu().numpy() for name, array in found.items()}


def _byte(share: torch.Tensor) -> torch.Tensor:
    return (share * SCALE).round().clamp(0, SCALE).byte()


def _entropy(p: torch.Tensor) -> torch.Tensor:
    """Of present or not, in bits."""
    return (torch.special.entr(p) + torch.special.entr(1 - p)) / np.log(2)


class Room:
    """How many windows memory has room for at a time: halved where it runs out."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.most: int | None = None  # once that is known

    def each(self, count: int, work: Callable[[int, int], Result]) -> list[Result]:
        """Results of `work(start, stop)` over 0 .. count, in parts that fit."""
        while True:
            most = min(self.most or count, count)
            try:
                return [work(i, min(i + most, count)) for i in range(0, count, most)]
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
            if most == 1:
                raise GeomlError("out of memory with one window; lower --window")
            self.most = most // 2
            if self.device.torch.type == "cuda":
                torch.cuda.empty_cache()
            log.warning("out of memory: going on with %d windows at a time", self.most)


class Mapper:
    """Networks of an ensemble, ready to be asked about windows."""

    def __init__(
        self, networks: Sequence[torch.nn.Module], answers: Answers, device: Device, tta: str
    ) -> None:
        self.networks = [place(n.eval(), device) for n in networks]
        self.answers, self.device, self.tta = answers, device, tta
        self.room = Room(device)

    @torch.inference_mode()
    def ask(
        self,
        batch: Batch,
        places: Sequence[tuple[int, int]],
        lattice: Lattice,
        folds: Sequence[np.ndarray] | None = None,
    ) -> list[torch.Tensor]:
        """Averaged channels (C, h, w) of the map's pixels that each window counts for.

        With `folds` (h, w) each pixel is given by the one member of that number, one of no fold
        (255) by the mean of all members; without, every pixel by that mean.
        """
        batch = batch.to(self.device.torch)
        members = range(len(self.networks))
        wanted = members if folds is None else np.unique(np.concatenate([f.ravel() for f in folds]))
        whole = folds is None or NONE in wanted
        total: list[torch.Tensor] | None = None
        out: list[torch.Tensor] | None = None
        for member in members:
            if not whole and member not in wanted:
                continue
            given = self._fitting(self.networks[member], batch, places, lattice)
            if folds is not None:
                masks = [torch.from_numpy(f == member).to(given[0].device) for f in folds]
                out = out or [torch.zeros_like(one) for one in given]
                out = [torch.where(m, g, o) for m, g, o in zip(masks, given, out, strict=True)]
            total = given if total is None else [a + b for a, b in zip(total, given, strict=True)]
        assert total is not None
        mean = [one / len(members) for one in total] if len(members) > 1 else total
        if folds is None:
            return mean
        assert out is not None
        none = [torch.from_numpy(f == NONE).to(mean[0].device) for f in folds]
        return [torch.where(m, g, o) for m, g, o in zip(none, mean, out, strict=True)]

    def _fitting(
        self,
        network: torch.nn.Module,
        batch: Batch,
        places: Sequence[tuple[int, int]],
        lattice: Lattice,
    ) -> list[torch.Tensor]:
        """Channels of one member, of as many windows at a time as there is room for."""

        def given(start: int, stop: int) -> list[torch.Tensor]:
            part = batch if stop - start == len(places) else batch.part(start, stop)
            return self._given(network, part, places[start:stop], lattice)

        return [one for some in self.room.each(len(places), given) for one in some]

    def _given(
        self,
        network: torch.nn.Module,
        batch: Batch,
        places: Sequence[tuple[int, int]],
        lattice: Lattice,
    ) -> list[torch.Tensor]:
        """Channels of one member."""
        aim, inner = self.answers.aim, _inner(lattice)

        def spread(one: Batch, cut: tuple[slice, slice] | None = None) -> torch.Tensor:
            with self.device.autocast():
                outputs = network(one)
            outputs = outputs[(..., *cut)] if cut else outputs
            said = aim.spread(network.physical(outputs.float()))  # type: ignore[operator]
            return self.answers.channels(said, _cut(one, cut) if aim.fills else one)

        if self.tta == "none":
            found = spread(batch, inner)
        else:
            found = averaged(spread, batch, self.tta)
            found = found[(..., *inner)] if inner else found
        if lattice.per_tile:
            return list(found[..., None, None])
        if inner:
            cuts = [lattice.reach(r * lattice.cols.count + c) for r, c in places]
            return [f[:, : cut.height, : cut.width] for f, cut in zip(found, cuts, strict=True)]
        return [
            _along(_along(one, lattice.rows, r, 1), lattice.cols, c, 2)
            for one, (r, c) in zip(found, places, strict=True)
        ]


def _cut(batch: Batch, cut: tuple[slice, slice] | None) -> Batch:
    """The part of windows that is given, as all sensors show it."""
    if cut is None:
        return batch
    return moved(batch, lambda x: x[(..., *cut)])


def _inner(lattice: Lattice) -> tuple[slice, slice] | None:
    """What of a window all windows give, where that is the same: the part within the halo."""
    axes = (lattice.rows, lattice.cols)
    if lattice.per_tile or any(axis.fade or axis.ratio != 1 for axis in axes):
        return None
    rows, cols = (slice(-axis.firsts[0], axis.size + axis.firsts[0]) for axis in axes)
    return rows, cols


def _along(channels: torch.Tensor, axis: Axis, k: int, dim: int) -> torch.Tensor:
    """The map's pixels along one axis of channels (C, H, W), of a window's outputs."""
    how = axis.taken(k)
    if isinstance(how, slice):
        return channels.narrow(dim, how.start, how.stop - how.start)
    weights = torch.from_numpy(how).to(channels.device)
    return torch.movedim(torch.movedim(channels, dim, -1) @ weights.T, -1, dim)
