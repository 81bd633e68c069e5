"""`geoml info` of tile sets of several sensors and layers: what it counts, checks and draws, by hand-made arrays."""

import json
from pathlib import Path

import geopandas
import matplotlib.image
import numpy as np
import pytest
import shapely
from affine import Affine
from rasterio.transform import from_origin

from geoml_cli.cli import run
from geoml_cli.formats.digest import digest_file
from geoml_cli.formats.jsonfile import dumps, read_json
from geoml_cli.formats.stamp import record
from geoml_cli.formats.tileset import INDEX, NAME, save_array
from geoml_cli.formats.vectors import write_vectors
from geoml_cli.geo.bounds import footprint
from geoml_cli.geo.cells import Scattered
from geoml_cli.geo.grid import Grid
from geoml_cli.geo.splits import NONE, PLAIN, Lattice, portion

SIZE, SIDE, PER = 16, 8, 40  # px of a tile, tiles of a scene's side, tiles in a shard
SCENE = Grid("EPSG:32633", from_origin(500_000, 5_000_000, 10, 10), SIZE * SIDE, SIZE * SIDE)
LEGEND = [{"id": i, "name": n, "color": c} for i, (n, c) in enumerate({"field": "#ddcc00", "wood": "#117733"}.items())]  # fmt: skip
LAYERS = [
    {"name": "class", "kind": "classes", "per": "pixel", "dtype": "uint8", "ignore": 255, "classes": LEGEND},
    {"name": "height", "kind": "values", "per": "pixel", "dtype": "float32", "ignore": None, "unit": "m"},
    {"name": "crop", "kind": "classes", "per": "majority", "dtype": "uint8", "ignore": 255, "classes": LEGEND},
    {"name": "seen", "kind": "classes", "per": "present", "dtype": "uint8", "ignore": 255, "classes": LEGEND},
]  # fmt: skip
SENSORS = [
    {"name": "image", "bands": [{"name": "red"}, {"name": "nir"}], "dtype": "uint16", "gsd_m": 10.0, "frames": 2},
    {"name": "dem", "bands": [{"name": "z", "unit": "m"}], "dtype": "float32", "gsd_m": 10.0, "frames": 1},
]  # fmt: skip
STATISTICS = {
    "image": {"parts": [{"member": 0, "count": [9, 9], "mean": [100.5, 2], "std": [7.25, 1]}],
              "percentiles": {"2": [90.0, 1], "98": [120.0, 3]}},
}  # fmt: skip


