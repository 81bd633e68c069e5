"""Checkpoints of others as models: by a name of `geoml list weights`, or a file with a card beside it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geoml_cli import registry
from geoml_cli.errors import GeomlError
from geoml_cli.formats.card import contract_of, read_card
from geoml_cli.formats.jsonfile import sha256_of
from geoml_cli.formats.model import Model
from geoml_cli.formats.stamp import Input
from geoml_cli.stages.base import Checkpoint, checkpoint_of
from geoml_cli.stages.models import Opened

IN_CARD = ("encoder", "head", "frames", "fills", "classes", "gsd_m", "window", "licence", "source")


def open_published(name: str) -> Opened:
    """Open a checkpoint by what is known of it; its tensors are read when they are wanted."""
    known = None if Path(name).exists() else registry.weights().get(name)
    if known is not None and "head" not in known:
        raise GeomlError(
            f"{name}: is an encoder alone; train a head on it (`geoml train --encoder {known['encoder']}"
            f" --encoder-weights {name}`), or embed with it"
        )
    card = read_card(card_of(known) if known else _beside(name), name)
    for key in ("encoder", "head"):
        if key not in card:
            raise GeomlError(
                f"{_card_path(name)}: names no {key}; `geoml help models` shows a card"
            )
        registry.parse(f"{key}s", card[key])
    found = checkpoint_of(name)
    binary = False
    head = contract_of(card, None, binary)
    digest = sha256_of([found.digest, card])
    spec = spec_of(card, head)
    head |= {"encoder": card["encoder"], "network": spec, "geoml": {"fingerprint": digest}}

    def load() -> list[Any]:
        return [network_of(spec, card, found)]

    place = Path(found.file or ".").parent
    return Opened(name, Model(place, head), [Input(found.input.path, "model", digest)], load)


def card_of(known: Mapping[str, Any]) -> dict[str, Any]:
    """What the table says of a checkpoint, as a card: values are the physical ones."""
    scale = known.get("scale", 1)
    bands = [{"name": n, "common_name": n, "unit": known.get("physical")} for n in known["bands"]]
    plain = {key: known[key] for key in IN_CARD if key in known}
    means = {key: [scale * value for value in known[key]] for key in ("mean", "std")}
    return {**plain, **means, "bands": bands}


def _card_path(name: str) -> Path:
    return Path(name).with_suffix(".json")


def _beside(name: str) -> Any:
    path = _card_path(name)
    if not Path(name).is_file():
        raise GeomlError(f"{name}: no such file")
    if not path.is_file():
        raise GeomlError(
            f"{path}: no such file; it is to say what goes in and comes out (`geoml help models`), or take the"
            " checkpoint as --encoder-weights"
        )
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise GeomlError(f"{path}: no JSON ({error}); mend it") from None


def spec_of(card: Mapping[str, Any], head: Mapping[str, Any]) -> dict[str, Any]:
    """Plain description of the network."""
    from geoml_cli.core.network import named_bands

    names = head["aim"]["names"]
    sensor = {"bands": len(head["bands"]), "frames": card["frames"]}
    return {
        "encoder": card["encoder"],
        "head": card["head"],
        "adapter": None,
        "sensors": [sensor | named_bands(card["encoder"], head)],
        "outputs": len(names),
        "per": "pixel",
        "fuse": "middle",
        "time": "stack",
        "codes": 0,
        "values": len(names) if head["aim"]["kind"] == "values" else 0,
    }


def network_of(spec: Mapping[str, Any], card: Mapping[str, Any], found: Checkpoint) -> Any:
    """The network with the tensors of a checkpoint; raises where any is missing."""
    import torch

    from geoml_cli.core import network as networks
    from geoml_cli.core.base import load_base, load_head

    state = found.state()
    network = networks.build(spec)
    [sensor] = network.sensors
    load_base(sensor.encoder, spec["encoder"], dict(state), found.name)  # type: ignore[arg-type]
    load_head(network.head, spec["head"], dict(state), found.name)
    mean, std = (torch.tensor(card[key], dtype=torch.float32) for key in ("mean", "std"))
    sensor.mean.copy_(mean / card["scale"])  # type: ignore[operator]
    sensor.std.copy_(std / card["scale"])  # type: ignore[operator]
    if card["fills"]:
        network.value_mean.copy_(sensor.mean.repeat(card["frames"]))  # type: ignore[operator]
        network.value_std.copy_(sensor.std.repeat(card["frames"]))  # type: ignore[operator]
    return network.eval()
