"""Plants and trees learnt from records of presence alone, and ranked on independent surveys (disdat, Elith et al. 2020).

python -m bench.species FOLDER [--seeds N] [--only NAME]

South America (30 plants) and Switzerland (30 trees), by the place alone, or by climate and soil alone with the set's own
background; each with the usual settings. Mean AUC over the species, on all sites of the survey. Needs ../shared and
the wheel of GeoCLIP.
"""

import argparse
import json
import statistics
from pathlib import Path

import pandas
from pyproj import Transformer

from bench.sets import DATA
from geoml_cli.cli import run

TABLES = DATA / "e_location_tables/disdat_species"
REGIONS = {"SA": None, "SWI": "EPSG:21781"}  # of Switzerland x has a leading 1
LEARN = ("--task", "presence", "--target", "spid", "--objective")
COLUMNS = "climate and soil, 10,000 background places"
ROWS = {
    "spherical-harmonics:degrees=20": ("presence-only", "--location-encoder", "spherical-harmonics:degrees=20"),
    "geoclip-harmonics, GeoCLIP kept": (
        *("presence-only", "--location-encoder", "geoclip-harmonics", "--location-weights", "pkg:geoclip"),
        *("--tune", "head", "--head", "mlp:dropout=0.3"),
    ),
    COLUMNS: ("presence-only:ground=rows", "--head", "mlp:dropout=0.3"),
}  # fmt: skip


def placed(region: str, name: str) -> pandas.DataFrame:
    """A table with columns lon and lat."""
    table = pandas.read_csv(TABLES / f"{region}{name}.csv")
    crs, x = REGIONS[region], table.pop("x")
    y = table.pop("y")
    if crs:
        x, y = Transformer.from_crs(crs, "OGC:CRS84", always_xy=True).transform(x % 1_000_000, y)
    return table.assign(lon=x, lat=y)


def auc(folder: Path, region: str, name: str, seed: int) -> float:
    """Mean AUC on the survey."""
    folder.mkdir(parents=True, exist_ok=True)
    records, asked, survey, model, said = (str(folder / n) for n in ("po.csv", "asked.csv", "pa.csv", "model", "said.parquet"))  # fmt: skip
    known, sites = placed(region, "train_po"), placed(region, "test_env")
    words = [*LEARN, *ROWS[name]]
    if name == COLUMNS:
        background = placed(region, "train_bg")[known.columns].assign(spid=None)
        known = pandas.concat([known, background])
        beside = set(sites) - {"siteid", "group", "lon", "lat"}
        words += ["--features", ",".join(sorted(beside))]
    known.to_csv(records, index=False)
    sites.to_csv(asked, index=False)
    placed(region, "test_pa").to_csv(survey, index=False)
    for line in (
        ["train", records, *words, "--seed", str(seed), "--device", "cpu", "-q", "-o", model],
        ["predict", asked, "--model", model, "-q", "-o", said],
        ["evaluate", said, "--truth", survey, "--include-trained", "-q", "-o", f"{model}.json"],
    ):
        if run(line) != 0:
            raise SystemExit(" ".join(line))
    found = json.loads(Path(f"{model}.json").read_text())["metrics"]["auc_mean"]["value"]
    return float(found)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.species")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", metavar="NAME")
    given = parser.parse_args()
    print("| | South America | Switzerland |\n|---|---|---|")
    for i, name in enumerate(ROWS):
        if given.only and given.only not in name:
            continue
        row = []
        for region in REGIONS:
            each = [auc(given.folder / f"{region}-{i}-{s}", region, name, s) for s in range(given.seeds)]  # fmt: skip
            row.append(f"{statistics.mean(each):.3f} ({min(each):.3f} - {max(each):.3f})")
        print(f"| {name} | {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
