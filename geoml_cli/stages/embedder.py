"""What makes embeddings: a trained model without its head, or an encoder on its own."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geoml_cli import registry
from geoml_cli.core import network as networks
from geoml_cli.core.batch import Batch
from geoml_cli.core.device import Device, place
from geoml_cli.core.features import Features, set_norms
from geoml_cli.core.infer import Room
from geoml_cli.core.lattice import Lattice
from geoml_cli.core.network import Network
from geoml_cli.core.receptive import reach
from geoml_cli.core.reduction import Reduction
from geoml_cli.errors import GeomlError, UsageMistake
from geoml_cli.formats.jsonfile import sha256_of
from geoml_cli.formats.model import Model
from geoml_cli.formats.stamp import Input
from geoml_cli.stages.base import checkpoint_of
from geoml_cli.stages.carried import part_inputs, spelled
from geoml_cli.stages.model_folder import blend_of
from geoml_cli.stages.models import Opened, open_model

WINDOW = 224  # px of a tile of a raster, where no model says another
Norms = list[dict[str, list[float]]]


@dataclass(frozen=True)
class Way:
    """Which embeddings, as it was given or as the file of `--as` says."""

    model: str | None = None
    encoder: str | None = None
    encoder_weights: str | None = None
    seed: int = 0
    pool: str | None = None
    level: int | None = None
    member: int = 0
    window: int | None = None
    norms: Norms | None = None
    reduction: Mapping[str, Any] | None = None
    sensors: Sequence[dict[str, Any]] | None = None

    def recorded(self) -> dict[str, Any]:
        """What of it decides the bytes, besides inputs."""
        plain = vars(self)
        kept = {k: plain[k] for k in ("seed", "pool", "level", "member", "window")}
        return kept | {"encoder": self.encoder and spelled(self.encoder)}


@dataclass
class Source:
    """A network to be, and what it must be shown: an `Opened` whose head says how windows are laid."""

    way: Way
    opened: Opened
    pool: str
    inputs: list[Input] = field(default_factory=list)
    network: Network | None = None

    @property
    def head(self) -> dict[str, Any]:
        """The contract."""
        return self.opened.head

    def built(self) -> Network:
        """The network, loaded once."""
        if self.network is None:
            self.network = self.opened.load()[self.way.member]
        return self.network

    def dense(self) -> "Source":
        """The same, for a vector a patch: its head says the patch, and how far it sees."""
        network = self.built()
        step = Features(network, self.way.level).stride
        head = dict(self.head) | {"step": step, "stride": max(network.stride, step)}
        head["aim"] = dict(head["aim"]) | {"per": "pixel"}
        if self.way.encoder:
            head["halo"] = reach(network)
            head["blend"] = None if head["halo"] is not None else blend_of(head["window"])
        return replace(self, opened=_with(self.opened, head))

    def about(self) -> dict[str, Any]:
        """What is said of the embeddings in their file, but for what is measured."""
        own = self.opened.model.head.get("geoml", {}).get("fingerprint")
        weights = [one.digest for one in self.inputs if one.role == "encoder_weights"]
        return {
            **self.way.recorded(),
            "pool": self.pool,
            "window": self.head["window"],
            "model": own if self.way.model else None,
            "weights": weights[0] if weights else None,
            "sensors": [
                {k: one[k] for k in ("name", "bands", "dtype", "gsd_m", "frames")}
                for one in self.head["sensors"]
            ],
        }


def _with(opened: Opened, head: dict[str, Any]) -> Opened:
    return replace(opened, model=Model(opened.model.folder, head))


def source_of_model(way: Way, trust_code: bool) -> Source:
    """A trained model."""
    assert way.model
    opened = open_model(way.model, trust_code)
    if "network" not in opened.head:
        raise GeomlError(
            f"{way.model}: gives answers only; embeddings are of a folder of `geoml train`"
        )
    members = opened.head["members"]
    if not 0 <= way.member < members:
        raise UsageMistake(f"--member {way.member}: {way.model} has {members}, counted from 0")
    head = dict(opened.head) | {"aim": dict(opened.head["aim"]) | {"per": "tile"}}
    if way.window:
        head["window"] = way.window
    pool = way.pool or usual_pool(head["encoder"])
    return Source(way, _with(opened, head), pool, list(opened.inputs))


def source_of_encoder(way: Way, sensors: Sequence[dict[str, Any]]) -> Source:
    """An encoder, of random weights or a checkpoint's, for the bands of the input."""
    assert way.encoder
    name = way.encoder.partition(":")[0]
    registry.parse("encoders", way.encoder)
    sensors = list(way.sensors or sensors)
    spec = {
        "encoder": way.encoder,
        "head": "linear",
        "adapter": None,
        "sensors": [{**_counts(one), **networks.named_bands(name, one)} for one in sensors],
        "outputs": 1,
        "per": "pixel",
        "fuse": "late",
        "time": "stack",
        "codes": 0,
        "values": 0,
    }
    inputs = part_inputs([way.encoder])
    base = None
    if way.encoder_weights:
        base = checkpoint_of(way.encoder_weights)
        inputs.append(base.input)
    head = {
        "encoder": way.encoder,
        "sensors": sensors,
        "bands": sensors[0]["bands"],
        "dtype": sensors[0]["dtype"],
        "gsd_m": sensors[0]["gsd_m"],
        "window": way.window or WINDOW,
        "stride": 1,
        "halo": None,
        "blend": blend_of(way.window or WINDOW),
        "frames": None,
        "codes": [],
        "aim": {"kind": "values", "per": "tile", "names": [], "binary": False},
        "members": 1,
    }

    def load() -> list[Any]:
        torch.manual_seed(way.seed)
        state = base.state() if base else None
        return [networks.build(spec, state).eval()]

    opened = Opened(way.encoder, Model(Path(), head), inputs, load)
    return Source(way, opened, way.pool or usual_pool(way.encoder), inputs)


