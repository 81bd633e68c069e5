"""`geoml evaluate`: its numbers against scikit-learn on the same samples; what it leaves out, refuses and writes."""

import json
import os
from collections import Counter
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine
from pyproj import Transformer
from sklearn import metrics as sk

from geoml_cli.cli import run
from geoml_cli.formats import items as stac
from geoml_cli.formats.bands import Band
from geoml_cli.formats.cog import Layout, save_cog
from geoml_cli.formats.digest import digest_file
from geoml_cli.formats.jsonfile import dumps
from geoml_cli.formats.raster import describe
from geoml_cli.formats.stamp import Input, record
from geoml_cli.formats.vectors import write_geoparquet
from geoml_cli.geo.classes import legend
from geoml_cli.geo.grid import LONLAT, Grid

NAMES = ["water", "forest", "crop <&> grass"]
GRID = Grid("EPSG:32725", Affine(30, 0, 286000, 0, -30, 9120000), 96, 80)
COLUMN = ["--label-column", "class"]


def save(path, ids, grid=GRID, names=NAMES, nodata=255, dtype="uint8"):
    tags = {f"CLASS_{i}": name for i, name in enumerate(names or [])}
    colors = {c.id: c.rgb for c in legend(names)} if names else {}
    band = Band("class", nodata=nodata)
    save_cog(path, np.asarray(ids)[None], Layout(grid, (band,), dtype, True, colors, tags))


def folder_of(path, maps, ground=None, out_of_fold=False):
    """A predictions folder: {id: (ids, grid)}; `ground` is [(role, geometry in CRS84)]."""
    path.mkdir()
    items = []
    for name, (ids, grid) in maps.items():
        save(path / f"{name}.tif", ids, grid)
        item = stac.item_of(name, "2020-01-01T00:00:00Z")
        stac.add_raster(item, "map", describe(str(path / f"{name}.tif")), path)
        items.append(item)
    if ground is not None:
        roles, shapes = [r for r, _ in ground], [g for _, g in ground]
        rows = {"member": range(len(roles)), "role": roles, "scene": "a", "datetime": None}
        write_geoparquet(
            path / "ground.parquet", geopandas.GeoDataFrame(rows, geometry=shapes, crs=LONLAT)
        )
    members = {p.name: digest_file(p) for p in path.iterdir()}
    document = stac.collection_of(items) | {
        "geoml:classes": [c.to_dict() for c in legend(NAMES)],
        "geoml:out_of_fold": out_of_fold,
        "geoml": record("predict", "predictions", {"window": 512}, []) | {"members": members},
    }
    (path / "items.json").write_text(dumps(document))
    return path


def points_at(rows, cols, classes, grid=GRID, crs=None, shift=0.0):
    """Points in pixels, `shift` of a pixel off their centres, with class names."""
    x, y = grid.transform * (np.asarray(cols) + 0.5 + shift, np.asarray(rows) + 0.5 - shift)
    table = geopandas.GeoDataFrame(
        {"class": classes}, geometry=geopandas.points_from_xy(x, y), crs=grid.crs
    )
    return table.to_crs(crs or grid.crs)


def lonlat_box(row, col, height, width, grid=GRID):
    """Pixels of a grid as a polygon in CRS84, edges dense."""
    (w, n), (e, s) = grid.transform * (col, row), grid.transform * (col + width, row + height)
    ring = shapely.segmentize(shapely.box(w, s, e, n), 300)
    move = Transformer.from_crs(grid.crs, LONLAT, always_xy=True)
    return shapely.transform(ring, lambda xy: np.stack(move.transform(*xy.T), axis=1))


