"""The one training loop: set rate, forward, backward, clip, step; every so often score and save."""

import json
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from geoml_cli.core.augment import dihedral
from geoml_cli.core.batch import Batch
from geoml_cli.core.device import Device, place
from geoml_cli.errors import GeomlError, as_oserror

log = logging.getLogger("geoml")


@dataclass(frozen=True)
class Recipe:
    """How to train; every field changes the result."""

    epochs: int = 60
    batch: int = 8
    lr: float = 2e-3
    weight_decay: float = 0.05
    warmup: float = 0.1  # share of the steps
    clip: float = 1.0
    patience: int = 0  # epochs without a better score; 0: never stop early
    augment: str = "dihedral"
    seed: int = 0


@dataclass
class Progress:
    """Where a run stands; together with the tensors beside it, all there is to go on from."""

    epoch: int = 0
    step: int = 0
    best: float = -math.inf
    best_epoch: int = -1
    history: list[dict[str, Any]] = field(default_factory=list)


def rate(step: int, steps: int, warmup: float) -> float:
    """Share of the peak learning rate: linear warm-up, then half a cosine down to zero."""
    rise = max(1, round(steps * warmup))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def fit(
    model: nn.Module,
    objective: nn.Module,
    batches: Callable[[int], Iterator[list[Batch]]],
    steps_an_epoch: int,
    score: Callable[[nn.Module], dict[str, float]] | None,
    recipe: Recipe,
    device: Device,
    saved: Path,
    note: Callable[[dict[str, Any]], None],
    check: Callable[[], None],
) -> Progress:
    """Train `model` in place and leave it at its best scored (or last) weights.

    `batches(epoch)` yields effective batches as lists of parts that fit the device; all of an
    epoch follows from its number, so a run taken up again from `saved` ends with the same
    weights. `score` gives numbers with the key `watch`, larger is better.
    """
    place(model, device)
    optimizer = torch.optim.AdamW(groups(model, recipe.weight_decay), lr=recipe.lr)
    progress = take_up(saved, model, objective, optimizer)
    for old in progress.history:
        note(old)
    steps = recipe.epochs * steps_an_epoch
    best = {k: v.clone() for k, v in model.state_dict().items()}
    if progress.best_epoch >= 0:
        best = load_file(saved / "best.safetensors", device=str(device.torch))

    while progress.epoch < recipe.epochs:
        model.train()
        losses = []
        for parts in batches(progress.epoch):
            check()
            # randomness follows from the step alone: nothing to save, nothing to restore
            generator = seeded(recipe.seed, progress.step)
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * rate(progress.step, steps, recipe.warmup)
            loss = 0.0
            for part in parts:
                part = part.to(device.torch)
                part = dihedral(part, generator) if recipe.augment == "dihedral" else part
                with device.autocast():
                    value = objective(model, part, progress.step)["loss"]
                value.backward()
                loss += value.item()
            nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(loss)
            progress.step += 1
            if not math.isfinite(loss):
                raise GeomlError(
                    f"the loss is {loss} at step {progress.step}; lower --lr, or look for wild values in the bands"
                )
        progress.epoch += 1

        row: dict[str, Any] = {"epoch": progress.epoch, "loss": sum(losses) / max(1, len(losses))}
        if score:
            row |= score(model)
            if row["watch"] > progress.best:
                progress.best, progress.best_epoch = row["watch"], progress.epoch
                best = {k: v.clone() for k, v in model.state_dict().items()}
        progress.history.append(row)
        note(row)
        late = recipe.patience and progress.epoch - progress.best_epoch >= recipe.patience
        if score and late:
            break
        save(saved, model, objective, optimizer, best if score else None, progress)

    if score:
        model.load_state_dict(best)
    return progress


def groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weights decay; biases and norms (one axis) do not."""
    flat = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    deep = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    return [{"params": deep, "weight_decay": weight_decay}, {"params": flat, "weight_decay": 0.0}]


def seeded(seed: int, step: int) -> torch.Generator:
    """A generator for one step; the global one (dropout) is set alike."""
    torch.manual_seed((seed * 1_000_003 + step) % 2**63)
    return torch.Generator().manual_seed((seed * 1_000_003 + step + 1) % 2**63)


def save(
    folder: Path,
    model: nn.Module,
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    best: dict[str, torch.Tensor] | None,
    progress: Progress,
) -> None:
    """Write a checkpoint: tensors first, then the JSON that names them; the last one stays until then."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"step-{progress.step}.safetensors"
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"objective.{k}": v for k, v in objective.state_dict().items()}
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{k}": v for k, v in state.items()}
    _write(folder / name, tensors)
    if best is not None and progress.best_epoch == progress.epoch:
        _replace(folder / "best.safetensors", best)
    state = folder / ".state.tmp"
    state.write_text(json.dumps({"tensors": name, **asdict(progress)}))
    state.replace(folder / "state.json")
    for old in folder.glob("step-*.safetensors"):
        if old.name != name:
            old.unlink()


def _replace(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    temporary = path.with_suffix(".tmp")
    _write(temporary, tensors)
    temporary.replace(path)


def _write(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    try:
        save_file({k: v.contiguous() for k, v in tensors.items()}, path)
    except SafetensorError as error:
        raise as_oserror(error, path) from None


def take_up(
    folder: Path, model: nn.Module, objective: nn.Module, optimizer: torch.optim.Optimizer
) -> Progress:
    """Load the last checkpoint of a folder, if there is one."""
    if not (folder / "state.json").is_file():
        return Progress()
    state = json.loads((folder / "state.json").read_text())
    tensors = load_file(folder / state.pop("tensors"))
    kinds: dict[str, dict[str, torch.Tensor]] = {"model": {}, "objective": {}, "optimizer": {}}
    for key, value in tensors.items():
        kind, _, rest = key.partition(".")
        kinds[kind][rest] = value
    model.load_state_dict(kinds["model"])
    objective.load_state_dict(kinds["objective"])
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in kinds["optimizer"].items():
        i, _, name = key.partition(".")
        moments.setdefault(int(i), {})[name] = value
    optimizer.load_state_dict(
        {"state": moments, "param_groups": optimizer.state_dict()["param_groups"]}
    )
    log.info("going on from epoch %d", state["epoch"])
    return Progress(**state)
