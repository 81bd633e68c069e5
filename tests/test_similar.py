"""Embeddings asked, probed and learnt from: against brute force, scikit-learn, and closed forms."""

import json
from pathlib import Path

import esda
import geopandas
import made
import numpy as np
import pandas
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from libpysal.weights import KNN
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.neighbors import KNeighborsClassifier

from geoml_cli import registry
from geoml_cli.cli import run
from geoml_cli.core import neighbours
from geoml_cli.core.probing import Probed
from geoml_cli.formats.embeddings import open_embeddings
from geoml_cli.geo.rows import lay_blocks, on_blocks


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 300), st.integers(1, 40), st.integers(1, 20), st.integers(0, 10_000))
def test_the_largest_products_are_those_of_a_whole_sort(n, asked, count, seed):
    rng = np.random.default_rng(seed)
    base = rng.integers(-2, 3, (n, 4)).astype(np.float32)  # many ties, products exact
    queries = rng.integers(-2, 3, (asked, 4)).astype(np.float32)
    before, neighbours.BLOCK = neighbours.BLOCK, 64
    try:
        rows, values = neighbours.top(base, queries, count)
    finally:
        neighbours.BLOCK = before
    near = queries @ base.T
    want = np.argsort(-near, axis=1, kind="stable")[:, :count]
    kept = min(count, n)
    assert np.array_equal(rows[:, :kept], want)
    assert np.array_equal(values[:, :kept], np.take_along_axis(near, want, 1))
    assert (rows[:, kept:] == -1).all() and np.isneginf(values[:, kept:]).all()


def test_pairs_are_those_of_the_whole_table(monkeypatch):
    monkeypatch.setattr(neighbours, "BLOCK", 100)
    z = neighbours.unit(np.random.default_rng(0).normal(size=(57, 3)).astype(np.float32))
    a, b, close = neighbours.pairs(z, 0.9)
    near = np.triu(z @ z.T, 1)
    assert set(zip(a, b, strict=True)) == set(zip(*np.nonzero(near >= 0.9), strict=True))
    np.testing.assert_allclose(close, near[a, b], atol=1e-6)


def test_the_farthest_first_choice_is_no_worse_than_twice_the_best():
    from itertools import combinations

    rng = np.random.default_rng(3)
    z = neighbours.unit(rng.normal(size=(14, 2)).astype(np.float32))
    rows, close = neighbours.farthest(z, 4)
    assert len(set(rows)) == 4 and np.isnan(close[0]) and (np.diff(close[1:]) >= -1e-6).all()

    def radius(chosen):  # chord: a metric
        return np.sqrt(np.maximum(2 - 2 * (z @ z[list(chosen)].T), 0)).min(1).max()

    assert radius(rows) <= 2 * min(radius(c) for c in combinations(range(14), 4)) + 1e-6
    more, _ = neighbours.farthest(z, 100, seen=rows[:2])
    assert not set(more) & set(rows[:2]) and len(more) == 12


