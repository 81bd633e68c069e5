"""Pictures that are no maps: tiles beside their labels, the curves of a training."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from geoml_cli.geo.classes import IGNORE

TILES = 24  # on a contact sheet, at most
COLORS = ("red", "green", "blue")


def stretched(values: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Image (h, w, 4) of one or three bands (C, h, w): 2nd to 98th percentile of each; clear where invalid."""
    valid = valid & np.isfinite(values).all(axis=0)
    image = np.zeros((*valid.shape, 4), np.uint8)
    for i in range(3):
        band = values[min(i, len(values) - 1)].astype(np.float64)
        low, high = np.percentile(band[valid], [2, 98]) if valid.any() else (0, 1)
        scaled = (np.where(valid, band, low) - low) / max(high - low, 1e-12)
        image[..., i] = np.round(np.clip(scaled, 0, 1) * 255)
    image[..., 3] = np.where(valid, 255, 0)
    return image


def contact_sheet(path: str) -> Any:
    """Tiles from all over the set, each beside its labels."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    from geoml_cli.formats.tileset import read_tileset

    tiles = read_tileset(path)
    count = len(tiles.index)
    rows = np.unique(np.linspace(0, count - 1, min(TILES, count)).round().astype(int))
    names = [(band.common_name or band.name).lower() for band in tiles.bands]
    bands = (
        [names.index(c) for c in COLORS]
        if set(COLORS) <= set(names)
        else list(range(min(3, len(names))))
    )
    images = tiles.take("images", rows)[:, 0][
        :, bands if len(bands) == 3 else bands[:1]
    ]  # (n, C, H, W)
    valid = tiles.take("valid", rows)[:, 0]
    wide = np.concatenate(list(images), axis=2), np.concatenate(list(valid), axis=1)
    cells = np.split(
        stretched(*wide), len(rows), axis=1
    )  # one stretch for all: tiles can be compared
    if tiles.classes:
        table = np.zeros((IGNORE + 1, 4), np.uint8)
        for one in tiles.classes:
            table[one.id] = (*one.rgb, 255)
        labels = table[tiles.take("labels", rows)]
        cells = [np.concatenate(pair, axis=1) for pair in zip(cells, labels, strict=True)]
    across = int(np.ceil(np.sqrt(len(cells) * cells[0].shape[0] / cells[0].shape[1] * 1.3)))
    down = -(-len(cells) // across)
    figure = Figure(
        figsize=(9, 1 + 9 * down / across * cells[0].shape[0] / cells[0].shape[1] * 1.2),
        dpi=110,
        layout="constrained",
    )
    for axes in figure.subplots(down, across, squeeze=False).ravel():
        axes.axis("off")
    for axes, cell, row in zip(figure.axes, cells, rows, strict=False):
        axes.imshow(cell, interpolation="nearest")
        axes.set_title(tiles.index["id"].iloc[row], fontsize=6, pad=2)
    if tiles.classes:
        patches = [Patch(facecolor=c.color, edgecolor="#444", label=c.name) for c in tiles.classes]
        figure.legend(
            handles=patches, loc="outside lower center", ncols=6, fontsize=8, frameon=False
        )
    figure.suptitle(f"{len(cells)} of {count} tiles", fontsize=9)
    return figure


def curves(folder: Path) -> Any:
    """Loss and validation score of every member over the epochs."""
    from matplotlib.figure import Figure

    text = (folder / "history.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    figure = Figure(figsize=(9, 3.5), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    for member in sorted({row["member"] for row in rows}):
        mine = [row for row in rows if row["member"] == member]
        left.plot([r["epoch"] for r in mine], [r["loss"] for r in mine], label=f"member {member}")
        scored = [r for r in mine if "watch" in r]
        right.plot([r["epoch"] for r in scored], [r["watch"] for r in scored])
    left.set(title="training loss", xlabel="epoch", yscale="log")
    right.set(title="validation score", xlabel="epoch", ylim=(0, 1))
    left.legend(fontsize=7)
    return figure
