"""A picture of how well a model gives what was hidden from it: images, what it was shown, what it says."""

from pathlib import Path
from typing import Any

import numpy as np

from geoml_cli.core.filling import filled, hidden
from geoml_cli.formats.bands import Band
from geoml_cli.stages.held import drawn
from geoml_cli.stages.order import Fitted, Order

TILES = 4  # rows of the picture
COLORS = ("red", "green", "blue")
NOTHING = 0.55  # grey of what is not shown


def draw_reconstructions(
    path: Path, order: Order, one: Fitted, objective: Any, device: Any
) -> None:
    """Draw some tiles that did not train, or that did where all do; of each sensor the first date."""
    import torch

    feed = one.feed
    side = next((s for s in ("test", "val") if len(feed.held(s))), "train")
    rows = feed.held(side) if side != "train" else feed.rows
    rows = rows[np.linspace(0, len(rows) - 1, min(TILES, len(rows))).astype(int)]
    batch = feed.batch(rows, side)
    batch = objective.hide(one.network, batch, drawn(batch.rows))
    one.network.eval()
    with torch.no_grad():
        moved = batch.to(device.torch)
        outputs = one.network(moved)
        said = filled(moved, one.network.physical(outputs.float())).cpu().numpy()
    truth, unseen = feed.whole(batch).numpy(), hidden(batch).numpy()
    _draw(path, [truth, np.where(unseen, np.nan, truth), said], _places(order), side)


def _places(order: Order) -> list[tuple[str, list[int]]]:
    """Sensors, and which of the outputs are red, green and blue of its first date."""
    found, first = [], 0
    for head in order.tiles.head["sensors"]:
        if head["name"] not in order.sensors:
            continue
        names = [Band.from_dict(b).common_name or b["name"] for b in head["bands"]]
        if all(color in names for color in COLORS):
            shown = [names.index(color) for color in COLORS]
        else:
            shown = list(range(3)) if len(names) > 2 else [0, 0, 0]
        found.append((head["name"], [first + i for i in shown]))
        first += len(names) * head["frames"]
    return found


def _draw(
    path: Path, each: list[np.ndarray], places: list[tuple[str, list[int]]], side: str
) -> None:
    from matplotlib.figure import Figure

    rows = len(each[0]) * len(places)
    figure = Figure(figsize=(7.5, 2.4 * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, 3, squeeze=False)
    for i in range(len(each[0])):
        for k, (name, shown) in enumerate(places):
            images = [one[i][shown] for one in each]
            low, high = np.nanpercentile(images[0], (2, 98), axis=(1, 2))
            line = axes[i * len(places) + k]
            for axis, image in zip(line, images, strict=True):
                scaled = (image - low[:, None, None]) / np.maximum(high - low, 1e-9)[:, None, None]
                rgb = np.moveaxis(np.clip(scaled, 0, 1), 0, -1)
                axis.imshow(np.where(np.isfinite(rgb), rgb, NOTHING), interpolation="nearest")
                axis.set(xticks=[], yticks=[])
            line[0].set_ylabel(name, fontsize=8)
    for axis, title in zip(
        axes[0], (f"image ({side} ground)", "shown", "reconstructed"), strict=True
    ):
        axis.set_title(title, fontsize=9)
    figure.savefig(path, dpi=110, metadata={"Software": None})
