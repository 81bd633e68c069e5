"""`geoml embed`: vectors are what the network says, of tiles, windows, places and patches."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import geopandas
import made
import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
import torch
from rasterio.transform import from_origin
from sklearn.decomposition import PCA

from geoml_cli.cli import run
from geoml_cli.core import reduction
from geoml_cli.core.batch import Batch
from geoml_cli.core.features import attended
from geoml_cli.formats.embeddings import open_embeddings
from geoml_cli.formats.model import read_model
from geoml_cli.formats.tileset import read_tileset
from geoml_cli.stages.carried import network_spec
from geoml_cli.stages.networks import load_networks

UNET = "unet:width=4,depth=2"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("embedded")
    made.scene(folder)
    before = Path.cwd()
    os.chdir(folder)
    try:
        cut = ["--labels", "labels.gpkg", "--label-column", "class", "--size", "32"]
        cut += ["--split", "blocks:4", "--folds", "3"]
        assert run(["tile", "scene.tif", *cut, "-o", "tiles/"]) == 0
        fit = ["--encoder", UNET, "--epochs", "2", "--device", "cpu"]
        assert run(["train", "tiles/", *fit, "-o", "model/"]) == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def here(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("model", "tiles", "scene.tif"):
        (tmp_path / name).symlink_to(trained / name)
    return tmp_path


def asked(capfd, *words):
    status = run([str(w) for w in words])
    return status, *capfd.readouterr()


def vectors(path):
    return open_embeddings(str(path)).vectors()


def pixels(path="scene.tif"):
    with rasterio.open(path) as data:
        return data.read().astype(np.float32), data.transform


def encoded(network, images):
    """The encoder's last map of images (B, C, H, W), all valid."""
    x = torch.from_numpy(images)[:, None]
    batch = Batch(x, torch.ones(len(x), 1, *x.shape[-2:], dtype=torch.bool))
    with torch.no_grad():
        return network.eval().maps(batch)[-1].numpy()


def model():
    found = read_model("model")
    return load_networks(found, network_spec(found, False))


def test_tiles_are_the_mean_of_the_last_map_in_the_order_of_the_index(here):
    assert run(["embed", "tiles", "--model", "model", "-o", "e.parquet", "--device", "cpu"]) == 0
    tiles = read_tileset("tiles")
    images = tiles.take("images", range(len(tiles.index)))[:, 0].astype(np.float32)
    want = encoded(model()[0], images).mean((2, 3))
    np.testing.assert_allclose(vectors("e.parquet"), want, atol=1e-5)
    table = geopandas.read_parquet("e.parquet")
    assert list(table["id"]) == list(tiles.index["id"])
    assert table["fold"].isna().equals(tiles.index["fold"].isna())
    assert table.geometry.geom_equals(tiles.index.geometry).all()
    assert run(["embed", "tiles", "--model", "model", "--member", "1", "-o", "o.parquet"]) == 0
    want = encoded(model()[1], images).mean((2, 3))
    np.testing.assert_allclose(vectors("o.parquet"), want, atol=1e-5)


def test_windows_of_a_raster_lie_side_by_side_and_count_what_is_valid(here):
    data, transform = pixels()
    data[:, :20, :20] = 0
    made.write(Path("holed.tif"), data[:, :75, :74].astype(np.uint8), nodata=0)
    words = ["embed", "holed.tif", "--model", "model", "--window", "16", "--batch", "3"]
    assert run([*words, "-o", "e.parquet", "-j", "2"]) == 0
    table = geopandas.read_parquet("e.parquet")
    assert len(table) == 5 * 5 - 1  # the window at the corner holds nothing
    assert "holed-0-0" not in set(table["id"])
    share = dict(zip(table["id"], table["valid"], strict=True))
    assert share["holed-16-16"] == 1 - 16 / 256 and share["holed-32-32"] == 1
    assert share["holed-64-64"] == 11 * 10 / 256  # sticks out below and at the right
    at = list(table["id"]).index("holed-32-48")
    want = encoded(model()[0], data[None, :, 32:48, 48:64]).mean((2, 3))[0]
    np.testing.assert_allclose(vectors("e.parquet")[at], want, atol=1e-5)
    x, y = transform * (48 + 8, 32 + 8)
    middle = table.geometry.to_crs(32633).centroid[at]
    np.testing.assert_allclose([middle.x, middle.y], [x, y], atol=0.01)


