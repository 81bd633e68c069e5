"""Rasters, tile sets and models to measure on: seeded, in a temporary folder."""

from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin

from geoml_cli.cli import run

BANDS = 4


def raster(path: Path, side: int) -> Path:
    """A tiled uint16 GeoTIFF of smooth noise, `side` x `side` px, four bands, written by rows of blocks."""
    rng = np.random.default_rng(0)
    profile = {
        "driver": "GTiff", "count": BANDS, "height": side, "width": side, "dtype": "uint16",
        "crs": "EPSG:32633", "transform": from_origin(5e5, 5e6, 10, 10),
        "tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate",
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as out:
        for row in range(0, side, 512):
            coarse = rng.integers(100, 4000, (BANDS, 64, -(-side // 8)), dtype=np.uint16)
            block = np.kron(coarse, np.ones((8, 8), np.uint16))[:, : side - row, :side]
            block += rng.integers(0, 50, block.shape, dtype=np.uint16)
            out.write(block, window=((row, min(row + 512, side)), (0, side)))
    return path


def labels(path: Path, side: int) -> Path:
    """A class raster on the same grid: four classes in squares of 128 px."""
    rows, cols = np.mgrid[:side, :side] // 128
    ids = ((rows + cols) % 4).astype(np.uint8)
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=side, width=side, dtype="uint8",
        crs="EPSG:32633", transform=from_origin(5e5, 5e6, 10, 10), compress="deflate",
    ) as out:  # fmt: skip
        out.write(ids, 1)
    return path


def model(folder: Path, encoder: str, head: str | None = None, size: int = 128) -> Path:
    """A model trained for one epoch: what it says does not matter here, how fast does."""
    scene, truth = raster(folder / "small.tif", 512), labels(folder / "small_labels.tif", 512)
    tiles, out = str(folder / "tiles"), folder / "model"
    words = ["--labels", str(truth), "--size", str(size), "--split", "none", "-o", tiles, "-q"]
    assert run(["tile", str(scene), *words]) == 0
    words = ["--epochs", "1", "--batch", "1", "-o", str(out), "-q"]
    words += ["--head", head] if head else []
    assert run(["train", tiles, "--encoder", encoder, *words]) == 0
    return out
