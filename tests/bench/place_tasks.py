"""Two tasks of the paper "Geographic Location Encoding with Spherical Harmonics and Sinusoidal Representation
Networks" (Russwurm et al. 2024, ICLR), through `geoml train`: land or ocean, and a chequerboard on the sphere.

    python -m bench.place_tasks FOLDER [LAND_OCEAN_FOLDER]

writes land.parquet and chequerboard.parquet, trains on them with the authors' hyper-parameters, and prints
accuracies on the test points. Training points of land and ocean are the authors' where their files are
given; else they are drawn again. Land is the 110 m countries of Natural Earth that pyogrio carries.
"""

import json
import subprocess
import sys
from pathlib import Path

import geopandas
import numpy as np
import pandas
import pyogrio

COUNTRIES = "tests/fixtures/naturalearth_lowres/naturalearth_lowres.shp"
RECIPE = (
    "--task classify --split-by split --head identity --optimizer adam --schedule constant --warmup 0 --ema 0"
    " --clip 0 --batch 2000 --epochs 500 --patience 30 --watch loss --keep last --class-weights none --augment none"
    " --precision 64 --device cpu"
).split()
# a task: its target, and what the authors found for harmonics with a siren on it
TASKS = {
    "land": ("land", "--lr 1.42167e-4 --weight-decay 3.67100e-3", "degrees=10,hidden=64,layers=2,out=2"),
    "chequerboard": ("class", "--lr 2.89915e-4 --weight-decay 4.58963e-3", "degrees=15,hidden=128,layers=1,out=16"),
}  # fmt: skip
SIDES = ("train", "val", "test")


def countries() -> geopandas.GeoDataFrame:
    """Land, as polygons of countries."""
    return geopandas.read_file(Path(pyogrio.__file__).parent / COUNTRIES)


def on_land(lonlat: np.ndarray) -> np.ndarray:
    """Which places (n, 2) lie in a country."""
    points = geopandas.GeoSeries(geopandas.points_from_xy(*lonlat.T), crs="OGC:CRS84")
    return points.intersects(countries().to_crs("OGC:CRS84").union_all()).to_numpy()


def anywhere(count: int, seed: int) -> np.ndarray:
    """Places (n, 2), as dense anywhere on the sphere."""
    x, y, z = np.random.RandomState(seed).normal(
        size=(3, count)
    )  # the authors' generator, so their points
    return np.degrees([np.arctan2(y, x), np.arctan2(z, np.hypot(x, y))]).T


def regular() -> np.ndarray:
    """Places (n, 2) every 100 km of an equal-area grid."""
    x = np.arange(-17_367_530, 17_367_530, 100_000)
    y = np.arange(-7_324_184, 7_324_184, 100_000)
    flat = geopandas.points_from_xy(*(one.ravel() for one in np.meshgrid(x, y)), crs="EPSG:6933")
    moved = geopandas.GeoSeries(flat).to_crs("OGC:CRS84")
    return np.column_stack([moved.x, moved.y])


def land_table(given: Path | None) -> pandas.DataFrame:
    """Land and ocean: 5000 places to train, 5000 to validate, the regular grid to test."""
    tables = []
    for seed, side in enumerate(SIDES[:2]):
        if given:
            table = pandas.read_csv(given / f"landocean{seed}.csv")[["lon", "lat", "land"]]
            tables.append(table.assign(split=side))
            continue
        tables.append(table_of(anywhere(5000, seed), on_land, side, "land"))
    tables.append(table_of(regular(), on_land, "test", "land"))
    table = pandas.concat(tables, ignore_index=True)
    return table.assign(land=table["land"].map({True: "land", False: "ocean"}))


def fibonacci(count: int) -> np.ndarray:
    """2 `count` + 1 places, evenly spread: a lattice of golden turns."""
    i = np.arange(-count, count + 1)
    golden = (1 + 5**0.5) / 2
    lon = (360 * i / golden + 180) % 360 - 180
    return np.column_stack([lon, np.degrees(np.arcsin(2 * i / (2 * count + 1)))])


def chequers(lonlat: np.ndarray) -> np.ndarray:
    """Class 0..15 of places: the number of the nearest of 200 lattice points, modulo 16."""

    def space(at: np.ndarray) -> np.ndarray:
        lon, lat = np.radians(at).T
        return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], 1)

    support = fibonacci(100)[:-1]
    return (space(lonlat) @ space(support).T).argmax(1) % 16


def table_of(lonlat: np.ndarray, label: object, side: str, name: str) -> pandas.DataFrame:
    """Places of one side with their labels."""
    return pandas.DataFrame(
        {"lon": lonlat[:, 0], "lat": lonlat[:, 1], name: label(lonlat), "split": side}  # type: ignore[operator]
    )


def chequer_table() -> pandas.DataFrame:
    """The chequerboard: 10,000 places to train, as many to validate and to test."""
    sides = [anywhere(10_000, 0), anywhere(10_000, 1), fibonacci(5000)[:-1]]
    parts = [table_of(at, chequers, side, "class") for at, side in zip(sides, SIDES, strict=True)]
    table = pandas.concat(parts, ignore_index=True)
    return table.assign(**{"class": "c" + table["class"].astype(str)})


def run(folder: Path, name: str, seed: int, encoder: str | None = None) -> dict[str, float]:
    """Train on a table, and give accuracy and mean IoU on its test places, and the epochs."""
    out = folder / f"{name}-{seed}"
    target, rates, shape = TASKS[name]
    encoder = encoder or f"spherical-harmonics:network=siren,{shape}"
    line = [sys.executable, "-m", "geoml_cli", "train", str(folder / f"{name}.parquet"), "-q"]
    line += [
        "--target",
        target,
        "--location-encoder",
        encoder,
        *RECIPE,
        *rates.split(),
        "--seed",
        str(seed),
    ]
    subprocess.run([*line, "-o", str(out)], check=True, stdout=subprocess.DEVNULL)
    told = json.loads((out / "scores.json").read_text())["metrics"]
    epochs = json.loads((out / "model.json").read_text())["best"][0]["epochs"]
    return {k: told[k]["value"] for k in ("accuracy", "miou")} | {"epochs": epochs}


def main(folder: Path, given: Path | None, encoder: str | None, seeds: int = 3) -> None:
    """Make the tables, train, and print a line a run."""
    folder.mkdir(parents=True, exist_ok=True)
    land_table(given).to_parquet(folder / "land.parquet")
    chequer_table().to_parquet(folder / "chequerboard.parquet")
    for name in TASKS:
        for seed in range(seeds):
            found = run(folder, name, seed, encoder)
            print(
                f"{name:<13} seed {seed}: accuracy {found['accuracy']:.4f}, mean IoU {found['miou']:.4f},"
                f" {found['epochs']} epochs",
                flush=True,
            )


if __name__ == "__main__":
    words = sys.argv[1:]
    main(
        Path(words[0]),
        Path(words[1]) if len(words) > 1 and words[1] != "-" else None,
        words[2] if len(words) > 2 else None,
        int(words[3]) if len(words) > 3 else 3,
    )
