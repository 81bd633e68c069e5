"""Draw a town as a drone sees it, with footprints where its roofs are and footprints that are metres off."""

import sys
from pathlib import Path

import geopandas
import numpy as np
import rasterio
import shapely
from affine import Affine
from rasterio.features import rasterize
from scipy import ndimage
from shapely import affinity

PIXEL_M, WIDE, HIGH, CRS = 0.15, 1800, 1300, "EPSG:32637"
PLACE = Affine(PIXEL_M, 0, 500_000, 0, -PIXEL_M, 4_000_000)
ROOFS = np.array([[168, 84, 62], [150, 150, 152], [112, 62, 54], [196, 186, 170], [92, 104, 122]])


def buildings(rng: np.random.Generator) -> list[shapely.Polygon]:
    """Houses along streets, some of them L-shaped, none on another; in pixels."""
    found: list[shapely.Polygon] = []
    for y in range(110, HIGH - 90, 125):
        for x in range(110, WIDE - 90, 115):
            if x // 115 % 5 == 4 or rng.random() < 0.15:
                continue
            w, h = rng.uniform(45, 85), rng.uniform(40, 75)
            house = shapely.box(-w / 2, -h / 2, w / 2, h / 2)
            if rng.random() < 0.35:
                house = house.difference(shapely.box(0, 0, w, h))
            house = affinity.rotate(house, rng.normal(0, 12), origin=(0, 0))
            found.append(affinity.translate(house, x + rng.normal(0, 5), y + rng.normal(0, 5)))
    return found


def burn(shapes: list[shapely.Geometry], values: np.ndarray | None = None) -> np.ndarray:
    """Numbers of shapes from 1 on, or their values, where they are."""
    each = range(1, len(shapes) + 1) if values is None else values
    pairs = zip(shapes, each, strict=True)
    return rasterize(pairs, (HIGH, WIDE), dtype="int32")


def picture(houses: list[shapely.Polygon], rng: np.random.Generator) -> np.ndarray:
    """An image (3, HIGH, WIDE) uint8: grass and dirt, streets, shadows, roofs of two slopes, trees."""
    patches = ndimage.gaussian_filter(rng.standard_normal((HIGH, WIDE)), 30)
    green = (patches > 0.004)[..., None]
    image = np.where(green, [96, 118, 70], [148, 122, 96]).astype(float)
    streets = [shapely.box(x, 0, x + 46, HIGH) for x in range(535, WIDE, 575)]
    streets += [shapely.box(0, y, WIDE, y + 34) for y in range(40, HIGH, 250)]
    image[burn(streets) > 0] = [134, 130, 126]
    shadow = ndimage.gaussian_filter(
        (burn([affinity.translate(h, 9, 7) for h in houses]) > 0) * 1.0, 1
    )
    image *= 1 - 0.5 * shadow[..., None]
    roof = ROOFS[rng.integers(len(ROOFS), size=len(houses))] + rng.normal(0, 8, (len(houses), 3))
    number = burn(houses)
    image[number > 0] = roof[number[number > 0] - 1]
    south = [affinity.translate(h, 0, 22).intersection(h) for h in houses]
    image[burn(south) > 0] *= 0.85
    trees = [shapely.Point(*at).buffer(r) for at, r in zip(
        rng.uniform(0, [WIDE, HIGH], (170, 2)), rng.uniform(8, 20, 170), strict=True)]  # fmt: skip
    image[burn(trees) > 0] = [54, 82, 46]
    image += ndimage.gaussian_filter(rng.standard_normal((HIGH, WIDE)), 1)[..., None] * 22
    return (
        np.clip(ndimage.gaussian_filter(image, (0.8, 0.8, 0)), 0, 255)
        .astype(np.uint8)
        .transpose(2, 0, 1)
    )


def offsets(houses: list[shapely.Polygon], rng: np.random.Generator) -> np.ndarray:
    """How far footprints were drawn off (n, 2) px: together, unevenly over the town, and each a little."""
    x, y = np.array([h.centroid.coords[0] for h in houses]).T
    bend = np.stack([np.sin(x / 420 + y / 900), np.cos(y / 380)], 1)
    return np.array([13.0, -9.0]) + 9 * bend + rng.normal(0, 1.5, (len(houses), 2))


def main(folder: Path, seed: int = 3) -> None:
    """Write ortho.tif, right.gpkg and drawn.gpkg."""
    rng = np.random.default_rng(seed)
    houses = buildings(rng)
    image = picture(houses, rng)
    kind = {"driver": "COG", "count": 3, "dtype": "uint8", "crs": CRS, "transform": PLACE}
    with rasterio.open(folder / "ortho.tif", "w", height=HIGH, width=WIDE, **kind) as out:
        out.write(image)
    drawn = [affinity.translate(h, *d) for h, d in zip(houses, offsets(houses, rng), strict=True)]
    for name, shapes in (("right", houses), ("drawn", drawn)):
        placed = [affinity.affine_transform(h, PLACE.to_shapely()) for h in shapes]
        table = geopandas.GeoDataFrame({"id": range(len(placed))}, geometry=placed, crs=CRS)
        table.to_file(folder / f"{name}.gpkg")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
