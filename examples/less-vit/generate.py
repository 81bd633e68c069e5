"""Make a hyperspectral scene of four covers, as EnMAP would see it: 40 bands, a STAC item that tells their wavelengths, labels."""

import json
import sys
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin
from scipy.ndimage import gaussian_filter

SIDE, GSD_M = 128, 30
NM = np.round(np.linspace(420, 2445, 40), 1)
CLASSES = ("water", "vegetation", "soil", "roofs")


def step(nm: float, width: float) -> np.ndarray:
    """A rise from 0 to 1 about a wavelength."""
    return 1 / (1 + np.exp(-(NM - nm) / width))


def dip(nm: float, width: float) -> np.ndarray:
    """An absorption about a wavelength."""
    return np.exp(-(((NM - nm) / width) ** 2))


def spectra() -> np.ndarray:
    """Reflectance (4, 40) of the covers."""
    wet = 0.5 * dip(1450, 90) + 0.6 * dip(1940, 110)
    water = 0.06 * (1 - step(700, 60)) + 0.005
    leaf = (0.04 + 0.03 * dip(550, 40) + 0.42 * step(715, 18) - 0.25 * step(1350, 80)) * (1 - wet)
    soil = (0.08 + 0.28 * step(900, 350)) * (1 - 0.6 * wet - 0.25 * dip(2200, 40))
    roof = 0.22 + 0.05 * step(1500, 200) - 0.04 * dip(870, 80)
    return np.stack([water, leaf, soil, roof])


def main(folder: Path) -> None:
    """Write scene.tif, scene.json and labels.tif."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    fields = np.stack([gaussian_filter(rng.standard_normal((SIDE, SIDE)), 6) for _ in CLASSES])
    share = np.exp(3 * fields / fields.std())
    share /= share.sum(0)
    light = 1 + 0.15 * gaussian_filter(rng.standard_normal((SIDE, SIDE)), 12) / 0.05
    image = np.einsum("khw,kc->chw", share, spectra()) * np.clip(light, 0.6, 1.4)
    image += 0.004 * rng.standard_normal(image.shape)
    grid = {"crs": "EPSG:32633", "transform": from_origin(360_000, 5_810_000, GSD_M, GSD_M)}
    grid |= {"driver": "GTiff", "height": SIDE, "width": SIDE}
    with rasterio.open(folder / "scene.tif", "w", dtype="float32", count=len(NM), **grid) as out:
        out.write(image.astype("float32"))
    with rasterio.open(
        folder / "labels.tif", "w", dtype="uint8", count=1, nodata=255, **grid
    ) as out:
        out.write(share.argmax(0).astype("uint8"), 1)
        out.update_tags(**{f"CLASS_{i}": name for i, name in enumerate(CLASSES)})
    bands = [{"name": f"b{i + 1:02}", "eo:center_wavelength": nm / 1000, "unit": "reflectance"} for i, nm in enumerate(NM)]  # fmt: skip
    asset = {"href": "scene.tif", "type": "image/tiff; application=geotiff", "roles": ["data"], "gsd": GSD_M, "bands": bands}  # fmt: skip
    item = {
        "type": "Feature", "stac_version": "1.1.0", "id": "scene", "geometry": None, "links": [],
        "properties": {"datetime": "2023-06-01T10:30:00Z"}, "assets": {"image": asset},
    }  # fmt: skip
    (folder / "scene.json").write_text(json.dumps(item, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
