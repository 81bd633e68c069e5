"""The numbers of `geoml evaluate`, against scikit-learn on the same samples."""

import os
import subprocess
import sys
from pathlib import Path

import geopandas
import numpy as np
import pytest
import scored
import shapely
from affine import Affine
from pyproj import Transformer
from scored import COLUMN, GRID, NAMES, check, evaluate, folder_of, points_at, save, scores_of

from geoml_cli.geo.grid import Grid

scene = scored.scene


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


@pytest.mark.slow
def test_memory_does_not_grow_with_the_raster(tmp_path):
    # VmHWM, not ru_maxrss: a new process inherits that from the one it was forked from
    code = (
        "import re, sys; from geoml_cli.cli import run; status = run(sys.argv[1:]);"
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1], status)"
    )
    peaks = []
    for size in (1024, 8192):
        ids = np.kron(
            np.random.default_rng(0).integers(0, 3, (size // 32,) * 2), np.ones((32, 32), np.uint8)
        )
        save(tmp_path / f"map{size}.tif", ids, Grid(GRID.crs, GRID.transform, size, size))
        step = 30 * size / 110e3 / size
        degrees = Grid("OGC:CRS84", Affine(step, 0, -34.94, 0, -step, -7.96), size, size)
        save(tmp_path / f"truth{size}.tif", ids, degrees)
        del ids
        argv = [
            "evaluate",
            f"map{size}.tif",
            "--truth",
            f"truth{size}.tif",
            "-o",
            f"{size}.json",
            "--report",
            f"{size}.html",
        ]
        done = subprocess.run(
            [sys.executable, "-c", code, *argv],
            cwd=tmp_path,
            env=os.environ | {"GDAL_CACHEMAX": "32"},
            capture_output=True,
            text=True,
            check=True,
        )
        peak, status = done.stdout.split()[-2:]
        assert status == "0"
        peaks.append(int(peak) // 1024)
    assert peaks[1] - peaks[0] < 64  # MB; each raster is 64 MB, and 64 times the smaller one


def test_a_deadline_stops_it_and_nothing_is_written(scene, capsys):
    argv = ["map.tif", "--truth", "check.gpkg", *COLUMN]
    evaluate(*argv, "-o", "s.json", "--deadline", "0s", status=75)
    evaluate(*argv, "--deadline", "0s", status=75)
    assert not Path("s.json").exists() and capsys.readouterr().out == ""
    evaluate(*argv, "-o", "s.json")
    assert not list(scene["path"].glob(".*"))
