"""Whether an artifact is whole: every byte as the stamp says, and everything in it opens and agrees."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from geoml_cli.errors import GeomlError
from geoml_cli.formats.digest import sha256_file
from geoml_cli.formats.jsonfile import read_json
from geoml_cli.formats.raster import described
from geoml_cli.formats.remote import is_remote
from geoml_cli.formats.stamp import (
    Input,
    damage,
    fingerprint,
    member_path,
    read_record,
    stamp_in,
)
from geoml_cli.geo.grid import Grid
from geoml_cli.stages import foreign
from geoml_cli.stages.any_raster import looked_at
from geoml_cli.stages.complaints import complaints, read_raster
from geoml_cli.stages.networks import load_networks
from geoml_cli.stages.spelled import home
from geoml_cli.stages.whole_tiles import look_into

SHA256 = "1220"  # how a multihash of 32 bytes of sha2-256 begins


def look(path: str) -> list[str]:
    """What is wrong with a file or folder, a line each; nothing where it is whole."""
    owner = None if is_remote(path) else home(path)
    if owner is None:
        return list(complaints(lambda: _open(path)))
    lines = damage(owner, read_again=True)
    record = read_record(owner)
    assert record
    inputs = [Input(**one) for one in record["inputs"]]
    if record["fingerprint"] != fingerprint(record["verb"], record["arguments"], inputs):
        lines.append(f"{stamp_in(owner) or owner}: its record has been changed")
    if lines or record["kind"] not in INSIDE:  # of spoilt bytes nothing more is worth saying
        return lines or list(complaints(lambda: _open(path)))
    stamp = stamp_in(owner) or owner
    if stamp_in(owner) is None and record["kind"] == "predictions":
        return list(complaints(lambda: read_raster(str(owner))))
    try:
        return list(INSIDE[record["kind"]](owner, read_json(stamp)))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        return [f"{stamp}: damaged ({error!r})"]


def _open(path: str) -> None:
    """Read a file that has no stamp as far as it can be read."""
    if not is_remote(path):
        read_record(path)  # a damaged one, or one of a later format, says so
    found = foreign.portrait(path)
    if found["kind"] == "raster":
        read_raster(path)
    elif found["kind"] == "array":
        np.load(path, mmap_mode="r", allow_pickle=False).sum()
    elif found["kind"] == "vector":
        from geoml_cli.formats.vectors import read_vectors

        for layer in found["layers"]:
            if layer["count"] and layer.get("crs"):
                read_vectors(path, layer=None if len(found["layers"]) == 1 else layer["name"])


def _items(folder: Path, head: dict[str, Any]) -> Iterator[str]:
    """Every asset: its checksum, its grid as the item says, every block."""
    for item in head["features"]:
        for asset in item["assets"].values():
            name = asset["href"].removeprefix("./")
            if is_remote(name) or not asset["href"].startswith("./"):
                continue
            yield from complaints(partial(_asset, folder, name, asset))


def _asset(folder: Path, name: str, asset: dict[str, Any]) -> None:
    path = member_path(folder, name)
    if not path.is_file():
        raise GeomlError(f"{path}: missing")
    said = asset.get("file:checksum", "")
    if said.startswith(SHA256) and said != SHA256 + sha256_file(path):
        raise GeomlError(f"{path}: its checksum is not the one in {folder / 'items.json'}")
    if asset.get("file:size", path.stat().st_size) != path.stat().st_size:
        raise GeomlError(f"{path}: its size is not the one in {folder / 'items.json'}")
    if "tiff" not in asset.get("type", "tiff"):
        return
    read_raster(str(path))
    if "proj:transform" in asset:
        with looked_at(str(path)) as dataset:
            grid = described(dataset, str(path)).grid
        code = asset.get("proj:code") or asset.get("proj:wkt2")
        if grid != Grid.from_dict(asset | {"proj:code": code}):
            raise GeomlError(f"{path}: lies elsewhere than {folder / 'items.json'} says")


def _model(folder: Path, head: dict[str, Any]) -> Iterator[str]:
    """Weights: one finite set a member, that the network takes; ground, history and item."""
    from geoml_cli.formats.model import GROUND, ITEM, WEIGHTS, Model
    from geoml_cli.formats.vectors import read_vectors

    found = Model(folder, head)
    yield from complaints(lambda: _weights(found, folder / WEIGHTS))
    yield from complaints(lambda: read_vectors(str(folder / GROUND), ["member", "role"]))
    yield from complaints(lambda: read_json(folder / ITEM))
    history = folder / "history.jsonl"
    try:
        for line in history.read_text(encoding="utf-8").splitlines():
            json.loads(line)
    except (OSError, ValueError) as error:
        yield f"{history}: damaged ({error})"


def _weights(model: Any, path: Path) -> None:
    import torch

    states = model.weights()
    head = model.head
    # code carried in the folder is not run to look at it
    own = any((head[part] or "").partition(":")[0].endswith(".py") for part in PARTS)
    for i, state in enumerate(states):
        if not state or not all(
            torch.isfinite(v).all() for v in state.values() if v.is_floating_point()
        ):
            raise GeomlError(f"{path}: weights of member {i} are missing or not finite")
    if not own:
        load_networks(model, head["network"])


def _scores(path: Path, head: dict[str, Any]) -> Iterator[str]:
    """The confusion matrix has a row and a column a class, and adds up to the samples."""
    names, matrix = head["confusion"]["names"], np.array(head["confusion"]["matrix"])
    if matrix.shape != (len(names), len(names)) or set(names) != set(head["classes"]):
        yield f"{path}: its confusion matrix is not of its classes"
    elif matrix.sum() != head["scored"]["n"]:
        yield f"{path}: {matrix.sum()} samples in the confusion matrix, {head['scored']['n']} scored"


PARTS = ("encoder", "head", "adapter")
INSIDE: dict[str, Callable[[Path, dict[str, Any]], Iterator[str]]] = {
    "scenes": _items,
    "predictions": _items,
    "tiles": look_into,
    "model": _model,
    "scores": _scores,
}
