"""Give every tile one of several classes, or all that are present in it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from geoml_cli.core.aim import Aim, layers_for
from geoml_cli.errors import UsageMistake


@dataclass(frozen=True)
class Classify:
    """What is learnt of which labels, and the defaults."""

    learns = "labels"

    def aim(self, layers: list[dict[str, Any]], wanted: tuple[str, ...]) -> Aim:
        """Classes of one layer: which one a tile is of, or which it holds where the layer says that."""
        chosen = layers_for(layers, wanted, "classes", "tile", "classify")
        if len(chosen) > 1:
            raise UsageMistake("--task classify takes one --layer")
        names = tuple(c["name"] for c in chosen[0]["classes"])
        kind = "present" if chosen[0]["per"] == "present" else "classes"
        return Aim(kind, "tile", (chosen[0]["name"],), names)

    def defaults(self, aim: Aim) -> Mapping[str, str]:
        """Parts to take where none is named."""
        metric = "segmentation" if aim.kind == "classes" else "multilabel"
        return {"head": "linear", "objective": "cross-entropy", "metric": metric}

    def watch(self, scores: Mapping[str, Any]) -> float:
        """The number that the best epoch is chosen by: the mean F1 of the classes; larger is better."""
        if "f1_macro" in scores:
            return float(scores["f1_macro"])
        f1 = np.asarray(scores["f1"])
        return float(f1[np.isfinite(f1)].mean()) if np.isfinite(f1).any() else float("nan")


def build() -> Classify:
    """Build the task."""
    return Classify()