def test_statistics_are_those_of_the_bands(here):
    words = ["embed", "tiles", "--encoder", "band-stats", "--batch", "5"]  # all are looked at
    assert run([*words, "-o", "e.parquet"]) == 0
    tiles = read_tileset("tiles")
    images = tiles.take("images", range(len(tiles.index)))[:, 0].astype(float)
    flat = images.transpose(1, 0, 2, 3).reshape(2, -1)
    z = (images - flat.mean(1)[:, None, None]) / flat.std(1)[:, None, None]
    want = np.concatenate([f(z, axis=(2, 3)) for f in (np.mean, np.std, np.min, np.max)], axis=1)
    np.testing.assert_allclose(vectors("e.parquet"), want, atol=1e-4)


def test_indices_are_their_formulas(here):
    assert run(["embed", "tiles", "--encoder", "spectral-indices:bands=red-nir", "-o", "e.parquet"]) == 0  # fmt: skip
    tiles = read_tileset("tiles")
    red, nir = tiles.take("images", range(len(tiles.index)))[:, 0].astype(float).swapaxes(0, 1)
    ndvi, savi = (nir - red) / (nir + red), 1.5 * (nir - red) / (nir + red + 0.5)
    want = [ndvi.mean((1, 2)), savi.mean((1, 2)), ndvi.std((1, 2)), savi.std((1, 2))]
    np.testing.assert_allclose(vectors("e.parquet"), np.stack(want, 1), atol=1e-4)


def test_every_index_agrees_with_awesome_spectral_indices():
    """Against values that spyndex gives for one pixel (its README's kind of call), worked out by hand."""
    from geoml_cli.encoders.spectral_indices import evaluate, placed, table

    pixel = {"B": 0.05, "G": 0.08, "R": 0.06, "RE": 0.12, "N": 0.40, "S1": 0.20, "S2": 0.10}
    said = {k: evaluate(one["formula"], pixel) for k, one in table()["indices"].items()}
    want = {
        "ndvi": 0.34 / 0.46,
        "gndvi": 0.32 / 0.48,
        "evi": 2.5 * 0.34 / (0.40 + 0.36 - 0.375 + 1),
        "savi": 1.5 * 0.34 / 0.96,
        "ndre": 0.28 / 0.52,
        "ndwi": -0.32 / 0.48,
        "mndwi": -0.12 / 0.28,
        "ndmi": 0.20 / 0.60,
        "nbr": 0.30 / 0.50,
        "ndbi": -0.20 / 0.60,
        "bsi": (0.26 - 0.45) / (0.26 + 0.45),
        "ndti": -0.02 / 0.14,
    }
    assert said == pytest.approx(want)
    waves = [
        ("coastal", 443),
        (None, 490),
        (None, 560),
        ("red", 665),
        ("nir", 842),
        ("swir16", None),
    ]
    assert placed(waves) == {"B": 1, "G": 2, "R": 3, "N": 4, "S1": 5}


@pytest.mark.parametrize("window", [16, 48])
def test_patches_are_those_of_the_whole_image(here, window):
    words = ["embed", "scene.tif", "--model", "model", "--window", str(window), "--batch", "5"]
    assert run([*words, "-o", "d/", "-j", "2"]) == 0
    data, transform = pixels()
    want = encoded(model()[0], data[None])[0]
    with rasterio.open("d/scene.tif") as dense:
        found = dense.read()
        assert dense.transform == transform * transform.scale(4)
        assert dense.descriptions[:2] == ("d000", "d001")
    assert found.shape == want.shape
    halo = read_model("model").head["halo"] // 4 + 1  # the rim is not valid beyond, as for predict
    inner = (slice(None), slice(halo, -halo), slice(halo, -halo))
    np.testing.assert_allclose(found[inner], want[inner], atol=1e-4)


