"""Make two copies of a scene that do not lie where they should: displace.py SCENE LATER CLOUDS BENT TRUTH."""

import json
import sys

import numpy as np
import rasterio
from affine import Affine
from rasterio.warp import Resampling, calculate_default_transform, reproject
from scipy import ndimage

EAST_M, NORTH_M = 67.0, -41.0  # what the later image is off by
BEND_PX, WAVE_PX = 2.0, 260.0  # how far the other is bent, and over what length


def main(scene: str, later: str, clouds: str, bent: str, truth: str) -> None:
    with rasterio.open(scene) as source:
        data, profile, names = source.read(), source.profile, source.descriptions
        bounds = source.bounds
    for key in ("blockxsize", "blockysize", "photometric", "interleave", "compress", "tiled"):
        profile.pop(key, None)
    profile |= {"driver": "GTiff", "nodata": 0}
    _later(data, profile, bounds, names, later, clouds)
    _bent(data, profile, names, bent)
    with open(truth, "w") as file:
        json.dump({"later_m": [EAST_M, NORTH_M], "bend_px": BEND_PX, "wave_px": WAVE_PX}, file)


def _later(data, profile, bounds, names, path: str, clouds: str) -> None:
    """Another zone's CRS, 20 m, brighter, off by a known way, and a bank of cloud that a mask tells of."""
    t = profile["transform"]
    wrong = Affine(t.a, 0, t.c + EAST_M, 0, t.e, t.f + NORTH_M)
    to, wide, high = calculate_default_transform(
        profile["crs"], "EPSG:32724", data.shape[2], data.shape[1], *bounds, resolution=20
    )
    image = np.zeros((len(data), high, wide), np.uint16)
    lit = (np.clip(data, 1, None).astype(np.uint16)) * 40 + 300
    place = {"dst_transform": to, "dst_crs": "EPSG:32724", "src_crs": profile["crs"]}
    reproject(lit, image, src_transform=wrong, resampling=Resampling.cubic, **place)
    rng = np.random.default_rng(0)
    bank = ndimage.gaussian_filter(rng.normal(size=(high, wide)), 25)
    cloud = bank > np.quantile(bank, 0.8)
    image[:, cloud & (image[0] > 0)] = 12000
    out = {**profile, "dtype": "uint16", "crs": "EPSG:32724", "transform": to}
    _write(path, image, {**out, "height": high, "width": wide}, names)
    mask = {**out, "dtype": "uint8", "count": 1, "height": high, "width": wide, "nodata": None}
    _write(clouds, cloud[None].astype(np.uint8), mask, ("cloud",))


def _bent(data, profile, names, path: str) -> None:
    """What stands at x, y is shown at x + bend(y), y + bend(x)."""
    rows, cols = np.mgrid[: data.shape[1], : data.shape[2]].astype(float)
    x, y = cols.copy(), rows.copy()
    for _ in range(20):
        x, y = (
            cols - BEND_PX * np.sin(2 * np.pi * y / WAVE_PX),
            rows - BEND_PX * np.cos(2 * np.pi * x / WAVE_PX),
        )
    image = [ndimage.map_coordinates(band.astype(float), [y, x], order=3) for band in data]
    _write(path, np.clip(np.rint(image), 1, 255).astype(np.uint8), profile, names)


def _write(path: str, image, profile, names) -> None:
    with rasterio.open(path, "w", **profile) as out:
        out.write(image)
        out.descriptions = names


if __name__ == "__main__":
    main(*sys.argv[1:])
