"""What `geoml train` learns besides classes of pixels: values, tiles, several layers, dates and sensors."""

import json
from pathlib import Path

import geopandas
import made
import numpy as np
import pytest
import rasterio

from geoml_cli.cli import run
from geoml_cli.core.aim import Aim
from geoml_cli.formats.model import read_model
from geoml_cli.formats.tileset import read_tileset
from geoml_cli.stages.feed import Feed, parts_of, share_of

SIDE = 64
FAST = ["--encoder", "unet:width=6,depth=1", "--device", "cpu", "--lr", "1e-2"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tile(*words, size="16"):
    assert run(["tile", *map(str, words), "--size", size, "--buffer", "0", "-o", "tiles/"]) == 0


def train(*words):
    assert run(["train", "tiles/", *FAST, *map(str, words), "-o", "model/"]) == 0
    return json.loads(Path("model/scores.json").read_text())


def values(folder, share=1.0):
    """A scene, and 3 red - nir in metres on a share of its pixels, the others NaN."""
    truth = made.regions(SIDE, SIDE, sites=60)
    data = made.image(truth)
    made.write(folder / "scene.tif", data)
    height = (3.0 * data[0] - data[1]).astype(np.float32)[None]
    height[:, np.random.default_rng(1).random((SIDE, SIDE)) > share] = np.nan
    made.write(folder / "height.tif", height, names=("height",), nodata=float("nan"))
    return height


def test_values_of_pixels_are_learnt_and_scored_in_their_units(here):
    height = values(here)
    tile("scene.tif", "--labels", "height.tif", "--label-kind", "values")
    scores = train("--task", "regress", "--epochs", 60)
    r2, rmse = scores["metrics"]["r2"]["value"], scores["metrics"]["rmse"]["value"]
    assert r2 > 0.9 and 0 < rmse < 0.35 * np.nanstd(height)
    head = read_model("model").head
    assert head["aim"]["kind"] == "values" and head["values"][0]["name"] == "class"
    assert head["best"][0]["watch"] < 0  # an error, turned round


def test_few_labels_weigh_as_much_as_all_their_pixels_would(here):
    values(here, share=0.02)
    tile("scene.tif", "--labels", "height.tif", "--label-kind", "values")
    tiles = read_tileset("tiles")
    feed = Feed(tiles, parts_of(tiles)[0], Aim("values", "pixel", ("class",), ("class",)))
    feed.fit_values()
    batch = feed.batch(feed.rows, "train")
    assert batch.total == batch.weight.sum() == batch.target.isfinite().sum() == feed.counts.sum()
    seen = batch.target[batch.weight > 0]
    assert seen.mean().item() == pytest.approx(0, abs=1e-4)
    assert seen.std(correction=0).item() == pytest.approx(1, abs=1e-4)
    assert train("--task", "regress", "--epochs", 20)["metrics"]["r2"]["value"] > 0.7


@pytest.mark.slow
def test_values_with_their_own_uncertainty(here):
    values(here)
    tile("scene.tif", "--labels", "height.tif", "--label-kind", "values")
    scores = train("--task", "regress", "--objective", "gaussian-nll", "--epochs", 60)
    assert scores["metrics"]["r2"]["value"] > 0.9
    assert read_model("model").head["network"]["outputs"] == 2


def test_one_value_a_tile(here):
    values(here)
    words = ("--label-kind", "values", "--label-per", "mean", "--split", "blocks:4")
    tile("scene.tif", "--labels", "height.tif", *words, size="8")
    scores = train("--task", "regress", "--epochs", 12)
    assert scores["metrics"]["r2"]["value"] > 0.8
    assert read_model("model").head["aim"]["per"] == "tile"


def test_the_class_of_a_tile(here):
    made.scene(here, SIDE, SIDE)
    words = ("--label-column", "class", "--label-per", "majority", "--split", "blocks:4")
    tile("scene.tif", "--labels", "labels.gpkg", *words, size="8")
    scores = train("--task", "classify", "--epochs", 10)
    assert scores["metrics"]["accuracy"]["value"] > 0.6
    assert sum(map(sum, scores["confusion"]["matrix"])) == scores["scored"]["n"]


def test_all_classes_that_a_tile_holds(here):
    made.scene(here, SIDE, SIDE)
    words = ("--label-column", "class", "--label-per", "present", "--split", "blocks:4")
    tile("scene.tif", "--labels", "labels.gpkg", *words, size="8")
    scores = train("--task", "classify", "--epochs", 36)
    assert scores["metrics"]["f1_micro"]["value"] > 0.75
    assert set(scores["classes"]) == set(made.NAMES)


def layers(folder):
    """Two layers of the same ground, each of two classes: what is water, what is forest."""
    _, labels, truth = made.scene(folder, SIDE, SIDE)
    table = geopandas.read_file(labels)
    for name in ("water", "forest"):
        table[table["class"] == name].to_file(folder / f"{name}.gpkg")
    words = []
    for name in ("water", "forest"):
        words += ["--labels", f"{name}={name}.gpkg", "--label-column", f"{name}=class"]
        words += ["--background", f"{name}=other"]
    return words


def test_several_things_that_may_be_there_at_once(here):
    tile("scene.tif", *layers(here))
    scores = train("--layer", "water", "--layer", "forest", "--epochs", 20)
    assert scores["metrics"]["f1_macro"]["value"] > 0.85
    assert read_model("model").head["network"]["outputs"] == 2
    tiles = read_tileset("tiles")
    aim = Aim("present", "pixel", ("water", "forest"), ("water", "forest"))
    feed = Feed(tiles, parts_of(tiles)[0], aim)
    assert feed.counts.tolist() == [
        int((feed.targets(feed.rows, "train")[:, i] == 1).sum()) for i in (0, 1)
    ]


def test_two_classes_from_one_output(here):
    tile("scene.tif", *layers(here)[:6])
    scores = train("--task", "segment:mode=binary", "--epochs", 20)
    assert scores["metrics"]["miou"]["value"] > 0.8
    assert read_model("model").head["network"]["outputs"] == 1
    assert run(["predict", "scene.tif", "--model", "model/", "-o", "map.tif"]) == 0
    truth = made.regions(SIDE, SIDE) == 2
    with rasterio.open("map.tif") as source, rasterio.open("scene.tif") as scene:
        ids = {source.tags()[f"CLASS_{i}"]: i for i in (0, 1)}
        assert scene.shape == source.shape
        assert ((source.read(1) == ids["water"]) == truth).mean() > 0.9


def dates(folder):
    """Three dates; only their order in time tells the classes apart: each rises or falls."""
    truth = made.regions(SIDE, SIDE)
    rng = np.random.default_rng(0)
    base = rng.uniform(60, 160, (SIDE, SIDE))
    for t in range(3):
        slope = np.array([-30, 0, 30])[truth] * (t - 1)
        data = np.clip(base + slope + rng.normal(0, 3, base.shape), 1, 255).astype(np.uint8)
        made.write(folder / f"d{t}.tif", data[None], names=("red",))
        with rasterio.open(folder / f"d{t}.tif", "r+") as file:
            file.update_tags(TIFFTAG_DATETIME=f"2023:0{t + 4}:01 10:00:00")
    made.polygons(folder / "labels.gpkg", truth)
    return [f"d{t}.tif" for t in range(3)]


@pytest.mark.parametrize(
    "how, least",
    [
        ("stack", 0.9),
        pytest.param("attention", 0.4, marks=pytest.mark.slow),
        pytest.param("mean", 0.0, marks=pytest.mark.slow),
    ],
)
def test_several_dates(here, how, least):
    words = ("--labels", "labels.gpkg", "--label-column", "class", "--frames", "all")
    tile(*dates(here), *words)
    assert read_tileset("tiles").head["sensors"][0]["frames"] == 3
    scores = train("--time", how, "--epochs", 15, "--codes", "season")
    assert scores["metrics"]["accuracy"]["value"] > least
    said = run(["predict", "d0.tif", "--model", "model/", "-o", "maps/"])
    assert said == 2  # one date is not three


@pytest.mark.parametrize("fuse", ["middle", pytest.param("late", marks=pytest.mark.slow)])
def test_two_sensors_tell_more_than_one(here, fuse):
    truth = made.regions(SIDE, SIDE)
    rng = np.random.default_rng(0)
    first, second = np.array([50, 150, 150])[truth], np.array([80, 80, 200])[truth]
    for name, level in (("optical", first), ("radar", second)):
        data = np.clip(level + rng.normal(0, 10, truth.shape), 1, 255).astype(np.uint8)
        made.write(here / f"{name}.tif", data[None], names=(name,))
    made.polygons(here / "labels.gpkg", truth)
    words = ("--labels", "labels.gpkg", "--label-column", "class", "--with", "radar=radar.tif")
    tile("optical.tif", *words)
    epochs = {"middle": 24, "late": 60}[fuse]
    both = train("--fuse", fuse, "--epochs", epochs)["metrics"]["accuracy"]["value"]
    alone = train("--sensor", "image", "--epochs", 6)["metrics"]["accuracy"]["value"]
    assert both > 0.95 > alone


def test_shares_of_the_labels_are_nested_and_keep_every_class(here):
    made.scene(here, SIDE, SIDE)
    tile("scene.tif", "--labels", "labels.gpkg", "--label-column", "class")
    tiles = read_tileset("tiles")
    feed = Feed(tiles, parts_of(tiles)[0], Aim("classes", "pixel", ("class",), made.NAMES))
    shares = [set(share_of(feed, s, 3).tolist()) for s in (0.1, 0.25, 1.0)]
    assert shares[0] < shares[1] < shares[2] == set(feed.rows.tolist())
    assert (feed.each[sorted(shares[0])].sum(axis=0) > 0).all()
    assert len(shares[1]) == round(0.25 * len(feed.rows))


def test_balanced_sampling_meets_every_class_as_often(here):
    made.scene(here, SIDE, SIDE)
    tile("scene.tif", "--labels", "labels.gpkg", "--label-column", "class")
    tiles = read_tileset("tiles")
    feed = Feed(tiles, parts_of(tiles)[0], Aim("classes", "pixel", ("class",), made.NAMES))
    drawn = np.concatenate([feed.order(n, 0, "balanced") for n in range(400)])
    share = (feed.each / feed.counts)[feed.rows].sum(axis=1) / 3
    found = np.array([(drawn == row).mean() for row in feed.rows])
    assert found == pytest.approx(share, abs=4 * np.sqrt(share.max() / len(drawn)))
