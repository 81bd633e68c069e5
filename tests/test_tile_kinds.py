"""`geoml tile`: dates, sensors, grids, chips, formats, shares, statistics, each against another way."""

import json
from pathlib import Path

import made
import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from torch.utils.data import DataLoader

from geoml_cli.cli import run
from geoml_cli.stages.loader import TileDataset, batches
from geoml_cli.stages.tiles import open_tiles

RES = 10


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def dated(name, day, data, **profile):
    """A scene whose date is in its tags; 0 is nodata."""
    path = made.write(Path(name), data, **({"nodata": 0} | profile))
    with rasterio.open(path, "r+") as out:
        out.update_tags(TIFFTAG_DATETIME=f"{day.replace('-', ':')} 10:00:00")
    return name


def numbers(seed=0, size=64, bands=2):
    return np.random.default_rng(seed).integers(1, 250, (bands, size, size)).astype(np.uint8)


def tile(*words):
    assert run(["tile", *map(str, words)]) == 0
    return open_tiles(words[words.index("-o") + 1])


def series():
    """Four dates of one place; the second has a hole over the upper left tile."""
    days = ["2023-01-05", "2023-01-20", "2023-03-02", "2023-03-30"]
    data = [numbers(i) for i in range(4)]
    data[1][:, :32, :32] = 0
    data[2][:, :, 40:] = 0
    return [dated(f"s{i}.tif", d, x) for i, (d, x) in enumerate(zip(days, data, strict=True))], data


def test_months_take_the_date_that_shows_most_and_mask_what_is_missing():
    names, data = series()
    tiles = tile(*names, "--frames", "monthly", "--size", 32, "-o", "t")
    assert tiles.head["sensors"][0]["frames"] == 3 and len(tiles.index) == 4
    row = tiles.index.index[tiles.index["id"].str.endswith("-0-0")][0]
    images, valid = tiles.take("images", [row])[0], tiles.take("valid", [row])[0]
    days = [d and d[:10] for d in tiles.index["dates_image"][row]]
    assert days == ["2023-01-05", None, "2023-03-02"]  # of equals the earlier
    assert (images[0] == data[0][:, :32, :32]).all() and not valid[1].any() and valid[0].all()
    corner = tiles.index.index[tiles.index["id"].str.endswith("-32-32")][0]
    days = [d and d[:10] for d in tiles.index["dates_image"][corner]]
    assert days == ["2023-01-05", None, "2023-03-30"]  # the other March date is nodata there


def test_best_near_and_all_frames():
    names, data = series()
    best = tile(*names, "--frames", 3, "--size", 32, "-o", "best")
    first = best.index.index[best.index["id"].str.endswith("-0-0")][0]
    days = [d[:10] for d in best.index["dates_image"][first]]
    assert days == ["2023-01-05", "2023-03-02", "2023-03-30"]  # not the date with the hole
    near = tile(
        *names, "--frames", "2023-01-18,2023-12-01", "--within", 60, "--size", 32, "-o", "near"
    )
    row = near.index.index[near.index["id"].str.endswith("-0-0")][0]
    assert [d and d[:10] for d in near.index["dates_image"][row]] == ["2023-01-05", None]
    every = tile(*names, "--frames", "all", "--size", 64, "-o", "all")
    images, valid = every.take("images", [0])[0], every.take("valid", [0])[0]
    assert images.shape == (4, 2, 64, 64)
    for i in range(4):
        assert (valid[i] == (data[i] != 0).all(0)).all()
        assert (images[i][:, valid[i]] == data[i][:, valid[i]]).all()


def test_scenes_that_overlap_on_a_day_are_one_frame():
    a, b = numbers(1), numbers(2)
    a[:, :, 50:] = 0
    dated("a.tif", "2023-05-01", a)
    dated("b.tif", "2023-05-01", b, transform=from_origin(500_000 + 32 * RES, 5_000_000, RES, RES))
    tiles = tile("a.tif", "b.tif", "--frames", "all", "--size", 96, "-o", "t")
    assert len(tiles.index) == 1
    image = tiles.take("images", [0])[0, 0]
    assert (image[:, :64, :50] == a[:, :, :50]).all() and (
        image[:, :64, 50:96] == b[:, :, 18:]
    ).all()


def test_a_coarser_sensor_lies_under_the_finer_one():
    made.write(Path("fine.tif"), numbers(1))
    coarse = numbers(2, 32, 1).astype(np.float32)
    coarse[0, 0, 0] = np.nan
    made.write(Path("coarse.tif"), coarse, res=20, names=("height",))
    words = ["fine.tif", "--with", "dem=coarse.tif", "--resampling", "nearest", "--size", 64]
    tiles = tile(*words, "-o", "t")
    found, seen = tiles.take("images", [0], "dem")[0, 0, 0], tiles.take("valid", [0], "dem")[0, 0]
    wanted = np.kron(coarse[0], np.ones((2, 2)))
    assert (seen == np.isfinite(wanted)).all() and (found[seen] == wanted[seen]).all()
    assert tiles.take("valid", [0])[0].all()  # each sensor has its own


