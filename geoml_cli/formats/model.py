"""Model folders: `model.json`, `weights.safetensors`, `ground.parquet`, `item.json`, history and curves.

Weights of an ensemble lie in one file under the prefixes `0.`, `1.`, ...
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoml_cli.errors import GeomlError, as_oserror
from geoml_cli.formats.bands import Band
from geoml_cli.formats.commit import whole_file
from geoml_cli.formats.package import PKG
from geoml_cli.formats.stamp import damage, member_path, read_stamp
from geoml_cli.geo.classes import Class, read_classes
from geoml_cli.geo.sides import read_split
from geoml_cli.geo.splits import Split

if TYPE_CHECKING:
    import torch

NAME = "model.json"
WEIGHTS = "weights.safetensors"
GROUND = "ground.parquet"
ITEM = "item.json"
RELEASE = "config.json"  # of a published model of places
MLM = "https://stac-extensions.github.io/mlm/v1.4.0/schema.json"


@dataclass(frozen=True)
class Model:
    """A model folder opened: the contract, not yet the weights."""

    folder: Path
    head: dict[str, Any]

    @property
    def bands(self) -> tuple[Band, ...]:
        """Bands in the order of the network's channels; values are physical."""
        return tuple(Band.from_dict(b) for b in self.head["bands"])

    @property
    def classes(self) -> list[Class]:
        """Classes in the order of the network's outputs."""
        return read_classes(self.head["classes"])

    @property
    def members(self) -> int:
        """Networks in the ensemble."""
        return int(self.head["members"])

    @property
    def split(self) -> Split | None:
        """The split that it was trained with."""
        return read_split(self.head["split"])

    def weights(self) -> list[dict[str, torch.Tensor]]:
        """State of every member."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = member_path(self.folder, WEIGHTS)
        try:
            tensors = load_file(path)
        except (SafetensorError, OSError) as error:
            raise GeomlError(
                f"{path}: damaged ({error}); run the `geoml train` that made it"
            ) from None
        states: list[dict[str, torch.Tensor]] = [{} for _ in range(self.members)]
        for key, value in tensors.items():
            member, _, name = key.partition(".")
            states[int(member)][name] = value
        return states


def read_model(path: str) -> Model:
    """Open a model folder; damage is said at once."""
    folder, head = read_stamp(path, NAME, "train")
    lines = damage(folder)
    if lines:
        raise GeomlError(f"{lines[0]}; run the `geoml train` that made it")
    return Model(folder, head)


def sees_places(head: Mapping[str, Any]) -> bool:
    """Whether a model is shown longitude and latitude and nothing else."""
    return (head.get("network") or {}).get("location_join") == "alone"


def tells_places(name: str) -> bool:
    """Whether a model by this name makes vectors of places: a package, a release, or one of ours that sees nothing else."""
    if name.startswith(PKG):
        return "/" not in name.removeprefix(PKG) or name.lower().endswith(".whl")
    if (Path(name) / NAME).is_file():  # whether it is whole is seen when it is opened
        return sees_places(read_stamp(name, NAME, "train")[1])
    return (Path(name) / RELEASE).is_file()


def save_weights(path: Path, states: list[dict[str, torch.Tensor]]) -> None:
    """Write the weights of all members to one file."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {
        f"{i}.{name}": value.detach().cpu().contiguous()
        for i, state in enumerate(states)
        for name, value in state.items()
    }
    with whole_file(path) as temporary:
        try:
            save_file(tensors, temporary)
        except SafetensorError as error:
            raise as_oserror(error, path) from None


def _mlm_task(aim: dict[str, Any]) -> str:
    """What the MLM extension calls an aim."""
    if aim.get("fills"):
        return "generative"
    if aim["kind"] == "values":
        return "regression"
    return "semantic-segmentation" if aim["per"] == "pixel" else "scene-classification"


def mlm_item(
    name: str, head: dict[str, Any], ground: dict[str, Any], bbox: list[float], parameters: int
) -> dict[str, Any]:
    """A STAC Item of the model, in the words of the MLM extension; its geometry is the ground it saw."""
    bands = [b["name"] for b in head["bands"]]
    aim, outputs = head["aim"], head["network"]["outputs"]
    task = _mlm_task(aim)
    sides = [head["window"]] * 2 if aim["per"] == "pixel" else []
    classes = [{"value": c["id"], "name": c["name"]} for c in head["classes"]]
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [MLM],
        "id": name,
        "geometry": ground,
        "bbox": bbox,
        "properties": {
            "datetime": None,
            "start_datetime": head["dates"][0],
            "end_datetime": head["dates"][1],
            "mlm:name": name,
            "mlm:architecture": f"{head['encoder']} + {head['head']}",
            "mlm:tasks": [task],
            "mlm:framework": "pytorch",
            "mlm:total_parameters": parameters,
            "mlm:pretrained": bool(head["started_from"]),
            "mlm:input": [
                {
                    "name": "image",
                    "bands": bands,
                    "input": {
                        "shape": [-1, len(bands), head["window"], head["window"]],
                        "dim_order": ["batch", "bands", "height", "width"],
                        "data_type": "float32",
                    },
                    "pre_processing_function": None,
                }
            ],
            "mlm:output": [
                {
                    "name": "values" if aim["kind"] == "values" else "scores",
                    "tasks": [task],
                    "result": {
                        "shape": [-1, outputs, *sides],
                        "dim_order": ["batch", "output", "height", "width"][: 2 + len(sides)],
                        "data_type": "float32",
                    },
                    **({"classification:classes": classes} if classes else {}),
                    "post_processing_function": None,
                }
            ],
        },
        "links": [],
        "assets": {
            "weights": {
                "href": f"./{WEIGHTS}",
                "type": "application/octet-stream; application=safetensors",
                "title": "Weights",
                "roles": ["mlm:model", "mlm:weights"],
                "mlm:artifact_type": "safetensors",
            }
        },
    }
