"""What is to be fitted on what and where, and what comes of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from geoml_cli.core.aim import Aim
from geoml_cli.core.checkpoint import Progress
from geoml_cli.core.device import Device
from geoml_cli.core.network import Network, named_bands
from geoml_cli.core.ranks import Ranks
from geoml_cli.core.scoring import Stats
from geoml_cli.formats.tileset import Tiles
from geoml_cli.stages.codes import check_codes
from geoml_cli.stages.feed import Feed
from geoml_cli.stages.train import width_of


@dataclass(frozen=True)
class Order:
    """What is to be fitted on what."""

    tiles: Tiles
    aim: Aim
    task: Any
    metric: str
    sensors: Sequence[str]
    parts: Mapping[str, str | None]  # encoder, head, objective, adapter, as they are loaded
    given: Mapping[str, Any]  # all that `geoml train` was given
    arguments: Mapping[str, Any]  # what of it decides the bytes, as it is recorded

    def recorded(self, key: str) -> Any:
        """An argument as the model records it: parts given as files by their place in its folder."""
        return self.arguments[key]

    @property
    def spec(self) -> dict[str, Any]:
        """Plain description of the network."""
        heads = {one["name"]: one for one in self.tiles.head["sensors"]}
        values = len(self.aim.names) if self.aim.kind == "values" else 0
        return {
            "encoder": self.parts["encoder"],
            "head": self.parts["head"],
            "adapter": self.parts["adapter"],
            "sensors": [
                {"bands": len(heads[n]["bands"]), "frames": heads[n]["frames"]}
                | named_bands(str(self.parts["encoder"]), heads[n])
                for n in self.sensors
            ],
            "outputs": self.aim.outputs * width_of(str(self.parts["objective"])),
            "per": self.aim.per,
            "fuse": self.given["fuse"],
            "time": self.given["time"],
            "codes": check_codes(self.given["codes"]),
            "values": values,
            "partial": self.given["partial"],
            "log": bool(self.given["log_target"]),
            "location_encoder": self.parts["location_encoder"],
            "location_join": self.given["location_join"],
            "location_dropout": self.given["location_dropout"],
        }


@dataclass(frozen=True)
class Place:
    """Where a member is fitted: the device, the processes, the folder, and what may stop it."""

    device: Device
    ranks: Ranks
    part: Path
    check: Callable[[], None]
    note: Callable[[dict[str, Any]], None]
    quiet: bool


@dataclass(frozen=True)
class Fitted:
    """A member that is fitted."""

    feed: Feed
    network: Network
    tensors: dict[str, torch.Tensor]  # what of it is stored
    progress: Progress
    blocks: dict[int, Stats]  # on its test ground

    @property
    def partial(self) -> bool:
        """Whether the tensors are only what differs from the base."""
        return len(self.tensors) < len(self.network.state_dict())
