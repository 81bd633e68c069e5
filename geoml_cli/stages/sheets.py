"""Pictures that are no maps: tiles beside their labels, the curves of a training."""

from typing import Any

import numpy as np

from geoml_cli.formats.tileset import Tiles
from geoml_cli.geo.classes import IGNORE, read_classes

TILES = 24  # on a contact sheet, at most
COLORS = ("red", "green", "blue")


def stretched(values: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Image (h, w, 4) of one or three bands (C, h, w): 2nd to 98th percentile of each; clear where invalid."""
    valid = valid & np.isfinite(values).all(axis=0)
    image = np.zeros((*valid.shape, 4), np.uint8)
    for i in range(3):
        band = values[min(i, len(values) - 1)].astype(np.float64)
        low, high = limits(band[valid])
        scaled = (np.where(valid, band, low) - low) / max(high - low, 1e-12)
        image[..., i] = np.round(np.clip(scaled, 0, 1) * 255)
    image[..., 3] = np.where(valid, 255, 0)
    return image


def limits(values: np.ndarray) -> tuple[float, float]:
    """2nd and 98th percentile of what is shown (n,)."""
    low, high = np.percentile(values, [2, 98]) if len(values) else (0.0, 1.0)
    return float(low), float(high)


def contact_sheet(tiles: Tiles) -> Any:
    """Tiles from all over the set, each beside its labels."""
    from matplotlib.figure import Figure

    rows, cells = _cells(tiles)
    across, down = _layout(cells)
    high = 9 * down / across * cells[0].shape[0] / cells[0].shape[1]
    figure = Figure(figsize=(9, 1 + high * 1.2), dpi=110, layout="constrained")
    _draw(figure, tiles, rows, cells)
    return figure


def draw_sheet(figure: Any, tiles: Tiles) -> None:
    """A contact sheet in a figure or a part of one."""
    _draw(figure, tiles, *_cells(tiles))


def _cells(tiles: Tiles) -> tuple[np.ndarray, list[np.ndarray]]:
    """Positions of the tiles to show, and each as a picture (h, w, 4), labels to its right."""
    count = len(tiles.index)
    rows = np.unique(np.linspace(0, count - 1, min(TILES, count)).round().astype(int))
    names = [(band.common_name or band.name).lower() for band in tiles.bands]
    bands = (
        [names.index(c) for c in COLORS]
        if set(COLORS) <= set(names)
        else list(range(min(3, len(names))))
    )
    bands = bands if len(bands) == 3 else bands[:1]
    images = tiles.take("images", rows)[:, 0][:, bands]  # (n, C, H, W) of the first date
    valid = tiles.take("valid", rows)[:, 0]
    wide = np.concatenate(list(images), axis=2), np.concatenate(list(valid), axis=1)
    # one stretch for all: tiles can be compared
    cells = np.split(stretched(*wide), len(rows), axis=1)
    layer = _pixel_layer(tiles)
    if layer:
        labels = _painted(layer, tiles.take("labels", rows, layer["name"]))
        cells = [np.concatenate(pair, axis=1) for pair in zip(cells, labels, strict=True)]
    return rows, cells


def _pixel_layer(tiles: Tiles) -> dict[str, Any] | None:
    """The first layer with a label a pixel."""
    return next((layer for layer in tiles.head["layers"] if layer["per"] == "pixel"), None)


def _painted(layer: dict[str, Any], labels: np.ndarray) -> list[np.ndarray]:
    """Labels (n, H, W) as pictures: classes in their colours, values stretched to grey."""
    if layer["kind"] == "classes":
        table = np.zeros((IGNORE + 1, 4), np.uint8)
        for one in read_classes(layer["classes"]):
            table[one.id] = (*one.rgb, 255)
        return list(table[labels])
    wide = np.concatenate(list(labels), axis=1)
    return np.split(stretched(wide[None], np.isfinite(wide)), len(labels), axis=1)


def _layout(cells: list[np.ndarray]) -> tuple[int, int]:
    """Cells across and down a sheet."""
    across = int(np.ceil(np.sqrt(len(cells) * cells[0].shape[0] / cells[0].shape[1] * 1.3)))
    return across, -(-len(cells) // across)


def _draw(figure: Any, tiles: Tiles, rows: np.ndarray, cells: list[np.ndarray]) -> None:
    from matplotlib.patches import Patch

    across, down = _layout(cells)
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for each in axes:
        each.axis("off")
    for each, cell, row in zip(axes, cells, rows, strict=False):
        each.imshow(cell, interpolation="nearest")
        each.set_title(tiles.index["id"].iloc[row], fontsize=6, pad=2)
    layer = _pixel_layer(tiles)
    if layer and layer["kind"] == "classes":
        classes = read_classes(layer["classes"])
        patches = [Patch(facecolor=c.color, edgecolor="#444", label=c.name) for c in classes]
        figure.legend(
            handles=patches, loc="outside lower center", ncols=6, fontsize=8, frameon=False
        )
    figure.suptitle(f"{len(cells)} of {len(tiles.index)} tiles", fontsize=9)


def curves(rows: list[dict[str, Any]]) -> Any:
    """Loss and validation score of every member over the epochs."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    figure = Figure(figsize=(9, 3.5), dpi=110)
    left, right = figure.subplots(1, 2)
    # places that are looked for, and numbers in mathematical type, take as long as all the rest
    figure.subplots_adjust(0.08, 0.15, 0.98, 0.9, 0.16)
    for axes, title in ((left, "training loss"), (right, "validation score")):
        axes.set_title(title, y=1.0)
        axes.set_xlabel("epoch")
    for member in sorted({row["member"] for row in rows}):
        mine = [row for row in rows if row["member"] == member]
        left.plot([r["epoch"] for r in mine], [r["loss"] for r in mine], label=f"member {member}")
        scored = [row for row in mine if "watch" in row]
        right.plot([r["epoch"] for r in scored], [r["watch"] for r in scored], marker=".")
    if all(row["loss"] > 0 for row in rows):
        left.set(yscale="log")
        left.yaxis.set_major_formatter("{x:g}")
        low, high = left.get_ylim()
        left.yaxis.set_minor_formatter("{x:g}" if high < 10 * low else NullFormatter())
    left.legend(fontsize=7)
    return figure
