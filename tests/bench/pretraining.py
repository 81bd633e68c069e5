"""Does masked pretraining pay? The same small transformer from random weights and from its own masked autoencoder.

Pretraining sees the images of the training ground alone, and no label. Test ground is scored once, with the weights that
were best on validation ground.
"""

import statistics
from pathlib import Path

import numpy as np
from scipy.stats import t as student

from bench.sets import SETS
from geoml_cli.cli import run

SIDE = 32
ENCODER = "prithvi:width=128,layers=6,heads=4,patch=4,image=32"
PRETRAIN = (
    *("--task", "reconstruct", "--encoder", ENCODER, "--head", "mae:width=64,layers=2,heads=4"),
    *("--batch", "64", "--lr", "1e-3", "--ema", "0", "--keep", "last"),
)
STEPS = {"flood-s2": "14000", "burn": "14000"}  # of pretraining
SHARES = {  # of about a hundred labelled tiles; a single one of burn may show one class only
    "flood-s2": (0.1, 0.01),
    "burn": (0.1, 0.05),
}
TUNE = ("--encoder", ENCODER, "--head", "fcn:width=64,skips=0", "--steps", "120", "--lr", "1e-3")


def tiles_of(name: str, folder: Path) -> Path:
    """The set in small tiles, of which a hundredth is one."""
    out, raw = folder / name / "small", folder / name / "raw-small"
    if not (out / "tileset.json").is_file():
        raw.mkdir(parents=True, exist_ok=True)
        words = SETS[name].cut(raw)
        words[words.index("--size") + 1] = str(SIDE)
        if run(["tile", *words, "-o", str(out), "-q"]) != 0:
            raise SystemExit(f"{name}: could not be cut")
    return out


def told(values: list[float]) -> str:
    """Mean with its 95 % interval over seeds, by Student's t."""
    mean, count = statistics.mean(values), len(values)
    half = student.ppf(0.975, count - 1) * statistics.stdev(values) / np.sqrt(count)
    return f"{mean:.3f} ± {half:.3f}"


def pretraining(folder: Path, seeds: int, only: set[str]) -> list[str]:
    """Rows of the table; `seeds` of at least 2."""
    from bench.table import every, train, value

    rows = [
        "| set | labelled tiles | from random weights | from masked pretraining | gain, paired | minutes of pretraining |",
        "|---|---|---|---|---|---|",
    ]
    for name in [n for n in STEPS if not only or n in only]:
        tiles, place = tiles_of(name, folder), folder / name
        base = place / "mae"
        took = train(tiles, base, *PRETRAIN, "--steps", STEPS[name])
        kinds = {"random": (), "mae": ("--encoder-weights", str(base))}

        def model(kind: str, share: float, seed: int, place: Path = place) -> Path:
            return place / f"tuned-{kind}-{share:g}-1e-3-{seed}"

        every(
            [
                (tiles, model(k, h, s), (*TUNE, *more, "--share", str(h), "--seed", str(s)))
                for h in SHARES[name] for k, more in kinds.items() for s in range(seeds)
            ]
        )  # fmt: skip
        for share in SHARES[name]:
            found = {
                kind: [value(model(kind, share, s), SETS[name].metric) for s in range(seeds)]
                for kind in kinds
            }
            gain = [b - a for a, b in zip(found["random"], found["mae"], strict=True)]
            rows.append(
                f"| {name} | {share:.0%} | {told(found['random'])} | {told(found['mae'])}"
                f" | {told(gain)} | {took / 60:.0f} |"
            )
    return rows
