"""kNN and linear probes of encoders that learnt nothing, and of ours that did, on real sets: a table of BENCHMARKS.md.

python -m bench.probes FOLDER [--seeds N] [--only NAME]

Of each set, points are drawn among its labelled pixels (up to 100 a class), and told from the embeddings of the
patches that hold them, by folds of the tile set's 8 x 8 blocks of ground. An encoder that was trained is that
of the network which never saw the fold that is told: neither drawn points nor any pixel of that ground.
"""

import argparse
import contextlib
import io
import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import rasterio.warp

from bench.sets import SETS
from geoml_cli import registry
from geoml_cli.cli import run
from geoml_cli.core.probing import Probed
from geoml_cli.core.scoring import Tally, bootstrap
from geoml_cli.formats.embeddings import open_embeddings
from geoml_cli.stages.tiles import open_tiles

NAMES = ("amazonas", "para", "flood-s2", "flood-s1", "burn", "enmap")
FOLDS, EACH = 4, 100
NET = "unet:width=16,depth=3"
ENCODERS = {
    "band statistics": ["--encoder", "band-stats:patch=3"],
    "random U-Net": ["--encoder", NET, "--level", "1"],
    "random ResNet-18": ["--encoder", "resnet:stem=small", "--level", "1"],
}
FIT = ("--encoder", NET, "--steps", "300")


def cut(name: str, folder: Path) -> Path:
    """The set's tiles on blocks of ground, whatever split its floor is told for."""
    out = folder / name / "blocks"
    if not (out / "tileset.json").is_file():
        raw = folder / name / "raw"
        raw.mkdir(parents=True, exist_ok=True)
        words, kept = SETS[name].cut(raw), []
        skip = iter(words)
        for word in skip:
            if word in ("--split", "--buffer", "--folds", "--split-by"):
                next(skip)
            else:
                kept.append(word)
        kept += ["--split", "blocks:8", "--folds", str(FOLDS), "--buffer", "0"]
        _geoml("tile", *kept, "-o", str(out))
    return out


def points(tiles: Path, path: Path, seed: int) -> np.ndarray:
    """Draw labelled pixels; their fold (n,)."""
    opened = open_tiles(str(tiles))
    layer = opened.head["layers"][0]
    rng = np.random.default_rng(seed)
    found: list[tuple[int, int, float, float, str]] = []  # class, fold, x, y, crs
    for row in range(len(opened.index)):
        labels = opened.take("labels", [row], layer["name"])[0]
        folds = opened.take("folds", [row])[0]
        t = opened.index["proj:transform"].iloc[row]
        code = opened.index["proj:code"].iloc[row]
        r, c = np.nonzero((labels != layer["ignore"]) & (folds != 255))
        some = rng.permutation(len(r))[:2000]
        for i, j in zip(r[some], c[some], strict=True):
            x, y = t[2] + t[0] * (j + 0.5), t[5] + t[4] * (i + 0.5)
            found.append((int(labels[i, j]), int(folds[i, j]), x, y, code))
    ids = np.array([one[0] for one in found])
    kept = np.concatenate(
        [rng.permutation(np.flatnonzero(ids == k))[:EACH] for k in np.unique(ids)]
    )
    kept = np.sort(kept)
    crs = found[kept[0]][4]
    names = {one["id"]: one["name"] for one in layer["classes"]}
    xs, ys = [], []
    for i in kept:
        x, y = rasterio.warp.transform(found[i][4], crs, [found[i][2]], [found[i][3]])
        xs.append(x[0])
        ys.append(y[0])
    table = {"id": [str(i) for i in range(len(kept))], "kind": [names[ids[i]] for i in kept]}
    table |= {"fold": [found[i][1] for i in kept]}
    shapes = geopandas.points_from_xy(xs, ys)
    geopandas.GeoDataFrame(table, geometry=shapes, crs=crs).to_file(path)
    return np.array([found[i][1] for i in kept])


