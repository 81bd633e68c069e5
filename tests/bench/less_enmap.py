"""LESS ViT on the EnMAP scene of Potsdam, with and without Hyper-MAE, beside a U-Net, PCA with SVM and a forest.

python -m bench.less_enmap FOLDER [--seeds N] [--steps N] [--every K]

Upstream's split; rates are chosen on its validation tiles, test tiles are scored once. `--every K` takes every K-th band.
Models are kept in FOLDER: a run that was stopped goes on.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import rasterio
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from bench.floors import forest, pixels
from bench.sets import DATA, enmap
from geoml_cli import registry
from geoml_cli.cli import run

ENCODER = "less-vit:width=48,layers=2,heads=4,patch=4,rank=4"
HEAD = ("--head", "fcn:width=32,skips=0")
PRETRAINING = "1500"  # steps of Hyper-MAE
HYPER = (
    *("--task", "reconstruct", "--objective", "hyper-mae", "--encoder", ENCODER),
    *("--head", "hyper-mae:width=48,layers=1,heads=4,rank=4", "--lr", "3e-3", "--ema", "0"),
    *("--steps", PRETRAINING, "--batch", "4"),
)
RATES = ("3e-4", "1e-3", "3e-3")


def tiles_of(folder: Path, every: int) -> Path:
    """Upstream's tiles with the wavelengths of their bands."""
    out, raw = folder / f"tiles-{every}", folder / "raw"
    if not (out / "tileset.json").is_file():
        raw.mkdir(parents=True, exist_ok=True)
        words = enmap(raw)
        nm = json.loads((DATA / "c_hyperspectral/enmap_potsdam/wavelengths_nm.json").read_text())
        with rasterio.open(words[0]) as source:
            names, data, about = source.descriptions, source.read(), source.profile
        kept = range(0, len(names), every)
        with rasterio.open(raw / f"every-{every}.tif", "w", **about | {"count": len(kept)}) as file:
            file.write(data[list(kept)])
        bands = [{"name": names[i], "eo:center_wavelength": nm[int(names[i][1:]) - 1] / 1000} for i in kept]  # fmt: skip
        asset = {"href": f"every-{every}.tif", "type": "image/tiff", "gsd": 30, "bands": bands}
        item = {
            "type": "Feature",
            "stac_version": "1.1.0",
            "id": "enmap",
            "geometry": None,
            "links": [],
        }
        item |= {"properties": {"datetime": "2022-07-24T10:45:26Z"}, "assets": {"image": asset}}
        path = raw / f"every-{every}.json"
        path.write_text(json.dumps(item))
        if run(["tile", str(path), *words[1:], "-o", str(out), "-q"]) != 0:
            raise SystemExit("the scene could not be cut")
    return out


def train(tiles: Path, out: Path, *words: str) -> Path:
    """Train, unless it is done."""
    if not (out / "model.json").is_file():
        command = [
            sys.executable,
            "-m",
            "geoml_cli",
            "train",
            str(tiles),
            *words,
            "-q",
            "-o",
            str(out),
        ]
        subprocess.run(command, check=True)
    return out


def validated(model: Path) -> float:
    """The validation score that was kept."""
    head = json.loads((model / "model.json").read_text())
    return float(statistics.mean(one["watch"] for one in head["best"]))


def test_miou(model: Path) -> float:
    """The score on test ground."""
    return float(json.loads((model / "scores.json").read_text())["metrics"]["miou"]["value"])


def svm(tiles: Path, seed: int) -> float:
    """mIoU of 20 principal components and a support vector machine on single pixels."""
    rng = np.random.default_rng(seed)
    parts = [pixels(str(tiles), side, rng) for side in ("train", "val")]
    x, y = (np.concatenate(each) for each in zip(*parts, strict=True))
    some = rng.permutation(len(x))[:6000]
    fitted = make_pipeline(StandardScaler(), PCA(20, random_state=seed), SVC()).fit(
        x[some], y[some]
    )
    tx, ty = pixels(str(tiles), "test", rng)
    metric, count = registry.load("metrics", "segmentation"), int(max(y.max(), ty.max())) + 1
    stats = metric.stats(ty, fitted.predict(tx), np.ones(len(ty), bool), count)
    return float(metric.score(stats)["miou"])


def told(values: list[float]) -> str:
    """Mean and range over seeds."""
    return f"{statistics.mean(values):.3f} ({min(values):.3f} - {max(values):.3f})"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.less_enmap")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--every", type=int, default=1)
    given = parser.parse_args()
    tiles = tiles_of(given.folder, given.every)
    place, steps = given.folder / f"every-{given.every}", str(given.steps)
    budget = ("--steps", steps, "--batch", "4")
    base = train(tiles, place / f"hyper-mae-{PRETRAINING}", *HYPER)
    kinds = {
        "LESS ViT": ("--encoder", ENCODER, *HEAD),
        "LESS ViT after Hyper-MAE": ("--encoder", ENCODER, *HEAD, "--encoder-weights", str(base)),
        "U-Net": ("--encoder", "unet:width=16,depth=3"),
    }
    for name, words in kinds.items():
        short = name.replace(" ", "-").lower()
        first = {r: train(tiles, place / f"{short}-{r}-0", *words, *budget, "--lr", r, "--seed", "0") for r in RATES}  # fmt: skip
        rate = max(RATES, key=lambda r: validated(first[r]))
        models = [
            train(
                tiles,
                place / f"{short}-{rate}-{seed}",
                *words,
                *budget,
                "--lr",
                rate,
                "--seed",
                str(seed),
            )
            for seed in range(given.seeds)
        ]
        each = (told([score(m) for m in models]) for score in (validated, test_miou))
        print(f"| {name} | {rate} | {' | '.join(each)} |", flush=True)
    print(f"| PCA and SVM | | | {told([svm(tiles, s) for s in range(given.seeds)])} |", flush=True)
    trees = [float(forest(str(tiles), s)["miou"]) for s in range(given.seeds)]
    print(f"| forest | | | {told(trees)} |", flush=True)


if __name__ == "__main__":
    main()
