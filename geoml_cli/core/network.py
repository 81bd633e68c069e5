"""Encoders and heads put together, with the normalisation inside: physical values in, outputs out."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.functional import interpolate

from geoml_cli import registry
from geoml_cli.core.base import load_base
from geoml_cli.core.batch import Batch
from geoml_cli.core.layers.pyramid import Pyramid
from geoml_cli.core.location import Location
from geoml_cli.core.sensor import Sensor, presence, resized
from geoml_cli.errors import UsageMistake

FUSE = ("middle", "late")
PER = ("pixel", "tile")


class Network(nn.Module):
    """One sensor or several to outputs (B, K, H, W), or (B, K) where a label is a tile's.

    Several sensors are fused in the `middle`: their maps go through a 1 x 1 convolution each and
    are added, which is one convolution of all of them put together; or `late`: each has a head of
    its own and the outputs are averaged. A sensor that has no valid pixel in a sample is left out.
    """

    value_mean: torch.Tensor
    value_std: torch.Tensor

    def __init__(
        self, sensors: Sequence[Sensor], heads: Sequence[nn.Module], spec: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self.spec = dict(spec)
        self.sensors = nn.ModuleList(sensors)
        self.head: Any = heads[0] if len(heads) == 1 else nn.ModuleList(heads)
        self.per, self.wants = spec["per"], maps_of(spec["head"])
        self.late = len(heads) > 1
        self.mixes = nn.ModuleList()
        if len(sensors) > 1 and not self.late and self.wants != "tokens":
            self.mixes.extend(
                nn.ModuleList(nn.Conv2d(c, c, 1, bias=i == 0) for c in one.channels)
                for i, one in enumerate(sensors)
            )
        if spec.get("values"):  # outputs are in units of the training labels' spread
            self.register_buffer("value_mean", torch.zeros(spec["values"]))
            self.register_buffer("value_std", torch.ones(spec["values"]))

    @property
    def stride(self) -> int:
        """Pixels between the coarsest features: windows lie on this lattice."""
        return max(int(max(one.strides)) for one in self.sensors)  # type: ignore[arg-type]

    def forward(self, batch: Batch, each: bool = False) -> torch.Tensor | list[torch.Tensor]:
        """Outputs; with `each` a list of them, what every sensor alone would say.

        What is not valid enters as the mean.
        """
        seen = [batch, *batch.others[: len(self.sensors) - 1]]
        if self.wants == "tokens":
            return self._images(seen)
        found = [sensor(one) for sensor, one in zip(self.sensors, seen, strict=True)]
        if len(found) == 1:
            out = self._decode(self.head, found[0], batch)
            return [out] if each else out
        if self.late:
            heads = list(self.head)
            outs = [self._decode(h, maps, batch) for h, maps in zip(heads, found, strict=True)]
            return outs if each else _mean(outs, seen)
        mixed = self._mixed(found)
        if each:
            return [self._decode(self.head, maps, batch) for maps in mixed]
        fused = [_mean(list(level), seen) for level in zip(*mixed, strict=True)]
        return self._decode(self.head, fused, batch)

    def _images(self, seen: list[Batch]) -> torch.Tensor:
        """Standardised images of all sensors side by side, by heads that want tokens."""
        tokens = [one.tokens(batch) for one, batch in zip(self.sensors, seen, strict=True)]  # type: ignore[operator]
        if self.late:
            each = [head([one])[0] for head, one in zip(self.head, tokens, strict=True)]
        else:
            each = self.head(tokens)
        h, w = seen[0].images.shape[-2:]
        return torch.cat([one[..., :h, :w].flatten(1, 2) for one in each], dim=1)

    def _mixed(self, found: list[list[torch.Tensor]]) -> list[list[torch.Tensor]]:
        """Maps of every sensor, ready to be added."""
        return [
            [mix(m) for mix, m in zip(mixes, maps, strict=True)]  # type: ignore[call-overload]
            for mixes, maps in zip(self.mixes, found, strict=True)
        ]

    def maps(self, batch: Batch) -> list[torch.Tensor]:
        """Feature maps (B, C, h, w), fine to coarse, as a head is given them; of sensors that are fused late
        one after the other.
        """
        seen = [batch, *batch.others[: len(self.sensors) - 1]]
        found = [sensor(one) for sensor, one in zip(self.sensors, seen, strict=True)]
        if len(found) == 1:
            return found[0]
        if self.late:
            return [torch.cat(level, dim=1) for level in zip(*found, strict=True)]
        return [_mean(list(level), seen) for level in zip(*self._mixed(found), strict=True)]

    def summary(self, batch: Batch) -> torch.Tensor:
        """What the encoders say of each sample as one, (B, D); sensors one after the other."""
        seen = [batch, *batch.others[: len(self.sensors) - 1]]
        each = [sensor.summary(one) for sensor, one in zip(self.sensors, seen, strict=True)]  # type: ignore[operator]
        return torch.cat(each, dim=1)

    def _decode(self, head: nn.Module, maps: list[torch.Tensor], batch: Batch) -> torch.Tensor:
        size = batch.images.shape[-2:]
        if self.per == "tile":
            seen = batch.valid.any(dim=1)[:, None].float()
            if self.wants == "pyramid":
                return _pooled(head(maps), seen).flatten(1)
            return head([*maps[:-1], _pooled(maps[-1], seen)]).mean((2, 3))
        out = head(maps)
        if out.shape[-2:] == size:
            return out
        # a map of stride s covers ceil(H / s) * s pixels: resized to fewer it would be shifted
        step = int(self.sensors[0].strides[0])  # type: ignore[index]
        whole = [-(-n // step) * step for n in size]
        out = interpolate(out, size=whole, mode="bilinear", align_corners=False)
        return out[..., : size[0], : size[1]]

    def physical(self, outputs: torch.Tensor) -> torch.Tensor:
        """Outputs in the units of the labels: means, then variances where there are such."""
        if not hasattr(self, "value_mean"):
            return outputs
        count = len(self.value_mean)
        shape = (1, count) + (1,) * (outputs.ndim - 2)
        mean, std = self.value_mean.view(shape), self.value_std.view(shape)
        values = outputs[:, :count] * std + mean
        rates = torch.ones_like(values)
        if self.spec.get("log"):
            rates = values.exp()  # of what a small change becomes
            values = values.expm1()
        if outputs.shape[1] == count:
            return values
        return torch.cat([values, outputs[:, count:].exp() * (std * rates) ** 2], dim=1)


def _mean(each: list[torch.Tensor], seen: list[Batch]) -> torch.Tensor:
    """Mean over the sensors that have a valid pixel in the sample; over all where none has."""
    weights = torch.stack([presence(one) for one in seen])  # (S, B)
    weights = torch.where(weights.sum(0) > 0, weights, torch.ones_like(weights))
    weights = weights / weights.sum(0)
    shape = (len(each), -1) + (1,) * (each[0].ndim - 1)
    stacked = torch.stack(each)
    return (stacked * weights.view(shape).to(stacked.dtype)).sum(0)


def _pooled(maps: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Mean (B, C, 1, 1) of maps over the share (B, 1, H, W) of valid pixels beneath."""
    weight = resized(seen, maps.shape[-2:]).to(maps.dtype) + 1e-6
    return (maps * weight).sum((2, 3), keepdim=True) / weight.sum((2, 3), keepdim=True)