def test_patches_of_a_transformer_do_not_depend_on_batches_and_blend(here):
    vit = "vit:width=24,layers=2,heads=2,patch=8,image=32"
    words = ["embed", "scene.tif", "--encoder", vit, "--window", "64"]
    assert run([*words, "--batch", "1", "-o", "one.tif"]) == 0
    assert run([*words, "--batch", "7", "-o", "two.tif"]) == 0
    one, two = pixels("one.tif")[0], pixels("two.tif")[0]
    assert one.shape[1:] == tuple(-(-n // 8) for n in pixels()[0].shape[1:])
    np.testing.assert_allclose(one, two, atol=1e-4)
    assert np.isfinite(one).all()


def test_places_are_means_of_patches_in_order(here):
    data, transform = pixels()
    assert run(["embed", "scene.tif", "--model", "model", "--window", "48", "-o", "d.tif"]) == 0
    dense, coarse = pixels("d.tif")
    box = [coarse * (3, 5), coarse * (9, 12)]  # six by seven patches, exactly
    middle, outside = coarse * (15.5, 8.5), coarse * (-50, -50)
    half = [coarse * (10, 10), coarse * (11.5, 11)]
    shapes = [
        shapely.Point(*middle),
        shapely.box(box[0][0], box[1][1], box[1][0], box[0][1]),
        shapely.Point(*outside),
        shapely.box(half[0][0], half[1][1], half[1][0], half[0][1]),
    ]
    table = {"id": ["p", "box", "out", "half"], "class": ["a", "b", "c", None], "n": [1, 2, 3, 4]}
    geopandas.GeoDataFrame(table, geometry=shapes, crs=32633).to_file("at.gpkg")
    words = ["embed", "scene.tif", "--model", "model", "--at", "at.gpkg", "--window", "16"]
    assert run([*words, "-o", "e.parquet", "--batch", "2"]) == 0
    found = geopandas.read_parquet("e.parquet")
    assert list(found["id"]) == ["p", "box", "half"]
    assert list(found["class"])[:2] == ["a", "b"] and list(found["n"]) == [1, 2, 4]
    want = [
        dense[:, 8, 15],
        dense[:, 5:12, 3:9].mean((1, 2)),
        (dense[:, 10, 10] + dense[:, 10, 11] / 2) / 1.5,
    ]
    np.testing.assert_allclose(vectors("e.parquet"), np.stack(want), atol=1e-4)
    assert (
        run(["embed", "d.tif", "--at", "at.gpkg", "-o", "s.parquet"]) == 0
    )  # of the raster itself
    np.testing.assert_allclose(vectors("s.parquet"), np.stack(want), atol=1e-4)
    assert list(geopandas.read_parquet("s.parquet")["id"]) == ["p", "box", "half"]


def test_places_on_blended_windows_are_those_of_the_blended_patches(here):
    vit = "vit:width=24,layers=2,heads=2,patch=8,image=32"
    assert run(["embed", "scene.tif", "--encoder", vit, "--window", "64", "-o", "d/"]) == 0
    dense, coarse = pixels("d/scene.tif")
    h, w = dense.shape[1:]
    points = [shapely.Point(*(coarse * (c + 0.5, r + 0.5))) for r in range(h) for c in range(w)]
    geopandas.GeoDataFrame(geometry=points, crs=32633).to_file("at.gpkg")
    assert run(["embed", "scene.tif", "--as", "d/", "--at", "at.gpkg", "-o", "e.parquet"]) == 0
    np.testing.assert_allclose(vectors("e.parquet"), dense.reshape(len(dense), -1).T, atol=1e-4)


def test_the_class_token_and_the_weighted_mean(here):
    vit = "vit:width=24,layers=2,heads=2,patch=8,image=32"
    for pool in ("cls", "mean", "attention"):
        assert (
            run(["embed", "tiles", "--encoder", vit, "--pool", pool, "-o", f"{pool}.parquet"]) == 0
        )
    found = [vectors(f"{pool}.parquet") for pool in ("cls", "mean", "attention")]
    assert not np.allclose(found[0], found[1]) and not np.allclose(found[1], found[2])
    rng = np.random.default_rng(0)
    x, q, w = rng.normal(size=(2, 5, 7)), rng.normal(size=(2, 5)), rng.uniform(0.1, 1, (2, 7))
    e = np.exp(np.einsum("bdn,bd->bn", x, q) / np.sqrt(5)) * w
    want = np.einsum("bdn,bn->bd", x, e / e.sum(1, keepdims=True))
    said = attended(*(torch.from_numpy(a) for a in (x, q, w)))
    np.testing.assert_allclose(said.numpy(), want)


def test_principal_components_are_sklearns_and_are_kept_for_other_files(here):
    assert run(["embed", "tiles", "--encoder", "band-stats", "-o", "e.parquet"]) == 0
    assert run(["embed", "tiles", "--encoder", "band-stats", "--reduce", "pca:3", "-o", "p.parquet"]) == 0  # fmt: skip
    x, z = vectors("e.parquet"), vectors("p.parquet")
    other = PCA(3, svd_solver="full").fit(x)
    np.testing.assert_allclose(np.abs(z), np.abs(other.transform(x)), atol=1e-4)
    about = open_embeddings("p.parquet").about
    assert about["reduction"]["explained"] == pytest.approx(other.explained_variance_ratio_.sum())
    assert run(["embed", "tiles", "--as", "p.parquet", "-o", "again.parquet"]) == 0
    assert np.array_equal(vectors("again.parquet"), z)
    assert run(["embed", "e.parquet", "--reduce", "pca:3", "-o", "later.parquet"]) == 0
    np.testing.assert_allclose(vectors("later.parquet"), z, atol=1e-5)


def test_a_covariance_in_blocks_is_that_of_all_rows_far_from_zero():
    rng = np.random.default_rng(1)
    x = (rng.normal(size=(500, 6)) @ rng.normal(size=(6, 6)) + 1e4).astype(np.float32)
    found = reduction.fit("pca", 4, np.array_split(x, [1, 7, 300]), 0)
    other = PCA(4, svd_solver="full").fit(x.astype(np.float64))
    np.testing.assert_allclose(np.abs(found.components), np.abs(other.components_), atol=1e-4)
    again = reduction.from_plain(json.loads(json.dumps(reduction.to_plain(found))))
    assert np.array_equal(again(x), found(x))


def test_a_random_projection_keeps_distances():
    x = np.random.default_rng(2).normal(size=(60, 2000)).astype(np.float32)
    z = reduction.fit("random", 600, [x], 3)(x)
    far = [np.linalg.norm(a[:, None] - a[None], axis=-1)[np.triu_indices(60, 1)] for a in (x, z)]
    assert np.abs(far[1] / far[0] - 1).max() < 0.2  # 6 standard deviations of 1 / sqrt(2 * 600)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_fewer_bits_cost_what_they_must(here, dtype):
    for name in ("float32", dtype):
        assert run(["embed", "tiles", "--model", "model", "--dtype", name, "-o", f"{name}.parquet"]) == 0  # fmt: skip
    x, z = vectors("float32.parquet"), vectors(f"{dtype}.parquet")
    scale = open_embeddings(f"{dtype}.parquet").scale
    if dtype == "int8":
        assert scale == pytest.approx(np.abs(x).max() / 127)
        assert np.abs(x - z).max() <= scale / 2 * 1.001
    else:
        assert np.array_equal(z, x.astype(np.float16).astype(np.float32))
    stored = duckdb.sql(f"select typeof(embedding) from '{dtype}.parquet' limit 1").fetchall()[0][0]
    assert stored.split("[")[0] == {"float16": "FLOAT", "int8": "TINYINT"}[dtype]


def test_patches_in_bytes_are_near_the_floats(here):
    for name in ("float32", "int8"):
        assert run(["embed", "scene.tif", "--model", "model", "--dtype", name, "-o", f"{name}.tif"]) == 0  # fmt: skip
    exact = pixels("float32.tif")[0]
    with rasterio.open("int8.tif") as data:
        scale, stored = data.scales[0], data.read()
        assert data.nodata == -128 and set(data.scales) == {scale}
    assert np.abs(stored * scale - exact).max() <= scale / 2 * 1.001


def test_programs_read_it(here):
    assert run(["embed", "tiles", "--model", "model", "-o", "e.parquet"]) == 0
    assert run(["embed", "tiles", "--model", "model", "-o", "e.gpkg"]) == 0
    x = vectors("e.parquet")
    listed = duckdb.sql("select embedding from 'e.parquet'").fetchall()
    assert np.array_equal(np.array([row[0] for row in listed], np.float32), x)
    flat = pyogrio.read_dataframe("e.gpkg")
    names = [f"d{i:03}" for i in range(x.shape[1])]
    np.testing.assert_allclose(flat[names].to_numpy(), x, rtol=1e-6)
    assert run(["info", "--check", "e.parquet", "e.gpkg"]) == 0


def test_what_a_file_holds_is_told(here, capfd):
    words = ["embed", "tiles", "--encoder", "band-stats", "--reduce", "pca:3", "--dtype", "int8"]
    status, out, _ = asked(capfd, *words, "-o", "e.parquet", "--ndjson")
    said = json.loads(out)
    assert status == 0 and said["rows"] == 9 and said["dimensions"] == 3
    assert said["path"] == "e.parquet" and said["dtype"] == "int8"
    _, out, _ = asked(capfd, "info", "e.parquet")
    assert "3 dimensions, encoder band-stats, pool cls, pca of 8 (" in out and "stored * " in out
    assert run(["embed", "scene.tif", "--as", "e.parquet", "-o", "d/"]) == 0
    capfd.readouterr()
    from test_items import check_valid

    check_valid(json.loads(Path("d/items.json").read_text())["features"][0])


@pytest.mark.slow
@pytest.mark.parametrize("out", ["e.parquet", "d/"])
def test_a_killed_run_goes_on_to_the_same_bytes(here, out):
    words = ["embed", "scene.tif", "--encoder", "resnet", "--window", "16", "--batch", "1"]
    whole = Path("whole")
    whole.mkdir()
    assert run([*words, "-o", f"whole/{out}"]) == 0
    line = [sys.executable, "-m", "geoml_cli", *words, "-o", out]
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    part, until = Path(f".{out.rstrip('/')}.part"), time.monotonic() + 60

    def done():
        return [sum(path.read_bytes()) for path in part.glob("*.done")]

    while time.monotonic() < until and not any(done()):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and done() != [] and not Path(out).exists()
    assert run([*words, "-o", out]) == 0
    name = out if out.endswith("parquet") else "d/scene.tif"
    assert vectors_or_pixels(name) == vectors_or_pixels(f"whole/{name}")


def vectors_or_pixels(path):
    return (vectors(path) if path.endswith("parquet") else pixels(path)[0]).tobytes()


def test_the_same_command_does_nothing_and_threads_change_no_byte(here, capfd):
    words = ["embed", "scene.tif", "--encoder", "resnet", "--window", "32", "-o", "e.parquet"]
    assert run([*words, "-j", "3"]) == 0
    first = Path("e.parquet").read_bytes()
    assert run(words) == 0
    os.remove("e.parquet")
    assert run([*words, "-j", "1"]) == 0
    assert Path("e.parquet").read_bytes() == first


def test_shares_put_together_are_the_whole(here):
    first = ["embed", "scene.tif", "--encoder", "resnet", "--window", "32", "--batch", "4"]
    assert run([*first, "-o", "e.parquet"]) == 0
    again = ["embed", "scene.tif", "--as", "e.parquet", "--batch", "4"]
    for k in (1, 2, 3):
        assert run([*again, "--shard", f"{k}/3", "-o", f"s{k}.parquet"]) == 0
    assert (
        run(["embed", "s3.parquet", "s1.parquet", "s2.parquet", "--merge", "-o", "m.parquet"]) == 0
    )
    assert np.array_equal(vectors("m.parquet"), vectors("e.parquet"))
    left, right = (geopandas.read_parquet(f"{n}.parquet") for n in "me")
    assert list(left["id"]) == list(right["id"])


def test_alphaearths_rasters_are_read_as_they_are_stored(here, tmp_path):
    """64 bands of int8, south up: sign(v) (v / 127.5)^2, -128 is nodata."""
    rng = np.random.default_rng(0)
    stored = rng.integers(-127, 128, (64, 6, 5)).astype(np.int8)
    stored[:, 2, 3] = -128
    with rasterio.open(
        "aef.tif", "w", driver="GTiff", count=64, height=6, width=5, dtype="int8", crs="EPSG:32633",
        transform=rasterio.Affine(10, 0, 500_000, 0, 10, 5_000_000), nodata=-128,
    ) as out:  # fmt: skip
        out.write(stored)
    at = [(500_005, 5_000_005), (500_035, 5_000_025), (500_045, 5_000_055)]
    shapes = [shapely.Point(*xy) for xy in at] + [
        shapely.box(500_000, 5_000_000, 500_020, 5_000_010)
    ]
    geopandas.GeoDataFrame({"id": list("abcd")}, geometry=shapes, crs=32633).to_file("at.gpkg")
    assert run(["embed", "aef.tif", "--at", "at.gpkg", "-o", "e.parquet"]) == 0
    values = np.sign(stored.astype(float)) * (stored / 127.5) ** 2
    want = [values[:, 0, 0], values[:, 5, 4], values[:, 0, :2].mean(1)]
    np.testing.assert_allclose(vectors("e.parquet"), np.stack(want), atol=1e-6)
    assert list(geopandas.read_parquet("e.parquet")["id"]) == ["a", "c", "d"]


def test_tesseras_arrays_are_read_with_their_scales_and_land_mask(here):
    rng = np.random.default_rng(0)
    stored = rng.integers(-127, 128, (6, 5, 128)).astype(np.int8)
    scales = rng.uniform(0.01, 0.1, (6, 5)).astype(np.float32)
    np.save("grid_0.15_52.05.npy", stored)
    np.save("grid_0.15_52.05_scales.npy", scales)
    with rasterio.open(
        "grid_0.15_52.05.tiff", "w", driver="GTiff", count=1, height=6, width=5, dtype="uint8",
        crs="EPSG:32631", transform=from_origin(300_000, 5_770_000, 10, 10),
    ) as out:  # fmt: skip
        out.write(np.ones((1, 6, 5), np.uint8))
    geopandas.GeoDataFrame(geometry=[shapely.Point(300_035, 5_769_975)], crs=32631).to_file(
        "at.gpkg"
    )
    assert run(["embed", "grid_0.15_52.05.npy", "--at", "at.gpkg", "-o", "e.parquet"]) == 0
    np.testing.assert_allclose(vectors("e.parquet")[0], stored[2, 3] * scales[2, 3], rtol=1e-5)


def test_parquet_of_others_is_read(here):
    """As Clay's files are: lists of doubles, an id column of their own, some other CRS."""
    rng = np.random.default_rng(0)
    table = {"item_id": ["x", "y", "z"], "embeddings": list(rng.normal(size=(3, 8)))}
    points = geopandas.points_from_xy([500_000, 500_100, 500_200], [5_000_000] * 3)
    frame = geopandas.GeoDataFrame(table, geometry=points, crs=32633)
    frame.to_parquet("clay.parquet")
    assert run(["embed", "clay.parquet", "--search", "clay.parquet", "--top", "1", "-o", "s.parquet"]) == 0  # fmt: skip
    found = geopandas.read_parquet("s.parquet")
    z = np.stack(frame["embeddings"])
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    near = z @ z.T - 9 * np.eye(3)
    assert list(found["id"]) == [table["item_id"][i] for i in near.argmax(1)]
    assert run(["embed", "clay.parquet", "--dtype", "float16", "-o", "ours.parquet"]) == 0
    ours = geopandas.read_parquet("ours.parquet")
    assert ours.crs == "OGC:CRS84" and list(ours["id"]) == ["x", "y", "z"]


BAD = {
    "no way": (["scene.tif"], "name --model MODEL, --encoder NAME or --as FILE"),
    "two ways": (["scene.tif", "--model", "model", "--encoder", "resnet"], "one of them"),
    "no class token": (["tiles", "--encoder", "resnet", "--pool", "cls"], "no class token"),
    "no such level": (["tiles", "--model", "model", "--level", "9"], "1 is the finest"),
    "no such member": (["tiles", "--model", "model", "--member", "3"], "counted from 0"),
    "too many dimensions": (["tiles", "--encoder", "band-stats", "--reduce", "pca:99"], "have 8 dim"),
    "a reduction of no kind": (["tiles", "--encoder", "band-stats", "--reduce", "tsne:2"], "pca:N"),
    "nowhere": (["scene.tif", "--model", "model", "--at", "far.gpkg"], "none of the places lies"),
    "no embeddings to ask": (["scene.tif", "--cluster", "3"], "run `geoml embed`"),
    "two questions": (["e.parquet", "--cluster", "3", "--outliers", "3"], "one at a time"),
    "another window": (["tiles", "--model", "model", "--window", "64"], "embedded whole"),
    "another space": (["e.parquet", "--search", "other.parquet"], "--as e.parquet"),
    "bands unknown": (["blank.tif", "--encoder", "spectral-indices"], "spectral-indices:bands="),
    "measured on a share": (["scene.tif", "--encoder", "resnet", "--shard", "1/2"], "with --as"),
    "float16 patches": (["scene.tif", "--encoder", "resnet", "--dtype", "float16", "-o", "d/"], "float32 or int8"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_is_one_line(here, capfd, case):
    words, said = BAD[case]
    if "far.gpkg" in words:
        geopandas.GeoDataFrame(geometry=[shapely.Point(0, 0)], crs=4326).to_file("far.gpkg")
    if "blank.tif" in words:
        made.write(Path("blank.tif"), pixels()[0].astype(np.uint8), names=("a", "b"))
    if "e.parquet" in words:
        run(["embed", "tiles", "--encoder", "band-stats", "-o", "e.parquet"])
        run(["embed", "tiles", "--encoder", "resnet", "-o", "other.parquet"])
        capfd.readouterr()
    out = [] if "-o" in words else ["-o", "x.parquet"]
    status, _, err = asked(capfd, "embed", *words, *out)
    lines = [line for line in err.splitlines() if not line.startswith("geoml: embedding on")]
    assert status in (1, 2, 4) and said in lines[-1], err
    assert len(lines) == 1, err
    assert not Path("x.parquet").exists()