def grids() -> list[Grid]:
    at = [Affine.translation(SIZE * (k % SIDE), SIZE * (k // SIDE)) for k in range(SIDE * SIDE)]
    return [Grid(SCENE.crs, SCENE.transform * one, SIZE, SIZE) for one in at]


def blocks(side: int = 4) -> Lattice:
    return Lattice(SCENE.crs, SCENE.bounds, portion(side, (0.7, 0.15, 0.15), 3), 20.0)


def arrays(split, seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    n = SIDE * SIDE
    shape = (n, SIZE, SIZE)
    laid = [split.on(grid) for grid in grids()]
    height = rng.normal(size=shape).astype(np.float32)
    height[rng.random(shape) < 0.4] = np.nan
    return {
        "images-image": rng.integers(0, 9000, (n, 2, 2, SIZE, SIZE)).astype(np.uint16),
        "valid-image": rng.random((n, 2, SIZE, SIZE)) > 0.1,
        "images-dem": rng.normal(size=(n, 1, 1, SIZE, SIZE)).astype(np.float32),
        "valid-dem": rng.random((n, 1, SIZE, SIZE)) > 0.3,
        "labels-class": rng.choice([0, 1, 255], shape, p=[0.5, 0.2, 0.3]).astype(np.uint8),
        "labels-height": height,
        "folds": np.stack([f for f, _ in laid]),
        "near": np.stack([k for _, k in laid]).astype(np.uint8),
    }


def rows_of(truth: dict, placed: bool) -> list[dict]:
    rows = []
    for i, grid in enumerate(grids()):
        fold, label, height = (truth[k][i] for k in ("folds", "labels-class", "labels-height"))
        counts = [[int(((label == c) & (fold == f)).sum()) for c in (0, 1)] for f in range(3)]
        known = [int((np.isfinite(height) & (fold == f)).sum()) for f in range(3)]
        own = np.unique(fold)
        rows.append({
            "id": f"t{i}", "scene": "s", "datetime": "2020-05-01T00:00:00Z", "shard": i // PER, "row": i % PER,
            "window_row": SIZE * (i // SIDE), "window_col": SIZE * (i % SIDE),
            "valid": float(truth["valid-image"][i].mean()), "valid_dem": float(truth["valid-dem"][i].mean()),
            "dates_image": ["2019-03-01T00:00:00Z", None], "dates_dem": [None],
            "proj:code": grid.crs, "proj:transform": list(grid.transform)[:6],
            "fold": int(own[0]) if len(own) == 1 else None, "near": int(np.bitwise_or.reduce(truth["near"][i], axis=None)),
            "labelled_class": int((label != 255).sum()), "fold_labelled_class": [sum(c) for c in counts],
            "counts_class": [int((label == c).sum()) for c in (0, 1)], "fold_counts_class": counts,
            "labelled_height": int(np.isfinite(height).sum()), "fold_labelled_height": known,
            "crop": i % 2 if i % 5 else None, "seen": [0, 1][: i % 3] or None,
            "geometry": footprint(grid.outline()) if placed else None,
        })  # fmt: skip
    return rows


def stamp(folder: Path, head: dict) -> None:
    members = {f.name: digest_file(f) for f in sorted(folder.iterdir()) if f.name != NAME}
    head["geoml"] = record("tile", "tiles", {}, []) | {"members": members}
    (folder / NAME).write_text(dumps(head))


def write(folder: Path, truth: dict, split, placed: bool = True) -> None:
    folder.mkdir()
    for start in range(0, SIDE * SIDE, PER):
        for name, array in truth.items():
            save_array(folder / f"{name}-{start // PER:05d}.npy", array[start : start + PER])
    table = geopandas.GeoDataFrame(rows_of(truth, placed), geometry="geometry", crs="OGC:CRS84")
    for column in ("fold", "crop"):
        table[column] = table[column].astype("Int16")
    write_vectors(folder / INDEX, table)
    grid = SCENE if placed else Grid("", SCENE.transform, SCENE.height, SCENE.width)
    said = [("s", "image"), ("d", "dem")]
    scenes = [{"id": i, "datetime": None, "sensor": s, **grid.to_dict()} for i, s in said]
    stamp(folder, {
        "format": "npy", "size": SIZE, "stride": SIZE, "count": SIDE * SIDE, "shards": 2, "folds": 0,
        "split": split.to_dict(), "sensors": SENSORS, "layers": LAYERS, "scenes": scenes, "statistics": STATISTICS,
    })  # fmt: skip


@pytest.fixture(scope="module")
def truth():
    return arrays(blocks())


@pytest.fixture
def tiles(tmp_path, truth, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "tiles", truth, blocks())
    return tmp_path / "tiles"


def ask(capsys, *argv: str) -> tuple[int, str, str]:
    capsys.readouterr()
    status = run(["info", *argv])
    return (status, *capsys.readouterr())


def told(capsys, path: str) -> dict:
    status, out, err = ask(capsys, path, "--json")
    assert (status, err) == (0, "")
    return json.loads(out)[0]


SIDES = ("train", "val", "test")


def test_counts_of_every_layer_are_those_of_the_arrays(tiles, truth, capsys):
    found = told(capsys, "tiles")
    layers = {layer["name"]: layer for layer in found["layers"]}
    for one in layers["class"]["classes"]:
        mine = truth["labels-class"] == one["id"]
        assert one["count"] == mine.sum()
        by_fold = {name: int((mine & (truth["folds"] == f)).sum()) for f, name in enumerate(SIDES)}
        assert one["count_by_fold"] == by_fold
    height = np.isfinite(truth["labels-height"])
    assert layers["height"]["labelled"] == height.sum() and layers["height"]["unit"] == "m"
    assert layers["height"]["labelled_by_fold"] == {
        name: int((height & (truth["folds"] == f)).sum()) for f, name in enumerate(SIDES)
    }
    fold = np.array([f[0, 0] for f in truth["folds"]])  # every tile lies in one block
    at = np.arange(SIDE * SIDE)
    crop = {c: (at % 5 > 0) & (at % 2 == c) for c in (0, 1)}
    seen = {c: at % 3 > c for c in (0, 1)}
    for name, want in (("crop", crop), ("seen", seen)):
        for one in layers[name]["classes"]:
            assert one["count"] == want[one["id"]].sum()
            assert one["count_by_fold"] == {
                s: int((want[one["id"]] & (fold == f)).sum()) for f, s in enumerate(SIDES)
            }
    assert layers["seen"]["labelled"] == (at % 3 > 0).sum()
    assert found["split"]["tiles"] == {**{s: int((fold == f).sum()) for f, s in enumerate(SIDES)}, "several": 0}  # fmt: skip
    assert found["sensors"][1]["valid"] == pytest.approx(truth["valid-dem"].mean(), abs=1e-6)
    assert found["dates"] == ["2019-03-01T00:00:00Z", "2020-05-01T00:00:00Z"]
    assert found["statistics"] == STATISTICS
    _, text, _ = ask(capsys, "tiles")
    for words in ("2 dates a tile", "dem ", "height: values in m, one a pixel", "crop: classes, one a tile (majority)",
                  "2019-03-01 to 2020-05-01", "red: mean 100.5, deviation 7.25, 2 to 98 % 90 to 120", "4 x 4 blocks"):  # fmt: skip
        assert words in text, words
    share = 100 * layers["class"]["classes"][0]["count"] / layers["class"]["labelled"]
    assert f"{share:.1f} %" in text


@pytest.mark.parametrize("keep", ["all", "some"])
def test_the_distance_from_test_to_train_is_that_between_squares(tiles, truth, capsys, keep):
    """In the scene's own metres; for `some` only tiles far from the borders of blocks are left."""
    fold = np.array([f[0, 0] for f in truth["folds"]])
    kept = np.ones(SIDE * SIDE, bool)
    if keep == "some":
        kept = (np.arange(SIDE * SIDE) % 2 == 0) & (np.arange(SIDE * SIDE) // SIDE % 2 == 0)
        table = geopandas.read_parquet("tiles/index.parquet")
        write_vectors(tiles / INDEX, table[kept].reset_index(drop=True))
    squares = np.array([shapely.box(*grid.bounds) for grid in grids()])
    test, train = squares[kept & (fold == 2)], squares[kept & (fold == 0)]
    away = shapely.distance(test[:, None], train[None]).min(axis=1)
    found = told(capsys, "tiles")["split"]
    assert found["distance"]["min_m"] == pytest.approx(away.min(), rel=0.01)
    assert found["distance"]["median_m"] == pytest.approx(np.median(away), rel=0.01)
    assert found["touching"] == pytest.approx((away == 0).mean())
    if keep == "some":
        assert away.min() == 160
        assert "test tile to nearest train tile: 160" in ask(capsys, "tiles")[1]


def test_a_whole_tile_set_is_whole(tiles, capsys):
    assert ask(capsys, "tiles", "--check") == (0, "tiles: whole\n", "")


def spoil(name: str, change) -> None:
    array = np.load(f"tiles/{name}.npy")
    changed = change(array)
    np.save(f"tiles/{name}.npy", array if changed is None else changed)


def index(column: str, row: int, value: object) -> None:
    table = geopandas.read_parquet("tiles/index.parquet")
    table.at[row, column] = value
    write_vectors(Path("tiles/index.parquet"), table)


def put(at: tuple, value: object):
    def change(array: np.ndarray) -> None:
        array[at] = value

    return change


LIES = [
    (lambda: spoil("images-dem-00001", lambda a: a[1:]), "images-dem-00001.npy: shape (23, 1, 1, 16, 16), not (24,"),
    (lambda: spoil("images-dem-00000", lambda a: a.astype(float)), "float64, not float32"),
    (lambda: spoil("valid-dem-00000", lambda a: ~a), "valid-dem-00000.npy: tile 0 is not as valid"),
    (lambda: spoil("labels-height-00001", put((3, 0, 0), np.inf)), "labels-height-00001.npy: holds values that are not finite"),
    (lambda: spoil("labels-height-00000", put(5, np.nan)), "labels-height-00000.npy: tile 5 has not as many labels"),
    (lambda: spoil("labels-class-00000", put((0, 0), 7)), "labels-class-00000.npy: holds 7, which is no class"),
    (lambda: spoil("near-00001", put(2, 0)), "near-00001.npy: the fold of a pixel is not near it"),
    (lambda: spoil("folds-00000", put(2, 9)), "folds-00000.npy: holds fold 9 of 3"),
    (lambda: index("crop", 4, 6), "index.parquet: crop holds 6, which is no class"),
]  # fmt: skip


@pytest.mark.parametrize(("lie", "says"), LIES, ids=[says for _, says in LIES])
def test_what_does_not_agree_is_found(tiles, capsys, lie, says):
    lie()
    stamp(tiles, read_json(tiles / NAME))
    status, out, _ = ask(capsys, "tiles", "--check")
    assert status == 1 and says in out and out.count("\n") == 1, out


def picture(capsys, path: str, out: str = "a.png") -> np.ndarray:
    assert ask(capsys, path, "--picture", out) == (0, f"{out}\n", "")
    return (matplotlib.image.imread(out)[..., :3] * 255).round()


def tint(color: str, alpha: float = 0.35) -> np.ndarray:
    return np.array(list(bytes.fromhex(color[1:]))) * alpha + 255 * (1 - alpha)


COLORS = ("#4477aa", "#ddaa33", "#cc3344")


def test_the_map_of_the_split_shows_the_ground_of_each_side(tiles, capsys):
    image = picture(capsys, "tiles")
    left = image[:, : image.shape[1] * 10 // 21]
    seen = np.stack([np.abs(left - tint(c)).max(axis=-1) <= 2 for c in COLORS])
    want = np.bincount(np.ravel(blocks().folds), minlength=3) / 16
    np.testing.assert_allclose(seen.sum(axis=(1, 2)) / seen.sum(), want, atol=0.01)
    # each block is where it is on the ground, north up
    rows, cols = np.nonzero(seen.any(axis=0))
    r = rows.min() + (np.arange(4) + 0.5) / 4 * np.ptp(rows)
    c = cols.min() + (np.arange(4) + 0.4) / 4 * np.ptp(cols)
    for i in range(4):
        for j in range(4):
            near = seen[:, int(r[i]) - 8 : int(r[i]) + 9, int(c[j]) - 8 : int(c[j]) + 9]
            assert near.sum(axis=(1, 2)).argmax() == blocks().folds[i][j]
    before = Path("a.png").read_bytes()
    picture(capsys, "tiles", "b.png")
    assert Path("b.png").read_bytes() == before


def test_tiles_dealt_at_random_and_tiles_without_a_place_are_drawn(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    split = Scattered(160.0, PLAIN, 1)
    truth = arrays(split)
    write(tmp_path / "random", truth, split)
    found = told(capsys, "random")["split"]
    assert found["kind"] == "random" and found["touching"] > 0.3
    assert ask(capsys, "random", "--check")[0] == 0
    text = ask(capsys, "random")[1]
    assert "whole tiles at random" in text and f"{100 * found['touching']:.0f} % of test tiles touch" in text  # fmt: skip
    outlines = picture(capsys, "random")
    for color in COLORS:
        assert (np.abs(outlines - tint(color, 1)).max(axis=-1) <= 40).sum() > 50
    write(tmp_path / "nowhere", truth, split, placed=False)
    assert told(capsys, "nowhere")["split"]["distance"] is None
    assert "no CRS" in ask(capsys, "nowhere")[1]
    assert picture(capsys, "nowhere").std() > 5
    assert (truth["folds"] != NONE).all()
