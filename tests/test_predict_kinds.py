"""`geoml predict`: dates, sensors, values, tiles, grids, areas, shares; each against the network itself."""

import json
import shutil
from pathlib import Path

import geopandas
import made
import numpy as np
import pytest
import rasterio
import shapely
import torch
from rasterio.transform import from_origin
from test_tasks import SIDE, dates, layers, tile, train, values

from geoml_cli.cli import run
from geoml_cli.core import network as networks
from geoml_cli.core.batch import Batch
from geoml_cli.core.lattice import mirror
from geoml_cli.formats.model import read_model
from geoml_cli.geo.grid import Grid
from geoml_cli.stages.codes import codes_of_pixels

FAR = 64


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def predict(*words, out="maps/", status=0):
    words = [str(w) for w in words]
    said = run(["predict", *words, "--model", "model/", "--device", "cpu", "-o", out])
    assert said == status, words
    return Path(out)


def read(path):
    with rasterio.open(path) as dataset:
        return dataset.read()


def classes(folder, epochs=12, *more):
    """A scene, its tiles and a model of them; made once a session for the same words."""
    kept = folder.parent / f"classes-{abs(hash((epochs, *more)))}"
    if not kept.exists():
        made.scene(folder, SIDE, SIDE)
        tile("scene.tif", "--labels", "labels.gpkg", "--label-column", "class", size="16")
        train("--epochs", epochs, *more)
        shutil.copytree(folder, kept)
    shutil.copytree(kept, folder, dirs_exist_ok=True)


def grow(data):
    """Mirrored by FAR pixels on all sides, (..., H, W)."""
    rows, cols = (mirror(-FAR, n + 2 * FAR, n) for n in data.shape[-2:])
    return data[..., rows, :][..., cols]


def whole(*sensors, codes=None, member=0):
    """Outputs (K, H, W) of a network in one pass; a sensor is (T, C, H, W), NaN where not valid."""
    model = read_model("model")
    network = networks.build(model.head["network"])
    network.load_state_dict(model.weights()[member])
    each = []
    for data in sensors:
        data = grow(data.astype(np.float32))
        valid = np.isfinite(data).all(1)
        grown = None if codes is None else torch.from_numpy(grow(codes))[None]
        image = torch.from_numpy(np.nan_to_num(data))[None]
        each.append(Batch(image, torch.from_numpy(valid)[None], codes=grown))
    batch = Batch(**(vars(each[0]) | {"others": tuple(each[1:])}))
    with torch.inference_mode():
        out = network.eval()(batch)
        return network.physical(out)[0, :, FAR:-FAR, FAR:-FAR].numpy()


def test_dates_are_found_by_their_day(here):
    names = dates(here)
    tile(*names, "--labels", "labels.gpkg", "--label-column", "class", "--frames", "all")
    train("--time", "stack", "--epochs", 4, "--codes", "place,season")
    predict(names[2], names[0], names[1], "--window", 32)
    data = np.stack([read(name) for name in names])
    with rasterio.open(names[0]) as dataset:
        grid = Grid("EPSG:32633", dataset.transform, SIDE, SIDE)
    from geoml_cli.geo.grid import LONLAT, between

    rows, cols = np.mgrid[:SIDE, :SIDE]
    lonlat = between(grid.crs, LONLAT).transform(*grid.xy(rows, cols))
    days = np.array([np.datetime64(f"2023-0{m}-01T10:00:00", "s").astype(float) / 86400 for m in (4, 5, 6)])  # fmt: skip
    codes = codes_of_pixels(("place", "season"), lonlat, days.astype(np.float32))
    # codes are those of the pixel itself, so that no window shows; beyond the rim they go on
    want = whole(data, codes=codes)
    inner = np.s_[12:-12, 12:-12]
    assert (read("maps/d2.tif")[0][inner] == want.argmax(0)[inner]).mean() > 0.999
    item = json.loads(Path("maps/items.json").read_text())["features"][0]["properties"]
    assert item["datetime"] is None and item["start_datetime"][:7] == "2023-04"
    assert run(["predict", *names[:2], "--model", "model/", "-o", "x/"]) == 2  # two are not three


def test_training_dates_of_another_year_are_asked_for(here, capsys):
    names = dates(here)
    words = ("--labels", "labels.gpkg", "--label-column", "class", "--frames")
    tile(*names, *words, "2023-04-01,2023-06-01")
    train("--epochs", 3)
    for i, name in enumerate(names):
        with rasterio.open(name, "r+") as file:
            file.update_tags(TIFFTAG_DATETIME=f"2025:0{i + 4}:01 10:00:00")
    predict(*names, status=2)
    assert "--frames" in capsys.readouterr().err
    predict(*names, "--frames", "2025-05-01,2025-06-01")
    want = whole(np.stack([read("d1.tif"), read("d2.tif")])).argmax(0)
    assert (read("maps/d0.tif")[0] == want).mean() > 0.999


