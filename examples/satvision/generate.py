"""Make chips of clouds over land and sea, in the 14 bands that SatVision-TOA knows: reflectances and temperatures."""

import sys
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin
from scipy.ndimage import gaussian_filter

SIDE = 256
NAMES = [f"modis{n}" for n in (1, 2, 3, 6, 7, 21, 26, 27, 28, 29, 30, 31, 32, 33)]
WARM = {"modis21": 0, "modis27": 45, "modis28": 30, "modis29": 4, "modis30": 25, "modis31": 2, "modis32": 3, "modis33": 20}  # fmt: skip
LAND = {
    "modis1": 0.08,
    "modis2": 0.28,
    "modis3": 0.07,
    "modis6": 0.22,
    "modis7": 0.12,
    "modis26": 0.005,
}


def smooth(rng: np.random.Generator, size: float) -> np.ndarray:
    """A smooth field of mean 0 and spread 1."""
    field = gaussian_filter(rng.standard_normal((SIDE, SIDE)), size, mode="wrap")
    return (field - field.mean()) / field.std()


def main(folder: Path) -> None:
    """Write scene.tif and clouds.tif."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    land = smooth(rng, 24) > 0
    cover = np.clip(smooth(rng, 6) + 0.4 * smooth(rng, 2) - 0.3, 0, 1)  # of cloud
    height = np.clip(6 + 3 * smooth(rng, 16), 1, 12)  # km
    bands = []
    for name in NAMES:
        if name in WARM:
            ground = 288 + 6 * land - WARM[name]
            bands.append(ground * (1 - cover) + cover * (288 - 6 * height))
        else:
            ground = np.where(land, LAND[name], 0.04)
            bands.append(
                ground * (1 - cover) + cover * (0.6 if name != "modis26" else 0.05 * height)
            )
    image = np.stack(bands)
    image += rng.standard_normal(image.shape) * (image.std((1, 2)) * 0.02)[:, None, None]
    grid = {"crs": "EPSG:32631", "transform": from_origin(300_000, 5_000_000, 1000, 1000)}
    grid |= {"driver": "GTiff", "height": SIDE, "width": SIDE}
    with rasterio.open(folder / "scene.tif", "w", dtype="float32", count=len(NAMES), **grid) as out:
        out.write(image.astype("float32"))
        out.descriptions = NAMES
    with rasterio.open(
        folder / "clouds.tif", "w", dtype="uint8", count=1, nodata=255, **grid
    ) as out:
        out.write((cover > 0.3).astype("uint8"), 1)
        out.update_tags(CLASS_0="clear", CLASS_1="cloud")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
