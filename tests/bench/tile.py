"""tile against reading the same windows with GDAL and writing them with numpy."""

import contextlib
import io
import shutil
import tempfile
from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window

from bench import made
from bench.pairs import compare
from geoml_cli.cli import run
from geoml_cli.stages.layout import SHARD_BYTES

SIDE, SIZE = 4096, 256


def main() -> None:
    """Print the ratio."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scene = made.raster(folder / "scene.tif", SIDE)
        out = folder / "tiles"

        def ours() -> None:
            shutil.rmtree(out, ignore_errors=True)
            with contextlib.redirect_stdout(io.StringIO()):
                assert run(["tile", str(scene), "--size", str(SIZE), "-o", str(out)]) == 0

        def theirs() -> None:
            each = made.BANDS * SIZE * SIZE * 2
            with rasterio.open(scene) as dataset:
                tiles: list[np.ndarray] = []
                for row in range(0, SIDE, SIZE):
                    for col in range(0, SIDE, SIZE):
                        tiles.append(dataset.read(window=Window(col, row, SIZE, SIZE)))
                        if len(tiles) == SHARD_BYTES // each:
                            np.save(folder / "plain.npy", np.stack(tiles))
                            tiles.clear()

        compare("tile / (GDAL read + numpy write)", ours, theirs)


if __name__ == "__main__":
    main()