def test_sensors_are_found_by_name(here, capsys):
    truth = made.regions(SIDE, SIDE)
    rng = np.random.default_rng(0)
    for name, level in (("optical", (50, 150, 150)), ("radar", (80, 80, 200))):
        data = np.array(level)[truth] + rng.normal(0, 10, truth.shape)
        made.write(
            here / f"{name}.tif", np.clip(data, 1, 255).astype(np.uint8)[None], names=(name,)
        )
    made.polygons(here / "labels.gpkg", truth)
    words = ("--labels", "labels.gpkg", "--label-column", "class", "--with", "radar=radar.tif")
    tile("optical.tif", *words)
    train("--epochs", 10)
    predict("optical.tif", status=2)
    assert "--with radar=INPUT" in capsys.readouterr().err
    predict("optical.tif", "--with", "radar=radar.tif", "--window", 16)
    want = whole(read("optical.tif")[None], read("radar.tif")[None]).argmax(0)
    assert (read("maps/optical.tif")[0] == want).mean() > 0.999
    assert (want == truth).mean() > 0.9


def test_values_come_in_their_unit_with_how_unsure_they_are(here):
    values(here)
    tile("scene.tif", "--labels", "height.tif", "--label-kind", "values")
    train("--task", "regress", "--objective", "gaussian-nll", "--epochs", 4)
    predict("scene.tif", "--uncertainty", "--window", 32)
    want = whole(read("scene.tif")[None])  # means and variances
    scale = want[0].std()
    with rasterio.open("maps/scene.tif") as dataset:
        assert dataset.dtypes == ("float32",) and np.isnan(dataset.nodata)
        assert np.abs(dataset.read(1) - want[0]).max() < 1e-4 * scale
    spread = read("maps/scene_uncertainty.tif")[0]
    assert np.allclose(spread, np.sqrt(want[1]), rtol=1e-3)
    assert run(["predict", "scene.tif", "--model", "model/", "--probabilities", "-o", "p/"]) == 2


def test_votes_say_how_unsure_classes_are(here):
    made.scene(here, SIDE, SIDE)
    words = ("--label-column", "class", "--split", "blocks:4", "--folds", "3")
    tile("scene.tif", "--labels", "labels.gpkg", *words)
    train("--epochs", 2)
    predict("scene.tif", "--probabilities", "--uncertainty", "--tta", "none", "--window", 48)
    each = np.stack(
        [torch.from_numpy(whole(read("scene.tif")[None], member=m)).softmax(0).numpy() for m in range(3)]
    )  # fmt: skip
    mean = each.mean(0)
    with rasterio.open("maps/scene_probabilities.tif") as dataset:
        assert dataset.scales == (1 / 250,) * 3 and dataset.descriptions[0] == "p_field"
        assert np.abs(dataset.read() / 250 - mean).max() < 0.5 / 250 + 1e-4
    doubt = read("maps/scene_uncertainty.tif") / 250
    entropy = -(mean * np.log(mean)).sum(0) / np.log(3)
    assert np.abs(doubt[0] - entropy).max() < 0.5 / 250 + 1e-3
    won = np.take_along_axis(each.std(0), mean.argmax(0)[None], 0)[0]
    assert np.abs(doubt[1] - won).max() < 0.5 / 250 + 1e-3
    turned = np.stack(
        [
            torch.from_numpy(whole(read("scene.tif")[None][..., ::f], member=m)[..., ::f].copy()).softmax(0).numpy()
            for m in range(3)
            for f in (1, -1)
        ]
    )  # fmt: skip
    assert (turned[::2] == each).all()


def test_turned_images_are_asked_about(here):
    classes(here, 5)
    predict("scene.tif", "--probabilities", "--tta", "flips", "--window", 32)
    data = read("scene.tif")[None]
    votes = []
    for turns, flip in ((0, 0), (2, 0), (0, 1), (2, 1)):
        moved = np.rot90(data, turns, (-2, -1))
        moved = moved[..., ::-1] if flip else moved
        out = torch.from_numpy(whole(moved.copy())).softmax(0).numpy()
        out = out[..., ::-1] if flip else out
        votes.append(np.rot90(out, -turns, (-2, -1)))
    got = read("maps/scene_probabilities.tif") / 250
    assert np.abs(got - np.mean(votes, 0)).max() < 0.5 / 250 + 1e-4


