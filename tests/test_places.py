"""Places: tables that train, splits that do not leak, answers, maps, and what a place adds to imagery."""

import json
from dataclasses import replace
from pathlib import Path

import geopandas
import made
import numpy as np
import pandas
import pytest
import rasterio
import shapely
import torch

from geoml_cli import registry
from geoml_cli.cli import run
from geoml_cli.core import network as networks
from geoml_cli.core.aim import Aim
from geoml_cli.core.batch import Batch
from geoml_cli.core.location import Location
from geoml_cli.errors import GeomlError, UsageMistake
from geoml_cli.formats.model import read_model
from geoml_cli.formats.points import open_points
from geoml_cli.geo.places import great_circle_km
from geoml_cli.geo.splits import NONE
from geoml_cli.stages.feed import Feed, parts_of
from geoml_cli.stages.labelled_rows import Labels
from geoml_cli.stages.networks import load_networks
from geoml_cli.stages.row_splits import RowSplit, deal_rows
from geoml_cli.stages.table_tiles import labelled_table

CODE = '''"""Points in space through one layer: a location encoder for tests."""

import torch
from torch import nn


class Code(nn.Module):
    out_channels = 16

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 16)

    def forward(self, lonlat):
        lon, lat = torch.deg2rad(lonlat).unbind(1)
        space = torch.stack([lat.cos() * lon.cos(), lat.cos() * lon.sin(), lat.sin()], 1)
        return torch.sin(3 * self.layer(space))


def build():
    return Code()
'''


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a location encoder code.py and places.csv: 400 places all over, three labels."""
    monkeypatch.chdir(tmp_path)
    Path("code.py").write_text(CODE)
    table().to_csv("places.csv", index=False)
    return tmp_path


def table(count=400, seed=0):
    rng = np.random.default_rng(seed)
    lon, lat = rng.uniform(-180, 180, count), np.degrees(np.arcsin(rng.uniform(-1, 1, count)))
    warm = 30 * np.cos(np.radians(lat)) + 3 * np.sin(np.radians(lon))
    return pandas.DataFrame(
        {
            "lon": lon.round(5),
            "lat": lat.round(5),
            "warm": warm.round(3),
            "zone": np.where(np.abs(lat) < 30, "low", np.where(lat > 0, "north", "south")),
            "area": rng.integers(0, 6, count),
            "height": rng.normal(size=count).round(3),
        }
    )


def train(*words, out="model/", target="warm", table="places.csv"):
    line = [
        "train",
        table,
        "--target",
        target,
        "--location-encoder",
        "./code.py",
        "--device",
        "cpu",
    ]
    return run([*line, "--epochs", "5", *map(str, words), "-o", out])


def predict(*words, out="said.parquet"):
    return run(["predict", *words, "--model", "model/", "--trust-code", "-o", out])


# ---- splits


def rows_of(wish, count=3000, seed=0):
    found = table(count, seed)
    where = geopandas.points_from_xy(found["lon"], found["lat"])
    places = geopandas.GeoDataFrame(found, geometry=where, crs="OGC:CRS84")
    labels = Labels("warm", found["warm"].to_numpy(), ())
    return found, *deal_rows(places, labels.weights, wish, seed)


def far(a, b):
    """Least distance, km, of each of some places to any of others."""
    return np.array([great_circle_km(one, b).min() for one in a])


KINDS = ["blocks:6", "blocks:900km", "cells:10", "checkerboard:10", "random"]


@pytest.mark.parametrize("split", KINDS)
def test_a_place_is_on_one_side_and_every_side_has_some(split):
    found, kind, fold, near = rows_of(RowSplit(split))
    counts = np.bincount(fold, minlength=3)
    assert counts.sum() == len(fold) and (counts[:3] > 0).all() and len(counts) == 3
    assert (near == 1 << fold).all()
    again = rows_of(RowSplit(split))[2]
    assert (again == fold).all()
    assert kind.to_dict()["kind"] in ("blocks", "cells", "random")
    if split != "checkerboard:10":  # half of all tests
        assert 0.6 < counts[0] / len(fold) < 0.8


@pytest.mark.parametrize("split", ["blocks:6", "cells:10", "checkerboard:10"])
def test_cells_are_never_torn_apart(split):
    found, kind, fold, _ = rows_of(RowSplit(split, folds=0))
    if split.startswith("blocks"):
        x, y = rasterio.warp.transform("OGC:CRS84", kind.crs, found["lon"], found["lat"])
        b, n = kind.bounds, kind.rows
        cell = (n * (np.array(x) - b.west) / (b.east - b.west)).astype(int) * 99 + (
            n * (b.north - np.array(y)) / (b.north - b.south)
        ).astype(int)
    else:
        cell = np.floor(found["lon"] / 10).to_numpy() * 99 + np.floor(found["lat"] / 10).to_numpy()
    for one in np.unique(cell):
        assert len(np.unique(fold[cell == one])) == 1


def test_odd_cells_of_a_checkerboard_test():
    found, _, fold, _ = rows_of(RowSplit("checkerboard:10"))
    odd = (np.floor((found["lon"] + 180) / 10) + np.floor((found["lat"] + 90) / 10)) % 2 == 1
    assert ((fold == 2) == odd.to_numpy()).all()


def test_nothing_trains_within_the_buffer_of_held_ground():
    found, _, fold, near = rows_of(RowSplit("blocks:6", buffer="300km"))
    at = found[["lon", "lat"]].to_numpy()
    may = (fold == 0) & ((near & 0b110) == 0)
    apart = far(at[fold == 0], at[fold != 0])
    assert (may[fold == 0] == (apart > 300)).all() and 0 < may.sum() < (fold == 0).sum()


def test_regions_stay_whole_or_test_alone():
    found, split, fold, _ = rows_of(RowSplit(by="area"))
    assert all(len(np.unique(fold[found["area"] == one])) == 1 for one in range(6))
    assert split.count == 3 and set(fold) == {0, 1, 2}
    _, _, fold, _ = rows_of(RowSplit(by="area", folds=6))
    assert [len(np.unique(fold[found["area"] == one])) for one in range(6)] == [1] * 6
    assert set(fold) == set(range(6))  # each region is a fold of its own
    _, _, fold, _ = rows_of(RowSplit(by="area=2,3"))
    assert ((fold == 2) == found["area"].isin([2, 3]).to_numpy()).all() and (fold == 1).any()


def test_words_and_gaps_of_a_column_are_sides():
    found = table(6)
    found["side"] = ["train", "val", "TEST", None, "train", "test"]
    places = geopandas.GeoDataFrame(
        found, geometry=geopandas.points_from_xy(found["lon"], found["lat"]), crs="OGC:CRS84"
    )
    labels = Labels("warm", found["warm"].to_numpy(), ())
    _, fold, near = deal_rows(places, labels.weights, RowSplit(by="side"), 0)
    assert fold.tolist() == [0, 1, 2, NONE, 0, 2] and near[3] == 0


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        (RowSplit("blocks"), "write blocks:8"),
        (RowSplit("cells:0"), "write blocks:8"),
        (RowSplit("checkerboard:10", folds=4), "leave --folds out"),
        (RowSplit("blocks:2", folds=9), "fewer blocks than the 9 folds"),
        (RowSplit("random", "area"), "give one"),
        (RowSplit("blocks:8", buffer="50"), "write a length"),
        (RowSplit(by="none"), "no column 'none'"),
        (RowSplit(by="area=9"), "it holds 0, 1, 2"),
        (RowSplit(by="zone", folds=5), "3 values; 5 sides need as many"),
    ],
)
def test_a_split_that_cannot_be_is_refused(wish, says):
    with pytest.raises((GeomlError, UsageMistake), match=says):
        rows_of(wish, 50)


# ---- reading


@pytest.mark.parametrize(
    ("change", "words", "says"),
    [
        ({"lat": 120.0}, (), "row 2: "),
        ({"lon": 400.0}, (), "row 2: 400, "),
        ({"warm": "?"}, ("--task", "regress"), "column warm: holds text, not numbers"),
        ({}, ("--lonlat", "lat,lon"), "longitude comes first, then latitude"),
        ({}, ("--lonlat", "lon,up"), "no column 'up'"),
        ({}, ("--lonlat", "lon"), "two columns, longitude first"),
        ({}, ("--target", "cold"), "no column 'cold'"),
        ({}, ("--location-join", "film"), "nothing but the place to join"),
        ({}, ("--features", "depth"), "no column 'depth'"),
        ({}, ("--task", "classify"), "column warm: holds fractions"),
        ({}, ("--objective", "cross-entropy"), "what is learnt here are values"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused_in_one_line(here, capsys, change, words, says):
    found = table(20)
    for name, value in change.items():
        found[name] = found[name].astype(object)
        found.loc[1, name] = value
    found.to_csv("places.csv", index=False)
    assert train(*words) in (1, 2)
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1
    assert not Path("model").exists() and not list(Path().glob(".model*"))


def test_swapped_columns_are_told_apart_where_they_can_be(here):
    found = table(20).rename(columns={"lon": "lat", "lat": "lon"})
    found.to_csv("swapped.csv", index=False)
    with pytest.raises(GeomlError, match="are the columns swapped"):
        open_points("swapped.csv")


def test_every_kind_of_table_is_read_alike(here):
    plain = table(30)
    shapes = geopandas.points_from_xy(plain["lon"], plain["lat"])
    placed = geopandas.GeoDataFrame(plain, geometry=shapes, crs="OGC:CRS84")
    placed.to_parquet("a.parquet")
    placed.to_crs("EPSG:6933").to_file("a.gpkg")
    plain.to_parquet("b.parquet")
    plain.rename(columns={"lon": "x", "lat": "y"}).to_csv("a.csv", index=False)
    round_ = plain.assign(lon=plain["lon"] % 360)
    round_.to_csv("round.csv", index=False)
    plain.to_csv("t.tsv", sep="\t", index=False)
    want = plain[["lon", "lat"]].to_numpy()
    for name, lonlat in [
        ("a.parquet", ()),
        ("a.gpkg", ()),
        ("b.parquet", ()),
        ("a.csv", ("x", "y")),
        ("round.csv", ()),
        ("t.tsv", ()),
    ]:
        found = open_points(name, lonlat).frame()
        assert np.allclose(np.column_stack([found.geometry.x, found.geometry.y]), want, atol=1e-9)
        assert found["id"].tolist() == [str(i) for i in range(30)]


def test_shapes_are_kept_and_rows_without_a_place_are_not(here, caplog):
    shapes = geopandas.points_from_xy([2, 10, 2], [50, 51, 53]).buffer(0.5)
    regions = geopandas.GeoDataFrame({"k": [1, 2, 3]}, geometry=shapes, crs="EPSG:4326")
    regions.loc[1, "geometry"] = None
    regions.to_crs("EPSG:3035").to_parquet("regions.parquet")
    opened = open_points("regions.parquet")
    found = opened.frame()
    assert found["k"].tolist() == [1, 3] and found["id"].tolist() == ["0", "2"]
    assert "1 of 3 rows have no place" in caplog.text
    want = regions.geometry[[0, 2]].to_numpy()
    assert (
        shapely.area(shapely.symmetric_difference(found.geometry.to_numpy(), want)) < 1e-6
    ).all()
    assert shapely.contains_xy(found.geometry.to_numpy(), *opened.lonlat.T).all()


# ---- training and answering


def test_a_model_of_places_learns_and_answers_as_its_network_does(here):
    assert train("--epochs", 60, "--lr", "3e-2") == 0
    scores = json.loads(Path("model/scores.json").read_text())
    assert scores["metrics"]["r2"]["value"] > 0.8 and scores["scored"]["side"] == "test"
    assert predict("places.csv") == 0
    said, given = geopandas.read_parquet("said.parquet"), table()
    model = read_model("model")
    [network] = load_networks(model, model.head["network"] | {"location_encoder": "./code.py"})
    lonlat = torch.from_numpy(given[["lon", "lat"]].to_numpy(np.float32))
    with torch.no_grad():
        code = network.sensors[0].location.encoder(lonlat)
        layer = network.head.last
        out = code @ layer.weight[:, :, 0, 0].T + layer.bias
        want = out[:, 0] * network.value_std[0] + network.value_mean[0]
    np.testing.assert_allclose(said["warm"], want, atol=1e-4)
    assert np.allclose(said.geometry.x, given["lon"]) and np.allclose(said.geometry.y, given["lat"])
    assert set(said["ground"]) == {"train", "val", "test"}


def encoder_of(folder, code="./code.py"):
    model = read_model(folder)
    return (
        load_networks(model, model.head["network"] | {"location_encoder": code})[0]
        .sensors[0]
        .location.encoder
    )


def test_a_model_of_places_embeds_them_and_is_started_from(here, capsys):
    assert train("--lr", "3e-2") == 0
    assert run(["embed", "places.csv", "--model", "model/", "-o", "e.parquet"]) == 1
    assert "--trust-code" in capsys.readouterr().err
    line = ["embed", "places.csv", "--model", "model/", "--trust-code", "-o", "e.parquet"]
    assert run(line) == 0
    found = np.stack(geopandas.read_parquet("e.parquet")["embedding"])
    lonlat = torch.from_numpy(table()[["lon", "lat"]].to_numpy())
    with torch.no_grad():
        want = encoder_of("model/")(lonlat.float()).numpy()
    np.testing.assert_allclose(found, want, atol=1e-5)
    # the rate of 3e-2 moves every weight that is free to
    start = encoder_of("model/").layer.weight
    torch.save({"layer.weight": start, "layer.bias": encoder_of("model/").layer.bias}, "layer.pt")
    words = "--lr", "3e-2", "--location-weights", "layer.pt"
    assert train(*words, "--tune", "head", out="kept/") == 0
    assert train(*words, out="tuned/") == 0
    assert torch.equal(encoder_of("kept/").layer.weight, start)
    assert not torch.equal(encoder_of("tuned/").layer.weight, start)
    torch.save({"other": start}, "other.pt")
    assert train("--location-weights", "other.pt", out="no/") == 1
    assert "layer.bias" in capsys.readouterr().err and not Path("no").exists()


def test_a_map_says_at_every_pixel_what_a_table_would(here):
    assert train() == 0
    grid = ["--bbox=170,-20,-170,20", "--resolution", "2.5"]
    assert run(["predict", *grid, "--model", "model/", "--trust-code", "-o", "map.tif"]) == 0
    with rasterio.open("map.tif") as dataset:
        values, shape = dataset.read(1), (dataset.height, dataset.width)
        x, y = rasterio.transform.xy(dataset.transform, *np.indices(shape).reshape(2, -1))
    assert shape == (16, 8)
    lon = (np.array(x) + 180) % 360 - 180
    pandas.DataFrame({"lon": lon, "lat": y}).to_csv("middles.csv", index=False)
    assert predict("middles.csv") == 0
    said = geopandas.read_parquet("said.parquet")["warm"].to_numpy()
    np.testing.assert_allclose(values.ravel(), said, atol=1e-4)
    like = ["predict", "--like", "map.tif", "--model", "model/", "--trust-code", "-o", "like.tif"]
    assert run(like) == 0
    with rasterio.open("like.tif") as dataset:
        np.testing.assert_array_equal(dataset.read(1), values)


def test_without_inputs_or_a_grid_nothing_is_mapped(here, capsys):
    assert train() == 0
    capsys.readouterr()
    assert run(["predict", "--model", "model/", "--trust-code", "-o", "x.tif"]) == 2
    assert "name tables of places to answer, or a grid" in capsys.readouterr().err


def test_the_same_bytes_twice(here):
    for out in ("a/", "b/"):
        assert train("--optimizer", "adam", "--precision", "64", out=out) == 0
    a, b = (Path(out, "weights.safetensors").read_bytes() for out in ("a", "b"))
    assert a == b
    model = read_model("a")
    assert model.head["location_encoder"] == "parts/code.py"
    assert all(v.dtype == torch.float64 for v in model.weights()[0].values())


def test_classes_of_folds_are_told_out_of_fold(here):
    assert train("--folds", 4, "--buffer", "100km", target="zone") == 0
    assert read_model("model").head["folds"] == 4
    assert predict("places.csv", "--out-of-fold") == 0
    said = geopandas.read_parquet("said.parquet")
    assert (said["ground"] == "test").all() and set(said["class"]) <= {"low", "north", "south"}
    assert predict("places.csv", out="all.parquet") == 0
    assert (geopandas.read_parquet("all.parquet")["ground"] == "train").all()  # each trained some


def test_features_stand_beside_places_and_rasters_of_them_are_mapped(here):
    assert train("--features", "height,area", "--location-join", "film") == 0
    assert [b["name"] for b in read_model("model").head["bands"]] == ["height", "area"]
    assert predict("places.csv") == 0
    planes = np.random.default_rng(0).normal(size=(2, 20, 30)).astype(np.float32)
    made.write(here / "planes.tif", planes, names=("height", "area"))
    assert predict("planes.tif", out="map.tif") == 0
    with rasterio.open("map.tif") as dataset:
        value = dataset.read(1)[7, 9]
        x, y = dataset.xy(7, 9)
    [lon], [lat] = rasterio.warp.transform("EPSG:32633", "EPSG:4326", [x], [y])
    one = {"lon": lon, "lat": lat, "height": planes[0, 7, 9], "area": planes[1, 7, 9]}
    pandas.DataFrame([one]).to_csv("one.csv", index=False)
    assert predict("one.csv") == 0
    assert geopandas.read_parquet("said.parquet")["warm"][0] == pytest.approx(value, abs=1e-4)


def test_logarithms_are_learnt_and_values_told(here):
    found = table()
    found["people"] = np.expm1(found["warm"] / 4)
    found.to_csv("places.csv", index=False)
    more = ["--epochs", "60", "--lr", "3e-2"]
    assert train("--log-target", *more, target="people") == 0
    assert predict("places.csv") == 0
    said = geopandas.read_parquet("said.parquet")["people"]
    held = geopandas.read_parquet("said.parquet")["ground"] == "test"
    assert np.corrcoef(np.log1p(said[held]), found["warm"][held])[0, 1] > 0.9
    told = json.loads(Path("model/scores.json").read_text())["metrics"]["mae"]["value"]
    assert told == pytest.approx(np.abs(said - found["people"])[held].mean(), rel=1e-3)
    found["people"] = -2.0
    found.to_csv("places.csv", index=False)
    assert train("--log-target", "--task", "regress", target="people", out="other/") == 1


# ---- beside imagery


def test_a_place_is_joined_to_maps_of_imagery(here):
    made.scene(here)
    cut = ["--labels", "labels.gpkg", "--label-column", "class", "--size", "32"]
    assert (
        run(["tile", "scene.tif", *cut, "--split", "blocks:4", "--buffer", "2", "-o", "tiles/"])
        == 0
    )
    for join in ("concat", "film"):
        line = ["train", "tiles/", "--encoder", "unet:width=4,depth=2", "--epochs", "2"]
        line += ["--location-encoder", "./code.py", "--location-join", join, "--device", "cpu"]
        assert run([*line, "-o", "model/"]) == 0
        head = read_model("model").head
        assert head["network"]["location_join"] == join and head["halo"] is not None
        line = ["predict", "scene.tif", "--model", "model/", "--trust-code", "--check-seams"]
        assert run([*line, "--window", "48", "--probabilities", "-o", "maps/"]) == 0
        assert run([*line, "--window", "96", "--probabilities", "-o", "whole/"]) == 0
        with (
            rasterio.open("maps/scene_probabilities.tif") as a,
            rasterio.open("whole/scene_probabilities.tif") as b,
        ):
            assert np.abs(a.read().astype(int) - b.read()).max() <= 1  # no window shows


def joined(join, dropout=0.0, channels=(4, 6), strides=(1, 2)):
    torch.manual_seed(0)
    spec = {}
    exec(CODE, spec)
    return Location(spec["build"](), channels, strides, join, dropout).eval()


def batch(b=3, side=8, lonlat=None):
    rng = torch.Generator().manual_seed(1)
    lonlat = torch.rand(b, 2, generator=rng) * 100 - 50 if lonlat is None else lonlat
    images = torch.zeros(b, 1, 1, side, side)
    return Batch(images, torch.ones(b, 1, side, side, dtype=torch.bool), lonlat=lonlat)


def maps(b=3, side=8):
    rng = torch.Generator().manual_seed(2)
    return [
        torch.randn(b, 4, side, side, generator=rng),
        torch.randn(b, 6, side // 2, side // 2, generator=rng),
    ]


def test_film_begins_as_nothing_and_concat_keeps_what_was_there():
    given, one = maps(), batch()
    for a, b in zip(joined("film")(given, one), given, strict=True):
        assert torch.equal(a, b)
    beside = joined("concat")
    found = beside(given, one)
    assert [f.shape[1] for f in found] == beside.channels == [36, 38]
    assert torch.equal(found[0][:, :4], given[0]) and (found[0][:, 4:].std((2, 3)) < 1e-6).all()


@pytest.mark.parametrize("join", ["concat", "film"])
def test_no_place_and_a_dropped_one_are_alike(join):
    one = joined(join, dropout=1.0)
    if join == "film":
        for turn in one.turns:
            torch.nn.init.normal_(turn.weight)
    given = maps()
    nowhere = one(given, batch(lonlat=torch.full((3, 2), torch.nan)))
    assert all(map(torch.equal, nowhere, one(given, replace(batch(), lonlat=None))))
    assert not torch.allclose(nowhere[0], one(given, batch())[0])
    one.train()
    assert all(map(torch.equal, nowhere, one(given, batch())))


def test_a_share_of_the_places_is_dropped():
    one, many = joined("concat", dropout=0.3), batch(b=2000, side=2)
    one.train()
    torch.manual_seed(3)
    found = one([torch.zeros(2000, 4, 2, 2), torch.zeros(2000, 6, 1, 1)], many)[0][:, 4:]
    assert (found == 0).all(1).all((1, 2)).float().mean().item() == pytest.approx(0.3, abs=0.04)


def test_places_of_pixels_are_those_of_the_coarse_cell_they_lie_in():
    one, b, side = joined("concat"), 2, 8
    rng = torch.Generator().manual_seed(5)
    pixels = torch.rand(b, 2, side, side, generator=rng) * 60
    found = one(maps(b), batch(b, lonlat=pixels))
    for row, col in [(0, 0), (3, 5), (7, 7)]:
        middle = pixels[:, :, row // 2 * 2 + 1, col // 2 * 2 + 1]
        alone = one(maps(b), batch(b, lonlat=middle))[0][:, 4:, row, col]
        torch.testing.assert_close(found[0][:, 4:, row, col], alone)


# ---- presence alone


class Told(torch.nn.Module):
    """A 'model' of two things, whose logits are a line in longitude and latitude."""

    sensors = ()

    def forward(self, one):
        lon, lat = one.lonlat.double().unbind(1)
        return torch.stack([lon / 90 + 0.3, lat / 45 - lon / 180], dim=1)


def records(count=5):
    rng = np.random.default_rng(4)
    lonlat = torch.from_numpy(rng.uniform((-20, 30), (40, 60), (count, 2)).astype(np.float32))
    target = torch.from_numpy(np.eye(2, dtype=np.float32)[rng.integers(0, 2, count)])
    images = lonlat[:, None, :, None, None]
    valid = torch.ones(count, 1, 1, 1, dtype=torch.bool)
    weight = torch.ones_like(target)
    return Batch(images, valid, lonlat=lonlat, target=target, weight=weight, total=2.0 * count)


def test_full_assume_negative_is_its_closed_form():
    made_, one = registry.make("objectives", "presence-only:weight=7.5"), records()
    torch.manual_seed(11)
    loss = made_(Told(), one, 0)["loss"].item()
    torch.manual_seed(11)
    there = made_.draw(5).double().numpy()

    def chance(at):
        logits = np.stack([at[:, 0] / 90 + 0.3, at[:, 1] / 45 - at[:, 0] / 180], axis=1)
        return 1 / (1 + np.exp(-logits))

    p, q = chance(one.lonlat.double().numpy()), chance(there)
    z = one.target.numpy()
    each = 7.5 * z * np.log(p) + (1 - z) * np.log(1 - p) + np.log(1 - q)
    assert loss == pytest.approx(-each.mean(axis=1).mean(), rel=1e-5)


def test_beside_other_objectives_random_places_are_asked_too():
    one = records()
    both = networks.objective("presence-only:weight=7.5+focal")
    losses = []
    for part in (both, *both.parts):
        torch.manual_seed(11)
        losses.append(part(Told(), one, 0)["loss"].item())
    assert losses[0] == pytest.approx(losses[1] + losses[2], rel=1e-6)
    spec = {
        "encoder": "identity",
        "head": "linear",
        "outputs": 2,
        "per": "tile",
        "sensors": [{"bands": 2, "frames": 1}],
    }
    seen = networks.build(spec)  # two features are no place
    for kind in ("presence-only", "presence-only+focal"):
        with pytest.raises(GeomlError, match="no features are known"):
            networks.objective(kind)(seen, one, 0)


def test_background_is_dealt_as_evenly_as_records(here):
    rng = np.random.default_rng(0)
    near, far = rng.uniform(0, 10, (300, 2)), rng.uniform(0, 20, (2000, 2))
    at = pandas.DataFrame(np.concatenate([near, far]), columns=["lon", "lat"])
    at["kind"] = ["oak"] * 300 + [None] * 2000
    at.to_csv("places.csv", index=False)
    index = labelled_table(
        "places.csv", "kind", RowSplit("blocks:16", folds=5), 0, kind="present"
    ).index
    for rows in (index[:300], index[300:]):
        shares = rows["fold"].value_counts(normalize=True)
        assert len(shares) == 5 and shares.between(0.1, 0.3).all()


def test_what_cannot_be_told_apart_is_not_learnt(here, capfd):
    at = pandas.DataFrame(
        {"lon": np.arange(60) / 3, "lat": np.tile([0.0, 5.0], 30), "kind": "oak", "warm": 1.0}
    )
    at["side"] = ["train"] * 40 + ["val"] * 10 + ["test"] * 10
    words = "train places.csv --target kind --task presence --split-by side --features warm -o m/ --device cpu".split()
    for empty, says in (
        ("", "no row that names nothing"),
        ("train", "nothing is present where it trains"),
        ("val", "nothing is present on its validation"),
    ):
        at.assign(kind=at["kind"].where(at["side"] != empty)).to_csv("places.csv", index=False)
        assert run(words) == 1
        assert says in capfd.readouterr().err and not Path("m").exists()


def test_rows_that_name_nothing_stand_for_random_places():
    one = records()
    none = replace(one, target=torch.cat([one.target[:3], torch.zeros(2, 2)]))
    made_ = registry.make("objectives", "presence-only:weight=7.5,ground=rows")
    loss = made_(Told(), none, 0)["loss"].item()
    lon, lat = one.lonlat.double().numpy().T
    p = 1 / (1 + np.exp(-np.stack([lon / 90 + 0.3, lat / 45 - lon / 180], axis=1)))
    z = none.target.numpy()
    each = 7.5 * z * np.log(p) + (1 - z) * np.log(1 - p)
    assert loss == pytest.approx(-each.mean(), rel=1e-5)


@pytest.mark.parametrize("ground", ["sphere", "extent"])
def test_random_places_are_as_dense_anywhere(ground):
    made_ = registry.make("objectives", f"presence-only:ground={ground}")
    made_(Told(), records(), 0)
    torch.manual_seed(0)
    lon, lat = made_.draw(20_000).double().numpy().T
    low, high = (-180, -90), (180, 90)
    if ground == "extent":
        known = records().lonlat.numpy()
        low, high = known.min(0), known.max(0)
    assert (lon >= low[0] - 1e-4).all() and (lon <= high[0] + 1e-4).all()
    sines = np.sin(np.radians([low[1], high[1]]))
    share = (np.sin(np.radians(lat)) - sines[0]) / np.diff(sines)
    east = (lon - low[0]) / (high[0] - low[0])
    for one in (share, east):  # the sine of the latitude and the longitude are uniform
        counts = np.histogram(one, 10, (0, 1))[0]
        assert ((counts - 2000) ** 2 / 2000).sum() < 27.9  # 0.1 % of chi squares of 9 degrees


def test_held_places_do_not_widen_the_ground_that_absences_are_drawn_on():
    objective = registry.make("objectives", "presence-only:ground=extent")
    objective(Told(), records(), 0)
    before = {key: value.clone() for key, value in objective.state_dict().items()}
    held = replace(records(), lonlat=records().lonlat * 0.5 + 30)
    with torch.no_grad():
        objective(Told(), held, 0)
    assert before and all(torch.equal(v, before[k]) for k, v in objective.state_dict().items())
    objective(Told(), held, 0)
    assert any(not torch.equal(v, before[k]) for k, v in objective.state_dict().items())


def test_imagery_is_not_asked_about_random_places():
    one = batch(lonlat=torch.zeros(3, 2))
    one = replace(one, target=torch.zeros(3, 2), weight=torch.ones(3, 2), total=6.0)
    with pytest.raises(GeomlError, match="asks about random places"):
        registry.make("objectives", "presence-only")(Told(), one, 0)


def test_species_are_learnt_from_records_and_ranked_on_surveys(here):
    rng = np.random.default_rng(0)
    lat = np.concatenate([rng.normal(40, 8, 200), rng.normal(-30, 8, 200)])
    kind = np.repeat(["oak", "gum"], 200)
    seen = pandas.DataFrame({"lon": rng.uniform(-180, 180, 400), "lat": lat, "kind": kind})
    seen.to_csv("places.csv", index=False)
    more = ["--task", "presence", "--objective", "presence-only:weight=20", "--epochs", "30"]
    assert train(*more, "--lr", "3e-2", target="kind") == 0
    survey = table(300)[["lon", "lat"]]
    survey["oak"] = (survey["lat"] > 25).astype(int)
    survey["gum"] = (survey["lat"] < -15).astype(int)
    survey.to_csv("survey.csv", index=False)
    assert predict("survey.csv") == 0
    assert run(["evaluate", "said.parquet", "--truth", "survey.csv", "-o", "scores.json"]) == 0
    scores = json.loads(Path("scores.json").read_text())
    assert scores["metrics"]["auc_mean"]["value"] > 0.9 and set(scores["classes"]) == {"oak", "gum"}


def test_rows_that_name_nothing_train_and_are_met_as_often_as_a_class(here):
    rng = np.random.default_rng(0)
    names = np.array(["oak", "gum", None], object)[rng.choice(3, 400, p=[0.1, 0.3, 0.6])]
    at = pandas.DataFrame({"lon": rng.uniform(0, 60, 400), "lat": rng.uniform(0, 60, 400)})
    at.assign(kind=names).to_csv("places.csv", index=False)
    tiles = labelled_table("places.csv", "kind", RowSplit("random"), 0, kind="present")
    feed = Feed(tiles, parts_of(tiles)[0], Aim("present", "tile", ("kind",), ("gum", "oak")))
    trains = feed.sides.tiles_of("train")
    assert feed.rows.tolist() == np.flatnonzero(trains).tolist()
    assert feed.targets(feed.rows, "train").sum(0).tolist() == [
        (names[trains] == n).sum() for n in ("gum", "oak")
    ]
    drawn = np.concatenate([feed.order(n, 0, "balanced") for n in range(50)])
    shares = pandas.Series(names[drawn]).fillna("none").value_counts(normalize=True)
    assert shares.to_dict() == pytest.approx(dict.fromkeys(("gum", "oak", "none"), 1 / 3), abs=0.02)


def test_what_lies_beside_a_place_tells_species_from_background(here):
    """Where it is warm there are records of one thing, everywhere is background: warmth ranks a survey right."""
    rng = np.random.default_rng(0)
    at = pandas.DataFrame({"lon": rng.uniform(-20, 40, 900), "lat": rng.uniform(-30, 60, 900)})
    at["warm"], at["noise"] = rng.normal(size=(2, 900))
    records = at[:600].assign(kind=None)
    records["kind"] = np.where(records["warm"][:300].reindex(records.index) > 0.7, "palm", None)
    records.to_csv("places.csv", index=False)
    words = "train places.csv --target kind --task presence --features warm,noise --lr 3e-2 --batch 64 -o model/ --device cpu".split()
    words += ["--epochs", "60", "--objective", "presence-only:weight=20"]
    assert run(words) == 1  # random places have no columns
    words[-1] += ",ground=rows"
    assert run(words) == 0
    survey = at[600:].assign(palm=(at["warm"] > 0.7).astype(int))
    survey.to_csv("survey.csv", index=False)
    assert predict("survey.csv") == 0
    assert (
        run("evaluate said.parquet --truth survey.csv --include-trained -o scores.json".split())
        == 0
    )
    scores = json.loads(Path("scores.json").read_text())
    assert scores["metrics"]["auc_mean"]["value"] > 0.95


def test_networks_of_places_are_rebuilt_from_their_description(here):
    spec = {
        "encoder": "identity",
        "head": "linear",
        "adapter": None,
        "sensors": [{"bands": 2, "frames": 1}],
        "outputs": 3,
        "per": "tile",
        "location_encoder": "./code.py",
        "location_join": "alone",
        "location_dropout": 0.0,
    }
    network = networks.build(spec)
    one = Batch(torch.zeros(4, 1, 2, 1, 1), torch.ones(4, 1, 1, 1, dtype=torch.bool))
    assert network(one).shape == (4, 3)
    with torch.no_grad():  # a place that is not known says nothing
        torch.testing.assert_close(network(one), network.head.last.bias.expand(4, 3))


def test_the_loss_of_validation_places_may_say_which_epoch_is_best(here):
    """The loss that is watched is the mean of squares, in units of the spread of the places that train."""
    rng = np.random.default_rng(0)
    table = pandas.DataFrame({"lon": rng.uniform(-180, 180, 300), "lat": rng.uniform(-80, 80, 300)})
    table["t"] = 30 - abs(table["lat"]) / 2 + rng.normal(0, 3, 300)
    table["split"] = np.array(["train", "val", "test"])[np.arange(300) % 3]
    table.to_csv("t.csv", index=False)
    words = [
        "train",
        "t.csv",
        "--target",
        "t",
        "--split-by",
        "split",
        "--location-encoder",
        "cartesian",
    ]
    more = [
        "--objective",
        "mse",
        "--watch",
        "loss",
        "--head",
        "mlp",
        "--device",
        "cpu",
        "--ema",
        "0",
    ]
    assert run([*words, *more, "--epochs", "40", "--patience", "10", "-o", "model/"]) == 0
    rows = [json.loads(line) for line in Path("model/history.jsonl").read_text().splitlines()]
    best = read_model("model").head["best"][0]
    losses = {row["epoch"]: row["held_loss"] for row in rows if "held_loss" in row}
    assert losses.keys() == set(range(1, len(rows) + 1)), (
        "so often that a patience of 10 can be told"
    )
    assert best["epoch"] == max(e for e, loss in losses.items() if loss == min(losses.values()))
    assert best["watch"] == -min(losses.values())
    assert run(["predict", "t.csv", "--model", "model/", "-o", "said.parquet"]) == 0
    said, held = pandas.read_parquet("said.parquet")["t"], (table["split"] == "val").to_numpy()
    spread = table["t"][(table["split"] == "train")].std(ddof=0)
    want = (((said - table["t"])[held] / spread) ** 2).mean()
    assert min(losses.values()) == pytest.approx(want, rel=1e-4)
