"""Cut one shard of tiles: the unit of work that workers share."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geoml_cli.formats.commit import write_text
from geoml_cli.formats.jsonfile import dumps, read_json
from geoml_cli.formats.tileset import save_array
from geoml_cli.geo.classes import IGNORE
from geoml_cli.geo.grid import Window
from geoml_cli.geo.splits import Lattice
from geoml_cli.stages.labels import Burn, Warp, burn
from geoml_cli.stages.stack import Stack, StackReader

SENSOR, LAYER = "image", "class"


@dataclass(frozen=True)
class Shard:
    """One unit of work: the windows scheduled for a shard, and all it takes to cut them."""

    folder: str
    number: int
    tiles: tuple[tuple[int, Window], ...]  # (position of the stack, window)
    stacks: tuple[Stack, ...]
    labels: tuple[Burn | Warp, ...] | None
    classes: int
    lattice: Lattice | None
    min_valid: float
    min_labelled: int


def cut(shard: Shard) -> list[dict[str, Any]]:
    """Cut one shard and write its arrays; give the rows of the index. Done before: read back."""
    folder = Path(shard.folder)
    notes = notes_of(folder, shard.number)
    if notes.is_file():
        return list(read_json(notes))
    kept: dict[str, list[np.ndarray]] = {
        k: [] for k in ("images", "valid", "labels", "folds", "near")
    }
    rows: list[dict[str, Any]] = []
    for position in sorted({i for i, _ in shard.tiles}):
        with StackReader(shard.stacks[position]) as reader:
            for i, window in shard.tiles:
                if i == position:
                    _cut_one(shard, position, reader, window, kept, rows)
    for kind, suffix in (
        ("images", f"-{SENSOR}"),
        ("valid", f"-{SENSOR}"),
        ("labels", f"-{LAYER}"),
        ("folds", ""),
        ("near", ""),
    ):
        if kept[kind]:
            save_array(folder / f"{kind}{suffix}-{shard.number:05d}.npy", np.stack(kept[kind]))
    write_text(notes, dumps(rows))
    return rows


def _cut_one(
    shard: Shard,
    position: int,
    reader: StackReader,
    window: Window,
    kept: dict[str, list[np.ndarray]],
    rows: list[dict[str, Any]],
) -> None:
    stack = shard.stacks[position]
    image, valid = reader.read(window)
    if not valid.any() or valid.mean() < shard.min_valid:
        return
    row: dict[str, Any] = {
        "id": f"{stack.scene}-{window.row}-{window.col}",
        "scene": stack.scene,
        "datetime": stack.datetime,
        "shard": shard.number,
        "row": len(rows),
        "window_row": window.row,
        "window_col": window.col,
        "valid": float(valid.mean()),
        **{k: v for k, v in stack.grid.crop(window).to_dict().items() if k != "proj:shape"},
    }
    labels = None
    if shard.labels:
        labels = burn(shard.labels[position], stack.grid, window)
        labels[~valid] = IGNORE
        counts = np.bincount(labels[labels != IGNORE], minlength=shard.classes)
        row["counts"] = counts.tolist()
        if counts.sum() < shard.min_labelled:
            return
    if shard.lattice:
        own, near = shard.lattice.on(stack.grid.crop(window))
        kept["folds"].append(own)
        kept["near"].append(near.astype(_near_type(shard.lattice.count)))
        seen = np.unique(own)
        row["fold"] = int(seen[0]) if len(seen) == 1 else None
        if labels is not None:
            row["fold_counts"] = [
                np.bincount(
                    labels[(own == f) & (labels != IGNORE)], minlength=shard.classes
                ).tolist()
                for f in range(shard.lattice.count)
            ]
    if labels is not None:
        kept["labels"].append(labels)
    kept["images"].append(image[None])  # (T, C, H, W)
    kept["valid"].append(valid[None])
    rows.append(row)


def _near_type(folds: int) -> str:
    return "uint8" if folds <= 8 else "uint16" if folds <= 16 else "uint32"


def notes_of(folder: Path, number: int) -> Path:
    """Where the rows of a finished shard wait for the index."""
    return folder / f"shard-{number:05d}.json"