def test_layers_that_may_be_there_at_once_are_bands(here):
    tile("scene.tif", *layers(here))
    train("--layer", "water", "--layer", "forest", "--epochs", 3)
    predict("scene.tif", "--probabilities")
    share = torch.from_numpy(whole(read("scene.tif")[None])).sigmoid().numpy()
    with rasterio.open("maps/scene.tif") as dataset:
        assert dataset.descriptions == ("water", "forest") and dataset.nodata == 255
        assert (dataset.read() == (share > 0.5)).mean() > 0.999


def test_labels_of_tiles_are_a_coarser_raster_and_points(here):
    made.scene(here, SIDE, SIDE - 4)
    words = ("--label-column", "class", "--label-per", "majority", "--split", "blocks:4")
    tile("scene.tif", "--labels", "labels.gpkg", *words, "--sampler", "grid:edge=pad", size="8")
    train("--task", "classify", "--epochs", 3)
    predict("scene.tif", "--polygons", "points.gpkg", "--probabilities")
    with rasterio.open("maps/scene.tif") as dataset, rasterio.open("scene.tif") as scene:
        assert dataset.shape == (8, 8) and dataset.res == (80, 80)
        assert dataset.transform.c == scene.transform.c
        ids = dataset.read(1)
    table = geopandas.read_file("points.gpkg")
    assert len(table) == 64 and table.geom_type.eq("Point").all()
    assert run(["predict", "tiles/", "--model", "model/", "-o", "tiles.parquet"]) == 0
    rows = geopandas.read_parquet("tiles.parquet")
    assert len(rows) == 64
    points = rows.to_crs("EPSG:32633").geometry
    r, c = ((5_000_000 - points.y) // 80).astype(int), ((points.x - 500_000) // 80).astype(int)
    assert (ids[r, c] == rows["class_id"]).all()  # a tile is the same tile either way
    shares = read("maps/scene_probabilities.tif")[:, r, c].T / 250
    told = rows[[f"p_{name}" for name in read_model("model").head["aim"]["names"]]]
    assert np.abs(shares - told).to_numpy().max() < 0.5 / 250 + 1e-4
    assert run(["predict", "tiles/", "--model", "model/", "-o", "maps2/"]) == 2


def test_tiles_are_mapped_as_the_ground_they_are_of(here):
    classes(here, 5)
    predict("scene.tif")
    assert run(["tile", "scene.tif", "--size", "16", "-o", "plain/"]) == 0
    predict("plain/", out="tiled/")
    assert (read("tiled/scene.tif") == read("maps/scene.tif")).mean() > 0.999
    assert made.content(here / "tiled").keys() == made.content(here / "maps").keys()


@pytest.mark.parametrize("factor", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_finer_rasters_are_brought_to_the_models_pixels_and_back(here, factor, capsys):
    """Each pixel cut into squares of its own value: the map is the same, but for its edges."""
    classes(here)
    predict("scene.tif")
    data = read("scene.tif").repeat(factor, 1).repeat(factor, 2)
    made.write(here / "fine.tif", data, res=10 / factor)
    capsys.readouterr()
    predict("fine.tif", "--window", 24, out="fine/")
    assert capsys.readouterr().err.count("resampled") == 1
    predict("fine.tif", out="once/")
    assert (read("fine/fine.tif") == read("once/fine.tif")).mean() > 0.9999
    middle = read("fine/fine.tif")[:, factor // 2 :: factor, factor // 2 :: factor]
    assert (middle == read("maps/scene.tif")).mean() > 0.97


def test_coarser_rasters_too_and_their_nodata_stays(here):
    classes(here)
    data = made.image(made.regions(48, 48, sites=6))
    data[:, 10:14, 20:30] = 0
    made.write(here / "coarse.tif", data, res=20, nodata=0)
    predict("coarse.tif", "--window", 32)
    got = read("maps/coarse.tif")[0]
    assert ((got == 255) == (data[0] == 0)).all()
    seen = data[0] > 0
    assert (got == made.regions(48, 48, sites=6))[seen].mean() > 0.85


def test_another_grid(here):
    classes(here)
    predict("scene.tif", "--crs", "EPSG:32633", "--resolution", "20", out="b/")
    with rasterio.open("b/scene.tif") as dataset:
        assert dataset.res == (20, 20)
    like = made.write(here / "like.tif", np.zeros((1, 60, 70), np.uint8), crs="EPSG:32634", transform=from_origin(50_000, 5_020_000, 12, 12))  # fmt: skip
    with rasterio.open("scene.tif") as scene:
        from rasterio.warp import transform

        xs, ys = transform(scene.crs, "EPSG:32634", [500_320], [4_999_680])
    like = made.write(here / "like.tif", np.zeros((1, 24, 30), np.uint8), crs="EPSG:32634", transform=from_origin(xs[0] - 180, ys[0] + 144, 12, 12))  # fmt: skip
    predict("scene.tif", "--like", like, out="l/")
    with rasterio.open("l/scene.tif") as dataset, rasterio.open(like) as wanted:
        assert (dataset.transform, dataset.crs, dataset.shape) == (wanted.transform, wanted.crs, wanted.shape)  # fmt: skip
        rows, cols = np.mgrid[:24, :30]
        x, y = dataset.transform * (cols + 0.5, rows + 0.5)
        x, y = transform(dataset.crs, "EPSG:32633", x.ravel(), y.ravel())
        there = dataset.read(1).ravel()
    truth = made.regions(SIDE, SIDE)
    r, c = ((5_000_000 - np.array(y)) // 10).astype(int), ((np.array(x) - 500_000) // 10).astype(int)  # fmt: skip
    assert (there == truth[r, c]).mean() > 0.85


def test_an_area_is_cut_out_of_the_same_map(here):
    classes(here)
    ring = shapely.Polygon([(500_200, 4_999_900), (500_700, 4_999_500), (500_330, 4_999_310)])
    table = geopandas.GeoDataFrame(geometry=[ring], crs="EPSG:32633").to_crs("EPSG:4326")
    table.to_file("area.geojson")
    predict("scene.tif", "--window", 16)
    predict("scene.tif", "--window", 16, "--aoi", "area.geojson", out="aoi/")
    full = read("maps/scene.tif")[0]
    from rasterio.features import geometry_mask

    with rasterio.open("aoi/scene.tif") as dataset:
        got, t = dataset.read(1), dataset.transform
        top, left = round((5_000_000 - t.f) / 10), round((t.c - 500_000) / 10)
        inside = geometry_mask([ring], got.shape, t, invert=True)
    part = full[top : top + got.shape[0], left : left + got.shape[1]]
    assert (got[inside] == part[inside]).mean() > 0.999 and (got[~inside] == 255).mean() > 0.995
    assert inside.any(1)[1:-1].all() and inside.any(0)[1:-1].all()  # no more than it takes
    table.geometry = table.translate(5)
    table.to_file("far.geojson")
    predict("scene.tif", "--aoi", "far.geojson", out="far/", status=4)


@pytest.mark.parametrize("encoder", ["unet:width=6,depth=1", pytest.param("vit:width=16,layers=2,heads=2,patch=4,image=16", marks=pytest.mark.slow)])  # fmt: skip
def test_shares_put_together_are_one_run(here, encoder):
    classes(here, 2, "--encoder", encoder, "--head", "fcn")
    made.write(here / "b.tif", made.image(made.regions(40, 70)))
    words = ("scene.tif", "b.tif", "--window", 16, "--batch", 3, "--probabilities")
    predict(*words)
    for i in (1, 2, 3):
        predict(*words, "--shard", f"{i}/3", out=f"share-{i}/")
    assert run(["predict", "share-2", "share-1", "share-3", "--merge", "-o", "merged/"]) == 0
    assert made.content(here / "maps") == made.content(here / "merged")
    assert run(["predict", "share-1", "share-3", "--merge", "-o", "x/"]) == 1


def test_networks_that_see_all_are_blended_and_windows_hardly_show(here, capsys):
    classes(here, 3, "--encoder", "vit:width=16,layers=2,heads=2,patch=4,image=16", "--head", "fcn")
    assert read_model("model").head["blend"]["window"] == 16
    predict("scene.tif", "--check-seams", "-j", "1")
    assert "windows blend" in capsys.readouterr().err
    predict("scene.tif", "-j", "4", out="four/")
    assert made.content(here / "maps") == made.content(here / "four")


def test_seams_are_looked_for(here, capsys):
    classes(here, 3)
    predict("scene.tif", "--window", 16, "--check-seams")
    assert "largest difference" in capsys.readouterr().err


def test_options_of_the_cog_driver(here, capsys):
    classes(here, 1)
    predict("scene.tif", "--co", "COMPRESS=ZSTD", "--co", "blocksize=128")
    with rasterio.open("maps/scene.tif") as dataset:
        assert dataset.compression.name == "zstd" and dataset.block_shapes == [(128, 128)]
    predict("scene.tif", "--co", "COLOUR=1", out="x/", status=2)


def test_what_is_too_large_for_the_disk_is_refused_before_work(here, monkeypatch, capsys):
    classes(here, 1)

    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    predict("scene.tif", status=1)
    assert "scratch" in capsys.readouterr().err and not Path("maps").exists()
