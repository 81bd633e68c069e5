"""Scenes made for tests: seeded, small, with an answer that is known."""

from pathlib import Path

import geopandas
import numpy as np
import rasterio
from rasterio.features import shapes
from rasterio.transform import from_origin
from shapely.geometry import shape

NAMES = ("field", "forest", "water")
LEVELS = np.array([[180, 90], [60, 120], [20, 30]])  # of each class in each band


def regions(height: int, width: int, seed: int = 0, sites: int = 24) -> np.ndarray:
    """Class ids (H, W) of a Voronoi map."""
    rng = np.random.default_rng(seed)
    places, kinds = rng.uniform(0, 1, (sites, 2)) * (height, width), np.arange(sites) % len(NAMES)
    rows, cols = np.mgrid[:height, :width]
    away = (rows[..., None] - places[:, 0]) ** 2 + (cols[..., None] - places[:, 1]) ** 2
    return kinds[away.argmin(-1)].astype(np.uint8)


def image(truth: np.ndarray, noise: float = 12, seed: int = 0) -> np.ndarray:
    """Bands (2, H, W) uint8 of a class map."""
    rng = np.random.default_rng(seed + 1)
    values = np.moveaxis(LEVELS[truth], -1, 0) + rng.normal(0, noise, (2, *truth.shape))
    return np.clip(values.round(), 1, 255).astype(np.uint8)


def write(
    path: Path,
    data: np.ndarray,
    *,
    crs: str | None = "EPSG:32633",
    res: float = 10,
    names: tuple[str, ...] = ("red", "nir"),
    **profile: object,
) -> Path:
    """A plain GeoTIFF of an array (C, H, W)."""
    profile = {"transform": from_origin(500_000, 5_000_000, res, res)} | profile
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=len(data),
        height=data.shape[1],
        width=data.shape[2],
        dtype=data.dtype,
        crs=crs,
        **profile,
    ) as out:
        out.write(data)
        for i, name in enumerate(names[: len(data)]):
            out.set_band_description(i + 1, name)
    return path


def polygons(path: Path, truth: np.ndarray, crs: str | None = None, shrink: float = 0) -> Path:
    """The class map as polygons with a column `class`, in the scene's CRS or another."""
    transform = from_origin(500_000, 5_000_000, 10, 10)
    found = [(shape(g), NAMES[int(v)]) for g, v in shapes(truth, transform=transform)]
    table = geopandas.GeoDataFrame(
        {"class": [c for _, c in found]},
        geometry=[g.buffer(-shrink) for g, _ in found],
        crs="EPSG:32633",
    )
    table = table[~table.geometry.is_empty]
    (table.to_crs(crs) if crs else table).to_file(path)
    return path


def scene(
    folder: Path, height: int = 96, width: int = 80, seed: int = 0
) -> tuple[Path, Path, np.ndarray]:
    """Scene, labels and class map: (scene.tif, labels.gpkg, truth)."""
    truth = regions(height, width, seed)
    return (
        write(folder / "scene.tif", image(truth, seed=seed)),
        polygons(folder / "labels.gpkg", truth),
        truth,
    )


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, by name."""
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }
