"""Class maps as polygons: a coverage, by shapely; areas, by closed forms; means, by brute force."""

import json
import sqlite3

import geopandas
import made
import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pyproj import Geod
from rasterio.io import MemoryFile
from rasterio.transform import from_origin
from scipy import ndimage

from geoml_cli.cli import run
from geoml_cli.formats.stamp import read_record, record
from geoml_cli.formats.vectors import write_vectors
from geoml_cli.geo.classes import IGNORE, legend
from geoml_cli.geo.coverage import junctions, noded
from geoml_cli.stages.polygons import gather_polygons, polygons_of

PLACE = from_origin(500_000, 5_000_000, 10, 10)
CLASSES = legend(made.NAMES)
PROFILE = {"driver": "GTiff", "dtype": "uint8", "nodata": 255}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def drawn(ids, shares=None, crs="EPSG:32633", transform=None, **how):
    """Polygons of an array of class ids, through files in memory."""
    transform = transform or from_origin(500_000, 5_000_000, 10, 10)
    place = {"crs": crs, "transform": transform, "height": ids.shape[0], "width": ids.shape[1]}
    with MemoryFile() as file, MemoryFile() as other:
        with file.open(**PROFILE, **place, count=1) as out:
            out.write(ids, 1)
        if shares is not None:
            with other.open(**PROFILE, **place, count=len(shares)) as out:
                out.scales = [1 / 250] * len(shares)
                out.write(shares)
        beside = other.name if shares is not None else None
        return polygons_of(file.name, CLASSES, beside, scene="s", datetime=None, **how)


def noisy(side=96, seed=0):
    """A map with specks, a hole of nodata and a rim of it."""
    ids = made.regions(side, side, seed)
    rng = np.random.default_rng(seed)
    specks = rng.random(ids.shape) < 0.08
    ids[specks] = rng.integers(0, 3, specks.sum())
    ids[20:40, 30:60] = IGNORE
    ids[:, :3] = IGNORE
    return ids


def burnt(table, shape):
    pairs = zip(table.geometry, table["class_id"], strict=True)
    return rasterio.features.rasterize(pairs, shape, fill=IGNORE, transform=PLACE)


maps = arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from([0, 1, 2, 255]))  # fmt: skip


@given(maps)
def test_polygons_are_the_map(ids):
    table = drawn(ids)
    valid = ids != IGNORE
    assert table.geometry.is_valid.all() and set(table.geom_type) <= {"Polygon"}
    assert shapely.coverage_is_valid(table.geometry.values)
    assert (burnt(table, ids.shape) == ids).all()
    assert table.area.sum() == 100 * valid.sum()
    count = sum(ndimage.label(ids == k)[1] for k in range(3))
    assert len(table) == count and table["pixels"].sum() == valid.sum()
    assert np.allclose(table.area, 100 * table["pixels"])


@given(maps, st.integers(2, 12))
def test_small_patches_join_a_neighbour_and_nodata_stays(ids, size):
    table = drawn(ids, sieve=size)
    after = burnt(table, ids.shape)
    assert ((after == IGNORE) == (ids == IGNORE)).all()
    labels, n = np.zeros(ids.shape, int), 0
    for k in range(3):
        own, count = ndimage.label(after == k)
        labels[own > 0], n = own[own > 0] + n, n + count
    pixels = np.bincount(labels.ravel(), minlength=n + 1)
    pixels[0] = 0
    small = (pixels < size)[labels]  # beside one that is left there are only others, and nodata
    for a, b in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        apart = labels[a] != labels[b]
        apart &= (labels[a] > 0) & (labels[b] > 0)
        assert not (apart & (small[a] != small[b])).any()
    assert (drawn(after, sieve=size)["class_id"].to_numpy() == table["class_id"].to_numpy()).all()


@given(maps, st.floats(0.5, 4))
def test_edges_that_are_straightened_stay_shared(ids, tolerance):
    before, after = drawn(ids), drawn(ids, simplify=tolerance)
    assert after.geometry.is_valid.all() and set(after.geom_type) <= {"Polygon"}
    assert shapely.coverage_is_valid(after.geometry.values)
    whole, same = shapely.union_all(before.geometry.values), shapely.union_all(after.geometry.values)  # fmt: skip
    assert shapely.symmetric_difference(whole, same).area < 1e-6  # the outline is kept
    assert after["area_m2"].sum() == pytest.approx(before["area_m2"].sum(), rel=1e-7)


def test_straightening_takes_vertices_off():
    ids = noisy()
    before, after = drawn(ids, sieve=20), drawn(ids, sieve=20, simplify=2)
    counts = [shapely.get_num_coordinates(t.geometry.values).sum() for t in (before, after)]
    assert counts[1] < 0.6 * counts[0] and len(before) == len(after)


def test_nodes_are_where_patches_meet():
    labels = np.array([[1, 1, 2], [1, 1, 3]])
    found = {tuple(xy) for xy in junctions(labels).tolist()}
    assert found == {(2, 0), (2, 2), (2, 1), (3, 1)}
    square = np.array([shapely.Polygon([(0, 0), (0, 2), (2, 2), (2, 0)])], object)
    [with_nodes] = noded(square, junctions(labels))
    assert shapely.equals(with_nodes, square[0]).all()
    assert (2, 1) in list(with_nodes.exterior.coords)


def test_the_mean_probability_is_that_of_the_patchs_class():
    ids = noisy()
    rng = np.random.default_rng(1)
    shares = rng.integers(0, 251, (3, *ids.shape), dtype=np.uint8)
    shares[:, ids == IGNORE] = 255
    table = drawn(ids, shares)
    for row in table.sample(25, random_state=0).itertuples():
        inside = rasterio.features.rasterize(
            [row.geometry], ids.shape, transform=from_origin(500_000, 5_000_000, 10, 10)
        ).astype(bool)
        assert row.probability == pytest.approx(shares[row.class_id][inside].mean() / 250)
        assert row.pixels == inside.sum()
    assert drawn(ids)["probability"].isna().all()


def zone(lat0, lat1):
    """Area m2 of the WGS84 ellipsoid between two latitudes, the whole way round (closed form)."""
    geod = Geod(ellps="WGS84")
    e = np.sqrt(geod.es)

    def up_to(lat):
        s = np.sin(np.radians(lat))
        return s / (1 - geod.es * s * s) + np.log((1 + e * s) / (1 - e * s)) / (2 * e)

    return np.pi * geod.b**2 * (up_to(lat1) - up_to(lat0))


@pytest.mark.parametrize("lat", [-60, 0, 71])
def test_areas_of_degrees_are_those_of_the_ellipsoid(lat):
    ids = np.zeros((40, 200), np.uint8)
    table = drawn(ids, crs="EPSG:4326", transform=from_origin(-10, lat + 4, 0.1, 0.1))
    # along parallels, which the geodesics between vertices leave by a little
    assert table["area_m2"][0] == pytest.approx(zone(lat, lat + 4) * 20 / 360, rel=1e-5)


def test_areas_by_the_antimeridian_and_at_a_pole():
    ids = np.zeros((50, 50), np.uint8)
    utm = drawn(ids, crs="EPSG:32601", transform=from_origin(160_000, 100_000, 400, 400))
    assert utm["area_m2"][0] == pytest.approx((50 * 400) ** 2, rel=4e-3)  # UTM's own scale
    polar = drawn(ids, crs="EPSG:3413", transform=from_origin(-25_000, 25_000, 1000, 1000))
    scale = 2 / (1 + np.sin(np.radians(70)))  # of the projection at the pole, about
    assert polar["area_m2"][0] == pytest.approx(2.5e9 * scale**2, rel=5e-3)
    plain = drawn(ids, crs=None)
    assert np.isnan(plain["area_m2"][0]) and plain.crs is None


def test_the_ring_round_a_hole_is_without_it():
    ids = np.zeros((30, 30), np.uint8)
    ids[10:20, 10:20] = 1
    table = drawn(ids).set_index("class_id")
    whole = drawn(np.zeros((30, 30), np.uint8))["area_m2"][0]
    assert table["area_m2"].sum() == pytest.approx(whole, rel=1e-9)
    assert table["area_m2"][1] == pytest.approx(whole / 9, rel=1e-4)


def test_maps_of_two_zones_share_a_table():
    ids = np.zeros((4, 4), np.uint8)
    a, b = drawn(ids), drawn(ids, crs="EPSG:32634")
    assert gather_polygons([a, a]).crs == a.crs
    both = gather_polygons([a, b])
    assert both.crs.equals("OGC:CRS84") and len(both) == 2
    assert both.total_bounds[2] - both.total_bounds[0] == pytest.approx(6, abs=0.1)


