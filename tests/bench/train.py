"""The training loop against a bare PyTorch loop over the same batches, already tensors in memory."""

import contextlib
import io
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from bench import made
from bench.pairs import compare
from geoml_cli.cli import run
from geoml_cli.core import network as networks
from geoml_cli.core.aim import Aim
from geoml_cli.core.device import pick, place
from geoml_cli.core.loop import Loop, Recipe, optimizer_of
from geoml_cli.core.tune import groups
from geoml_cli.formats.tileset import read_tileset
from geoml_cli.stages.feed import Feed, Part

NETWORKS = ("unet:width=16,depth=3", "vit:size=base,patch=16")
BATCH, EPOCHS = 8, 3


def spec(encoder: str) -> dict[str, object]:
    return {
        "encoder": encoder,
        "head": "unet" if encoder.startswith("unet") else "linear",
        "adapter": None,
        "sensors": [{"bands": made.BANDS, "frames": 1}],
        "outputs": 4,
        "per": "pixel",
    }


def main(device: str = "auto", precision: str = "32") -> None:
    """Print the ratios; augmentation, checkpoint and reading from disk are in ours alone."""
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()):
        folder = Path(name)
        where = pick(device, precision)
        side = 4096 if where.torch.type == "cuda" else 1536
        scene, truth = made.raster(folder / "s.tif", side), made.labels(folder / "l.tif", side)
        tiles = str(folder / "tiles")
        assert run(["tile", str(scene), "--labels", str(truth), "--size", "128", "-o", tiles]) == 0
        aim = Aim("classes", "pixel", ("class",), tuple(map(str, range(4))))
        feed = Feed(read_tileset(tiles), Part(0, None, None), aim)
        lines = [_one(feed, where, encoder) for encoder in NETWORKS]
    print("".join(lines), end="")


def _one(feed: Feed, where: object, encoder: str) -> str:
    rows = feed.rows if encoder.startswith("unet") or where.torch.type == "cuda" else feed.rows[:32]
    steps = -(-len(rows) // BATCH)
    order = np.random.default_rng(0).permutation(rows)
    batches = [batch.to(where.torch) for batch in feed.epoch(order, BATCH)]

    def network() -> networks.Network:
        torch.manual_seed(0)
        built = networks.build(spec(encoder))
        mean, std = feed.norms[0]
        built.sensors[0].mean.copy_(torch.from_numpy(mean))
        built.sensors[0].std.copy_(torch.from_numpy(std))
        return place(built, where)

    def wait() -> None:
        if where.torch.type == "cuda":
            torch.cuda.synchronize()

    def ours() -> None:
        model = network()
        readers = 0 if where.torch.type == "cpu" else 2
        with tempfile.TemporaryDirectory() as saved:
            loop = Loop(
                model, networks.objective("cross-entropy"), optimizer_of("adamw", groups(model, 1e-3, 0.05)),
                Recipe(epochs=EPOCHS, augment="dihedral", clip=1.0), where, Path(saved),
            )  # fmt: skip
            loop.fit(
                lambda epoch, start: feed.epoch(order, BATCH, start, readers), steps, None,
                lambda row: None, lambda: None,
            )  # fmt: skip
        wait()

    def theirs() -> None:
        model = network().train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        for batch in batches * EPOCHS:
            with where.autocast():
                outputs = model(batch)
            cross_entropy(outputs.float(), batch.target).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        wait()

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        compare(f"train {encoder} / bare loop in memory", ours, theirs, pairs=3)
    return out.getvalue()


if __name__ == "__main__":
    main()