def test_bands_of_two_resolutions_in_one_item(here):
    fine, coarse = numbers(1, 64, 1), numbers(2, 32, 1)
    made.write(here / "red.tif", fine, names=("red",))
    made.write(here / "swir.tif", coarse, res=20, names=("swir",))
    item = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "id": "x",
        "geometry": None,
        "properties": {"datetime": "2023-01-01T00:00:00Z"},
        "links": [],
        "assets": {k: {"href": f"{k}.tif", "type": "image/tiff"} for k in ("red", "swir")},
    }
    Path("items.json").write_text(json.dumps({"type": "FeatureCollection", "features": [item]}))
    tiles = tile("items.json", "--resampling", "nearest", "--size", 64, "-o", "t")
    image = tiles.take("images", [0])[0, 0]
    assert (image[0] == fine[0]).all() and (image[1] == np.kron(coarse[0], np.ones((2, 2)))).all()


def test_the_same_ground_is_the_same_tile_on_a_common_grid():
    made.write(Path("a.tif"), numbers(1))
    made.write(Path("b.tif"), numbers(2), transform=from_origin(500_130, 4_999_870, 10, 10))
    tiles = tile("a.tif", "b.tif", "--resolution", 10, "--size", 32, "-o", "t")
    corners = np.array([t[2:6:3] for t in tiles.index["proj:transform"]])
    assert (corners % 320 == 0).all()  # multiples of a tile in the CRS
    shared = set(map(tuple, corners[tiles.index["scene"] == "a"].tolist()))
    assert len(shared & set(map(tuple, corners[tiles.index["scene"] == "b"].tolist()))) >= 1


def test_labels_count_once_where_tiles_are_moved_inside():
    made.scene(Path.cwd(), 96, 80)
    words = ["scene.tif", "--labels", "labels.gpkg", "--label-column", "class", "--size", 36]
    tiles = tile(*words, "-o", "t")
    assert sum(tiles.index["labelled_class"]) == 96 * 80 and tiles.take("valid", [0, 8]).all()


@pytest.mark.parametrize("edge", ["pad", "shift"])
@pytest.mark.parametrize("format", ["virtual", "gtiff"])
def test_every_format_gives_the_same_pixels(format, edge):
    scene, labels, _ = made.scene(Path.cwd(), 96, 80)
    words = [scene, "--labels", labels, "--label-column", "class", "--size", 32]
    words += ["--split", "blocks:4", "--folds", 3, "--buffer", 2, "--sampler", f"grid:edge={edge}"]
    npy, other = tile(*words, "-o", "npy"), tile(*words, "--format", format, "-o", format)
    assert list(npy.index["id"]) == list(other.index["id"])
    rows = np.arange(len(npy.index))[::-1]
    for kind in ("images", "valid", "labels", "folds", "near"):
        assert (npy.take(kind, rows) == other.take(kind, rows)).all(), kind
    assert not list(Path(format).glob("*.npy"))
    one, two = (batches(TileDataset(t), size=4, augment="dihedral") for t in (npy, other))
    for a, b in zip(one, two, strict=True):
        for key in a.keys() - {"id"}:
            np.testing.assert_array_equal(a[key], b[key])
    loaded = DataLoader(TileDataset(format), batch_size=4, num_workers=0)
    assert sum(len(batch["id"]) for batch in loaded) == len(TileDataset(npy))


def test_a_scene_that_changed_under_a_virtual_set_is_said(capsys):
    made.scene(Path.cwd())
    tile("scene.tif", "--virtual", "-o", "v")
    made.write(Path("scene.tif"), numbers(3))
    assert run(["train", "v", "-o", "m"]) == 1
    assert "scene.tif: has changed" in capsys.readouterr().err


def test_shares_put_together_are_one_run(monkeypatch, capsys):
    monkeypatch.setattr("geoml_cli.stages.layout.SHARD_BYTES", 3 * 2 * 16 * 16)
    made.scene(Path.cwd(), 96, 80)
    words = ["scene.tif", "--labels", "labels.gpkg", "--label-column", "class", "--size", 16]
    tile(*words, "-o", "one")
    for i in (1, 2, 3):
        assert run(["tile", *map(str, words), "--shard", f"{i}/3", "-j", "2", "-o", f"p{i}"]) == 0
    assert run(["train", "p1", "-o", "m"]) == 1 and "--merge" in capsys.readouterr().err
    assert run(["tile", "--merge", "p3", "p1", "-o", "m"]) == 1
    assert "missing: 2" in capsys.readouterr().err
    assert run(["tile", "--merge", "p3", "p1", "p2", "-o", "all"]) == 0
    assert made.content(Path("all")) == made.content(Path("one"))


