"""Truth on ground that the model trained on: left out, refused or said."""

import json
from pathlib import Path

import geopandas
import pytest
import scored
from scored import (
    COLUMN,
    GRID,
    NAMES,
    check,
    evaluate,
    line_of,
    save,
    scores_of,
)

from geoml_cli.formats.bands import Band
from geoml_cli.formats.cog import Layout, save_cog
from geoml_cli.formats.digest import digest_file
from geoml_cli.formats.jsonfile import dumps
from geoml_cli.formats.stamp import Input, record

scene = scored.scene
trained = scored.trained


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
