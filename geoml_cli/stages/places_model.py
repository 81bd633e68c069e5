"""What makes vectors of places: a location encoder, with a checkpoint or without, or a published GeoCLIP."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from geoml_cli import registry
from geoml_cli.core.base import State, load_base, read_state, read_tensor
from geoml_cli.errors import GeomlError, UsageMistake
from geoml_cli.formats.digest import digest_file
from geoml_cli.formats.jsonfile import read_json, sha256_of
from geoml_cli.formats.model import NAME, RELEASE, read_model, tells_places
from geoml_cli.formats.package import PKG, read_packed
from geoml_cli.formats.stamp import Input
from geoml_cli.stages.base import checkpoint_of
from geoml_cli.stages.carried import network_spec, part_inputs, spelled

ROOM = "location_encoders"
CONFIG, WEIGHTS = RELEASE, "model.safetensors"
TRAINED = "sensors.0.location.encoder."  # prefix in a network of ours
KINDS = ("geoclip-location-encoder", "geoclip-geolocation")
PACKAGE, SIGMA = "geoclip", "1-16-256"
IMAGE = "image_encoder.mlp."
FILES = {  # of the package: the prefix its tensors have in a release
    "location_encoder_weights.pth": "location_encoder.",
    "image_encoder_mlp_weights.pth": IMAGE,
    "logit_scale_weights.pth": "logit_scale",
}


@dataclass
class PlaceModel:
    """A location encoder to be; `image` builds what brings image features into its space, if that is known.

    `weights` is the digest of its checkpoint, `logit_scale` what cosines are multiplied by.
    """

    name: str
    spec: str
    build: Callable[[], nn.Module]
    weights: str | None = None
    inputs: list[Input] = field(default_factory=list)
    image: Callable[[], nn.Module] | None = None
    logit_scale: float | None = None
    licence: str | None = None
    seed: int = 0

    def about(self) -> dict[str, Any]:
        """What is said of the vectors in their file, but for what is measured."""
        return {
            "encoder": spelled(self.spec),
            "location_encoder": spelled(self.spec),
            "weights": self.weights,
            "seed": None if self.weights else self.seed,
            "logit_scale": self.logit_scale,
            **dict.fromkeys(("pool", "level", "model")),
            "member": 0,
            "sensors": [],
        }


def encoder_model(spec: str, weights: str | None, seed: int) -> PlaceModel:
    """A location encoder by name; what its options leave open a checkpoint tells."""
    part_name, given = registry.parse(ROOM, spec)
    inputs = part_inputs([spec])
    if weights is None:

        def fresh() -> nn.Module:
            torch.manual_seed(seed)
            return registry.make(ROOM, spec).eval()

        return PlaceModel(spec, spec, fresh, None, inputs, seed=seed)
    base = checkpoint_of(weights)
    part = registry.load(ROOM, part_name)
    state = base.state()
    if hasattr(part, "rename"):
        state = part.rename(state)
    told = part.told(state) if hasattr(part, "told") else {}
    spec = _spelled(part_name, told | given)

    def loaded() -> nn.Module:
        module = registry.make(ROOM, spec)
        load_base(module, spec, state, weights, room=ROOM)
        return module.eval()

    read = [*inputs, base.input]
    return PlaceModel(weights, spec, loaded, digest_tensors(state), read, licence=base.licence)


def _spelled(name: str, options: dict[str, Any]) -> str:
    words = ",".join(
        f"{k}={str(v).lower() if isinstance(v, bool) else v}" for k, v in options.items()
    )
    return f"{name}:{words}" if words else name


def model_of(encoder: str | None, weights: str, seed: int = 0) -> PlaceModel:
    """A location encoder from its weights: those of a whole model tell which one it is, others need its name."""
    if not tells_places(weights):
        if encoder is None:
            raise UsageMistake(f"--location-weights {weights}: of which --location-encoder?")
        return encoder_model(encoder, weights, seed)
    found = published_model(weights)
    asked = registry.parse(ROOM, encoder or found.spec)
    if asked == registry.parse(ROOM, found.spec):
        return found
    if encoder and registry.constant(ROOM, asked[0], "HOLDS") == found.spec:
        return _holding(encoder, asked[0], found)
    raise UsageMistake(f"--location-encoder {encoder}: {weights} holds {found.spec}")


def _holding(spec: str, name: str, inner: PlaceModel) -> PlaceModel:
    """A location encoder with another one inside that has its weights."""

    def build() -> nn.Module:
        module = registry.make(ROOM, spec)
        module.load_state_dict(registry.load(ROOM, name).rename(inner.build().state_dict()))
        return module.eval()

    return PlaceModel(spec, spec, build, inner.weights, inner.inputs, licence=inner.licence)


def published_model(name: str, trust_code: bool = False) -> PlaceModel:
    """A whole model: GeoCLIP, of its package or of a release (`pkg:geoclip`, `pkg:PATH.whl`, or a folder), or one that
    was trained on places alone, of which an ensemble's first member is taken.
    """
    if not name.startswith(PKG) and (Path(name) / NAME).is_file():
        return _trained(name, trust_code)
    sigma, state, inputs = _of_package(name) if name.startswith(PKG) else _of_folder(Path(name))
    places = registry.load(ROOM, PACKAGE).rename(state)
    images = {k.removeprefix(IMAGE): v for k, v in state.items() if k.startswith(IMAGE)}
    spec = PACKAGE if sigma == SIGMA else f"{PACKAGE}:sigma={sigma}"

    def build() -> nn.Module:
        module = registry.make(ROOM, spec)
        load_base(module, spec, places, name, room=ROOM)
        return module.eval()

    def image() -> nn.Module:
        widths = images["0.weight"].shape[1], *images["2.weight"].shape[::-1]
        layers = nn.Linear(*widths[:2]), nn.ReLU(), nn.Linear(*widths[1:])
        module = nn.Sequential(*layers)
        module.load_state_dict(images)
        return module.eval()

    found = PlaceModel(name, spec, build, digest_tensors(places), inputs)
    if name.startswith(PKG):
        found.licence = read_packed(f"{name}/{next(iter(FILES))}", (".pth",)).licence
    if {"0.weight", "2.weight"} <= images.keys():
        found.image = image
    if "logit_scale" in state:
        found.logit_scale = float(state["logit_scale"].double().exp())
    return found


def _trained(name: str, trust_code: bool) -> PlaceModel:
    model = read_model(name)
    spec = str(network_spec(model, trust_code)["location_encoder"])
    state = {
        key.removeprefix(TRAINED): value
        for key, value in model.weights()[0].items()
        if key.startswith(TRAINED)
    }

    def build() -> nn.Module:
        module = registry.make(ROOM, spec)
        module.load_state_dict(state)
        return module.eval()

    stamp = model.folder / NAME
    inputs = [Input(str(stamp), "model", digest_file(stamp))]
    return PlaceModel(name, spec, build, digest_tensors(state), inputs)


def _of_package(name: str) -> tuple[str, State, list[Input]]:
    """Tensors of the published wheel, under the names of a release."""
    state: State = {}
    digests = []
    for file, prefix in FILES.items():
        data = read_packed(f"{name}/{file}", (".pth",)).data
        digests.append(hashlib.sha256(data).hexdigest())
        if prefix == "logit_scale":
            state[prefix] = read_tensor(f"{name}/{file}", data)
        else:
            state |= {prefix + k: v for k, v in read_state(f"{name}/{file}", data).items()}
    return SIGMA, state, [Input(name, "model", sha256_of(digests))]


def _of_folder(folder: Path) -> tuple[str, State, list[Input]]:
    """Tensors of a release: config.json and model.safetensors."""
    config = read_json(folder / CONFIG)
    if not isinstance(config, dict) or config.get("model_type") not in KINDS:
        raise GeomlError(f"{folder / CONFIG}: of none of the kinds {', '.join(KINDS)}")
    if config.get("format_version") != 1:
        raise GeomlError(f"{folder / CONFIG}: format {config.get('format_version')}; 1 is read")
    sigma = "-".join(f"{one:g}" for one in config.get("sigma") or (1, 16, 256))
    files = [folder / CONFIG, folder / WEIGHTS]
    state = read_state(str(files[1]))
    digests = [digest_file(path) for path in files]
    return sigma, state, [Input(str(files[1]), "model", sha256_of(digests))]


def digest_tensors(state: State) -> str:
    """sha256 of tensors by name, whatever file they lie in."""
    found = hashlib.sha256()
    for key, value in sorted(state.items()):
        found.update(f"{key} {tuple(value.shape)} {value.dtype}".encode())
        found.update(value.detach().contiguous().numpy().tobytes())
    return found.hexdigest()
