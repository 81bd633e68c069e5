"""Give what was not seen of the images themselves: under clouds, or hidden to learn from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from geoml_cli.core.aim import Aim
from geoml_cli.errors import UsageMistake


@dataclass(frozen=True)
class Reconstruct:
    """What is learnt of which sensors, and the defaults."""

    learns = "images"

    def aim(self, sensors: list[dict[str, Any]], wanted: tuple[str, ...]) -> Aim:
        """The values of every band of every date of the sensors."""
        if wanted:
            raise UsageMistake("--layer: --task reconstruct learns from images, not from labels")
        names = [
            (f"{one['name']}-" if i else "")
            + band["name"]
            + (f"-{t + 1}" if one["frames"] > 1 else "")
            for i, one in enumerate(sensors)
            for t in range(one["frames"])
            for band in one["bands"]
        ]
        return Aim("values", "pixel", (), tuple(names), fills=True)

    def defaults(self, aim: Aim) -> Mapping[str, str]:
        """Parts to take where none is named."""
        return {"head": "unet", "objective": "mae", "metric": "reconstruction"}

    def watch(self, scores: Mapping[str, Any]) -> float:
        """The number that the best epoch is chosen by; larger is better."""
        return float(scores["psnr"])


def build() -> Reconstruct:
    """Build the task."""
    return Reconstruct()
