"""Give every pixel one of several classes, or say of each of several things whether it is there."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from geoml_cli.core.aim import Aim, layers_for
from geoml_cli.errors import GeomlError, UsageMistake

MODES = ("auto", "multiclass", "binary", "multilabel")


@dataclass(frozen=True)
class Segment:
    """What is learnt of which labels, and the defaults."""

    mode: str
    learns = "labels"

    def aim(self, layers: list[dict[str, Any]], wanted: tuple[str, ...]) -> Aim:
        """Classes of one layer, or, of several layers of two classes each, which of them are present."""
        chosen = layers_for(layers, wanted, "classes", "pixel", "segment")
        mode = self.mode
        if mode == "auto":
            mode = "multilabel" if len(chosen) > 1 else "multiclass"
        names = tuple(one["name"] for one in chosen)
        for one in chosen if mode != "multiclass" else ():
            if len(one["classes"]) != 2:
                raise GeomlError(
                    f"{one['name']} has {len(one['classes'])} classes; --task segment:mode={mode} wants"
                    " two: absent, present (`geoml tile --background NAME` gives the first)"
                )
        if mode == "multilabel":
            return Aim("present", "pixel", names, names)
        if len(chosen) > 1:
            raise UsageMistake(f"--task segment:mode={mode} takes one --layer")
        classes = tuple(c["name"] for c in chosen[0]["classes"])
        return Aim("classes", "pixel", names, classes, mode == "binary")

    def defaults(self, aim: Aim) -> Mapping[str, str]:
        """Parts to take where none is named."""
        metric = "segmentation" if aim.kind == "classes" else "multilabel"
        return {"head": "unet", "objective": "cross-entropy", "metric": metric}

    def watch(self, scores: Mapping[str, Any]) -> float:
        """The number that the best epoch is chosen by; larger is better."""
        return float(scores["miou"] if "miou" in scores else scores["f1_macro"])


def build(*, mode: str = "auto") -> Segment:
    """Build; `mode` auto, multiclass, binary (one output) or multilabel (several layers)."""
    if mode not in MODES:
        raise UsageMistake(f"segment:mode={mode}: one of {', '.join(MODES)}")
    return Segment(mode)