def probed(path: Path, seed: int, fold: np.ndarray | None = None) -> dict[str, Any]:
    """Rows, guesses and truth of both probes on a file of embeddings."""
    opened = open_embeddings(str(path))
    table = opened.table()
    names = sorted(set(table["kind"]))
    y = np.array([names.index(one) for one in table["kind"]])
    places = np.column_stack([table.geometry.x, table.geometry.y])
    folds = table["fold"].to_numpy(int)
    cells = [np.minimum((8 * (v - v.min()) / (np.ptp(v) or 1)).astype(int), 7) for v in places.T]
    rows = Probed(opened.vectors(), y, len(names), folds, cells[0] * 8 + cells[1], places, seed)
    said = {p: registry.load("probes", p).measure(rows).guess for p in ("knn", "linear")}
    return {"rows": rows, "said": said, "ids": table["id"].to_numpy()}


def score(rows: Probed, guess: np.ndarray, seed: int) -> tuple[float, float, float]:
    """mIoU and its 95 % interval from redrawing blocks of ground."""
    part = registry.load("metrics", "segmentation")
    tally = Tally(part.stats, rows.classes)
    told = guess >= 0
    assert rows.labels is not None
    tally.add(rows.block[told], rows.labels[told], guess[told])
    stacked = tally.stacked()
    value = part.score({k: v.sum(axis=0) for k, v in stacked.items()})["miou"]
    low, high = bootstrap(stacked, part.score, 1000, seed)["miou"]
    return float(value), float(low), float(high)


def lines(
    name: str, folder: Path, seed: int
) -> Iterator[tuple[str, str, tuple[float, float, float]]]:
    """Encoder, probe and score."""
    tiles = cut(name, folder)
    here = folder / name / f"seed-{seed}"
    here.mkdir(exist_ok=True)
    at = here / "points.gpkg"
    if not at.is_file():
        points(tiles, at, seed)
    for encoder, words in ENCODERS.items():
        out = here / f"{encoder.replace(' ', '-')}.parquet"
        _geoml("embed", str(tiles), *words, "--seed", str(seed), "--at", str(at), "-o", str(out))
        found = probed(out, seed)
        for probe, guess in found["said"].items():
            yield encoder, probe, score(found["rows"], guess, seed)
    model = here / "model"
    if not (model / "model.json").is_file():
        _geoml("train", str(tiles), *FIT, "--seed", str(seed), "-o", str(model))
    told: dict[str, np.ndarray] = {}
    for fold in range(FOLDS):
        out = here / f"trained-{fold}.parquet"
        words = ["--model", str(model), "--member", str(fold), "--level", "1"]
        _geoml("embed", str(tiles), *words, "--at", str(at), "-o", str(out))
        found = probed(out, seed)
        mine = found["rows"].fold == fold
        for probe, guess in found["said"].items():
            told.setdefault(probe, np.full(len(guess), -1))[mine] = guess[mine]
    for probe, guess in told.items():
        yield "our U-Net, trained on the other folds", probe, score(found["rows"], guess, seed)


def _geoml(*words: str) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        if run([*words, "-q"]) != 0:
            raise SystemExit(f"geoml {' '.join(words)}: failed")


def main() -> None:
    """Print the table: means of the seeds' mIoU, their spread, and the mean interval."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", action="append")
    asked = parser.parse_args()
    folder = Path(asked.folder)
    print("| set | encoder | kNN mIoU | linear mIoU |\n|---|---|---|---|")
    for name in asked.only or NAMES:
        found: dict[str, dict[str, list[tuple[float, float, float]]]] = {}
        for seed in range(asked.seeds):
            for encoder, probe, one in lines(name, folder, seed):
                found.setdefault(encoder, {}).setdefault(probe, []).append(one)
        (folder / name / "probes.json").write_text(json.dumps(found, indent=1))
        for encoder, by in found.items():
            cells = []
            for probe in ("knn", "linear"):
                value, low, high = (statistics.mean(one[k] for one in by[probe]) for k in range(3))
                spread = statistics.pstdev(one[0] for one in by[probe])
                cells.append(f"{value:.3f} ± {spread:.3f} [{low:.3f}, {high:.3f}]")
            print(f"| {name} | {encoder} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