@pytest.fixture
def scene(tmp_path, monkeypatch):
    """A map of 96 x 80 px with a corner of nodata, the truth behind it, and 300 points on it."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(7)
    truth = np.repeat(np.repeat(rng.integers(0, 3, (12, 10)), 8, axis=0), 8, axis=1).astype(
        np.uint8
    )
    guess = np.where(rng.random(truth.shape) < 0.7, truth, rng.integers(0, 3, truth.shape)).astype(
        np.uint8
    )
    guess[:10, :10] = 255
    rows, cols = rng.integers(0, 96, 300), rng.integers(0, 80, 300)
    save(tmp_path / "map.tif", guess)
    names = [NAMES[truth[r, c]] for r, c in zip(rows, cols, strict=True)]
    points_at(rows, cols, names, crs=4326, shift=0.2).to_file(tmp_path / "check.gpkg")
    return dict(path=tmp_path, truth=truth, guess=guess, rows=rows, cols=cols)


def evaluate(*argv, status=0):
    words = [str(a) for a in argv]
    assert run(["evaluate", *words]) == status
    return None


def scores_of(*argv, out="s.json"):
    evaluate(*argv, "-o", out)
    return json.loads(Path(out).read_text())


def check(scores, truth, guess):
    """The document says of these samples what scikit-learn does."""
    assert scores["scored"]["n"] == len(truth)
    found = {k: v["value"] for k, v in scores["metrics"].items()}
    present = sorted(set(truth) | set(guess))
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(truth, guess))
    assert found["kappa"] == pytest.approx(sk.cohen_kappa_score(truth, guess))
    assert found["miou"] == pytest.approx(
        sk.jaccard_score(truth, guess, labels=present, average="macro")
    )
    matrix = sk.confusion_matrix(truth, guess, labels=range(len(scores["confusion"]["names"])))
    assert scores["confusion"]["matrix"] == matrix.tolist()
    for i, name in enumerate(scores["confusion"]["names"]):
        row = scores["classes"][name]
        assert row["support"] == (truth == i).sum()
        want = sk.precision_score(truth, guess, labels=[i], average=None, zero_division=np.nan)[0]
        assert row["precision"]["value"] == (None if np.isnan(want) else pytest.approx(want))
        assert row["precision"]["n"] == (guess == i).sum()
        assert row["recall"]["n"] == (truth == i).sum()


def line_of(capsys):
    """The one line on stderr."""
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    return err


# --- numbers


@pytest.mark.parametrize("crs", [4326, 3857, 32724, 32725])
def test_points_in_any_crs_score_the_pixels_that_hold_them(scene, crs):
    geopandas.read_file("check.gpkg").to_crs(crs).to_file("again.gpkg")
    scores = scores_of("map.tif", "--truth", "again.gpkg", *COLUMN)
    guess = scene["guess"][scene["rows"], scene["cols"]]
    seen = guess != 255
    check(scores, scene["truth"][scene["rows"], scene["cols"]][seen], guess[seen])
    left_out = scores["scored"]["left_out"]
    assert left_out["nodata"] == (~seen).sum() > 0
    assert scores["scored"]["n"] + sum(left_out.values()) == 300


@pytest.mark.parametrize("crs", [4326, 32725])
def test_polygons_score_every_pixel_whose_centre_they_hold_and_conflicts_are_left_out(
    scene, crs, capsys
):
    rng = np.random.default_rng(1)
    x, y = GRID.transform * (rng.uniform(5, 75, 25), rng.uniform(5, 90, 25))
    shapes = shapely.buffer(shapely.points(x, y), rng.uniform(60, 250, 25))
    ids = rng.integers(0, 3, 25)
    table = geopandas.GeoDataFrame(
        {"class": [NAMES[i] for i in ids]}, geometry=shapes, crs=GRID.crs
    )
    table.to_crs(crs).to_file("polygons.gpkg")
    rows, cols = np.mgrid[:96, :80]
    cx, cy = GRID.transform * (cols.ravel() + 0.5, rows.ravel() + 0.5)
    held = np.zeros((3, cx.size), bool)
    for shape, i in zip(shapes, ids, strict=True):
        held[i] |= shapely.contains_xy(shape, cx, cy)
    times, guess = held.sum(axis=0), scene["guess"].ravel()
    scores = scores_of("map.tif", "--truth", "polygons.gpkg", *COLUMN)
    once = (times == 1) & (guess != 255)
    check(scores, held.argmax(axis=0)[once], guess[once])
    left_out = scores["scored"]["left_out"]
    assert left_out["conflicting"] == ((times > 1) & (guess != 255)).sum() > 0
    assert left_out["nodata"] == ((times > 0) & (guess == 255)).sum()
    assert (
        f"{left_out['conflicting']} sample(s) under overlapping polygons" in capsys.readouterr().err
    )


def test_polygons_beside_the_map_and_between_its_centres_are_counted_as_outside(scene):
    west, north = GRID.transform * (20, 20)
    shapes = [
        shapely.box(west, north - 300, west + 300, north),  # 10 x 10 px
        shapely.box(west + 60, north - 80, west + 90, north - 70),  # below the first, one centre
        shapely.box(west + 1, north - 10, west + 9, north - 1),  # holds no centre
        shapely.box(west - 9e5, north, west - 8e5, north + 300),
    ]
    table = geopandas.GeoDataFrame({"class": [*["water"] * 4]}, geometry=shapes, crs=GRID.crs)
    table.loc[4] = [None, shapes[0]]
    table.to_file("polygons.gpkg")
    scored = scores_of("map.tif", "--truth", "polygons.gpkg", *COLUMN)["scored"]
    assert scored["n"] == 100
    assert scored["left_out"] == {
        "outside": 2,
        "nodata": 0,
        "trained": 0,
        "conflicting": 0,
        "unlabelled": 1,
    }


@pytest.mark.parametrize(
    "grid",
    [
        Grid("EPSG:32725", Affine(20, 0, 286500, 0, -20, 9119300), 150, 130),  # covers a part
        Grid("OGC:CRS84", Affine(1e-4, 0, -34.945, 0, -1e-4, -7.955), 280, 260),
        Grid("EPSG:32724", Affine(90, 0, 945000, 0, -90, 9122000), 60, 60),  # coarser, covers more
    ],
    ids=["part", "degrees", "coarse"],
)
def test_a_class_raster_on_another_grid_is_read_at_the_centres(scene, grid):
    ids = np.random.default_rng(2).integers(0, 4, (grid.height, grid.width)).astype(np.uint8)
    ids[ids == 3] = 255
    save(scene["path"] / "truth.tif", ids, grid)
    rows, cols = np.mgrid[:96, :80]
    x, y = GRID.transform * (cols.ravel() + 0.5, rows.ravel() + 0.5)
    x, y = Transformer.from_crs(GRID.crs, grid.crs, always_xy=True).transform(x, y)
    c, r = (np.floor(v).astype(int) for v in ~grid.transform * (x, y))
    on = (r >= 0) & (c >= 0) & (r < grid.height) & (c < grid.width)
    truth = np.full(on.shape, 255)
    truth[on] = ids[r[on], c[on]]
    guess = scene["guess"].ravel()
    scores = scores_of("map.tif", "--truth", "truth.tif")
    both = (truth != 255) & (guess != 255)
    assert 100 < both.sum()
    check(scores, truth[both], guess[both])
    assert scores["scored"]["left_out"]["nodata"] == ((truth != 255) & (guess == 255)).sum()
    assert scores["scored"]["left_out"]["outside"] is None  # read under the map alone


def test_rasters_match_by_name_where_both_have_names_and_by_id_where_not(scene):
    turned = (scene["truth"] + 1) % 3  # ids of the same names in another order
    save(scene["path"] / "named.tif", turned, names=[NAMES[2], NAMES[0], NAMES[1]])
    save(scene["path"] / "bare.tif", scene["truth"], names=None)
    seen = scene["guess"] != 255
    for name in ("named.tif", "bare.tif"):
        check(scores_of("map.tif", "--truth", name), scene["truth"][seen], scene["guess"][seen])


def test_plain_rasters_without_names_go_by_their_ids(scene):
    ids = np.array([10, 20, 40])
    guess = np.where(scene["guess"] == 255, 0, ids[scene["guess"] % 3])
    save(scene["path"] / "plain.tif", guess, names=None, nodata=0, dtype="uint16")
    table = geopandas.read_file("check.gpkg")
    table["code"] = [float(ids[NAMES.index(n)]) for n in table["class"]]  # 10.0 is the class 10
    table.to_file("codes.gpkg")
    scores = scores_of("plain.tif", "--truth", "codes.gpkg", "--label-column", "code")
    assert scores["confusion"]["names"] == ["10", "20", "40"]
    at = scene["rows"], scene["cols"]
    seen = scene["guess"][at] != 255
    check(scores, scene["truth"][at][seen], scene["guess"][at][seen])


def test_where_maps_overlap_a_place_counts_once_on_the_first_with_data(scene):
    grid = Grid(GRID.crs, GRID.transform * Affine.translation(40, 0), 96, 80)
    other = np.random.default_rng(3).integers(0, 3, (96, 80)).astype(np.uint8)
    first = scene["guess"].copy()
    first[:, 60:] = 255  # there the second one answers
    folder_of(scene["path"] / "maps", {"b": (other, grid), "a": (first, GRID)})
    both = np.concatenate([first, np.full((96, 40), 255)], axis=1)
    late = np.concatenate([np.full((96, 40), 255), other], axis=1)
    merged = np.where(both != 255, both, late)
    wide = np.random.default_rng(4).integers(0, 3, merged.shape).astype(np.uint8)
    whole = Grid(GRID.crs, GRID.transform, 96, 120)
    save(scene["path"] / "truth.tif", wide, whole)
    seen = merged != 255
    scores = scores_of("maps", "--truth", "truth.tif")
    check(scores, wide[seen], merged[seen])
    assert scores["scored"]["repeated"] == ((both != 255) & (late != 255)).sum()
    assert [m["id"] for m in scores["scored"]["maps"]] == ["a", "b"]

    rows, cols = np.divmod(np.random.default_rng(5).permutation(96 * 120)[:400], 120)
    points_at(rows, cols, [NAMES[i] for i in wide[rows, cols]], whole).to_file("p.gpkg")
    scores = scores_of("maps", "--truth", "p.gpkg", *COLUMN)
    on = merged[rows, cols] != 255
    check(scores, wide[rows, cols][on], merged[rows, cols][on])
    assert scores["scored"]["left_out"]["nodata"] == (~on).sum()


def test_maps_and_truth_across_the_antimeridian_meet(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grid = Grid("OGC:CRS84", Affine(0.1, 0, 178, 0, -0.1, -15), 40, 40)  # 178 E .. 178 W
    guess = np.zeros((40, 40), np.uint8)
    guess[:, 20:] = 1
    save(Path("map.tif"), guess, grid)
    points = [
        shapely.Point(179.55, -16.05),
        shapely.Point(-179.55, -16.05),
        shapely.Point(-178.25, -17),
    ]
    table = geopandas.GeoDataFrame({"class": [*NAMES[:2], "water"]}, geometry=points, crs=4326)
    table.to_file("p.gpkg")
    scores = scores_of("map.tif", "--truth", "p.gpkg", *COLUMN)
    assert scores["confusion"]["matrix"] == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    boxes = [shapely.box(179.5, -17, 180, -16), shapely.box(-180, -17, -179.5, -16)]
    geopandas.GeoDataFrame({"class": NAMES[:2]}, geometry=boxes, crs=4326).to_file("b.gpkg")
    scores = scores_of("map.tif", "--truth", "b.gpkg", *COLUMN)
    assert scores["confusion"]["matrix"] == [[50, 0, 0], [0, 50, 0], [0, 0, 0]]


def test_intervals_hold_the_value_and_one_block_has_none(scene, capsys):
    scores = scores_of("map.tif", "--truth", "check.gpkg", *COLUMN, "--blocks", 6)
    for entry in [*scores["metrics"].values(), *(c["iou"] for c in scores["classes"].values())]:
        assert entry["lo"] < entry["value"] < entry["hi"]
    wide = scores["metrics"]["accuracy"]
    p, n = wide["value"], wide["n"]
    # samples are drawn apart from each other, so blocks cost little: about the binomial width
    assert wide["hi"] - wide["lo"] == pytest.approx(2 * 1.96 * (p * (1 - p) / n) ** 0.5, rel=0.35)
    capsys.readouterr()
    one = scores_of("map.tif", "--truth", "check.gpkg", *COLUMN, "--blocks", 1)
    assert one["metrics"]["miou"]["lo"] is None and one["metrics"]["miou"]["hi"] is None
    assert "one block" in capsys.readouterr().err
    assert one["metrics"]["miou"]["value"] == scores["metrics"]["miou"]["value"]


def test_a_class_that_is_nowhere_is_undefined_not_zero(scene):
    guess = np.zeros((96, 80), np.uint8)
    save(scene["path"] / "flat.tif", guess)
    points_at([5, 50], [5, 60], ["water", "water"]).to_file("two.gpkg")
    scores = scores_of("flat.tif", "--truth", "two.gpkg", *COLUMN)
    assert scores["metrics"]["accuracy"]["value"] == 1
    assert scores["metrics"]["miou"]["value"] == 1  # over the classes that are there
    assert scores["metrics"]["kappa"]["value"] is None
    empty = scores["classes"]["forest"]
    assert empty.pop("support") == 0
    assert all(v == {"value": None, "lo": None, "hi": None, "n": 0} for v in empty.values())


# --- ground that the model trained on


@pytest.fixture
def trained(scene):
    """Folders of the map whose model trained on the west 30 columns, validated on 10 more."""
    ground = [
        ("train", lonlat_box(0, 0, 96, 20)),
        ("test", lonlat_box(0, 20, 96, 60)),
        ("train", lonlat_box(0, 20, 96, 10)),
        ("val", lonlat_box(0, 30, 96, 10)),
    ]
    maps = {"a": (scene["guess"], GRID)}
    folder_of(scene["path"] / "maps", maps, ground)
    folder_of(scene["path"] / "folds", maps, ground, out_of_fold=True)
    folder_of(scene["path"] / "all", maps, [("train", lonlat_box(-1, -1, 98, 82))])
    at = scene["rows"], scene["cols"]
    seen = scene["guess"][at] != 255
    return scene | dict(at=at, seen=seen, far=scene["cols"] >= 40)


@pytest.mark.parametrize("named", ["maps", "maps/items.json", "maps/a.tif"])
def test_truth_on_trained_ground_is_left_out_however_the_map_is_named(trained, named):
    scores = scores_of(named, "--truth", "check.gpkg", *COLUMN)
    keep = trained["seen"] & trained["far"]
    check(scores, trained["truth"][trained["at"]][keep], trained["guess"][trained["at"]][keep])
    assert scores["scored"]["left_out"]["trained"] == (trained["seen"] & ~trained["far"]).sum()
    assert scores["scored"]["ground_known"] and not scores["scored"]["out_of_fold"]


def test_pixels_on_trained_ground_are_left_out_to_the_pixel(trained):
    save(trained["path"] / "truth.tif", trained["truth"])
    scores = scores_of("maps", "--truth", "truth.tif")
    check(scores, trained["truth"][:, 40:].ravel(), trained["guess"][:, 40:].ravel())
    assert scores["scored"]["left_out"]["trained"] == 96 * 40 - 100


def test_a_map_that_stands_alone_finds_the_ground_in_its_models_folder(trained, capsys):
    model = trained["path"] / "model"
    model.mkdir()
    (trained["path"] / "maps" / "ground.parquet").rename(model / "ground.parquet")
    members = {"ground.parquet": digest_file(model / "ground.parquet")}
    head = {"geoml": record("train", "model", {}, []) | {"members": members}}
    (model / "model.json").write_text(dumps(head))
    made_of = [Input("../model/model.json", "model", digest_file(model / "model.json"))]
    tags = {f"CLASS_{i}": name for i, name in enumerate(NAMES)}
    tags["GEOML"] = json.dumps(record("predict", "predictions", {"out_of_fold": False}, made_of))
    (trained["path"] / "alone").mkdir()
    layout = Layout(GRID, (Band("class", nodata=255),), "uint8", True, {}, tags)
    save_cog(trained["path"] / "alone" / "map.tif", trained["guess"][None], layout)
    argv = ["alone/map.tif", "--truth", "check.gpkg", *COLUMN]
    scores = scores_of(*argv)
    assert scores["scored"]["left_out"]["trained"] == (trained["seen"] & ~trained["far"]).sum()
    assert "model/ground.parquet" in {i["path"] for i in scores["geoml"]["inputs"]}
    capsys.readouterr()
    (model / "model.json").write_text(dumps(head | {"more": 1}))
    scores = scores_of(*argv)
    assert "is not known; its model is gone or changed" in capsys.readouterr().err
    assert scores["scored"]["left_out"]["trained"] == 0 and not scores["scored"]["ground_known"]


def test_strict_refuses_it_also_when_the_scores_are_there(trained, capsys):
    argv = ["maps", "--truth", "check.gpkg", *COLUMN, "-o", "s.json"]
    evaluate(*argv, "--strict", status=1)
    count = (trained["seen"] & ~trained["far"]).sum()
    assert f"{count} sample(s) of the truth lie on ground that the model trained on" in line_of(
        capsys
    )
    assert not Path("s.json").exists() and not list(Path().glob(".s.json*"))
    evaluate(*argv)
    evaluate(*argv, "--strict", status=1)
    clean = geopandas.read_file("check.gpkg")[trained["far"]]
    clean.to_file("clean.gpkg")
    evaluate("maps", "--truth", "clean.gpkg", *COLUMN, "--strict", "-o", "c.json")
    capsys.readouterr()
    evaluate("map.tif", "--truth", "clean.gpkg", *COLUMN, "--strict", status=1)
    assert "not known" in line_of(capsys)


def test_include_trained_scores_all_and_says_so(trained, capsys):
    scores = scores_of(
        "maps", "--truth", "check.gpkg", *COLUMN, "--include-trained", "--report", "r.html"
    )
    keep = trained["seen"]
    check(scores, trained["truth"][trained["at"]][keep], trained["guess"][trained["at"]][keep])
    on = (keep & ~trained["far"]).sum()
    assert scores["scored"]["included_trained"] and scores["scored"]["on_trained_ground"] == on
    assert scores["scored"]["left_out"]["trained"] == 0
    assert f"{on} of {keep.sum()} samples" in capsys.readouterr().err
    assert (
        f"{on} of the {keep.sum()} samples lie on ground that the model trained on"
        in Path("r.html").read_text()
    )


def test_of_out_of_fold_maps_all_truth_counts(trained):
    scores = scores_of("folds", "--truth", "check.gpkg", *COLUMN, "--strict")
    assert scores["scored"]["n"] == trained["seen"].sum()
    assert scores["scored"]["out_of_fold"] and not scores["scored"]["included_trained"]


def test_if_all_truth_is_trained_ground_it_says_what_to_do(trained, capsys):
    evaluate("all", "--truth", "check.gpkg", *COLUMN, status=1)
    line = [x for x in capsys.readouterr().err.splitlines() if "warning" not in x]
    assert len(line) == 1 and "--folds" in line[0] and "--out-of-fold" in line[0]


def test_a_damaged_map_or_ground_is_refused(trained, capsys):
    save(trained["path"] / "maps" / "a.tif", trained["truth"])
    evaluate("maps", "--truth", "check.gpkg", *COLUMN, status=1)
    assert "maps/a.tif: changed or damaged" in line_of(capsys)
    Path("folds/ground.parquet").write_bytes(b"PAR1")
    evaluate("folds/a.tif", "--truth", "check.gpkg", *COLUMN, status=1)
    assert "folds/ground.parquet: changed or damaged" in line_of(capsys)


# --- gates


def test_gates_fail_after_the_scores_are_written_and_again_when_up_to_date(scene, capsys):
    argv = ["map.tif", "--truth", "check.gpkg", *COLUMN, "-o", "s.json", "-q"]
    evaluate(*argv, "--fail-if", "miou<0.99", status=1)
    value = json.loads(Path("s.json").read_text())["metrics"]["miou"]["value"]
    for _ in range(2):
        err = [x for x in capsys.readouterr().err.splitlines() if "warning" not in x]
        assert err == [f"geoml: evaluate: gate miou<0.99 failed: miou is {value:.6g}"]
        when = os.stat("s.json").st_mtime_ns
        evaluate(*argv, "--fail-if", "miou<0.99", status=1)
        assert os.stat("s.json").st_mtime_ns == when
    evaluate(*argv, "--fail-if", "miou<0.1", "--fail-if", "f1.crop <&> grass <= 0.1")
    evaluate(*argv, "--fail-if", "miou<0.1", "--fail-if", "recall.water>=0", status=1)


@pytest.mark.parametrize(
    "gate",
    [
        "miou<",
        "miou",
        "<0.5",
        "miou<much",
        "miou<nan",
        "mio<0.5",
        "iou.water",
        "iou<0.5",
        "miou=0.5",
    ],
)
def test_a_gate_that_cannot_be_is_a_usage_error_before_any_work(
    tmp_path, monkeypatch, capsys, gate
):
    monkeypatch.chdir(tmp_path)
    evaluate("none.tif", "--truth", "none.gpkg", "-o", "s.json", "--fail-if", gate, status=2)
    assert "--fail-if" in line_of(capsys) and not list(tmp_path.iterdir())


def test_a_gate_on_a_class_that_is_not_there_is_a_usage_error(scene, capsys):
    evaluate("map.tif", "--truth", "check.gpkg", *COLUMN, "--fail-if", "iou.sand<0.5", status=2)
    assert "no class sand; they have water, forest" in line_of(capsys)


def test_an_undefined_score_passes_no_gate(scene, capsys):
    points_at([5, 50], [15, 60], [NAMES[scene["guess"][5, 15]]] * 2).to_file("two.gpkg")
    save(scene["path"] / "flat.tif", np.full((96, 80), scene["guess"][5, 15]))
    evaluate(
        "flat.tif", "--truth", "two.gpkg", *COLUMN, "--fail-if", "kappa<0", "-o", "s.json", status=1
    )
    assert "kappa is undefined" in capsys.readouterr().err


def test_a_drop_below_the_baseline_fails(scene, capsys):
    argv = ["map.tif", "--truth", "check.gpkg", *COLUMN]
    old = scores_of(*argv, out="old.json")
    evaluate(*argv, "-o", "new.json", "--baseline", "old.json")
    for name in ("accuracy", "miou", "kappa"):
        old["metrics"][name]["value"] += 0.02
    Path("better.json").write_text(json.dumps(old))
    evaluate(*argv, "-o", "new.json", "--baseline", "better.json", "--max-drop", 0.02)
    capsys.readouterr()
    evaluate(*argv, "-o", "new.json", "--baseline", "better.json", "--max-drop", 0.0199, status=1)
    line = line_of(capsys)
    assert all(f"failed: {name} is" in line for name in ("accuracy", "miou", "kappa"))
    for wrong in (
        ["--max-drop", 0.1],
        ["--baseline", "new.json"],
        ["--max-drop", -1, "--baseline", "old.json"],
    ):
        evaluate(*argv, "-o", "new.json", *wrong, status=2)
    Path("odd.json").write_text("{}")
    for odd in ("odd.json", "nowhere.json"):
        evaluate(*argv, "-o", "new.json", "--baseline", odd, status=1)


# --- bad input


def empty_vectors(path):
    geopandas.GeoDataFrame({"class": []}, geometry=[], crs=4326).to_file(path)


@pytest.mark.parametrize(
    ("change", "argv", "status", "says"),
    [
        (
            None,
            ["--truth", "check.gpkg", "--label-column", "kind"],
            1,
            "no column 'kind'; it has class",
        ),
        (None, ["--truth", "check.gpkg"], 1, "give --label-column; it has class"),
        (None, ["--truth", "none.gpkg", *COLUMN], 1, "none.gpkg: no such file"),
        (None, ["--truth", "map.tif", *COLUMN], 2, "--label-column is for vector files"),
        (None, ["--truth", "check.gpkg", *COLUMN, "--layer", "x"], 1, "check.gpkg"),
        (
            None,
            ["--truth", "check.gpkg", *COLUMN, "--metric", "segmentatoin"],
            2,
            "did you mean segmentation?",
        ),
        (
            None,
            ["--truth", "check.gpkg", *COLUMN, "--metric", "segmentation:x=1"],
            2,
            "no option 'x'",
        ),
        (None, ["--truth", "check.gpkg", *COLUMN, "--strict", "--include-trained"], 2, "give one"),
        (None, ["--truth", "check.gpkg", *COLUMN, "--report", "r.html"], 2, "-o scores.json"),
        (
            None,
            ["--truth", "check.gpkg", *COLUMN, "-o", "out/s.json", "--report", "r.html"],
            2,
            "beside out/s.json",
        ),
        (None, ["--truth", "check.gpkg", *COLUMN, "-o", "scores"], 2, "scores.json"),
        (None, ["--truth", "check.gpkg", *COLUMN, "--blocks", "0"], 2, "--blocks"),
        (
            "unknown",
            ["--truth", "t.gpkg", *COLUMN],
            1,
            "the maps do not know: mangrove, sand; they know water",
        ),
        ("nocrs", ["--truth", "t.gpkg", *COLUMN], 1, "no CRS; give it one"),
        ("beside", ["--truth", "t.gpkg", *COLUMN], 4, "no truth lies on the maps"),
        ("empty", ["--truth", "t.gpkg", *COLUMN], 1, "holds no features"),
        ("null", ["--truth", "t.gpkg", *COLUMN], 1, "'class' is empty"),
        ("lines", ["--truth", "t.gpkg", *COLUMN], 1, "LineString; truth is points"),
        ("mixed", ["--truth", "t.gpkg", *COLUMN], 1, "Point, Polygon; truth is points"),
        ("nodata", ["--truth", "t.gpkg", *COLUMN], 4, "nothing to score: 2 on nodata of the map"),
        ("text", ["--truth", "t.gpkg", *COLUMN], 1, "t.gpkg: not readable"),
        ("table", ["--truth", "t.csv", *COLUMN], 1, "t.csv: holds no geometries"),
        (
            "raster",
            ["--truth", "t.tif"],
            1,
            "the maps do not know: 7; they know water, forest, crop <&> grass; name",
        ),
        ("far raster", ["--truth", "t.tif"], 4, "no truth lies on the maps"),
        ("float raster", ["--truth", "t.tif"], 1, "truth is one band of class ids"),
        ("zero raster", ["--truth", "t.tif"], 1, "zero bytes"),
    ],
)
def test_bad_truth_is_one_line(scene, capsys, change, argv, status, says):
    near = geopandas.read_file("check.gpkg").to_crs(GRID.crs)
    if change == "unknown":
        near.loc[:4, "class"] = ["sand", "mangrove", "sand", "water", "sand"]
        near = near.iloc[:40]
    elif change == "beside":
        near = near.set_geometry(near.translate(1e6, 0))
    elif change == "null":
        near["class"] = None
    elif change == "lines":
        near = near.iloc[:1].set_geometry([shapely.LineString([(0, 0), (1, 1)])], crs=GRID.crs)
    elif change == "mixed":
        near = near.iloc[:2].set_geometry(
            [near.geometry[0], near.geometry[1].buffer(50)], crs=GRID.crs
        )
    elif change == "nodata":
        near = points_at([1, 2], [3, 4], ["water", "forest"])
    if change in ("unknown", "beside", "null", "lines", "mixed", "nodata"):
        near.to_file("t.gpkg")
    elif change == "nocrs":
        near.set_crs(None, allow_override=True).to_file("t.gpkg")
    elif change == "empty":
        empty_vectors("t.gpkg")
    elif change == "text":
        Path("t.gpkg").write_text("no package")
    elif change == "table":
        Path("t.csv").write_text("lon,lat,class\n-34.9,-7.9,water\n")
    elif change == "raster":
        ids = scene["truth"].copy()
        ids[60:62, 3] = 7
        save(scene["path"] / "t.tif", ids)
    elif change == "far raster":
        save(scene["path"] / "t.tif", scene["truth"], Grid("EPSG:32633", GRID.transform, 96, 80))
    elif change == "float raster":
        save(scene["path"] / "t.tif", scene["truth"], names=None, dtype="float32")
    elif change == "zero raster":
        Path("t.tif").touch()
    before = set(scene["path"].iterdir())
    evaluate("map.tif", *argv, status=status)
    captured = capsys.readouterr()
    lines = [x for x in captured.err.splitlines() if "warning" not in x]
    assert len(lines) == 1 and says in lines[0], captured.err
    assert captured.out == ""
    left = {p for p in scene["path"].iterdir() if not p.name.endswith((".gpkg-wal", ".gpkg-shm"))}
    assert left == before


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("none.tif", "no such file"),
        ("values.tif", "values are float32, not class ids"),
        ("many.tif", "more than 256 distinct values"),
        ("blank.tif", "holds no class, only nodata"),
        ("bands.tif", "2 bands; a class map has one"),
        ("strange.tif", "holds class 2, which its legend does not name"),
        ("twins.tif", "two classes share a name"),
        (".", "holds no items.json"),
    ],
)
def test_a_bad_map_is_one_line(scene, capsys, name, says):
    path, ids = scene["path"] / name, scene["truth"]
    if name == "values.tif":
        save(path, ids, names=None, dtype="float32")
    elif name == "many.tif":
        save(path, np.arange(96 * 80).reshape(96, 80), names=None, nodata=None, dtype="uint16")
    elif name == "blank.tif":
        save(path, np.full((96, 80), 255), names=None)
    elif name == "bands.tif":
        save_cog(path, np.stack([ids, ids]), Layout(GRID, (Band("a"), Band("b")), "uint8"))
    elif name == "strange.tif":
        save(path, ids, names=NAMES[:2])
        table = geopandas.read_file("check.gpkg")
        table[table["class"] != NAMES[2]].to_file("check.gpkg")
        save(path, np.full((96, 80), 2), names=NAMES[:2])
    elif name == "twins.tif":
        save(path, ids, names=["water", "water", "crop"])
    evaluate(name, "--truth", "check.gpkg", *COLUMN, status=1)
    line = line_of(capsys)
    assert says in line and name in line


def test_maps_of_two_legends_do_not_mix(scene, capsys):
    save(scene["path"] / "other.tif", scene["truth"], names=["forest", "water", "sand"])
    evaluate("map.tif", "other.tif", "--truth", "check.gpkg", *COLUMN, status=1)
    assert "class 0 is forest here and water in another map" in line_of(capsys)


# --- outputs


def test_without_o_the_json_is_on_stdout_and_nothing_is_written(scene, capsys, monkeypatch):
    before = set(scene["path"].iterdir())
    evaluate("map.tif", "--truth", "check.gpkg", *COLUMN)
    text = capsys.readouterr().out
    scores = json.loads(text)
    assert set(scores) == {"metrics", "classes", "confusion", "scored", "geoml"}
    assert text == dumps(scores)
    evaluate("map.tif", "--truth", "check.gpkg", *COLUMN, "--ndjson")
    line = capsys.readouterr().out
    assert line.count("\n") == 1 and json.loads(line) == scores
    assert set(scene["path"].iterdir()) == before
    monkeypatch.setattr("sys.stdin", StringIO("map.tif\n"))
    evaluate("-", "--truth", "check.gpkg", *COLUMN, "--ndjson")
    piped = json.loads(capsys.readouterr().out)
    assert piped["metrics"] == scores["metrics"]


def test_items_on_stdin_are_maps_too(scene, capsys, monkeypatch):
    folder_of(
        scene["path"] / "maps", {"a": (scene["guess"], GRID)}, [("train", lonlat_box(0, 0, 96, 40))]
    )
    direct = scores_of("maps", "--truth", "check.gpkg", *COLUMN)
    item = json.loads(Path("maps/items.json").read_text())["features"][0]
    item["assets"]["map"]["href"] = "maps/a.tif"
    monkeypatch.setattr("sys.stdin", StringIO(json.dumps(item) + "\n"))
    capsys.readouterr()
    evaluate("-", "--truth", "check.gpkg", *COLUMN)
    piped = json.loads(capsys.readouterr().out)
    assert piped["scored"] == direct["scored"] and piped["confusion"] == direct["confusion"]


def test_reruns_are_byte_equal_and_up_to_date(scene, capsys):
    argv = ["map.tif", "--truth", "check.gpkg", *COLUMN, "--report", "r.html", "-o", "s.json"]
    evaluate(*argv, "--depfile", "s.d")
    assert capsys.readouterr().out.splitlines() == ["s.json", "r.html"]
    assert Path("s.d").read_text().splitlines()[0] == "s.json: check.gpkg map.tif"
    files = {p: Path(p).read_bytes() for p in ("s.json", "r.html")}
    times = {p: os.stat(p).st_mtime_ns for p in files}
    evaluate(*argv)
    assert {p: os.stat(p).st_mtime_ns for p in files} == times
    evaluate(*argv, "--fail-if", "miou<0.1", "-j", 3)  # gates and manners change no byte
    assert {p: os.stat(p).st_mtime_ns for p in files} == times
    for p in files:
        os.unlink(p)
    evaluate(*argv)
    assert {p: Path(p).read_bytes() for p in files} == files
    assert not list(scene["path"].glob(".*"))
    evaluate(*argv, "--seed", 1)
    assert Path("s.json").read_bytes() != files["s.json"]


def test_a_report_that_is_missing_or_edited_is_made_again(scene):
    argv = ["map.tif", "--truth", "check.gpkg", *COLUMN, "--report", "r.html", "-o", "s.json"]
    evaluate(*argv)
    whole = Path("r.html").read_bytes()
    Path("r.html").write_bytes(whole.replace(b"accuracy", b"perfection"))
    evaluate(*argv)
    assert Path("r.html").read_bytes() == whole
    Path("r.html").unlink()
    evaluate(*argv)
    assert Path("r.html").read_bytes() == whole
    evaluate(*argv[:-4], "-o", "s.json")  # without the page the scores stand alone
    assert "members" not in json.loads(Path("s.json").read_text())["geoml"]


def test_what_is_not_ours_is_not_replaced(scene, capsys):
    argv = ["map.tif", "--truth", "check.gpkg", *COLUMN, "--report", "r.html", "-o", "s.json"]
    Path("r.html").write_text("<html>mine</html>")
    evaluate(*argv, status=1)
    assert "r.html: exists and was not written by geoml" in line_of(capsys)
    Path("r.html").unlink()
    Path("s.json").write_text('{"mine": 1}')
    evaluate(*argv, status=1)
    assert "s.json: exists and was not written by geoml" in line_of(capsys)
    assert Path("s.json").read_text() == '{"mine": 1}' and not Path("r.html").exists()
    evaluate(*argv, "--force")
    assert json.loads(Path("s.json").read_text())["geoml"]["verb"] == "evaluate"


def test_dry_run_says_what_it_would_do_and_does_nothing(scene, capsys):
    before = set(scene["path"].iterdir())
    evaluate(
        "map.tif", "--truth", "check.gpkg", *COLUMN, "-o", "s.json", "--report", "r.html", "-n"
    )
    captured = capsys.readouterr()
    assert captured.out == "" and "would write s.json and r.html" in captured.err
    assert set(scene["path"].iterdir()) == before


class Page(HTMLParser):
    """Tags, what they point to, and the text."""

    VOID = {"meta", "br", "image", "rect", "path"}

    def __init__(self, text):
        super().__init__()
        self.stack, self.tags, self.links, self.words = [], Counter(), [], []
        self.feed(text)
        assert not self.stack

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.links += [v for k, v in attrs if k in ("href", "src", "xlink:href")]
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.links += [v for k, v in attrs if k in ("href", "src", "xlink:href")]

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.stack.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_the_report_needs_no_other_file_and_shows_every_point(scene):
    scores = scores_of("map.tif", "--truth", "check.gpkg", *COLUMN, "--report", "r.html")
    text = Path("r.html").read_text()
    page = Page(text)
    assert page.tags["script"] == page.tags["link"] == page.tags["img"] == 0
    assert page.links and all(link.startswith("data:image/png;base64,") for link in page.links)
    assert "url(" not in text and "@import" not in text
    assert "crop <&> grass" in page.words and "crop <&> grass" not in text  # escaped
    outcome = Counter()
    for word in page.words:
        if word.startswith("truth: ") and "; " in word:
            truth, said = word.removeprefix("truth: ").split("; ")
            outcome["out" if said.startswith("left") else truth == said.removeprefix("map: ")] += 1
    matrix = np.array(scores["confusion"]["matrix"])
    assert outcome[True] == np.trace(matrix)
    assert outcome[False] == matrix.sum() - np.trace(matrix)
    assert outcome["out"] == scores["scored"]["left_out"]["nodata"]
    assert sum(outcome.values()) == 300
    for number in [*matrix.ravel(), *matrix.sum(axis=0), *matrix.sum(axis=1)]:
        assert f">{number:,}<" in text or (number == 0 and ">·<" in text)
    entry = scores["metrics"]["accuracy"]
    assert f"{100 * entry['lo']:.1f} to {100 * entry['hi']:.1f} %" in text
    assert str(scene["path"]) not in text  # no absolute path, no clock


def test_the_picture_of_pixel_truth_is_blue_where_right_and_red_where_wrong(scene):
    from base64 import b64decode

    from matplotlib.image import imread

    save(scene["path"] / "truth.tif", scene["truth"])
    scores_of("map.tif", "--truth", "truth.tif", "--report", "r.html")
    links = Page(Path("r.html").read_text()).links
    images = [
        (imread(_file(b64decode(link.partition(",")[2]))) * 255).round().astype(int)
        for link in links
    ]
    shown, agreed = images
    seen = scene["guess"] != 255
    np.testing.assert_array_equal(shown[..., 3] == 255, seen)
    for one in legend(NAMES):
        np.testing.assert_array_equal(
            (shown[..., :3] == one.rgb).all(-1) & seen, scene["guess"] == one.id
        )
    right = scene["truth"] == scene["guess"]
    np.testing.assert_array_equal((agreed[..., :3] == (0x2A, 0x7F, 0x9E)).all(-1), right & seen)
    np.testing.assert_array_equal((agreed[..., :3] == (0xC2, 0x15, 0x2B)).all(-1), ~right & seen)


def _file(data):
    from io import BytesIO

    return BytesIO(data)
