"""The loader against rasterio's windows of the same COG, a plain copy out of the maps, and a U-Net's appetite."""

import contextlib
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import rasterio
import torch
from rasterio.windows import Window

from bench import made
from geoml_cli.cli import run
from geoml_cli.core import network as networks
from geoml_cli.core.batch import Batch
from geoml_cli.stages.loader import TileDataset, batches

SIDE = int(os.environ.get("BENCH_SIDE", "5490"))  # px; 10980 is a whole Sentinel-2 scene
SIZE, BATCH, ROUNDS = 256, 32, 5
TORCHGEO = (
    49  # windows a second of TorchGeo's RandomGeoSampler on such a COG of 5490 px, measured once
)


def windows(dataset: rasterio.DatasetReader, count: int, seed: int) -> int:
    """Read random windows, one after the other."""
    rng = np.random.default_rng(seed)
    for row, col in rng.integers(0, SIDE - SIZE, (count, 2)).tolist():
        dataset.read(window=Window(col, row, SIZE, SIZE))
    return count


def opened(path: str, count: int, seed: int) -> int:
    """The same of a file opened anew: each block is unpacked where it is first needed, then lies in GDAL's cache."""
    with rasterio.open(path) as dataset:
        return windows(dataset, count, seed)


def rate(work: Callable[[], int]) -> float:
    """Tiles a second."""
    began = time.perf_counter()
    count = work()
    return count / (time.perf_counter() - began)


class InTwo:
    """Two processes that read windows when told to, started beforehand."""

    def __init__(self, path: str) -> None:
        code = "import sys; from bench.loader import opened\nfor line in sys.stdin: opened(sys.argv[1], *map(int, line.split())); print(flush=True)"
        self._each = [
            subprocess.Popen([sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(2)
        ]  # fmt: skip

    def read(self, count: int, seed: int) -> int:
        """Read `count` windows, half of them each."""
        for i, one in enumerate(self._each):
            print(count // 2, 2 * seed + i, file=one.stdin, flush=True)
        for one in self._each:
            one.stdout.readline()
        return count // 2 * 2

    def close(self) -> None:
        """End them."""
        for one in self._each:
            one.communicate()


def appetite(ds: TileDataset, encoder: str = "unet") -> float:
    """Tiles a second of forward and backward through the default network on this machine."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    seen = [{"bands": made.BANDS, "frames": 1}]
    spec = {"encoder": encoder, "head": "unet", "sensors": seen, "outputs": 4, "per": "pixel"}
    network = networks.build(spec).to(device)
    one = ds.read(range(8))
    batch = Batch(one["image"], one["valid"]).to(device)

    def step() -> int:
        network(batch).mean().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return len(batch.images)

    step()
    return max(rate(step) for _ in range(3))


def main() -> None:
    """Print tiles a second of each, and the ratios; medians of rounds that take turns."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scene = str(made.raster(folder / "scene.tif", SIDE))
        began = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            assert run(["tile", scene, "--size", str(SIZE), "-o", str(folder / "tiles"), "-q"]) == 0
        tiling = time.perf_counter() - began
        ds = TileDataset(str(folder / "tiles"), split="all")
        two, epoch, held = InTwo(scene), count(), rasterio.open(scene)

        def ours(workers: int = 2, augment: str = "dihedral") -> int:
            how = {"size": BATCH, "epoch": next(epoch), "augment": augment, "workers": workers}
            return sum(len(batch["image"]) for batch in batches(ds, **how))

        def copied() -> int:
            rows = np.random.default_rng(next(epoch)).permutation(len(ds))
            for i in range(0, len(rows), BATCH):
                ds.tiles.take("images", rows[i : i + BATCH])
            return len(rows)

        works: dict[str, Callable[[], int]] = {
            "ours, 2 threads, turned": ours,
            "ours, no thread, turned": lambda: ours(0),
            "ours, 2 threads, not turned": lambda: ours(2, "none"),
            "rasterio windows": lambda: opened(scene, len(ds), next(epoch)),
            "rasterio windows, 2 processes": lambda: two.read(len(ds), next(epoch)),
            "rasterio windows, all in GDAL's cache": lambda: windows(held, len(ds), next(epoch)),
            "copied out of the maps": copied,
        }
        for work in works.values():
            work()
        rounds = [{what: rate(work) for what, work in works.items()} for _ in range(ROUNDS)]
        two.close(), held.close()
        middle = {what: float(np.median([r[what] for r in rounds])) for what in works}
        first = "ours, 2 threads, turned"
        print(f"{len(ds)} tiles of {SIZE} px from {SIDE} px, tiled in {tiling:.1f} s")
        for what in works:
            ratios = sorted(r[first] / r[what] for r in rounds)
            spread = (
                f"ours / this {np.median(ratios):.2f} (rounds {ratios[0]:.2f} - {ratios[-1]:.2f})"
            )
            print(
                f"  {what}: {middle[what]:.0f} tiles/s" + (f"; {spread}" if what != first else "")
            )
        print(
            f"  TorchGeo's random sampler, measured elsewhere: {TORCHGEO} windows/s; {middle[first] / TORCHGEO:.0f}"
        )
        hunger = appetite(ds)
        print(
            f"  a U-Net's step here takes {hunger:.1f} tiles/s; ours / this {middle[first] / hunger:.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
