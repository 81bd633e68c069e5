"""`geoml tile`: what is cut is what was there, and labels fall where they belong."""

import json
from pathlib import Path

import geopandas
import made
import numpy as np
import pytest
import rasterio
import rasterio.shutil
import shapely

from geoml_cli.cli import run
from geoml_cli.formats.tileset import read_tileset


@pytest.fixture
def scene(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return made.scene(tmp_path)


def tile(*more):
    return run(["tile", "scene.tif", "-o", "tiles/", *map(str, more)])


def labelled(*more):
    return tile("--labels", "labels.gpkg", "--label-column", "class", *more)


def test_tiles_are_the_scene_pixel_for_pixel(scene, capsys):
    assert tile("--size", 32, "--stride", 20) == 0
    assert capsys.readouterr().out == "tiles/tileset.json\n"
    tiles = read_tileset("tiles")
    with rasterio.open("scene.tif") as source:
        padded = np.pad(source.read(), ((0, 0), (0, 32), (0, 32)))
    seen = np.zeros(padded.shape[1:], int)
    for i, row in tiles.index.iterrows():
        here = (
            slice(row.window_row, row.window_row + 32),
            slice(row.window_col, row.window_col + 32),
        )
        [image], [[valid]] = tiles.take("images", [i]), tiles.take("valid", [i])
        assert (image[0][:, valid] == padded[(slice(None), *here)][:, valid]).all()
        seen[here] += valid
        with rasterio.open("scene.tif") as source:
            x, y = source.transform * (row.window_col, row.window_row)
        assert (row["proj:transform"][2], row["proj:transform"][5]) == (x, y)
    assert (seen[:96, :80] > 0).all() and (seen[96:] == 0).all() and (seen[:, 80:] == 0).all()


def test_labels_in_another_crs_fall_on_the_same_pixels(scene):
    made.polygons("other.gpkg", scene[2], crs="EPSG:4326")
    assert labelled("--size", 96) == 0
    assert (
        run(
            [
                "tile",
                "scene.tif",
                "--labels",
                "other.gpkg",
                "--label-column",
                "class",
                "--size",
                "96",
                "-o",
                "b/",
            ]
        )
        == 0
    )
    ours, theirs = (
        read_tileset("tiles").take("labels", [0])[0],
        read_tileset("b").take("labels", [0])[0],
    )
    assert (ours[:96, :80] == scene[2]).all()
    assert (ours == theirs).mean() > 0.998  # a vertex may move a pixel by rounding
    assert [c.name for c in read_tileset("tiles").classes] == list(made.NAMES)


def test_class_raster_on_another_grid_and_its_nodata(scene, tmp_path):
    truth = scene[2].copy()
    truth[:10] = 9
    coarse = np.kron(truth, np.ones((2, 2), np.uint8))  # 5 m pixels
    made.write(tmp_path / "labels.tif", coarse[None] + 3, res=5, names=("class",), nodata=12)
    assert run(["tile", "scene.tif", "--labels", "labels.tif", "--size", "96", "-o", "tiles/"]) == 0
    tiles = read_tileset("tiles")
    got = tiles.take("labels", [0])[0][:96, :80]
    assert [c.name for c in tiles.classes] == ["3", "4", "5"]
    assert (got[:10] == 255).all() and (got[10:] == scene[2][10:]).all()


def test_points_label_the_pixel_that_holds_them(scene):
    x, y = 500_000 + 10 * np.array([3.2, 40.9]), 5_000_000 - 10 * np.array([7.5, 80.1])
    table = geopandas.GeoDataFrame(
        {"class": ["a", "b"]}, geometry=geopandas.points_from_xy(x, y), crs=32633
    )
    table.to_file("points.gpkg")
    assert (
        run(
            [
                "tile",
                "scene.tif",
                "--labels",
                "points.gpkg",
                "--label-column",
                "class",
                "--size",
                "96",
                "-o",
                "t",
            ]
        )
        == 0
    )
    got = read_tileset("t").take("labels", [0])[0]
    assert got[7, 3] == 0 and got[80, 40] == 1 and (got != 255).sum() == 2


def test_invalid_pixels_are_neither_valid_nor_labelled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    truth = made.regions(64, 64)
    data = made.image(truth).astype(np.float32)
    data[0, :5], data[1, 5:9], data[0, 9:12] = np.nan, np.inf, -9999
    made.write(tmp_path / "scene.tif", data, nodata=-9999)
    made.polygons(tmp_path / "labels.gpkg", truth)
    assert labelled("--size", 64) == 0
    tiles = read_tileset("tiles")
    valid = tiles.take("valid", [0])[0, 0]
    assert not valid[:12].any() and valid[12:].all()
    assert (tiles.take("labels", [0])[0][:12] == 255).all()


def test_folds_keep_their_distance(scene):
    assert labelled("--size", 40, "--split", "blocks:4", "--folds", 4, "--buffer", 3) == 0
    tiles = read_tileset("tiles")
    folds = np.full((120, 120), 99)
    near = np.zeros((120, 120), int)
    for i, row in tiles.index.iterrows():
        here = (
            slice(row.window_row, row.window_row + 40),
            slice(row.window_col, row.window_col + 40),
        )
        folds[here], near[here] = tiles.take("folds", [i])[0], tiles.take("near", [i])[0]
    folds, near = folds[:96, :80], near[:96, :80]
    assert set(np.unique(folds)) == {0, 1, 2, 3}
    for fold in range(4):
        may = (near >> fold & 1) == 0
        rows, cols = np.nonzero(folds == fold)
        for r, c in zip(*np.nonzero(may), strict=True):  # brute force: no held pixel within 3 px
            assert (
                max(abs(rows - r).min(), 0) >= 0
                and np.maximum(abs(rows - r), abs(cols - c)).min() >= 3
            )
        lost = ~may & (folds != fold)
        for r, c in list(zip(*np.nonzero(lost), strict=True))[::17]:
            assert np.maximum(abs(rows - r), abs(cols - c)).min() <= 4


def test_the_same_bytes_whatever_the_number_of_workers(scene, monkeypatch):
    monkeypatch.setattr("geoml_cli.stages.layout.SHARD_BYTES", 2 * 16 * 16 * 4)
    assert labelled("--size", 16, "--split", "blocks:4", "-j", 1) == 0
    one = made.content(scene[0].parent / "tiles")
    assert len(one) > 20
    assert (
        run(
            [
                "tile",
                "scene.tif",
                "--labels",
                "labels.gpkg",
                "--label-column",
                "class",
                "--size",
                "16",
                "--split",
                "blocks:4",
                "-j",
                "4",
                "-o",
                "four/",
            ]
        )
        == 0
    )
    assert made.content(scene[0].parent / "four") == one


def test_up_to_date_touched_and_edited(scene, tmp_path):
    assert labelled() == 0
    stamp = tmp_path / "tiles/tileset.json"
    before = stamp.stat().st_mtime_ns
    assert labelled("-j", 2) == 0 and stamp.stat().st_mtime_ns == before
    (tmp_path / "labels.gpkg").touch()
    text = stamp.read_text()
    assert labelled() == 0 and stamp.stat().st_mtime_ns > before and stamp.read_text() == text
    made.polygons(tmp_path / "labels.gpkg", made.regions(96, 80, seed=5))
    assert labelled() == 0 and stamp.read_text() != text


def test_ndjson_names_the_array_of_every_tile(scene, capsys):
    assert labelled("--size", 48, "--ndjson") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for row in rows:
        href, _, place = row["href"].partition("#")
        assert np.load(href)[int(place)].shape == (1, 2, 48, 48)
        assert shapely.geometry.shape(row["geometry"]).is_valid
    assert len({row["id"] for row in rows}) == len(rows) == 4


def test_opens_in_duckdb(scene):
    duckdb = pytest.importorskip("duckdb")
    assert labelled("--size", 48) == 0
    total = (
        duckdb.connect()
        .execute("select sum(list_sum(counts_class)) from 'tiles/index.parquet'")
        .fetchone()[0]
    )
    assert total == 96 * 80


def test_dry_run_writes_nothing(scene, tmp_path, capsys):
    before = made.content(tmp_path)
    assert labelled("--dry-run") == 0
    said = capsys.readouterr()
    assert not said.out and "1 scene" in said.err and made.content(tmp_path) == before


def bad(capsys, status, *words):
    said = capsys.readouterr()
    lines = [line for line in said.err.splitlines() if "warning" not in line]
    assert len(lines) == 1 and not said.out, said.err
    for word in words:
        assert word in lines[0], lines[0]
    return status


def cut_short(path):
    """A COG has its directory at the head: it opens, and fails where pixels are missing."""
    rasterio.shutil.copy(path, "whole.tif", driver="COG")
    path.write_bytes(Path("whole.tif").read_bytes()[:-3000])


@pytest.mark.parametrize(
    "spoil, status, words",
    [
        (lambda p: p.unlink(), 1, ["scene.tif", "no such file"]),
        (lambda p: p.write_bytes(b""), 1, ["scene.tif", "empty"]),
        (lambda p: p.write_bytes(b"text, not a raster"), 1, ["scene.tif", "not readable"]),
        (lambda p: cut_short(p), 1, ["scene.tif", "rows", "columns"]),
        (lambda p: p.write_bytes(p.read_bytes()[:4000]), 1, ["scene.tif", "not readable"]),
    ],
)
def test_bad_scene_is_one_line(scene, capsys, tmp_path, spoil, status, words):
    spoil(tmp_path / "scene.tif")
    assert labelled() == bad(capsys, status, *words)
    assert not (tmp_path / "tiles").exists() and not list(tmp_path.glob(".tiles*"))


def test_scene_without_crs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    made.write(tmp_path / "scene.tif", made.image(made.regions(64, 64)), crs=None)
    assert tile() == bad(capsys, 1, "scene.tif", "no CRS")


@pytest.mark.parametrize(
    "options, status, words",
    [
        (["--label-column", "kind"], 1, ["labels.gpkg", "no column 'kind'", "class"]),
        ([], 1, ["labels.gpkg", "--label-column", "class"]),
        (
            ["--label-column", "class", "--bands", "red,swir"],
            1,
            ["scene.tif", "no band swir", "red, nir"],
        ),
        (["--label-column", "class", "--split", "blocks"], 2, ["--split", "blocks:8"]),
        (["--label-column", "class", "--split", "none", "--folds", "5"], 2, ["--split"]),
        (["--label-column", "class", "--split", "blocks:8", "--buffer", "9"], 2, ["--buffer"]),
        (["--label-column", "class", "--sampler", "gird"], 2, ["gird", "grid"]),
        (
            ["--label-column", "class", "--size", "200", "--sampler", "grid:edge=drop"],
            4,
            ["--size"],
        ),
    ],
)
def test_bad_arguments_are_one_line(scene, capsys, options, status, words):
    assert tile("--labels", "labels.gpkg", *options) == bad(capsys, status, *words)


def test_labels_beside_the_scene(scene, capsys, tmp_path):
    table = geopandas.read_file("labels.gpkg")
    table.geometry = table.translate(50_000, 0)
    table.to_file("labels.gpkg")
    assert labelled() == bad(capsys, 1, "labels.gpkg", "no label lies")
    assert not (tmp_path / "tiles").exists()


def test_an_empty_split_is_said(scene, capsys):
    table = geopandas.read_file("labels.gpkg")
    table.clip(shapely.box(500_000, 4_999_900, 500_100, 5_000_000)).to_file("few.gpkg")
    status = run(
        [
            "tile",
            "scene.tif",
            "--labels",
            "few.gpkg",
            "--label-column",
            "class",
            "--split",
            "blocks:4",
            "-o",
            "t",
        ]
    )
    assert status == bad(capsys, 1, "no labelled pixel")


def test_all_nodata_scene(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    made.write(tmp_path / "scene.tif", np.zeros((2, 64, 64), np.uint8), nodata=0)
    assert tile() == bad(capsys, 4, "no valid pixel")


def test_scenes_that_do_not_mix(scene, capsys, tmp_path):
    def with_other(name, **profile):
        with rasterio.open(
            made.write(tmp_path / name, made.image(scene[2]), **profile), "r+"
        ) as other:
            if not profile:
                other.scales, other.offsets = (0.1, 0.1), (-1, -1)
        return run(["tile", "scene.tif", name, "-o", "t/"])

    assert with_other("offset.tif") == bad(capsys, 1, "offset.tif", "do not mix")
    assert with_other("coarse.tif", res=30) == bad(capsys, 1, "coarse.tif", "30", "resolution")
    assert with_other("names.tif", names=("red", "green")) == bad(
        capsys, 1, "names.tif", "no band nir"
    )


def test_bands_in_another_order_are_put_right(scene, tmp_path):
    made.write(tmp_path / "swapped.tif", made.image(scene[2])[::-1], names=("nir", "red"))
    assert run(["tile", "scene.tif", "swapped.tif", "--size", "96", "-o", "t/"]) == 0
    first, second = read_tileset("t").take("images", [0, 1])
    assert (first == second).all()


def test_rotated_and_gcp_rasters_are_refused_in_words(tmp_path, capsys):
    folder = Path("../shared/data/k_extra/edge_case_rasters")
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    for name, word in [("au-3577-rotated.tif", "rotated"), ("au-gcp.tif", "control points")]:
        assert run(["tile", str(folder / name), "-o", str(tmp_path / "t")]) == bad(
            capsys, 1, name, word, "gdalwarp"
        )
