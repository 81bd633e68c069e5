"""Paint clouds on a scene: a copy of it with round gaps, drawn at random: python clouds.py SCENE OUT."""

import sys

import numpy as np
import rasterio

scene, out = sys.argv[1:]
with rasterio.open(scene) as source:
    data, profile, names = source.read(), source.profile, source.descriptions
rng = np.random.default_rng(0)
height, width = data.shape[1:]
rows, cols = np.mgrid[:height, :width]
hidden = np.zeros((height, width), bool)
for _ in range(25):
    row, col, radius = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(5, 14)
    hidden |= (rows - row) ** 2 + (cols - col) ** 2 < radius**2
data[:, hidden] = 0
for key in ("photometric", "driver", "blockxsize", "blockysize", "tiled", "interleave"):
    profile.pop(key, None)
with rasterio.open(out, "w", driver="GTiff", **profile | {"nodata": 0}) as target:
    target.write(data)
    target.descriptions = names
print(f"{out}: {hidden.mean():.0%} hidden")
