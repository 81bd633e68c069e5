"""The one training loop: set rate, forward, backward, clip, step; every so often score and save."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from geoml_cli.core.augment import chain
from geoml_cli.core.batch import Batch
from geoml_cli.core.checkpoint import Progress, State
from geoml_cli.core.device import Device, out_of_memory
from geoml_cli.core.ranks import Ranks
from geoml_cli.core.schedule import rate
from geoml_cli.core.tune import train_mode
from geoml_cli.errors import GeomlError

log = logging.getLogger("geoml")
LATE = 16  # steps that an accelerator may be ahead before their losses are looked at
Score = Callable[[nn.Module], dict[str, float]]


@dataclass(frozen=True)
class Recipe:
    """How to train; every field but the last changes the result."""

    epochs: int
    warmup: float = 0.1  # share of the steps
    schedule: str = "cosine"
    clip: float = 1.0  # of the norm of all gradients; 0: none
    ema: float = 0.0  # share of the average that a step keeps; 0: no average
    augment: str = "none"
    micro: int = 0  # samples at a time; 0: as many as fit
    patience: int = 0  # epochs without a better score; 0: never stop early
    score_every: int = 1  # epochs
    keep: str = "best"
    seed: int = 0
    compile: bool = False
    save_every_s: float = 600.0


class Loop:
    """A model, what moves it, and where it stands."""

    def __init__(
        self,
        model: nn.Module,
        objective: nn.Module,
        optimizer: torch.optim.Optimizer,
        recipe: Recipe,
        device: Device,
        saved: Path,
        ranks: Ranks | None = None,
        name: Callable[[tuple[int, ...]], str] = str,
    ) -> None:
        """`saved` is the folder of checkpoints; `name` says which tiles some rows of a batch are."""
        self.recipe, self.device, self.saved, self.name = recipe, device, saved, name
        self.ranks = ranks or Ranks()
        self.state = State(model, objective.to(device.torch), optimizer, {}, {})
        self.progress = self.state.take_up(saved)
        self.progress.micro = self.progress.micro or recipe.micro
        if recipe.ema and not self.state.average:
            self.state.average = _copy(model)
        run: Any = torch.compile(model) if recipe.compile else model
        self.run, self.stepper = self.ranks.wrap(run, optimizer)
        self.augment = chain(recipe.augment)
        self._on_disk = (-1, -1)  # step and epoch of the last checkpoint
        self._late: list[tuple[torch.Tensor, tuple[int, ...]]] = []

    def fit(
        self,
        batches: Callable[[int, int], Iterator[Batch]],
        steps_an_epoch: int,
        score: Score | None,
        note: Callable[[dict[str, Any]], None],
        check: Callable[[], None],
    ) -> Progress:
        """Train, and leave the model at its best scored (or last) weights.

        `batches(epoch, start)` yields the effective batches of an epoch from one on, all of which
        follows from these two numbers: a run taken up again ends with the same weights. `score`
        gives numbers with the key `watch`, larger is better; `check` raises when the run is to stop.
        """
        recipe, state, progress = self.recipe, self.state, self.progress
        steps = recipe.epochs * steps_an_epoch
        if hasattr(state.objective, "plan"):
            state.objective.plan(steps, steps_an_epoch)  # type: ignore[operator]
        for old in progress.history:
            note(old)
        saved_at = time.monotonic()
        while progress.epoch < recipe.epochs and not self._stale():
            train_mode(state.model)
            for batch in batches(progress.epoch, progress.at):
                try:
                    check()
                except BaseException:
                    self.save()
                    raise
                share = rate(progress.step, steps, recipe.warmup, recipe.schedule)
                for group in state.optimizer.param_groups:
                    group["lr"] = group["initial_lr"] * share
                self._late.append((self._step(batch), batch.rows))
                progress.step, progress.at = progress.step + 1, progress.at + 1
                if self.device.torch.type == "cpu" or len(self._late) >= LATE:
                    self._look()
                if time.monotonic() - saved_at > recipe.save_every_s:
                    self.save()
                    saved_at = time.monotonic()
            self._look()
            progress.epoch, progress.at = progress.epoch + 1, 0
            losses, progress.losses = progress.losses, []
            row = {
                "epoch": progress.epoch,
                "step": progress.step,
                "lr": current_rate(state.optimizer),
                "loss": math.fsum(losses) / max(1, len(losses)),
            }
            last = progress.epoch == recipe.epochs
            if score and (progress.epoch % recipe.score_every == 0 or last):
                row |= self._scored(score)
            progress.history.append(row)
            note(row)
            if progress.epoch == 1:  # so that whoever is stopped soon has something to go on from
                self.save()
        self.save()
        final = state.best or state.average
        if final:
            state.model.load_state_dict(final)
        return progress

    def _step(self, batch: Batch) -> torch.Tensor:
        """One update; where memory runs out, again with half as many samples at a time."""
        progress, world = self.progress, self.ranks.count
        total = self.ranks.total(batch.total) / world  # gradients are averaged over processes
        batch = replace(batch, total=total)
        while True:
            micro = min(progress.micro or len(batch.images), len(batch.images))
            try:
                loss = self._gradients(batch, micro)
                break
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                if micro == 1 or world > 1:
                    raise GeomlError(
                        f"out of memory with {micro} tile(s) of {batch.images.shape[-1]} px at a time; take"
                        " smaller tiles, a smaller network or a smaller --micro-batch"
                    ) from None
            self.state.optimizer.zero_grad(set_to_none=True)
            progress.micro = micro // 2
            if self.device.torch.type == "cuda":
                torch.cuda.empty_cache()
            log.warning("out of memory: going on with %d tiles at a time", progress.micro)
        if self.recipe.clip:
            nn.utils.clip_grad_norm_(self.state.model.parameters(), self.recipe.clip)
        self.stepper.step()
        self.stepper.zero_grad(set_to_none=True)
        if self.recipe.ema:
            self._average()
        return loss

    def _gradients(self, batch: Batch, micro: int) -> torch.Tensor:
        """Loss of an effective batch, its gradients added up part by part."""
        # randomness follows from the step alone: nothing to save, nothing to restore
        generator = seeded(
            self.recipe.seed, self.progress.step * self.ranks.count + self.ranks.number
        )
        loss = torch.zeros((), device=self.device.torch)
        count = len(batch.images)
        for start in range(0, count, micro):
            part = batch.part(start, min(start + micro, count)).to(self.device.torch)
            part = self.augment(part, generator)
            with self.ranks.apart(self.run, start + micro < count):
                with self.device.autocast():
                    value = self.state.objective(self.run, part, self.progress.step)["loss"]
                self.ranks.backward(value)
            loss += value.detach()
        return loss

    def _look(self) -> None:
        """Look at the losses of the last steps; one that is no number ends the run."""
        progress, first = self.progress, self.progress.step - len(self._late) + 1
        for i, (loss, rows) in enumerate(self._late):
            value = self.ranks.total(loss.item()) / self.ranks.count
            if not math.isfinite(value):
                raise GeomlError(
                    f"the loss is {value} at step {first + i} (epoch {progress.epoch + 1}), tiles"
                    f" {self.name(rows)}; look for wild values in their bands or labels, or lower --lr"
                )
            progress.losses.append(value)
        self._late.clear()

    @torch.no_grad()
    def _average(self) -> None:
        """Move the average towards the weights; while it is young it keeps less of itself."""
        keep = min(self.recipe.ema, (1 + self.progress.step) / (10 + self.progress.step))
        for name, value in self.state.model.state_dict().items():
            mean = self.state.average[name]
            if mean.is_floating_point():
                mean.lerp_(value, 1 - keep)
            else:
                mean.copy_(value)

    def _scored(self, score: Score) -> dict[str, float]:
        """Score the weights that would be kept; the best are remembered."""
        state, progress = self.state, self.progress
        own = _copy(state.model) if state.average else {}
        if state.average:
            state.model.load_state_dict(state.average)
        found = score(state.model)
        # of equals the last: where a small validation ground is soon all right, training still helps
        if found["watch"] >= progress.best:
            progress.best, progress.best_epoch = found["watch"], progress.epoch
            if self.recipe.keep == "best":
                state.best, progress.kept = _copy(state.model), progress.epoch
        if own:
            state.model.load_state_dict(own)
        return found

    def _stale(self) -> bool:
        """Whether the score has not risen for too long."""
        patience, progress = self.recipe.patience, self.progress
        return (
            patience > 0
            and progress.best_epoch > 0
            and progress.epoch - progress.best_epoch >= patience
        )

    def save(self) -> None:
        """Write a checkpoint, in the one process that writes."""
        self._look()
        stands = (self.progress.step, self.progress.epoch)
        if self.ranks.main and stands != self._on_disk:
            self.state.save(self.saved, self.progress)
            self._on_disk = stands


def current_rate(optimizer: torch.optim.Optimizer) -> float:
    """The learning rate that the head had last: the largest of the groups."""
    return max(float(group["lr"]) for group in optimizer.param_groups)


def optimizer_of(name: str, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """AdamW, Adam, or SGD with Nesterov's momentum 0.9, of groups with their own lr and weight decay."""
    groups = [group | {"initial_lr": group["lr"]} for group in groups]
    if name == "sgd":
        return torch.optim.SGD(groups, momentum=0.9, nesterov=True)
    if name == "adam":
        return torch.optim.Adam(groups)
    return torch.optim.AdamW(groups)


def seeded(seed: int, step: int) -> torch.Generator:
    """A generator for one step; the global one (dropout) is set alike."""
    torch.manual_seed((seed * 1_000_003 + step) % 2**63)
    return torch.Generator().manual_seed((seed * 1_000_003 + step + 1) % 2**63)


def _copy(model: nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.detach().clone() for k, v in model.state_dict().items()}
