"""The networks of a model folder, built and loaded."""

from typing import Any

from geoml_cli.core.aim import Aim
from geoml_cli.errors import GeomlError
from geoml_cli.formats.digest import digest_file
from geoml_cli.formats.model import Model
from geoml_cli.formats.package import HF, PKG
from geoml_cli.stages.base import Checkpoint, checkpoint_of


def load_networks(model: Model, spec: dict[str, Any]) -> list[Any]:
    """Every member of a model; tensors that the folder does not hold are those of its base."""
    from geoml_cli.core import network as networks

    base = None
    if model.head["base"]:
        base = base_of(model).state()
    members = []
    for i, state in enumerate(model.weights()):
        network = networks.build(spec, base)
        try:
            found = network.load_state_dict(state, strict=base is None)
        except RuntimeError as error:
            said = str(error).splitlines()[-1].strip()
            raise GeomlError(
                f"{model.folder}: weights do not fit the network of member {i} ({said})"
            ) from None
        inside = tuple(f"sensors.{k}.encoder." for k in range(len(network.sensors)))
        lost = [k for k in found.missing_keys if not k.startswith(inside)]
        if lost or found.unexpected_keys:
            raise GeomlError(
                f"{model.folder}: weights do not fit the network of member {i}"
                f" ({(lost + found.unexpected_keys)[0]})"
            )
        members.append(network)
    return members


def aim_of(model: Model) -> Aim:
    """What the networks say, and how their outputs are read."""
    plain = model.head["aim"]
    names, fills = tuple(plain["names"]), plain.get("fills", False)
    return Aim(plain["kind"], plain["per"], (), names, plain["binary"], fills)


def base_of(model: Model) -> Checkpoint:
    """The checkpoint that a model's encoders stand on; raises where it is gone or another."""
    base = model.head["base"]
    name = base["path"]
    if name.startswith((HF, PKG)):
        if base.get("revision") and "@" not in name:
            name = f"{name}@{base['revision']}"
        found = checkpoint_of(name)
        if found.digest != base["sha256"]:
            raise GeomlError(
                f"{name}: is not the checkpoint that the model was trained on (sha256 differs)"
            )
        return found
    place = model.folder / name
    if not place.is_file():
        raise GeomlError(
            f"{place}: is gone; the model holds only what it changed of that checkpoint: put it back there"
        )
    if digest_file(place) != base["sha256"]:
        raise GeomlError(
            f"{place}: is not the checkpoint that the model was trained on (sha256 differs)"
        )
    return Checkpoint(str(place), place)
