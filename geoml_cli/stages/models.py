"""Any trained thing that `--model` names, opened: a folder of `geoml train`, or an ONNX file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from geoml_cli import registry
from geoml_cli.formats.digest import digest_file
from geoml_cli.formats.model import GROUND, NAME, Model, read_model
from geoml_cli.formats.stamp import Input
from geoml_cli.stages.base import SUFFIXES
from geoml_cli.stages.carried import network_spec
from geoml_cli.stages.networks import load_networks

WIDE = 512  # px of windows that embeddings are mapped in


@dataclass(frozen=True)
class Opened:
    """A model that can be asked: its contract now, its networks when they are loaded.

    `model.head` holds the keys of `model.json`; `gsd_m` and `dtype` may be None where nothing is
    known of them. `load` gives the members (modules: Batch -> outputs (B, K, H, W), or (B, K)).
    `ground` is the file of the ground that it trained on, if that is known.
    """

    name: str  # as the user wrote it
    model: Model
    inputs: Sequence[Input]
    load: Callable[[], list[Any]]
    ground: Path | None = None

    @property
    def head(self) -> dict[str, Any]:
        """The contract."""
        return self.model.head


def open_model(name: str, trust_code: bool = False) -> Opened:
    """Open a model by the name that a user gives it; nothing slow is loaded yet."""
    if name.startswith("pkg:") or name.lower().endswith(".onnx"):
        from geoml_cli.stages.onnx import open_onnx

        return open_onnx(name)
    if is_checkpoint(name):
        from geoml_cli.stages.published import open_published

        return open_published(name)
    found = read_model(name)
    stamp = found.folder / NAME
    return Opened(
        name,
        found,
        [Input(str(stamp), "model", digest_file(stamp))],
        partial(load_networks, found, network_spec(found, trust_code)),
        found.folder / GROUND,
    )


def is_checkpoint(name: str) -> bool:
    """Whether a model is a checkpoint of others: one that they published, or a file with a card."""
    if Path(name).is_dir():
        return False
    return name in registry.weights() or name.lower().endswith(SUFFIXES)


def as_pixels(opened: Opened) -> Opened:
    """A model of tiles of one pixel, which is one of pixels: embeddings of patches can be mapped by it."""
    head = dict(opened.head) | {"halo": 0, "stride": 1, "blend": None, "window": WIDE}
    head["aim"] = dict(head["aim"]) | {"per": "pixel"}

    def load() -> list[Any]:
        networks = opened.load()
        for one in networks:
            one.per = "pixel"
        return networks

    return replace(opened, model=Model(opened.model.folder, head), load=load)
