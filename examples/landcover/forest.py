"""The floor: a random forest on pixels, and the commonest class, with the tile set's folds and labels.

usage: python forest.py SCENES TILES FOREST.tif MAJORITY.tif

Each fold is mapped by a forest that saw none of its labels, nor any within the buffer. The
forest needs no validation fold, so it trains on one fold more than the network does.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import rasterio
from sklearn.ensemble import RandomForestClassifier

from geoml_cli.geo.grid import Grid
from geoml_cli.geo.splits import Lattice


def labelled(folder: Path, head: dict, held: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (n, bands) and classes (n,) that may train while fold `held` is held out."""
    x, y = [], []
    for shard in range(head["shards"]):
        images = np.load(folder / f"images-image-{shard:05d}.npy", mmap_mode="r")[:, 0]
        labels = np.load(folder / f"labels-class-{shard:05d}.npy")
        near = np.load(folder / f"near-{shard:05d}.npy")
        use = (labels != 255) & (near >> held & 1 == 0)
        x.append(np.moveaxis(images, 1, -1)[use])
        y.append(labels[use])
    return np.concatenate(x), np.concatenate(y)


def main(scenes: str, tiles: str, forest_path: str, majority_path: str) -> None:
    head = json.loads((Path(tiles) / "tileset.json").read_text())
    made_of = head["geoml"]["fingerprint"]
    paths = [forest_path, majority_path]
    if all(os.path.exists(p) and rasterio.open(p).tags().get("TILES") == made_of for p in paths):
        for path in paths:
            os.utime(path)
        return
    [item] = json.loads((Path(scenes) / "items.json").read_text())["features"]
    [asset] = item["assets"].values()
    with rasterio.open(Path(scenes) / asset["href"]) as source:
        image, profile = source.read(), source.profile
    grid = Grid(profile["crs"].to_string(), profile["transform"], *image.shape[1:])
    folds, _ = Lattice.from_dict(head["split"]).on(grid)
    forest, majority = np.zeros(folds.shape, np.uint8), np.zeros(folds.shape, np.uint8)
    for fold in range(head["folds"]):
        x, y = labelled(Path(tiles), head, fold)
        model = RandomForestClassifier(500, n_jobs=-1, random_state=0).fit(x, y)
        here = folds == fold
        forest[here] = model.predict(image[:, here].T)
        majority[here] = np.bincount(y).argmax()
    names = {f"CLASS_{c['id']}": c["name"] for c in head["layers"][0]["classes"]}
    profile = {k: profile[k] for k in ("crs", "transform", "width", "height")}
    for path, ids in zip(paths, (forest, majority), strict=True):
        with rasterio.open(
            path, "w", driver="GTiff", count=1, dtype="uint8", nodata=255, **profile
        ) as out:
            out.write(ids, 1)
            out.update_tags(TILES=made_of, **names)


if __name__ == "__main__":
    main(*sys.argv[1:])
