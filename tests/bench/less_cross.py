"""Trained on the bands of Sentinel-2, asked on those of Landsat 8: LESS ViT beside what knows bands by their place only.

python -m bench.less_cross FOLDER [--seeds N] [--steps N]

Both sensors are made of one EnMAP scene (means over passbands), so that they differ in bands and in nothing else. LESS ViT
learns from all bands of Sentinel-2 and is told the wavelengths of Landsat's; the others learn from those bands of
Sentinel-2 that Landsat has too. Upstream's split.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import rasterio
import torch
from sklearn.ensemble import RandomForestClassifier

from bench.floors import pixels
from bench.less_enmap import told, train
from bench.sets import DATA, enmap
from geoml_cli import registry
from geoml_cli.cli import run
from geoml_cli.core import network as networks
from geoml_cli.core.batch import Batch
from geoml_cli.formats.model import read_model
from geoml_cli.stages.loader import TileDataset

# first and last nm of a band
SENTINEL = {
    "coastal": (433, 453), "blue": (458, 523), "green": (543, 578), "red": (650, 680),
    "rededge071": (698, 713), "rededge075": (733, 748), "rededge078": (773, 793), "nir": (785, 899),
    "nir08": (855, 875), "swir16": (1565, 1655), "swir22": (2100, 2280),
}  # fmt: skip
LANDSAT = {
    "coastal": (435, 451), "blue": (452, 512), "green": (533, 590), "red": (636, 673),
    "nir08": (851, 879), "swir16": (1567, 1651), "swir22": (2107, 2294),
}  # fmt: skip
MATCHED = {name: SENTINEL[name] for name in LANDSAT}
SETS = {"sentinel": SENTINEL, "matched": MATCHED, "landsat": LANDSAT}
LESS = "less-vit:width=48,layers=2,heads=4,patch=4,rank=4"
KINDS = {
    "LESS ViT, all bands of Sentinel-2": ("sentinel", LESS, "fcn:width=32,skips=0"),
    "LESS ViT, matched bands": ("matched", LESS, "fcn:width=32,skips=0"),
    "U-Net, matched bands": ("matched", "unet:width=16,depth=2", "linear"),
}
RATE = "3e-3"  # what validation tiles chose for these networks in bench.less_enmap


def tiles_of(folder: Path, name: str) -> Path:
    """Upstream's tiles in the bands of a sensor, told with their wavelengths."""
    out, raw = folder / name, folder / f"raw-{name}"
    if (out / "tileset.json").is_file():
        return out
    raw.mkdir(parents=True, exist_ok=True)
    words = enmap(raw)
    nm = json.loads((DATA / "c_hyperspectral/enmap_potsdam/wavelengths_nm.json").read_text())
    with rasterio.open(words[0]) as source:
        at = np.array([nm[int(one[1:]) - 1] for one in source.descriptions])
        data, about = source.read().astype(np.float32), source.profile
    bands = SETS[name]
    with rasterio.open(
        raw / f"{name}.tif", "w", **about | {"count": len(bands), "dtype": "float32"}
    ) as file:
        for i, (low, high) in enumerate(bands.values(), start=1):
            file.write(data[(at >= low) & (at <= high)].mean(0), i)
    told_bands = [
        {"name": name, "eo:common_name": name, "eo:center_wavelength": (a + b) / 2000}
        for name, (a, b) in bands.items()
    ]
    asset = {"href": f"{name}.tif", "type": "image/tiff", "gsd": 30, "bands": told_bands}
    item = {"type": "Feature", "stac_version": "1.1.0", "id": name, "geometry": None, "links": []}
    item |= {"properties": {"datetime": "2022-07-24T10:45:26Z"}, "assets": {"image": asset}}
    (raw / "item.json").write_text(json.dumps(item))
    if run(["tile", str(raw / "item.json"), *words[1:], "-o", str(out), "-q"]) != 0:
        raise SystemExit("the scene could not be cut")
    return out


def asked(model: Path, tiles: Path) -> float:
    """mIoU on the test tiles of another sensor: the network is built anew for its bands, with the weights it has.

    A band is scaled as the nearest one in training was.
    """
    found = read_model(str(model))
    about = json.loads((tiles / "tileset.json").read_text())["sensors"][0]
    spec, [state] = found.head["network"], found.weights()
    there = np.array([b["wavelength_nm"] for b in about["bands"]])
    here = np.array([b.wavelength_nm for b in found.bands])
    near = torch.from_numpy(np.abs(there[:, None] - here).argmin(1))
    own = {"bands": len(there), "frames": 1} | networks.named_bands(spec["encoder"], about)
    network = networks.build(spec | {"sensors": [own]})
    for key in ("sensors.0.mean", "sensors.0.std"):
        state[key] = state[key].index_select(state[key].shape.index(len(here)), near)
    network.load_state_dict(state)
    data = TileDataset(str(tiles), split="test")
    batch = data.read(np.arange(len(data)))
    with torch.inference_mode():
        out = network.eval()(Batch(batch["image"], batch["valid"]))
    y, guess = batch["class"].numpy(), out.argmax(1).numpy()
    metric, kept = registry.load("metrics", "segmentation"), y != 255
    stats = metric.stats(y[kept], guess[kept], np.ones(kept.sum(), bool), out.shape[1])
    return float(metric.score(stats)["miou"])


def forest(tiles: dict[str, Path], test: str, seed: int) -> float:
    """mIoU of a forest on pixels of the matched bands."""
    rng = np.random.default_rng(seed)
    parts = [pixels(str(tiles["matched"]), side, rng) for side in ("train", "val")]
    x, y = (np.concatenate(each) for each in zip(*parts, strict=True))
    grown = RandomForestClassifier(200, n_jobs=1, random_state=seed).fit(x, y)
    tx, ty = pixels(str(tiles[test]), "test", rng)
    metric = registry.load("metrics", "segmentation")
    stats = metric.stats(ty, grown.predict(tx), np.ones(len(ty), bool), int(max(y.max(), ty.max())) + 1)  # fmt: skip
    return float(metric.score(stats)["miou"])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.less_cross")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300)
    given = parser.parse_args()
    tiles = {name: tiles_of(given.folder, name) for name in SETS}
    budget = ("--steps", str(given.steps), "--batch", "4")
    print("| learnt from Sentinel-2 | asked on Sentinel-2 | asked on Landsat 8 |\n|---|---|---|")
    for name, (sensor, encoder, head) in KINDS.items():
        short = name.replace(" ", "-").replace(",", "").lower()

        words = ("--encoder", encoder, "--head", head, *budget, "--lr", RATE)
        models = [
            train(tiles[sensor], given.folder / f"{short}-{seed}", *words, "--seed", str(seed))
            for seed in range(given.seeds)
        ]
        both = [told([asked(m, tiles[t]) for m in models]) for t in (sensor, "landsat")]
        print(f"| {name} | {both[0]} | {both[1]} |", flush=True)
    both = [told([forest(tiles, t, s) for s in range(given.seeds)]) for t in ("matched", "landsat")]
    print(f"| forest, matched bands | {both[0]} | {both[1]} |", flush=True)


if __name__ == "__main__":
    main()
