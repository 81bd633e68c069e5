"""Gates and bad input of `geoml evaluate`: one line, the right status."""

import json
import os
from pathlib import Path

import geopandas
import numpy as np
import pytest
import scored
import shapely
from scored import (
    COLUMN,
    GRID,
    NAMES,
    evaluate,
    line_of,
    points_at,
    save,
    scores_of,
)

from geoml_cli.formats.bands import Band
from geoml_cli.formats.cog import Layout, save_cog
from geoml_cli.geo.grid import Grid

scene = scored.scene


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
