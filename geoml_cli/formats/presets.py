"""What geoml knows of well-known collections: bands and masks by name, and how values become physical."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from geoml_cli.errors import GeomlError
from geoml_cli.formats.product import Layer, Pick, Preset, find_band, preset_of
from geoml_cli.formats.scaling import Scaling, contradiction, scaling_of
from geoml_cli.geo.query import collection_of

__all__ = [
    "MaskRule",
    "Pick",
    "Preset",
    "Scaling",
    "contradiction",
    "find_band",
    "mask_of",
    "masks_of",
    "preset_of",
    "scaling_of",
]


@dataclass(frozen=True)
class MaskRule:
    """Which values of a mask layer mean a condition that was asked for."""

    asset: str
    tests: tuple[
        tuple[int, int, tuple[int, ...]], ...
    ]  # first bit, bits (0: whole), values; none: not 0

    def bad(self, layer: np.ndarray) -> np.ndarray:
        """True where a pixel of the layer (integers, any shape) says one of the conditions."""
        wide = np.asarray(layer).astype(np.int64)
        found = np.zeros(wide.shape, bool)
        for first, count, values in self.tests:
            part = (wide >> first) & ((1 << count) - 1) if count else wide
            found |= np.isin(part, values) if values else part != 0
        return found


def masks_of(
    item: dict[str, Any], preset: Preset | None, names: Sequence[str]
) -> tuple[MaskRule, ...]:
    """The rules that hide what is called `names`, one for each layer that knows some of them."""
    where = f"item {item.get('id')}"
    if preset is None or not preset.layers:
        what = preset.title if preset else collection_of(item) or "what has no collection"
        raise GeomlError(f"{where}: no mask layer is known for {what}; leave --mask out")
    known = list(dict.fromkeys(name for layer in preset.layers for name in layer.names))
    for name in names:
        if name not in known:
            raise GeomlError(f"--mask {name}: {preset.title} has {', '.join(known)}")
    rules = []
    for layer in preset.layers:
        tests = [_test(layer, layer.names[name]) for name in names if name in layer.names]
        if tests:
            key = next((key for key in layer.assets if key in item["assets"]), None)
            if key is None:
                raise GeomlError(
                    f"{where}: has no asset {' or '.join(layer.assets)} to mask {', '.join(names)} by"
                )
            rules.append(MaskRule(key, tuple(tests)))
    return tuple(rules)


def mask_of(item: dict[str, Any], preset: Preset | None, names: Sequence[str]) -> MaskRule:
    """The one rule that hides what is called `names`; refuses names of several layers."""
    rules = masks_of(item, preset, names)
    if len(rules) != 1:
        raise GeomlError(
            f"--mask {','.join(names)}: names of {len(rules)} mask layers; ask one by one"
        )
    return rules[0]


def _test(layer: Layer, words: Any) -> tuple[int, int, tuple[int, ...]]:
    if layer.kind == "classes":
        return 0, 0, tuple(words)
    return words["bit"], words.get("count", 1), tuple(words.get("values", ()))
