"""embed against the bare forward pass; exact search against one blocked product; memory against rows."""

import contextlib
import io
import os
import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch

from bench import made
from bench.memory import peak_anonymous_mb
from bench.pairs import compare
from geoml_cli.core.device import pick
from geoml_cli.core.neighbours import BLOCK, top, unit
from geoml_cli.stages.embed import run
from geoml_cli.stages.embed_run import Wanted
from geoml_cli.stages.embed_table import Table
from geoml_cli.stages.embedder import Embedder, Way

NETS = {"ResNet-50": ("resnet:depth=50", 3584), "ViT-B": ("vit:size=base", 2240)}
ROWS, WIDTH, QUERIES, NEAREST = 1_000_000, 256, 100, 50
PAIRS, RUNS = 3, 3
SIDES = (2048, 8192)  # px: 16 384 and 262 144 rows


def main(device: str = "auto") -> None:
    """Print the ratios."""
    for name, (encoder, side) in NETS.items():
        with tempfile.TemporaryDirectory() as folder:
            _rows(name, Path(folder), encoder, side, device)
    _search(device)
    _memory()


def _rows(name: str, folder: Path, encoder: str, side: int, device: str) -> None:
    """Reading, building the network, normalisation and the file are in ours alone."""
    scene = made.raster(folder / "scene.tif", side)
    with _silent():
        run(
            [str(scene)],
            str(folder / "first.parquet"),
            encoder=encoder,
            device=device,
            precision="32",
        )
    where = pick(device, "32")
    table = Table(Way(encoder=encoder), Wanted([str(scene)], device=device, precision="32"), [])
    [rows] = table.rows
    batches = [rows.batch(rows.read(group)) for group in table.work(rows)]
    embedder = Embedder(table.source, None, where)

    def ours() -> None:
        (folder / "e.parquet").unlink(missing_ok=True)
        with _silent():
            run(
                [str(scene)],
                str(folder / "e.parquet"),
                encoder=encoder,
                device=device,
                precision="32",
            )

    def bare() -> None:
        for one in batches:
            assert one is not None
            embedder.tiles(one)

    print(f"{name}: {rows.count} rows of windows of {table.window} px")
    compare(f"bare forward pass / embed, {name}", bare, ours, pairs=PAIRS)


def _search(device: str) -> None:
    """One blocked matrix product, in the same blocks, keeps nothing of what it finds."""
    rng = np.random.default_rng(0)
    base = unit(rng.standard_normal((ROWS, WIDTH), np.float32))
    asked = unit(rng.standard_normal((QUERIES, WIDTH), np.float32))
    where = pick(device, "32").torch
    deep = BLOCK // max(QUERIES, WIDTH)

    def ours() -> None:
        top(base, asked, NEAREST, where)

    @torch.inference_mode()
    def product() -> None:
        queries = torch.from_numpy(asked).to(where)
        for first in range(0, ROWS, deep):
            _ = queries @ torch.from_numpy(base[first : first + deep]).to(where).T
        if where.type == "cuda":
            torch.cuda.synchronize()

    compare(
        f"top {NEAREST} of {ROWS} x {WIDTH} for {QUERIES} / blocked product", ours, product, pairs=7
    )


def _memory() -> None:
    """With GDAL's cache of blocks held at 16 MB for both: else a large raster fills its 128 MB, a small one not."""
    os.environ["GDAL_CACHEMAX"] = "16"
    peaks: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for side in SIDES:
            scene = made.raster(folder / f"{side}.tif", side)
            first = ["embed", str(scene), "--encoder", "band-stats", "--window", "16", "-o"]
            peaks[side] = statistics.median(
                peak_anonymous_mb([*first, str(folder / f"{side}-{k}.parquet")])
                for k in range(RUNS)
            )
    few, many = ((side // 16) ** 2 for side in SIDES)
    low, high = (peaks[side] for side in SIDES)
    print(
        f"anonymous memory of embed, {many} rows / {few} rows: {high / low:.2f}"
        f"  ({high:.0f} MB against {low:.0f} MB)"
    )


@contextlib.contextmanager
def _silent():  # type: ignore[no-untyped-def]
    with contextlib.redirect_stdout(io.StringIO()):
        yield


if __name__ == "__main__":
    main()
