"""Give every pixel or every tile one number or several; labels may be few and far between."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from geoml_cli.core.aim import Aim, layers_for


@dataclass(frozen=True)
class Regress:
    """What is learnt of which labels, and the defaults."""

    learns = "labels"

    def aim(self, layers: list[dict[str, Any]], wanted: tuple[str, ...]) -> Aim:
        """Values of the layers named, or of the first that holds values."""
        chosen = layers_for(layers, wanted, "values", None, "regress")
        names = tuple(one["name"] for one in chosen)
        return Aim("values", "pixel" if chosen[0]["per"] == "pixel" else "tile", names, names)

    def defaults(self, aim: Aim) -> Mapping[str, str]:
        """Parts to take where none is named."""
        head = "unet" if aim.per == "pixel" else "linear"
        return {"head": head, "objective": "huber", "metric": "regression"}

    def watch(self, scores: Mapping[str, Any]) -> float:
        """The number that the best epoch is chosen by: the error, turned round; larger is better."""
        return -float(scores["rmse"])


def build() -> Regress:
    """Build the task."""
    return Regress()
