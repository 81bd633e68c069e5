"""Say of many things where each is present, from records that tell presence alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from geoml_cli.core.aim import Aim, layers_for
from geoml_cli.errors import GeomlError


@dataclass(frozen=True)
class Presence:
    """What is learnt of which labels, and the defaults."""

    learns = "labels"

    def aim(self, layers: list[dict[str, Any]], wanted: tuple[str, ...]) -> Aim:
        """The things that records of one layer tell."""
        chosen = layers_for(layers, wanted, "classes", "tile", "presence")[0]
        if chosen["per"] != "present":
            raise GeomlError(f"{chosen['name']}: --task presence learns from a table of records")
        names = tuple(c["name"] for c in chosen["classes"])
        return Aim("present", "tile", (chosen["name"],), names)

    def defaults(self, aim: Aim) -> Mapping[str, str]:
        """Parts to take where none is named."""
        return {"head": "linear", "objective": "presence-only", "metric": "ranking"}

    def watch(self, scores: Mapping[str, Any]) -> float:
        """The number that the best epoch is chosen by: how well records rank above those of other things, and background."""
        return float(scores["auc_mean"])


def build() -> Presence:
    """Build the task."""
    return Presence()
