"""`geoml train` with its defaults on real sets, several seeds each, beside their floors: tables of BENCHMARKS.md.

python -m bench.table FOLDER [sets|efficiency|sparse]... [--seeds N] [--only NAME]

Models are kept in FOLDER: a table that was stopped goes on. What a table says is of the test ground,
which nothing was chosen by.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from bench.floors import forest
from bench.pretraining import pretraining
from bench.sets import DATA, SETS, points, tiles_of

PAGE = Path(__file__).parents[2] / "BENCHMARKS.md"
SHARES = (0.01, 0.05, 0.25, 1.0)
BUDGET = ("--steps", "500")  # of every run
AT_ONCE = 2  # runs, each on one thread


def train(tiles: Path, out: Path, *words: str) -> float:
    """Train, unless it is done; seconds it took, as the first run noted."""
    noted = out.parent / f"{out.name}.seconds"
    began = time.monotonic()
    command = [sys.executable, "-m", "geoml_cli", "train", str(tiles), *BUDGET, *words, "-q"]
    command += ["-o", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr}")
    if not noted.is_file():
        noted.write_text(f"{time.monotonic() - began:.0f}")
    return float(noted.read_text())


def value(model: Path, metric: str) -> float:
    """A score on test ground: of all, or `iou.building` of a class."""
    scores = json.loads((model / "scores.json").read_text())
    name, _, of = metric.partition(".")
    found = scores["classes"][of][name] if of else scores["metrics"][name]
    return float(found["value"])


def floor(name: str, tiles: Path, seed: int, metric: str) -> float:
    """The same of the forest."""
    found = forest(str(tiles), seed)
    which, _, of = metric.partition(".")
    if not of:
        return float(found[which])
    head = json.loads((tiles / "tileset.json").read_text())
    names = [one["name"] for one in head["layers"][0]["classes"]]
    return float(np.asarray(found[which])[names.index(of)])


def told(values: Iterable[float]) -> str:
    """Mean and range over seeds."""
    found = list(values)
    return f"{statistics.mean(found):.3f} ({min(found):.3f} - {max(found):.3f})"


def every(jobs: list[tuple[Path, Path, tuple[str, ...]]]) -> list[float]:
    """Train all of some models, two at a time."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda job: train(job[0], job[1], *job[2]), jobs))


def sets(folder: Path, seeds: int, only: set[str]) -> list[str]:
    """Every set with the defaults."""
    names = [name for name in SETS if not only or name in only]
    made = {name: tiles_of(name, folder) for name in names}
    jobs = [
        (made[n], folder / n / f"default-{s}", (*SETS[n].train, "--seed", str(s)))
        for n in names
        for s in range(seeds)
    ]
    took = dict(zip([job[1] for job in jobs], every(jobs), strict=True))
    rows = [
        "| set | split | metric | `geoml train` | random forest, same ground | told floor | minutes a run |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in names:
        one, models = SETS[name], [folder / name / f"default-{s}" for s in range(seeds)]
        ours = [value(m, one.metric) for m in models]
        trees = [floor(name, made[name], s, one.metric) for s in range(seeds)]
        minutes = statistics.mean(took[m] for m in models) / 60
        rows.append(
            f"| {name} | {one.about} | {one.metric} | {told(ours)} | {told(trees)} | {one.floor} | {minutes:.1f} |"
        )
    return rows


def efficiency(folder: Path, seeds: int, only: set[str]) -> list[str]:
    """Shares of the labelled tiles, on two sets."""
    names = [name for name in ("maipo", "sits") if not only or name in only]
    made = {name: tiles_of(name, folder) for name in names}

    def model(name: str, share: float, seed: int) -> Path:
        return folder / name / (f"default-{seed}" if share == 1 else f"share-{share:g}-{seed}")

    every(
        [
            (made[n], model(n, h, s), (*SETS[n].train, "--seed", str(s), *(() if h == 1 else ("--share", str(h)))))
            for n in names
            for h in SHARES
            for s in range(seeds)
        ]
    )  # fmt: skip
    heads = " | ".join(f"{share:.0%}" for share in SHARES)
    rows = [f"| set | metric | {heads} |", "|---|---|" + "---|" * len(SHARES)]
    for name in names:
        metric = SETS[name].metric
        cells = [told(value(model(name, h, s), metric) for s in range(seeds)) for h in SHARES]
        rows.append(f"| {name} | {metric} | {' | '.join(cells)} |")
    return rows


def sparse(folder: Path, seeds: int, only: set[str]) -> list[str]:
    """Vegetation cover at single points: a frozen encoder with one convolution, and a U-Net from scratch."""
    cover, fraction = points(folder / "points")
    small = ("--encoder", "unet:depth=1")
    base = [
        (cover, folder / "points" / f"cover-{s}", (*small, "--seed", str(s))) for s in range(seeds)
    ]
    every(base)
    regress = ("--task", "regress", "--seed")
    frozen = [
        (fraction, folder / "points" / f"frozen-{s}",
         (*small, *regress, str(s), "--encoder-weights", str(base[s][1]), "--tune", "head", "--head", "linear"))
        for s in range(seeds)
    ]  # fmt: skip
    scratch = [
        (fraction, folder / "points" / f"scratch-{s}", (*regress, str(s))) for s in range(seeds)
    ]
    random = [
        (fraction, folder / "points" / f"random-{s}",
         (*small, *regress, str(s), "--tune", "head", "--head", "linear"))
        for s in range(seeds)
    ]  # fmt: skip
    every([*frozen, *scratch, *random])
    rows = ["| network | trained | RMSE | R2 |", "|---|---|---|---|"]
    for what, jobs, how in [
        ("encoder of a land-cover model, 1 convolution", frozen, "the convolution"),
        ("encoder of random weights, 1 convolution", random, "the convolution"),
        ("U-Net", scratch, "all, from scratch"),
    ]:
        scores = [told(value(job[1], m) for job in jobs) for m in ("rmse", "r2")]
        rows.append(f"| {what} | {how} | {scores[0]} | {scores[1]} |")
    return rows


TABLES = {"sets": sets, "efficiency": efficiency, "sparse": sparse, "pretraining": pretraining}


def put(name: str, rows: list[str]) -> None:
    """Put a table in its place in BENCHMARKS.md."""
    page, mark = PAGE.read_text(), f"<!-- {name} -->"
    before, _, rest = page.partition(mark + "\n")
    _, _, after = rest.partition(f"<!-- end of {name} -->")
    PAGE.write_text(before + mark + "\n" + "\n".join(rows) + f"\n<!-- end of {name} -->" + after)


def main() -> None:
    """Make the tables asked for and put them in BENCHMARKS.md."""
    parser = argparse.ArgumentParser(prog="python -m bench.table")
    parser.add_argument("folder", type=Path)
    parser.add_argument("tables", nargs="*")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", action="append", default=[])
    given = parser.parse_args()
    if not DATA.is_dir():
        raise SystemExit(f"{DATA}: is not there; GEOML_DATA names the folder of the sets")
    for name in given.tables or TABLES:
        rows = TABLES[name](given.folder, given.seeds, set(given.only))
        print("\n".join(rows), flush=True)
        if not given.only:
            put(name, rows)


if __name__ == "__main__":
    main()
