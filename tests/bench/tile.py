"""tile against reading the same blocks with GDAL and writing them with numpy, two threads each."""

import contextlib
import io
import os
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window

from bench import made
from bench.pairs import compare
from geoml_cli.cli import run
from geoml_cli.stages.layout import SHARD_BYTES

SIDE, SIZE = int(os.environ.get("GEOML_BENCH_SIDE", "10980")), 256


def main() -> None:
    """Print the ratio, and how long an index of 100 000 virtual tiles takes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scene = made.raster(folder / "scene.tif", SIDE)
        out = folder / "tiles"
        sampler = ["--size", str(SIZE), "--sampler", "grid:edge=drop"]

        def ours() -> None:
            shutil.rmtree(out, ignore_errors=True)
            with contextlib.redirect_stdout(io.StringIO()):
                assert run(["tile", str(scene), *sampler, "-j", "2", "-o", str(out)]) == 0

        def theirs() -> None:
            plain = folder / "plain"
            shutil.rmtree(plain, ignore_errors=True)
            plain.mkdir()
            count = SHARD_BYTES // (made.BANDS * SIZE * SIZE * 2)
            last = SIDE - SIZE + 1
            every = [(r, c) for r in range(0, last, SIZE) for c in range(0, last, SIZE)]
            every.sort(key=lambda at: (at[0] // 512, at[1] // 512))  # each block is unpacked once
            parts = [every[i : i + count] for i in range(0, len(every), count)]

            def work(number: int) -> None:
                with rasterio.open(scene) as dataset:
                    tiles = [
                        dataset.read(window=Window(col, row, SIZE, SIZE))
                        for row, col in parts[number]
                    ]
                np.save(plain / f"{number}.npy", np.stack(tiles))
                np.save(plain / f"valid-{number}.npy", np.ones((len(tiles), SIZE, SIZE), bool))

            with ThreadPoolExecutor(2) as pool:
                list(pool.map(work, range(len(parts))))

        with rasterio.Env(GDAL_CACHEMAX=128):
            compare(f"tile / (GDAL read + numpy write), {SIDE} px", ours, theirs, pairs=3)
        began = time.perf_counter()
        words = ["tile", str(scene), "--virtual", "--size", "256", "--sampler"]
        with contextlib.redirect_stdout(io.StringIO()):
            assert run([*words, "random:count=100000", "-o", str(folder / "virtual")]) == 0
        print(f"100 000 virtual tiles: {time.perf_counter() - began:.1f} s", flush=True)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