def maps_of(head: str) -> str:
    """What a head wants: maps, `pyramid` or `last`, or `tokens` of what was seen."""
    return registry.constant("heads", head.partition(":")[0], "MAPS") or "pyramid"


def named_bands(encoder: str, about: Mapping[str, Any]) -> dict[str, Any]:
    """Entry `names` of a sensor's spec: common name and wavelength of a sensor's bands, for encoders that want to know."""
    if not registry.constant("encoders", encoder.partition(":")[0], "BANDS"):
        return {}
    return {"names": [[b.get("common_name"), b.get("wavelength_nm")] for b in about["bands"]]}


def own_scales(encoder: str, bands: int) -> tuple[list[float], list[float]] | None:
    """What an encoder wants taken from each band and divided by, whatever the data are; None: their mean and spread."""
    name, chosen = registry.parse("encoders", encoder)
    part = registry.load("encoders", name)
    return part.scales(bands, **chosen) if hasattr(part, "scales") else None


def build(spec: Mapping[str, Any], base: Mapping[str, torch.Tensor] | None = None) -> Network:
    """Build from a plain description; `base` is what the encoders start from.

    encoder, head (names with options), sensors [{bands, frames}], outputs (channels of a head),
    per (pixel | tile), fuse (middle | late), time (stack | mean | attention), codes (count), values
    (number of values that outputs stand for, 0 for classes), adapter (name with options, or None);
    where places are told location_encoder (name with options), location_join (alone | concat | film),
    location_dropout; log (values are learnt as log(1 + value)).
    """
    sensors = [_sensor(spec, one, base) for one in spec["sensors"]]
    late = len(sensors) > 1 and spec.get("fuse") == "late"
    if maps_of(spec["head"]) == "tokens":
        return Network(sensors, _decoders(spec, sensors, late), spec)
    heads = [
        registry.make("heads", spec["head"], one.channels, one.strides, spec["outputs"])
        for one in (sensors if late else sensors[:1])
    ]
    return Network(sensors, heads, spec)