def _counts(about: Mapping[str, Any]) -> dict[str, Any]:
    return {"bands": len(about["bands"]), "frames": about["frames"]}


def usual_pool(encoder: str) -> str:
    """How an encoder's tiles are pooled where nothing is said."""
    return registry.constant("encoders", encoder.partition(":")[0], "POOL") or "mean"


def measured(batches: Iterable[Batch]) -> Norms:
    """Mean and standard deviation of the bands of every sensor over the valid pixels of some batches."""
    sums: list[Any] = []
    for batch in batches:
        for k, one in enumerate((batch, *batch.others)):
            x = one.images.double().transpose(1, 2).transpose(0, 1).flatten(1)  # (C, pixels)
            if not bool(one.valid.all()):
                x = x[:, one.valid.flatten()]
            if not x.shape[1]:
                continue
            middle = (
                x.mean(1) if len(sums) <= k else sums[k][3]
            )  # about which squares lose no digits
            off = x - middle[:, None]
            found = [x.shape[1], off.sum(1), (off**2).sum(1)]
            if len(sums) <= k:
                sums.append([*found, middle])
            else:
                sums[k][:3] = [a + b for a, b in zip(sums[k], found, strict=False)]
    norms = []
    for count, total, squares, middle in sums:
        mean = total / count
        std = (squares / count - mean**2).clamp(min=0).sqrt()
        std = torch.where(std > 0, std, 1.0)
        norms.append({"mean": (mean + middle).tolist(), "std": std.tolist()})
    return norms


def space_of(about: Mapping[str, Any], norms: Norms | None, reduction: Any) -> str:
    """Digest of all that makes vectors comparable."""
    keys = ("encoder", "seed", "member", "level", "model", "weights")
    return sha256_of([{k: about[k] for k in keys}, norms, reduction])


class Embedder:
    """A network on a device, asked for embeddings."""

    def __init__(self, source: Source, norms: Norms | None, device: Device) -> None:
        network = source.built()
        if norms is not None:
            set_norms(network, [(one["mean"], one["std"]) for one in norms])
        features = Features(network, source.way.level, source.pool)
        self.features: Any = place(features.eval(), device)
        self.device, self.room = device, Room(device)
        self.reduction: Reduction | None = None

    @property
    def answers(self) -> "Embedder":
        """What turns channels into what is stored: itself."""
        return self

    def width(self, sensors: Sequence[Mapping[str, Any]], dense: bool) -> int:
        """Dimensions of an embedding: asked of the network with a small image of nothing."""
        side = max(self.features.network.stride, 32)
        each = []
        for one in sensors:
            shape = (1, one["frames"], len(one["bands"]), side, side)
            batch = Batch(
                torch.zeros(shape), torch.ones(1, one["frames"], side, side, dtype=torch.bool)
            )
            each.append(batch)
        codes = self.features.network.spec.get("codes", 0)
        if codes:
            each = [replace(one, codes=torch.zeros(*one.images.shape[:2], codes)) for one in each]
        batch = replace(each[0], others=tuple(each[1:])).to(self.device.torch)
        with torch.inference_mode():
            return int((self.features(batch) if dense else self.features.tiles(batch)).shape[1])

    @torch.inference_mode()
    def tiles(self, batch: Batch) -> np.ndarray:
        """One embedding a sample, (B, D) float32."""
        batch = batch.to(self.device.torch)

        def given(start: int, stop: int) -> torch.Tensor:
            with self.device.autocast():
                return self.features.tiles(batch.part(start, stop)).float()

        return torch.cat(self.room.each(len(batch.images), given)).cpu().numpy()

    @torch.inference_mode()
    def ask(
        self,
        batch: Batch,
        places: Sequence[tuple[int, int]],
        lattice: Lattice,
        folds: Any = None,
    ) -> list[torch.Tensor]:
        """Embeddings (D, h, w) of the patches that each window counts for."""
        batch = batch.to(self.device.torch)

        def given(start: int, stop: int) -> torch.Tensor:
            with self.device.autocast():
                return self.features(batch.part(start, stop)).float()

        maps = torch.cat(self.room.each(len(places), given))
        if self.reduction is not None:
            one = self.reduction
            mean, rows = (
                torch.from_numpy(a.copy()).to(maps.device) for a in (one.mean, one.components)
            )
            maps = torch.einsum("kd,bdhw->bkhw", rows, maps - mean[:, None, None])
        cuts = [(lattice.rows.taken(r), lattice.cols.taken(c)) for r, c in places]
        return [m[(slice(None), *cut)] for m, cut in zip(maps, cuts, strict=True)]

    def of(self, channels: torch.Tensor) -> dict[str, np.ndarray]:
        """Arrays (B, D, h, w) by asset."""
        return {"map": channels.cpu().numpy()}
