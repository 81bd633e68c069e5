"""Real data with labels as tile sets: each with the split that its floor is told for.

The data are not part of the project: ../shared/data beside the checkout, or the folder that
GEOML_DATA names. `python -m bench.sets FOLDER [NAME...]` cuts them there and counts what is on each side.
"""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import geopandas
import numpy as np
import pandas
import rasterio
from rasterio.transform import from_bounds, from_origin
from shapely.geometry import box

from geoml_cli.cli import run

DATA = Path(os.environ.get("GEOML_DATA", Path(__file__).parents[3] / "shared/data"))


@dataclass(frozen=True)
class Set:
    """A tile set, and what is known of it."""

    about: str  # the split, in words
    floor: str  # as it was told: metric and value
    cut: Callable[
        [Path], list[str]
    ]  # makes what is needed in a folder, gives arguments of `geoml tile`
    metric: str = "miou"
    train: tuple[str, ...] = field(default=())  # arguments of `geoml train` that the labels ask for


SIDES = {"CLASS_0": "train", "CLASS_1": "val", "CLASS_2": "test"}


def halves(bounds: tuple[float, float, float, float], crs: str, path: Path, parts: int = 5) -> Path:
    """West trains, east tests; of the west one strip in `parts` from north to south validates."""
    west, south, east, north = bounds
    middle, step = (west + east) / 2, (north - south) / parts
    rows = [(box(middle, south, east, north), "test")]
    for i in range(parts):
        strip = box(west, north - (i + 1) * step, middle, north - i * step)
        rows.append((strip, "val" if i == parts // 2 else "train"))
    table = geopandas.GeoDataFrame(
        {"split": [side for _, side in rows]}, geometry=[shape for shape, _ in rows], crs=crs
    )
    table.to_file(path)
    return path


def rstoolbox(name: str, scene: str) -> Callable[[Path], list[str]]:
    def cut(folder: Path) -> list[str]:
        here = DATA / "a_multispectral_landcover" / name
        table = geopandas.read_file(here / "polygons_split.geojson")
        train = table[table["split"] == "train"].to_crs(table.estimate_utm_crs())
        for _, mine in train.groupby("class"):
            if len(mine) > 2:  # one polygon can be spared
                table.loc[mine.area.idxmin(), "split"] = "val"
        table[["split", "geometry"]].to_file(folder / "split.gpkg")
        labels = ["--labels", str(here / "training_polygons.gpkg"), "--label-column", "class"]
        split = ["--split", str(folder / "split.gpkg"), "--buffer", "0"]
        return [str(here / scene), *labels, *split, "--size", "32"]

    return cut


def enmap(folder: Path) -> list[str]:
    here = DATA / "c_hyperspectral/enmap_potsdam"
    with rasterio.open(here / "split.tif") as source:
        sides, profile = source.read(1), source.profile
    with rasterio.open(here / "enmap_potsdam.tif") as source:
        data, about = source.read(), source.profile
    kept = np.flatnonzero((data != source.nodata).any(axis=(1, 2)))  # some bands are empty
    with rasterio.open(folder / "enmap.tif", "w", **about | {"count": len(kept)}) as out:
        out.write(data[kept])
        out.descriptions = [f"b{i + 1}" for i in kept]
    out_sides = np.where(sides > 0, sides - 1, 255).astype(np.uint8)
    with rasterio.open(folder / "split.tif", "w", **profile | {"nodata": 255}) as out:
        out.write(out_sides, 1)
        out.update_tags(**SIDES)
    named(
        here / "labels.tif", json.loads((here / "classes.json").read_text()), folder / "labels.tif"
    )
    return [
        str(folder / "enmap.tif"), "--labels", str(folder / "labels.tif"), "--size", "32",
        "--split", str(folder / "split.tif"), "--buffer", "0",
    ]  # fmt: skip


def named(path: Path, classes: dict[str, int], out: Path, drop: int | None = 0) -> None:
    """A class raster with its names as tags; `drop` is no label."""
    with rasterio.open(path) as source:
        data, profile = source.read(1), source.profile
    if data.dtype != np.uint8:
        data = np.where(data < 0, 255, data).astype(np.uint8)
    if drop is not None:
        data = np.where(data == drop, 255, data).astype(np.uint8)
    profile |= {"dtype": "uint8", "nodata": 255}
    with rasterio.open(out, "w", **profile) as file:
        file.write(data, 1)
        file.update_tags(**{f"CLASS_{i}": name for name, i in classes.items()})


def maipo(folder: Path) -> list[str]:
    """8 dates of 6 bands on the table's own 30 m grid; whole fields on one side."""
    table = pandas.read_parquet(DATA / "d_time_series/maipo_fruit_crops/maipo.parquet")
    x, y = table["utmx"].to_numpy(), table["utmy"].to_numpy()
    west, north = x.min() - 15, y.max() + 15
    col, row = ((x - west) // 30).astype(int), ((north - y) // 30).astype(int)
    shape = row.max() + 1, col.max() + 1
    about = {
        "driver": "GTiff", "height": shape[0], "width": shape[1], "crs": "EPSG:32719",
        "transform": from_origin(west, north, 30, 30), "compress": "deflate",
    }  # fmt: skip
    scenes = []
    for date in range(1, 9):
        data = np.full((6, *shape), -32768, np.int16)
        for k, band in enumerate(range(2, 8)):
            values = table[f"b{date}{band}"].to_numpy()
            data[k, row, col] = np.round(values * (10000 if values.max() < 5 else 1))
        scenes.append(folder / f"date{date}.tif")
        with rasterio.open(
            scenes[-1], "w", **about, count=6, dtype="int16", nodata=-32768,
        ) as out:  # fmt: skip
            out.write(data)
            out.descriptions = [f"b{b}" for b in range(2, 8)]
            out.update_tags(TIFFTAG_DATETIME=f"2014:{date:02d}:01 12:00:00")
    crops = sorted(table["croptype"].unique())
    label = np.full(shape, 255, np.uint8)
    label[row, col] = table["croptype"].map(crops.index)
    sides, rng = np.full(shape, 255, np.uint8), np.random.default_rng(0)
    side_of: dict[int, int] = {}
    for crop in crops:
        fields = rng.permutation(table.loc[table["croptype"] == crop, "field"].unique())
        a, b = round(0.6 * len(fields)), round(0.75 * len(fields))
        side_of |= {f: 0 if i < a else 1 if i < b else 2 for i, f in enumerate(fields)}
    sides[row, col] = table["field"].map(side_of)
    for name, array in (("labels", label), ("split", sides)):
        with rasterio.open(
            folder / f"{name}.tif", "w", **about, count=1, dtype="uint8", nodata=255,
        ) as out:  # fmt: skip
            out.write(array, 1)
            said = {f"CLASS_{i}": crop for i, crop in enumerate(crops)}
            out.update_tags(**said if name == "labels" else SIDES)
    return [
        *map(str, scenes), "--frames", "all", "--labels", str(folder / "labels.tif"), "--size", "16",
        "--split", str(folder / "split.tif"), "--buffer", "0",
    ]  # fmt: skip


def eolearn(folder: Path) -> list[str]:
    here = DATA / "d_time_series/eolearn_testeopatch"
    names = {"cultivated": 1, "forest": 2, "grassland": 3, "shrubland": 4, "artificial": 8}
    named(here / "lulc.tif", names, folder / "lulc.tif")
    return [
        str(here / "ndvi_68dates.tif"), "--labels", str(folder / "lulc.tif"), "--size", "16",
        "--split", "blocks:8", "--buffer", "0",
    ]  # fmt: skip


def sits(folder: Path) -> list[str]:
    """Each sample is a raster of one pixel with 12 dates of NDVI; cells of half a degree on one side."""
    table = pandas.read_csv(DATA / "d_time_series/sits_modis_mato_grosso/samples_modis_ndvi.csv")
    columns = [f"NDVI_{i:02d}" for i in range(1, 13)]
    rows = []
    for i, one in table.iterrows():
        at = from_origin(one.longitude - 1e-3, one.latitude + 1e-3, 2e-3, 2e-3)
        with rasterio.open(
            folder / f"s{i:04d}.tif", "w", driver="GTiff", height=1, width=1, count=12, dtype="float32",
            crs="EPSG:4326", transform=at,
        ) as out:  # fmt: skip
            out.write(one[columns].to_numpy(np.float32)[:, None, None])
            out.descriptions = [name.lower() for name in columns]
        rows.append((one.label, *np.floor([one.longitude * 2, one.latitude * 2]).astype(int)))
    points = geopandas.points_from_xy(table["longitude"], table["latitude"])
    geopandas.GeoDataFrame({"class": table["label"]}, geometry=points, crs="EPSG:4326").to_file(
        folder / "labels.gpkg"
    )
    cells = sorted({row[1:] for row in rows})
    held = [[row[0] for row in rows if row[1:] == cell] for cell in cells]
    rarest = pandas.Series([row[0] for row in rows]).value_counts().index[::-1]
    kind = np.array(
        [next(k for k in rarest if k in mine) for mine in held]
    )  # the rarest class there
    sides, rng = np.full(len(cells), "train", object), np.random.default_rng(0)
    for name in rarest:
        mine = rng.permutation(np.flatnonzero(kind == name))
        sides[mine[: round(0.25 * len(mine))]] = "test"
        sides[mine[round(0.25 * len(mine)) : round(0.4 * len(mine))]] = "val"
    shapes = [box(c / 2, r / 2, c / 2 + 0.5, r / 2 + 0.5) for c, r in cells]
    geopandas.GeoDataFrame({"split": sides}, geometry=shapes, crs="EPSG:4326").to_file(
        folder / "split.gpkg"
    )
    return [
        *(str(p) for p in sorted(folder.glob("s0*.tif")) + sorted(folder.glob("s1*.tif"))),
        "--labels", str(folder / "labels.gpkg"), "--label-column", "class", "--label-per", "centre",
        "--size", "1", "--split", str(folder / "split.gpkg"), "--buffer", "0",
    ]  # fmt: skip


def flood(*sensors: str) -> Callable[[Path], list[str]]:
    def cut(folder: Path) -> list[str]:
        here = DATA / "h_masks/sen1floods11_spain"
        files = {s: str(here / f"Spain_7370579_{s}Hand.tif") for s in ("S1", "S2")}
        names = {"land": 0, "water": 1}
        named(here / "Spain_7370579_LabelHand.tif", names, folder / "labels.tif", drop=None)
        with rasterio.open(files["S2"]) as source:
            split = halves(tuple(source.bounds), str(source.crs), folder / "split.gpkg")
        more = ["--with", f"S1={files['S1']}"] if len(sensors) > 1 else []
        return [
            files[sensors[0]], *more, "--labels", str(folder / "labels.tif"), "--size", "64",
            "--split", str(split), "--buffer", "0",
        ]  # fmt: skip

    return cut


def burn(folder: Path) -> list[str]:
    here = DATA / "h_masks/bc_burn_scar_C50929"
    named(here / "burn_perimeter.tif", {"unburnt": 0, "burnt": 1}, folder / "labels.tif", drop=None)
    with rasterio.open(here / "s2_post_B12_B11_B9.tif") as source:
        split = halves(tuple(source.bounds), str(source.crs), folder / "split.gpkg")
    return [
        str(here / "s2_post_B12_B11_B9.tif"), "--labels", str(folder / "labels.tif"), "--size", "64",
        "--split", str(split), "--buffer", "0",
    ]  # fmt: skip


def clouds(test: str) -> Callable[[Path], list[str]]:
    """One scene tests, the others train; of these every fifth strip validates."""

    def cut(folder: Path) -> list[str]:
        here, rows = DATA / "h_masks/ukis_cloud_shadow", []
        scenes, masks = [], folder / "masks"
        masks.mkdir()
        for i, name in enumerate(("sentinel2", "landsat5", "landsat7")):
            # the chips have no place: they are put side by side, far apart
            at = from_origin(300_000 + 100_000 * i, 5_000_000, 30, 30)
            with rasterio.open(here / f"{name}.tif") as source:
                data, names = source.read(), source.descriptions
            with rasterio.open(here / f"{name}_mask.tif") as source:
                mask = source.read(1)
            about = {
                "driver": "GTiff",
                "height": 512,
                "width": 512,
                "crs": "EPSG:32632",
                "transform": at,
            }
            scenes.append(folder / f"{name}.tif")
            with rasterio.open(scenes[-1], "w", **about, count=6, dtype="int16") as out:
                out.write(data)
                out.descriptions = names
            with rasterio.open(
                masks / f"{name}.tif", "w", **about, count=1, dtype="uint8", nodata=255
            ) as out:
                out.write(mask, 1)
                out.update_tags(CLASS_0="shadow", CLASS_1="water", CLASS_3="land", CLASS_4="cloud")
            left, top = at.c, at.f
            for k in range(5):
                shape = box(left, top - (k + 1) * 3072, left + 15360, top - k * 3072)
                rows.append((shape, "test" if name == test else "val" if k == 2 else "train"))
        geopandas.GeoDataFrame(
            {"split": [side for _, side in rows]}, geometry=[s for s, _ in rows], crs="EPSG:32632"
        ).to_file(folder / "split.gpkg")
        return [
            *map(str, scenes), "--labels", str(masks), "--size", "64",
            "--split", str(folder / "split.gpkg"), "--buffer", "0",
        ]  # fmt: skip

    return cut


def buildings(folder: Path) -> list[str]:
    """Seven web-mercator tiles of zoom 19; the two furthest east test, a strip of the others validates."""
    here, rows, scenes = DATA / "g_aerial_buildings/fair_ramp_sample2", [], []
    table = pandas.read_csv(here / "tiles.csv").query("z == 19").reset_index()
    for i, one in table.iterrows():
        with rasterio.open(here / one.file) as source:
            data = source.read()[:3]
        at = from_bounds(one.west, one.south, one.east, one.north, 256, 256)
        scenes.append(folder / f"t{i}.tif")
        with rasterio.open(
            scenes[-1], "w", driver="GTiff", height=256, width=256, count=3, dtype="uint8",
            crs="EPSG:4326", transform=at,
        ) as out:  # fmt: skip
            out.write(data)
            out.descriptions = ("red", "green", "blue")
        step = (one.north - one.south) / 4
        for k in range(4):
            shape = box(one.west, one.north - (k + 1) * step, one.east, one.north - k * step)
            rows.append((shape, "test" if i >= 5 else "val" if k == i % 4 else "train"))
    geopandas.GeoDataFrame(
        {"split": [side for _, side in rows]}, geometry=[s for s, _ in rows], crs="EPSG:4326"
    ).to_file(folder / "split.gpkg")
    labels = geopandas.read_file(here / "labels.geojson")
    labels["class"] = "building"
    labels[["class", "geometry"]].to_file(folder / "labels.gpkg")
    return [
        *map(str, scenes), "--labels", str(folder / "labels.gpkg"), "--label-column", "class",
        "--background", "other", "--size", "64", "--split", str(folder / "split.gpkg"), "--buffer", "0",
    ]  # fmt: skip


def points(folder: Path) -> tuple[Path, Path]:
    """Two tile sets of the EnMAP scene on one split: land cover, and 200 points of vegetation cover.

    Of the 18 tiles of 32 px five test and three validate, drawn once.
    """
    folder.mkdir(parents=True, exist_ok=True)
    here, raw = DATA / "c_hyperspectral/enmap_potsdam", folder / "raw"
    raw.mkdir(exist_ok=True)
    words = enmap(raw)
    with rasterio.open(here / "split.tif") as source:
        there = source.read(1).reshape(6, 32, 5, 32).max(axis=(1, 3)) > 0
        order = np.random.default_rng(0).permutation(np.argwhere(there))
        rows = []
        for i, (row, col) in enumerate(order.tolist()):
            west, north = source.transform * (32 * col, 32 * row)
            shape = box(west, north - 960, west + 960, north)
            rows.append((shape, "test" if i < 5 else "val" if i < 8 else "train"))
        geopandas.GeoDataFrame(
            {"split": [side for _, side in rows]}, geometry=[s for s, _ in rows], crs=source.crs
        ).to_file(raw / "blocks.gpkg")
    words[words.index("--split") + 1] = str(raw / "blocks.gpkg")
    fraction = list(words)
    at = fraction.index("--labels") + 1
    fraction[at : at + 1] = [
        str(here / "veg-cover-fraction_potsdam_point.gpkg"), "--label-column", "vegetation_fraction",
        "--label-kind", "values",
    ]  # fmt: skip
    out = folder / "cover-tiles", folder / "fraction-tiles"
    for path, given in zip(out, (words, fraction), strict=True):
        if run(["tile", *given, "-o", str(path), "-q"]) != 0:
            raise SystemExit(f"{path}: could not be cut")
    return out


WEST = "west trains, east tests"
SETS = {
    "amazonas": Set("upstream's polygons; of classes with more than two in the west the smallest validates", "mIoU .987", rstoolbox("rstoolbox_sen2_amazonas", "sen2.tif")),
    "para": Set("upstream's polygons; of classes with more than two in the west the smallest validates", "mIoU .993", rstoolbox("rstoolbox_lsat_para", "lsat.tif")),
    "enmap": Set("upstream's tiles, 218 bands", "mIoU .471", enmap),
    "maipo": Set("by field, 8 dates", "mIoU .791", maipo),
    "eolearn": Set("8 x 8 blocks, 68 dates as bands", "mIoU .514, accuracy .909", eolearn),
    "sits": Set("cells of half a degree", "accuracy .759", sits, "accuracy", ("--task", "classify")),
    "flood-s2": Set(WEST, "mIoU .858", flood("S2")),
    "flood-s1": Set(WEST, "mIoU .701, .725 with context", flood("S1")),
    "flood-both": Set(WEST, "mIoU .854", flood("S2", "S1")),
    "burn": Set(WEST, "mIoU .900, .941 with context", burn),
    "clouds-s2": Set("tests on Sentinel-2, trained on Landsat 5 and 7", "mIoU .804", clouds("sentinel2")),
    "clouds-l5": Set("tests on Landsat 5", "mIoU .602", clouds("landsat5")),
    "clouds-l7": Set("tests on Landsat 7", "mIoU .700", clouds("landsat7")),
    "buildings": Set("zoom 19: 5 tiles train, 2 test", "IoU of buildings .477", buildings, "iou.building"),
}  # fmt: skip


def tiles_of(name: str, folder: Path) -> Path:
    """Cut a set into FOLDER/NAME/tiles, unless it is there."""
    out = folder / name / "tiles"
    if not (out / "tileset.json").is_file():
        raw = folder / name / "raw"
        raw.mkdir(parents=True, exist_ok=True)
        words = SETS[name].cut(raw)
        if run(["tile", *words, "-o", str(out), "-q"]) != 0:
            raise SystemExit(f"{name}: could not be cut")
    return out


if __name__ == "__main__":
    place = Path(sys.argv[1])
    for asked in sys.argv[2:] or SETS:
        tiles = tiles_of(asked, place)
        index = geopandas.read_parquet(tiles / "index.parquet")
        print(asked, len(index), index["fold"].value_counts(dropna=False).to_dict(), flush=True)
