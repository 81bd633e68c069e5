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
from geoml_cli.core.device import pick
from geoml_cli.core.loop import Recipe, fit
from geoml_cli.formats.tileset import read_tileset
from geoml_cli.stages.feed import Feed, Part, ahead

SPEC = {
    "encoder": "unet:width=16,depth=3",
    "head": "unet",
    "bands": made.BANDS,
    "frames": 1,
    "outputs": 4,
}
BATCH, EPOCHS = 8, 1


def main(device: str = "auto") -> None:
    """Print the ratio; augmentation, checkpoint and reading from disk are in ours alone."""
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()):
        folder = Path(name)
        scene, truth = made.raster(folder / "s.tif", 2048), made.labels(folder / "l.tif", 2048)
        tiles = str(folder / "tiles")
        assert run(["tile", str(scene), "--labels", str(truth), "--size", "128", "-o", tiles]) == 0
        feed = Feed(read_tileset(tiles), Part(0, None, None))
        where, weights = pick(device, "32"), np.ones(4)
        steps = -(-len(feed.rows) // BATCH)
        mean, std = (torch.from_numpy(x).float() for x in feed.norm())
        batches = [parts[0].to(where.torch) for parts in feed.epoch(0, BATCH, BATCH, 0, weights)]

        def network() -> torch.nn.Module:
            torch.manual_seed(0)
            built = networks.build(SPEC)
            built.mean.copy_(mean), built.std.copy_(std)
            return built

        def ours() -> None:
            with tempfile.TemporaryDirectory() as saved:
                fit(
                    network(),
                    networks.objective("cross-entropy"),
                    lambda epoch: ahead(lambda: feed.epoch(epoch, BATCH, BATCH, 0, weights), where.torch),
                    steps, None, Recipe(epochs=EPOCHS, batch=BATCH), where,
                    Path(saved), lambda row: None, lambda: None,
                )  # fmt: skip

        def theirs() -> None:
            model = network().to(where.torch).train()
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
            for _ in range(EPOCHS):
                for batch in batches:
                    cross_entropy(model(batch), batch.target).backward()
                    optimizer.step()
                    optimizer.zero_grad(set_to_none=True)

        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            compare("train / bare loop in memory", ours, theirs, pairs=3)
    print(out.getvalue(), end="")


if __name__ == "__main__":
    main()
