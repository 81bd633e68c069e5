"""Many footprints on a large ortho: rate and memory of `geoml align`, each run in a process of its own."""

import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import geopandas
import numpy as np
import rasterio
import shapely
from affine import Affine
from rasterio.features import rasterize
from rasterio.windows import Window
from scipy import ndimage

from geoml_cli.geo.overlaps import translate

PITCH, REPEAT, CRS = 158, 16, "EPSG:32637"  # px between houses; houses a side of the pattern
PLACE = Affine(0.1, 0, 500_000, 0, -0.1, 4_000_000)
SIDES = (100, 316)  # houses a side: 10 000 and 99 856


def pattern(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Houses (REPEAT^2,) of about 60 px and an image of them on rough ground, which repeats."""
    x, y = np.meshgrid(*[np.arange(REPEAT) * PITCH + PITCH / 2] * 2)
    half = rng.uniform(22, 40, (2, REPEAT, REPEAT))
    houses = shapely.box(x - half[0], y - half[1], x + half[0], y + half[1]).ravel()
    side = PITCH * REPEAT
    number = rasterize(
        zip(houses, range(1, len(houses) + 1), strict=True), (side, side), dtype="int32"
    )
    shade = np.concatenate([[95.0], rng.uniform(60, 230, len(houses))])
    ground = ndimage.gaussian_filter(rng.standard_normal((side, side)), 2, mode="wrap") * 120
    return houses, np.clip(shade[number] + np.where(number, 0.3, 1) * ground, 0, 255).astype(
        np.uint8
    )


def ortho(path: Path, image: np.ndarray, side: int) -> None:
    """Write the pattern over and over, 512 rows at a time."""
    kind = {"driver": "GTiff", "count": 1, "dtype": "uint8", "crs": CRS, "transform": PLACE}
    tiled = {
        "tiled": True,
        "blockxsize": 512,
        "blockysize": 512,
        "compress": "zstd",
        "zstd_level": 1,
    }
    with rasterio.open(path, "w", height=side, width=side, **kind, **tiled) as out:
        for row in range(0, side, 512):
            rows = np.arange(row, min(row + 512, side)) % len(image)
            strip = np.take(image[rows], np.arange(side) % len(image), axis=1)
            out.write(strip, 1, window=Window(0, row, side, len(rows)))


def displaced(
    houses: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Houses all over, drawn off; and how far (n, 2) px."""
    turn = np.arange(-(-count // REPEAT)) * PITCH * REPEAT
    every = [translate(houses, np.tile([x, y], (len(houses), 1))) for y in turn for x in turn]
    shapes = np.concatenate(every)
    middle = shapely.get_coordinates(shapely.centroid(shapes))
    inside = (middle < count * PITCH).all(1)
    x, y = middle[inside].T
    bend = np.stack([12 + 9 * np.sin(x / 4000 + y / 9000), -8 + 9 * np.cos(y / 3000)], 1)
    shift = bend + rng.normal(0, 1.5, bend.shape)
    return translate(shapes[inside], shift), shift


def main() -> None:
    """Print rate, peak memory and error at both sizes."""
    for count in SIDES:
        rng = np.random.default_rng(0)
        houses, image = pattern(rng)
        shapes, shift = displaced(houses, count, rng)
        with TemporaryDirectory() as place:
            folder, side = Path(place), count * PITCH
            ortho(folder / "ortho.tif", image, side)
            there = shapely.transform(
                shapes,
                lambda xy: np.stack(
                    [PLACE.a * xy[:, 0] + PLACE.c, PLACE.e * xy[:, 1] + PLACE.f], 1
                ),
            )
            geopandas.GeoDataFrame(geometry=there, crs=CRS).to_parquet(folder / "drawn.parquet")
            line = [
                str(Path(sys.executable).parent / "geoml"),
                "align",
                str(folder / "drawn.parquet"),
            ]
            line += ["--to", str(folder / "ortho.tif"), "-o", str(folder / "aligned.parquet"), "-q"]
            began = time.perf_counter()
            _, status, used = os.wait4(subprocess.Popen(line, stdout=subprocess.DEVNULL).pid, 0)
            wall = time.perf_counter() - began
            assert status == 0
            found = geopandas.read_parquet(folder / "aligned.parquet")[
                ["dx_px", "dy_px"]
            ].to_numpy()
        error = np.hypot(*(found + shift).T)
        spent = used.ru_utime + used.ru_stime
        print(
            f"{len(shapes)} footprints on {side} x {side} px: {spent:.0f} s of CPU ({len(shapes) / spent:.0f} a second),"
            f" {wall:.0f} s, {used.ru_maxrss / 1e6:.2f} GB at most; off by {np.hypot(*shift.T).mean():.1f} px before,"
            f" {error.mean():.2f} after, {100 * (error < 3).mean():.1f} % within 3 px",
            flush=True,
        )


if __name__ == "__main__":
    main()