def _decoders(spec: Mapping[str, Any], sensors: Sequence[Sensor], late: bool) -> list[nn.Module]:
    """The head of all sensors together, or one of each."""
    encoders = [one.encoder for one in sensors]
    for one in encoders:
        if not hasattr(one, "tokens"):
            raise UsageMistake(
                f"--head {spec['head']}: is for encoders that take patches, such as prithvi, not {spec['encoder']}"
            )
    bands = [one["bands"] for one in spec["sensors"]]
    if not late:
        return [registry.make("heads", spec["head"], encoders, bands)]
    pairs = zip(encoders, bands, strict=True)
    return [registry.make("heads", spec["head"], [one], [count]) for one, count in pairs]


def _sensor(
    spec: Mapping[str, Any], about: Mapping[str, Any], base: Mapping[str, torch.Tensor] | None
) -> Sensor:
    """One sensor's encoder, with what brings its dates together."""
    name = spec["encoder"].partition(":")[0]
    native = registry.constant("encoders", name, "time") == "native"
    bands, frames = about["bands"] + spec.get("codes", 0), about["frames"]
    time = spec.get("time") or "stack"
    if native and registry.constant("encoders", name, "BANDS"):
        encoder = registry.make(
            "encoders", spec["encoder"], bands, frames, about.get("names") or ()
        )
    elif native:
        encoder = registry.make("encoders", spec["encoder"], bands, frames)
    else:
        stacked = bands * frames if time == "stack" else bands
        encoder = registry.make("encoders", spec["encoder"], stacked)
    channels, strides = list(encoder.channels), list(encoder.strides)
    if base is not None:
        load_base(encoder, spec["encoder"], dict(base), "--encoder-weights", spec.get("partial"))
    if spec.get("adapter"):
        encoder = registry.make("adapters", spec["adapter"], encoder)
    neck = None
    if maps_of(spec["head"]) == "pyramid" and len(set(strides)) < len(strides):
        neck = Pyramid(channels, strides)
    how = "native" if native else time if frames > 1 else "stack"
    last: Any = neck or encoder
    location = location_of(spec, last.channels, last.strides)
    return Sensor(encoder, about["bands"], how, neck, location)


def location_of(
    spec: Mapping[str, Any], channels: Sequence[int], strides: Sequence[int]
) -> Location | None:
    """What tells a network where it is, if anything does."""
    if not spec.get("location_encoder"):
        return None
    encoder = registry.make("location_encoders", spec["location_encoder"])
    return Location(encoder, channels, strides, spec["location_join"], spec["location_dropout"])


class Sum(nn.Module):
    """Several objectives added up: `cross-entropy+dice`; the model runs once."""

    def __init__(self, parts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def plan(self, steps: int, steps_an_epoch: int) -> None:
        """Tell every part how long the run is."""
        for part in self.parts:
            if hasattr(part, "plan"):
                part.plan(steps, steps_an_epoch)  # type: ignore[operator]

    def forward(self, model: nn.Module, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        """Sum of the losses."""
        once = _Once(model, batch)
        return {"loss": torch.stack([part(once, batch, step)["loss"] for part in self.parts]).sum()}


class _Once:
    """A model that remembers its answers to the batch of this step; others are answered as ever."""

    def __init__(self, model: nn.Module, batch: Batch) -> None:
        self._model, self._batch = model, batch
        self._answers: dict[bool, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, batch: Batch, each: bool = False) -> Any:
        if batch is self._batch and each in self._answers:
            return self._answers[each]
        found = self._model(batch, each=True) if each else self._model(batch)
        if batch is self._batch:
            self._answers[each] = found
        return found


def objective(spec: str) -> nn.Module:
    """Build `name:options`, or several joined by +."""
    parts = [registry.make("objectives", one) for one in spec.split("+")]
    return parts[0] if len(parts) == 1 else Sum(parts)