@pytest.mark.parametrize("kind", ["uint8", "int16", "float32"])
@pytest.mark.parametrize("folds", [0, 3])
def test_statistics_are_those_of_the_pixels_that_train(kind, folds):
    _, labels, truth = made.scene(Path.cwd(), 96, 80)
    data = (made.image(truth).astype(np.float64) - 40).clip(1 if kind == "uint8" else None)
    data = data.astype(kind)
    with rasterio.open(made.write(Path("s.tif"), data), "r+") as out:
        out.scales, out.offsets = (0.5, 2), (-1, 3)
    words = ["s.tif", "--labels", labels, "--label-column", "class", "--size", 32, "--buffer", 2]
    tiles = tile(*words, "--split", "blocks:4", "--folds", folds, "-o", "t")
    told = tiles.head["statistics"]["image"]
    every = np.arange(len(tiles.index))
    x = tiles.take("images", every)[:, 0].astype(float)
    near, valid = tiles.take("near", every), tiles.take("valid", every)[:, 0]
    for part in told["parts"]:
        k = part["member"]
        held = (1 << k | 1 << (k + 1) % 3) if folds else 0b110
        mine = valid & (near & held == 0)
        for c, (scale, offset) in enumerate(((0.5, -1), (2, 3))):
            values = x[:, c][mine] * scale + offset
            got = [part[w][c] for w in ("count", "mean", "std")]
            assert got == pytest.approx([len(values), values.mean(), values.std()], rel=1e-9)
            if not folds:
                for p in (2, 50, 98):
                    right = np.percentile(values, p, method="inverted_cdf")
                    wide = 0 if kind != "float32" else (abs(right - offset) / 128 + 1e-6)
                    assert abs(told["percentiles"][str(p)][c] - right) <= wide + 1e-9


def test_chips_in_folders_and_pictures_with_masks(here):
    for kind, seed in (("field", 1), ("water", 2), ("field", 3)):
        path = here / f"chips/{kind}/{seed}.png"
        mask = here / f"masks/{kind}/{seed}.png"
        for one, data in ((path, numbers(seed, 20, 3)), (mask, made.regions(20, 20, seed)[None])):
            one.parent.mkdir(parents=True, exist_ok=True)
            made.write(one, data.astype(np.uint8), crs=None, transform=None) if False else None
            with rasterio.open(
                one, "w", driver="PNG", count=len(data), height=20, width=20, dtype="uint8"
            ) as out:
                out.write(data.astype(np.uint8))
    words = ["chips", "--size", "whole", "--folder-classes", "--split", "none"]
    tiles = tile(*words, "-o", "t")
    names = [c["name"] for c in tiles.head["layers"][0]["classes"]]
    assert names == ["field", "water"] and tiles.index.geometry.isna().all()
    by_id = dict(
        zip(tiles.index["id"].str.rsplit("-", n=2).str[0], tiles.index["class"], strict=True)
    )
    assert by_id == {"field-1": 0, "field-3": 0, "water-2": 1}
    masked = tile("chips", "--size", "whole", "--labels", "masks", "--split", "none", "-o", "m")
    for i, name in enumerate(masked.index["id"].str.rsplit("-", n=2).str[0]):
        seed = int(name[-1])
        assert (masked.take("labels", [i])[0] == made.regions(20, 20, seed)).all()
        assert (masked.take("images", [i])[0, 0] == numbers(seed, 20, 3)).all()
    Path("masks/water/2.png").unlink()
    assert run(["tile", "chips", "--size", "whole", "--labels", "masks", "-o", "n"]) == 1


def test_filters_keep_what_they_say(capsys):
    data = numbers(1)
    data[:, :20, :32] = 0
    made.write(Path("s.tif"), data, nodata=0)
    assert len(tile("s.tif", "--size", 32, "--min-valid", 0.5, "-o", "a").index) == 3
    kept = tile("s.tif", "--size", 32, "--where", "valid > 0.5 and window_col == 0", "-o", "b")
    assert list(kept.index["id"]) == ["s-32-0"]
    capsys.readouterr()
    assert run(["tile", "s.tif", "--where", "cloudy > 1", "-o", "c"]) == 2
    said = capsys.readouterr().err
    assert "cloudy" in said and "valid" in said and said.count("\n") == 1


def test_a_random_split_says_how_much_of_it_touches(capsys):
    scene, labels, _ = made.scene(Path.cwd(), 96, 80)
    words = [scene, "--labels", labels, "--label-column", "class", "--size", 16]
    tile(*words, "--split", "random", "-o", "t")
    assert "of the test tiles touch ground that trains" in capsys.readouterr().err


def test_tiles_drawn_twice_have_names_of_their_own():
    made.write(Path("s.tif"), numbers(1, 33))
    tiles = tile("s.tif", "--size", 32, "--sampler", "random:count=40", "-o", "t")
    assert len(set(tiles.index["id"])) == len(tiles.index) == 40


def test_across_the_antimeridian(here):
    transform = from_origin(179.9, 10, 0.001, 0.001)
    made.write(Path("s.tif"), numbers(1, 256), crs="EPSG:4326", transform=transform)
    tiles = tile("s.tif", "--size", 64, "-o", "t")
    areas = tiles.index.geometry.area
    assert len(tiles.index) == 16 and areas.sum() == pytest.approx(0.256**2, rel=1e-6)
    assert tiles.index.total_bounds[0] == -180 and tiles.index.total_bounds[2] == 180
