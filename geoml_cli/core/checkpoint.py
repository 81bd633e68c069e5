"""Where a run stands, on disk: tensors in safetensors, the rest as JSON; never pickle."""

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from geoml_cli.errors import as_oserror

log = logging.getLogger("geoml")
Tensors = Mapping[str, torch.Tensor]


@dataclass
class Progress:
    """Where a run stands; together with the tensors beside it, all there is to go on from."""

    epoch: int = 0  # finished ones
    at: int = 0  # steps done in the one that is not
    step: int = 0
    losses: list[float] = field(default_factory=list)  # of the epoch's steps
    micro: int = 0  # samples that the device takes at a time; 0: not known yet
    best: float = -math.inf
    best_epoch: int = -1
    kept: int = -1  # the epoch whose weights are kept as the best
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class State:
    """What training changes."""

    model: nn.Module
    objective: nn.Module
    optimizer: torch.optim.Optimizer
    average: dict[str, torch.Tensor]  # of the weights over the steps; empty: none is kept
    best: dict[str, torch.Tensor]  # the weights that scored best; empty: no score yet

    def save(self, folder: Path, progress: Progress) -> None:
        """Write a checkpoint: tensors first, then the JSON that names them; the last one stays until then."""
        folder.mkdir(parents=True, exist_ok=True)
        name = f"step-{progress.step}-{progress.epoch}.safetensors"
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"objective.{k}": v for k, v in self.objective.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.items()}
        for i, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{k}": v for k, v in state.items() if v is not None}
        _write(folder / name, tensors)
        best = f"best-{progress.kept}.safetensors"
        if self.best and not (folder / best).is_file():
            _write(folder / best, self.best)
        state = folder / ".state.tmp"
        state.write_text(json.dumps({"tensors": name, **asdict(progress)}))
        state.replace(folder / "state.json")
        for old in folder.glob("*.safetensors"):
            if old.name not in (name, best):
                old.unlink()

    def take_up(self, folder: Path) -> Progress:
        """Load the last checkpoint of a folder, if there is one."""
        if not (folder / "state.json").is_file():
            return Progress()
        state = json.loads((folder / "state.json").read_text())
        device = next(iter(self.model.state_dict().values())).device
        kinds: dict[str, dict[str, torch.Tensor]] = {
            kind: {} for kind in ("model", "objective", "average", "optimizer")
        }
        for key, value in load_file(folder / state.pop("tensors"), device=str(device)).items():
            kind, _, rest = key.partition(".")
            kinds[kind][rest] = value
        self.model.load_state_dict(kinds["model"])
        self.objective.load_state_dict(kinds["objective"])
        self.average = kinds["average"]
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in kinds["optimizer"].items():
            i, _, name = key.partition(".")
            moments.setdefault(int(i), {})[name] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        progress = Progress(**state)
        if progress.kept >= 0:
            self.best = load_file(folder / f"best-{progress.kept}.safetensors", device=str(device))
        log.info("going on from epoch %d, step %d", progress.epoch, progress.step)
        return progress


def _write(path: Path, tensors: Tensors) -> None:
    temporary = path.with_suffix(".tmp")
    try:
        save_file({k: v.detach().contiguous() for k, v in tensors.items()}, temporary)
    except SafetensorError as error:
        raise as_oserror(error, path) from None
    temporary.replace(path)
