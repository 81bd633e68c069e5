"""A small scored scene: a class map, the truth behind it, points on it, and what a score must say."""

import json
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
from geoml_cli.formats.stamp import record
from geoml_cli.formats.vectors import write_vectors
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
        write_vectors(
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