def rows_of(n=240, dims=6, classes=3, seed=0):
    """Rows on a plane whose class decides where their vectors lie."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    z = np.eye(dims)[y] * 1.5 + rng.normal(size=(n, dims))
    return z.astype(np.float32), y, rng.uniform((10, 45), (11, 46), (n, 2))


def probed(z, y, places, folds=4):
    weights = (y[:, None] == np.arange(y.max() + 1)).astype(float)
    fold, block = on_blocks(lay_blocks(places, weights, 6, (1,) * folds, 0), places)
    return Probed(z, y.astype(np.int64), int(y.max()) + 1, fold, block, places)


def test_blocks_deal_every_class_to_every_fold_and_hold_together():
    z, y, places = rows_of()
    rows = probed(z, y, places)
    counts = np.array([[((rows.fold == f) & (y == c)).sum() for c in range(3)] for f in range(4)])
    assert (np.abs(counts / counts.sum(0) - 0.25) < 0.1).all()
    for block in np.unique(rows.block):
        assert len(np.unique(rows.fold[rows.block == block])) == 1


def test_neighbours_vote_as_scikit_learn_says():
    z, y, places = rows_of()
    rows = probed(z, y, places)
    guess = registry.load("probes", "knn").measure(rows, k=7, temperature=1e9).guess
    for fold in range(4):
        teach, told = rows.fold != fold, rows.fold == fold
        middle = z[teach].mean(0)
        x = [neighbours.unit(z[m] - middle) for m in (teach, told)]
        other = KNeighborsClassifier(7, metric="cosine").fit(x[0], y[teach]).predict(x[1])
        assert np.array_equal(guess[told], other)


def test_the_linear_probe_is_a_logistic_regression_of_one_of_its_strengths():
    z, y, places = rows_of()
    rows = probed(z, y, places)
    part = registry.load("probes", "linear")
    guess = part.measure(rows).guess
    for fold in range(4):
        teach, told = rows.fold != fold, rows.fold == fold
        x = (z - z[teach].mean(0)) / z[teach].std(0)
        said = [
            LogisticRegression(C=c, max_iter=300).fit(x[teach], y[teach]).predict(x[told])
            for c in part.STRENGTHS
        ]
        assert any(np.array_equal(guess[told], one) for one in said)


def test_no_probe_looks_at_the_fold_that_it_tells():
    """Labels that are noise but for a copy of themselves in the same fold cannot be told."""
    rng = np.random.default_rng(0)
    z = np.repeat(rng.normal(size=(150, 8)), 2, axis=0).astype(np.float32)
    y = np.repeat(rng.integers(0, 2, 150), 2)
    places = np.repeat(rng.uniform((10, 45), (11, 46), (150, 2)), 2, axis=0)
    rows = probed(z, y, places)
    for name in ("knn", "linear"):
        guess = registry.load("probes", name).measure(rows).guess
        assert 0.35 < (guess == y).mean() < 0.65


def test_average_precision_is_scikit_learns():
    z, y, places = rows_of(90)
    rows = probed(z, y, places)
    each = registry.load("probes", "retrieval").measure(rows).each
    unit = neighbours.unit(z - z.mean(0))
    for row in range(0, 90, 7):
        other = rows.fold != rows.fold[row]
        want = average_precision_score(y[other] == y[row], unit[other] @ unit[row])
        assert each[row] == pytest.approx(want, abs=1e-5)


def test_the_effective_rank_of_known_spectra():
    measure = registry.load("probes", "effective-rank").measure
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(200, 8)) - 0)[0]
    basis = np.linalg.qr(basis - basis.mean(0))[0]
    nothing = np.zeros(200, int)

    def rank(spectrum):
        z = (basis * spectrum).astype(np.float32)
        return measure(Probed(z, None, 0, nothing, nothing, np.zeros((200, 2)))).value

    assert rank(np.ones(8)) == pytest.approx(8, abs=0.05)
    assert rank(np.array([1, 1, 1, 0, 0, 0, 0, 0])) == pytest.approx(3, abs=0.05)
    shares = np.array([4, 2, 1, 1, 0, 0, 0, 0]) / 8
    want = np.exp(-sum(p * np.log(p) for p in shares if p))
    assert rank(shares) == pytest.approx(want, abs=0.05)


def test_morans_i_of_one_column_is_that_of_esda():
    rng = np.random.default_rng(2)
    places = rng.uniform((-180, -80), (180, 80), (150, 2))
    z = np.cos(np.radians(places[:, 1])) + rng.normal(size=150) / 5
    nothing = np.zeros(150, int)
    rows = Probed(z[:, None].astype(np.float32), None, 0, nothing, nothing, places)
    found = registry.load("probes", "morans-i").measure(rows, k=8).value
    lon, lat = np.radians(places).T
    space = np.column_stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
    weights = KNN.from_array(space, k=8)  # the nearest by chord are so by great circle
    want = esda.Moran(z, weights, transformation="r", permutations=0).I
    assert found == pytest.approx(want, abs=1e-5) and found > 0.3


def test_morans_i_is_its_definition():
    rng = np.random.default_rng(1)
    n, k = 120, 8
    places = rng.uniform((10, 45), (11, 46), (n, 2))
    z = np.column_stack([places[:, 0] * 3, np.sin(places[:, 1] * 5), rng.normal(size=n)])
    nothing = np.zeros(n, int)
    rows = Probed(z.astype(np.float32), None, 0, nothing, nothing, places)
    found = registry.load("probes", "morans-i").measure(rows, k=k).value
    lon, lat = np.radians(places).T
    cos = np.sin(lat)[:, None] * np.sin(lat) + np.cos(lat)[:, None] * np.cos(lat) * np.cos(
        lon[:, None] - lon
    )
    far = np.arccos(np.clip(cos, -1, 1)) + 9 * np.eye(n)
    weight = np.zeros((n, n))
    np.put_along_axis(weight, np.argsort(far, axis=1)[:, :k], 1 / k, axis=1)
    x = z - z.mean(0)
    want = sum(x[:, d] @ weight @ x[:, d] for d in range(3)) / (x**2).sum()
    assert found == pytest.approx(want, abs=1e-4)


@pytest.fixture
def points(tmp_path, monkeypatch):
    """A file of embeddings of other makers, with classes, values, and rows without either."""
    monkeypatch.chdir(tmp_path)
    z, y, places = rows_of(200, seed=5)
    names = np.array(["forest", "town", "water"], object)[y]
    names[::10] = None
    table = {"id": [f"r{i}" for i in range(200)], "kind": names, "height": z[:, 0] * 2.0 + 0.1}
    frame = geopandas.GeoDataFrame(
        table | {"embedding": list(z)}, geometry=geopandas.points_from_xy(*places.T), crs=4326
    )
    frame.to_parquet("e.parquet")
    return z, y, frame


def read(path="o.parquet"):
    return geopandas.read_parquet(path)


def test_search_finds_the_most_alike_and_not_itself(points):
    z, _, frame = points
    frame.iloc[[3, 50]].to_parquet("q.parquet")
    assert (
        run(["embed", "e.parquet", "--search", "q.parquet", "--top", "4", "-o", "o.parquet"]) == 0
    )
    found, unit = read(), neighbours.unit(z)
    for query, i in (("r3", 3), ("r50", 50)):
        near = unit @ unit[i]
        near[i] = -2
        mine = found[found["query"] == query]
        assert list(mine["id"]) == [f"r{k}" for k in np.argsort(-near)[:4]]
        np.testing.assert_allclose(mine["similarity"], np.sort(near)[::-1][:4], atol=1e-6)
    assert found.crs == "OGC:CRS84" and "embedding" not in found
    assert run(["embed", "e.parquet", "--search", "r3", "--top", "4", "-o", "one.parquet"]) == 0
    assert list(read("one.parquet")["id"]) == list(found[found["query"] == "r3"]["id"])
    assert run(["embed", "e.parquet", "--search", "r999", "-o", "none.parquet"]) == 1


def test_duplicates_come_in_groups(points):
    z, _, frame = points
    twice = frame.iloc[[7, 7, 9]].assign(id=["copy", "copy2", "twin"])
    pandas.concat([frame, twice]).to_parquet("e.parquet")
    assert run(["embed", "e.parquet", "--near-duplicates", "0.9999", "-o", "o.parquet"]) == 0
    groups = read().groupby("group")["id"].apply(list).to_list()
    assert groups == [["r7", "copy", "copy2"], ["r9", "twin"]]


def test_clusters_are_those_of_the_classes_where_these_lie_apart(points):
    z, y, frame = points
    frame["embedding"] = list((np.eye(6)[y] * 50 + z).astype(np.float32))
    frame.to_parquet("e.parquet")
    assert run(["embed", "e.parquet", "--cluster", "3", "-o", "o.gpkg"]) == 0
    found = geopandas.read_file("o.gpkg")
    table = pandas.crosstab(found["cluster"], y)
    assert ((table > 0).sum(axis=1) == 1).all()
    sizes = np.bincount(found["cluster"])
    assert list(sizes) == sorted(sizes, reverse=True)


def test_what_is_unlike_all_else_is_found_first(points):
    z, y, frame = points
    frame["embedding"] = list((np.eye(6)[y] * 8 + z).astype(np.float32))
    odd = frame.iloc[[0]].assign(id="odd", embedding=[np.array([0, 0, 0, 0, -9, -9], np.float32)])
    pandas.concat([frame, odd]).to_parquet("e.parquet")
    assert run(["embed", "e.parquet", "--outliers", "3", "-o", "o.parquet"]) == 0
    assert read()["id"][0] == "odd" and list(read()["rank"]) == [1, 2, 3]


def test_rare_classes_are_balanced_by_what_is_like_them(points):
    z, y, frame = points
    z = (np.eye(6)[y] * 8 + z).astype(np.float32)
    kinds = np.array(["forest", "town", "water"], object)[y]
    keep = np.zeros(len(y), bool)
    for one, count in zip(range(3), (20, 10, 3), strict=True):
        keep[np.flatnonzero(y == one)[:count]] = True
    frame["kind"], frame["embedding"] = np.where(keep, kinds, None), list(z)
    frame.to_parquet("e.parquet")
    assert (
        run(["embed", "e.parquet", "--coverage", "10", "--balance", "kind", "-o", "o.parquet"]) == 0
    )
    found = read()
    truth = dict(zip(frame["id"], kinds, strict=True))
    assert [truth[one] for one in found["id"]] == list(found["like"])
    assert list(found["like"])[:7] == ["water"] * 7 and found["kind"].isna().all()


def test_scores_are_those_of_the_guesses(points, capfd):
    words = ["evaluate", "e.parquet", "--label-column", "kind", "--bootstrap", "200"]
    assert run([*words, "-o", "s.json"]) == 0
    scores = json.loads(Path("s.json").read_text())
    assert scores["scored"]["n"] == 180
    for name in ("knn_accuracy", "linear_accuracy", "retrieval_map"):
        one = scores["metrics"][name]
        assert 0.5 < one["lo"] <= one["value"] <= one["hi"] < 1
    assert scores["metrics"]["linear_accuracy"]["n"] == 180
    assert set(scores["classes"]["town"]) >= {"support", "knn_f1", "linear_iou"}
    assert run([*words, "-o", "s.json", "--fail-if", "knn_accuracy<0.99"]) == 1
    assert run(["evaluate", "e.parquet", "--label-column", "height", "--probe", "linear", "-o", "v.json"]) == 0  # fmt: skip
    values = json.loads(Path("v.json").read_text())["metrics"]
    assert values["linear_r2"]["value"] > 0.999  # the values are a line of the vectors
    capfd.readouterr()
    assert run(["evaluate", "e.parquet", "--label-column", "height", "--probe", "retrieval"]) == 1
    assert "for classes; the labels are values" in capfd.readouterr().err


def test_a_model_of_embeddings_answers_tables_and_maps(tmp_path, monkeypatch, capfd):
    """Patches embedded, places labelled, a linear head learnt, and the whole scene mapped by it."""
    monkeypatch.chdir(tmp_path)
    _, _, truth = made.scene(tmp_path, 120, 120)
    rng = np.random.default_rng(0)
    at = rng.integers(0, 120, (300, 2))
    x, y = 500_000 + 10 * at[:, 1] + 5, 5_000_000 - 10 * at[:, 0] - 5
    names = np.array(made.NAMES)[truth[at[:, 0], at[:, 1]]]
    points = geopandas.points_from_xy(x, y)
    geopandas.GeoDataFrame({"kind": names}, geometry=points, crs=32633).to_file("at.gpkg")
    encoder = ["--encoder", "band-stats:patch=2"]
    assert run(["embed", "scene.tif", *encoder, "-o", "dense/"]) == 0
    assert run(["embed", "dense/", "--at", "at.gpkg", "-o", "e.parquet"]) == 0
    fit = ["--label-column", "kind", "--epochs", "60", "--lr", "3e-2", "--device", "cpu"]
    assert run(["train", "e.parquet", *fit, "-o", "model/"]) == 0
    assert run(["predict", "e.parquet", "--model", "model/", "-o", "answers.parquet"]) == 0
    answers = geopandas.read_parquet("answers.parquet")
    assert (answers["class"] == names).mean() > 0.9
    assert run(["predict", "dense/", "--model", "model/", "-o", "maps/"]) == 0
    with rasterio.open("maps/scene.tif") as data:
        guess = np.kron(data.read(1), np.ones((2, 2), int))[:120, :120]
    assert (guess == truth).mean() > 0.9
    cells = shapely.get_coordinates(answers.to_crs(32633).geometry)
    row, col = (
        ((5_000_000 - cells[:, 1]) // 20).astype(int),
        ((cells[:, 0] - 500_000) // 20).astype(int),
    )
    with rasterio.open("maps/scene.tif") as data:
        assert np.array_equal(data.read(1)[row, col], answers["class_id"])
    head = json.loads(Path("model/model.json").read_text())
    assert head["task"] == "classify" and head["encoder"] == "identity"
    ground = geopandas.read_parquet("model/ground.parquet")
    assert set(ground["role"]) == {"train", "val", "test"}
    assert (
        run(
            [
                "embed",
                "scene.tif",
                "--encoder",
                "band-stats:patch=4",
                "--window",
                "16",
                "-o",
                "o.parquet",
            ]
        )
        == 0
    )
    capfd.readouterr()
    assert run(["predict", "o.parquet", "--model", "model/", "-o", "x.parquet"]) == 1
    assert "of another encoder" in capfd.readouterr().err
    assert run(["train", "e.parquet", "-o", "m/"]) == 2
    assert "--label-column NAME" in capfd.readouterr().err


def test_folds_of_embeddings_give_a_network_each(points):
    fit = [
        "--label-column",
        "height",
        "--folds",
        "3",
        "--head",
        "mlp",
        "--epochs",
        "30",
        "--device",
        "cpu",
    ]
    assert run(["train", "e.parquet", *fit, "-o", "model/"]) == 0
    head = json.loads(Path("model/model.json").read_text())
    assert head["members"] == 3 and head["task"] == "regress"
    scores = json.loads(Path("model/scores.json").read_text())
    assert scores["scored"]["side"] == "out of fold" and scores["metrics"]["r2"]["value"] > 0.5


def test_a_picture_shows_components_as_colour(points, tmp_path):
    from geoml_cli.stages.embedding_picture import colors_of

    z, _, _ = points
    paint = colors_of(z)
    centred = z - z.mean(0)
    first = np.linalg.svd(centred, full_matrices=False)[2][0]
    inner = (paint[:, 0] > 0) & (paint[:, 0] < 1)
    assert abs(np.corrcoef((centred @ first)[inner], paint[inner, 0])[0, 1]) > 0.9999
    assert run(["info", "e.parquet", "--picture", "p.png"]) == 0
    assert open_embeddings("e.parquet").width == 6
    import matplotlib.pyplot as plt

    image = plt.imread("p.png")
    assert image[..., :3].std() > 0.05


def test_an_encoder_that_wants_names_of_bands_is_told_them_in_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made.scene(tmp_path)
    with rasterio.open("scene.tif", "r+") as out:
        out.colorinterp = [rasterio.enums.ColorInterp.undefined] * 2
        out.descriptions = ("red", "nir")
    item = {"labels": "labels.gpkg", "label-column": "class", "size": "32", "split": "blocks:4"}
    cut = [word for k, v in item.items() for word in (f"--{k}", v)]
    assert run(["tile", "scene.tif", *cut, "-o", "tiles/"]) == 0
    fit = [
        "--encoder",
        "spectral-indices:bands=red-nir,patch=1",
        "--head",
        "mlp",
        "--epochs",
        "3",
        "--device",
        "cpu",
    ]
    assert run(["train", "tiles/", *fit, "-o", "model/"]) == 0
    spec = json.loads(Path("model/model.json").read_text())["network"]["sensors"][0]
    assert len(spec["names"]) == 2
    assert run(["predict", "scene.tif", "--model", "model/", "-o", "map.tif"]) == 0
