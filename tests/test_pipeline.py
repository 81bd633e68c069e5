"""The five lines on a scene whose answer is known, through files and through a pipe."""

import json
import subprocess
import sys
from pathlib import Path

import made
import numpy as np
import pytest
import rasterio

from geoml_cli.cli import run
from geoml_cli.formats.tileset import read_tileset


def catalog(folder: Path) -> Path:
    """A static catalog of one item with the made scene, by hand: no code of the project's."""
    scene, _, truth = made.scene(folder, 96, 112)
    made.write(folder / "truth.tif", truth[None], names=("class",))
    item = {
        "type": "Feature", "stac_version": "1.1.0", "id": "a", "collection": "made",
        "geometry": {"type": "Polygon", "coordinates": [[[15, 45.1], [15.02, 45.1], [15.02, 45.2], [15, 45.2], [15, 45.1]]]},
        "bbox": [15, 45.1, 15.02, 45.2],
        "properties": {"datetime": "2023-06-01T10:00:00Z"}, "links": [],
        "assets": {"image": {"href": f"./{scene.name}", "type": "image/tiff; application=geotiff", "roles": ["data"]}},
    }  # fmt: skip
    top = {
        "type": "Catalog", "stac_version": "1.1.0", "id": "top", "description": "made",
        "links": [{"rel": "item", "href": "./item.json", "type": "application/geo+json"}],
    }  # fmt: skip
    (folder / "item.json").write_text(json.dumps(item))
    (folder / "catalog.json").write_text(json.dumps(top))
    return folder / "catalog.json"


FIVE = [
    "fetch catalog.json --collection made --datetime 2023 -o scenes/",
    "tile scenes/ --labels labels.gpkg --label-column class --size 32 --split blocks:4 --buffer 2 -o tiles/",
    "train tiles/ --encoder unet:width=8,depth=1 --epochs 30 --lr 1e-2 --batch 4 --device cpu -o model/",
    "predict scenes/ --model model/ --device cpu -o maps/",
    "evaluate maps/ --truth truth.tif -o scores.json --report report.html --fail-if miou<0.8",
]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("five")
    catalog(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line in FIVE:
            assert run(line.split()) == 0, line
    return folder


def test_the_answer_is_found(done):
    with rasterio.open(done / "maps/a.tif") as dataset:
        got = dataset.read(1)
    truth = made.regions(96, 112)
    assert (got == truth).mean() > 0.95


def test_the_score_is_that_of_ground_never_trained_on(done):
    """By hand: agreement on the pixels of the test blocks, from the map and the truth alone."""
    scores = json.loads((done / "scores.json").read_text())
    lattice = read_tileset(str(done / "tiles")).split
    with rasterio.open(done / "maps/a.tif") as dataset:
        got = dataset.read(1)
        rows, cols = np.mgrid[: dataset.height, : dataset.width]
        test = lattice.fold_at(*(dataset.transform * (cols + 0.5, rows + 0.5))) == 2
    truth = made.regions(96, 112)
    accuracy = scores["metrics"]["accuracy"]
    # a pixel on a block's border may fall either way through the footprint in degrees
    assert accuracy["n"] == pytest.approx(test.sum(), rel=0.05)
    assert accuracy["value"] == pytest.approx((got == truth)[test].mean(), abs=0.01)
    assert scores["scored"]["left_out"]["trained"] == pytest.approx((~test).sum(), rel=0.05)


def test_a_second_pass_does_nothing_and_a_change_redoes_what_follows(done, monkeypatch):
    monkeypatch.chdir(done)
    stamps = [
        "scenes/items.json",
        "tiles/tileset.json",
        "model/model.json",
        "maps/items.json",
        "scores.json",
    ]
    before = [Path(s).stat().st_mtime_ns for s in stamps]
    for line in FIVE:
        assert run(line.split()) == 0
    assert [Path(s).stat().st_mtime_ns for s in stamps] == before
    assert run([*FIVE[1].split(), "--min-labelled", "2"]) == 0
    for line in FIVE[2:]:
        assert run(line.split()) == 0
    changed = [Path(s).stat().st_mtime_ns > t for s, t in zip(stamps, before, strict=True)]
    assert changed == [False, True, True, True, True]


@pytest.mark.slow
def test_stages_pipe_into_each_other(done):
    geoml = f"{sys.executable} -m geoml_cli"
    line = (
        f"{geoml} fetch catalog.json -o piped/ --ndjson | {geoml} predict - --model model/ --device cpu -o piped-maps/ --ndjson"
        f" | {geoml} evaluate - --truth truth.tif --include-trained"
    )
    got = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line], cwd=done, capture_output=True, text=True
    )
    assert got.returncode == 0, got.stderr
    assert json.loads(got.stdout)["metrics"]["accuracy"]["n"] == 96 * 112


def test_nothing_inside_depends_on_where_or_when(done, tmp_path, monkeypatch):
    """The same work in another folder, later: every artifact has the same bytes."""
    for name in ("catalog.json", "item.json", "scene.tif", "labels.gpkg", "truth.tif"):
        (tmp_path / name).write_bytes((done / name).read_bytes())
    first = {}
    for folder in (done, tmp_path):
        monkeypatch.chdir(folder)
        for line in FIVE[:4]:
            assert run(line.split()) == 0
        for name in ("scenes", "tiles", "model", "maps"):
            content = made.content(folder / name)
            assert first.setdefault(name, content) == content


def test_no_litter_is_left(done):
    assert not [p for p in done.iterdir() if p.name.startswith(".")]