@pytest.mark.parametrize("name", ["a.parquet", "a.gpkg"])
def test_files_are_the_same_bytes_twice_and_tell_their_record(here, name):
    table = drawn(noisy(), sieve=4)
    told = record("predict", "predictions", {"sieve": 4}, [])
    for folder in ("x", "y"):
        (here / folder).mkdir()
        write_vectors(here / folder / name, table, told)
    assert (here / "x" / name).read_bytes() == (here / "y" / name).read_bytes()
    assert sorted(p.name for p in (here / "x").iterdir()) == [name]
    assert read_record(here / "x" / name) == told
    reader = geopandas.read_parquet if name.endswith("parquet") else geopandas.read_file
    again = reader(here / "x" / name)
    assert again.crs == table.crs and len(again) == len(table)
    assert shapely.equals(again.geometry.values, table.geometry.values).all()
    assert (again["class"].to_numpy() == table["class"].to_numpy()).all()
    write_vectors(here / "x" / name, table.iloc[:0], told)  # nothing there is a table too
    assert len(reader(here / "x" / name)) == 0


@pytest.fixture
def model(here):
    made.scene(here)
    words = ["--label-column", "class", "--size", "16", "--split", "blocks:4", "-o", "tiles/"]
    assert run(["tile", "scene.tif", "--labels", "labels.gpkg", *words]) == 0
    assert run(["train", "tiles/", "--encoder", "unet:width=4,depth=1", "--epochs", "6", "-o", "model/"]) == 0  # fmt: skip
    return here


def test_predict_draws_what_it_maps(model, capsys):
    words = ["predict", "scene.tif", "--model", "model/", "--device", "cpu", "-o", "maps/"]
    draw = ["--polygons", "fields.gpkg", "--sieve", "6", "--simplify", "1"]
    assert run([*words, *draw]) == 0
    assert "fields.gpkg" in capsys.readouterr().out
    assert not (model / "maps/scene_probabilities.tif").exists()
    table = geopandas.read_file("fields.gpkg")
    with rasterio.open("maps/scene.tif") as dataset:
        ids = dataset.read(1)
        known = drawn(ids, transform=dataset.transform, sieve=6, simplify=1)
    assert shapely.equals(table.geometry.values, known.geometry.values).all()
    assert table["probability"].between(1 / 3, 1).mean() > 0.9
    with sqlite3.connect("fields.gpkg") as base:
        assert base.execute("pragma integrity_check").fetchone() == ("ok",)
    said = run(["info", "fields.gpkg", "--why"])
    assert said == 0 and "predict" in capsys.readouterr().out
    # again: nothing to do; gone: drawn again; another's: refused and left
    stamp = (model / "maps/items.json").stat()
    assert run([*words, *draw]) == 0
    assert (model / "maps/items.json").stat().st_ino == stamp.st_ino
    first = (model / "fields.gpkg").read_bytes()
    (model / "fields.gpkg").unlink()
    assert run([*words, *draw]) == 0
    assert (model / "fields.gpkg").read_bytes() == first
    (model / "mine.parquet").write_bytes((model / "fields.gpkg").read_bytes())
    mine = ["--polygons", "mine.parquet"]
    assert run([*words[:-1], "maps2/", *mine]) == 1
    assert "was not written by geoml" in capsys.readouterr().err
    assert not (model / "maps2").exists()
    assert run([*words[:-1], "maps2/", *mine, "--force"]) == 0
    assert len(geopandas.read_parquet("mine.parquet")) > len(table)


def test_what_goes_with_what(model, capsys):
    words = ["predict", "scene.tif", "--model", "model/", "-o", "maps/"]
    assert run([*words, "--sieve", "4"]) == 2
    assert run([*words, "--polygons", "a.shp"]) == 2
    assert run([*words, "--polygons", "a.gpkg", "--shard", "1/2"]) == 2
    assert "--merge" in capsys.readouterr().err
    assert run([*words, "--polygons", "none/a.gpkg"]) == 1
    assert "there is no folder none" in capsys.readouterr().err
    assert not [p for p in model.iterdir() if "maps" in p.name]
    assert json.loads((model / "model/model.json").read_text())["aim"]["kind"] == "classes"
