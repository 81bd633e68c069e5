"""The loader: what it gives is what lies in the shards; order, threads and processes do not change it."""

import json
import pickle
import threading
import time
from datetime import UTC, datetime

import geopandas
import numpy as np
import pytest
import torch
from pyproj import Transformer
from shapely.geometry import box
from torch.utils.data import DataLoader

from geoml_cli.core.aim import Aim
from geoml_cli.core.augment import turn
from geoml_cli.errors import GeomlError, UsageMistake
from geoml_cli.formats.digest import digest_file
from geoml_cli.formats.stamp import record
from geoml_cli.formats.tileset import INDEX, NAME, Tiles, read_tileset, save_array
from geoml_cli.formats.vectors import write_vectors
from geoml_cli.stages.buffers import LARGE, Buffers
from geoml_cli.stages.feed import Feed, class_weights
from geoml_cli.stages.gather import gather
from geoml_cli.stages.in_order import in_order
from geoml_cli.stages.loader import TileDataset, batches
from geoml_cli.stages.sides import Part, Sides, parts_of
from geoml_cli.stages.tiles import OPENERS, open_tiles

SIZE, PER, COUNT, FOLDS, CLASSES = 16, 7, 20, 4, 3
BANDS = [{"name": "red", "scale": 1e-4, "offset": -0.1}, {"name": "nir"}]
LEGEND = [{"id": i, "name": n, "color": "#00ff00"} for i, n in enumerate("abc")]
PIXEL = [
    {"name": "class", "kind": "classes", "per": "pixel", "dtype": "uint8", "ignore": 255, "classes": LEGEND},
    {"name": "height", "kind": "values", "per": "pixel", "dtype": "float32", "ignore": None},
]  # fmt: skip
TILE = [
    {"name": "crop", "kind": "classes", "per": "tile", "dtype": "uint8", "ignore": 255, "classes": LEGEND},
    {"name": "seen", "kind": "classes", "per": "tile", "dtype": "uint8", "ignore": 255, "classes": LEGEND},
    {"name": "yield", "kind": "values", "per": "tile", "dtype": "float32", "ignore": None},
]  # fmt: skip


def arrays(folds=FOLDS, seed=0):
    """All of a tile set as plain arrays: what every test compares with."""
    rng = np.random.default_rng(seed)
    shape = (COUNT, SIZE, SIZE)
    fold = np.repeat(rng.integers(0, folds, COUNT), SIZE * SIZE).reshape(shape)
    for i in range(0, COUNT, 2):  # every other tile lies in two folds, or partly in none
        fold[i, :, rng.integers(1, SIZE) :] = rng.choice([*range(folds), 255])
    fold[1] = 255
    near = np.where(fold < 255, 1 << np.minimum(fold, 31), 0)
    for i in range(COUNT):
        if rng.random() < 0.5:
            near[i, : rng.integers(1, SIZE)] |= 1 << rng.integers(0, folds)
    valid = rng.random((COUNT, 2, SIZE, SIZE)) > 0.2
    valid[::3] = True
    labels = rng.choice([0, 1, 2, 255], shape).astype(np.uint8)
    labels[5] = 255
    height = rng.normal(size=shape).astype(np.float32)
    height[rng.random(shape) < 0.3] = np.nan
    return {
        "image": rng.integers(0, 9000, (COUNT, 2, 2, SIZE, SIZE), dtype=np.uint16),
        "valid": valid,
        "dem": rng.normal(size=(COUNT, 1, 1, SIZE, SIZE)).astype(np.float32),
        "dem_valid": rng.random((COUNT, 1, SIZE, SIZE)) > 0.5,
        "class": labels, "height": height,
        "fold": fold.astype(np.uint8), "near": near.astype(np.uint8),
        "crop": rng.choice([0, 1, 2, 255], COUNT), "yield": rng.normal(size=COUNT),
        "seen": [None if rng.random() < 0.3 else sorted(rng.permutation(3)[:2].tolist()) for _ in range(COUNT)],
    }  # fmt: skip


def write(folder, truth, folds=FOLDS, split=True, layers=PIXEL + TILE, statistics=None):
    """A tile set of those arrays."""
    folder.mkdir(parents=True)
    named = [("images-image", "image"), ("valid-image", "valid"), ("images-dem", "dem"), ("valid-dem", "dem_valid")]  # fmt: skip
    named += [("labels-class", "class"), ("labels-height", "height")]
    named += [("folds", "fold"), ("near", "near")] if split else []
    for shard, start in enumerate(range(0, COUNT, PER)):
        for file, key in named:
            save_array(folder / f"{file}-{shard:05d}.npy", truth[key][start : start + PER])
    rows = []
    for i in range(COUNT):
        lab, fold = truth["class"][i], truth["fold"][i]
        own, held = np.unique(fold), ~np.isnan(truth["height"][i])
        rows.append({
            "id": f"t{i}", "scene": "s", "datetime": "2020-01-02T12:00:00Z", "shard": i // PER, "row": i % PER,
            "window_row": 0, "window_col": SIZE * i,
            "valid": float(truth["valid"][i].mean()), "valid_dem": float(truth["dem_valid"][i].mean()),
            "dates_image": ["2020-01-02T12:00:00Z", None], "dates_dem": [None],
            "proj:code": "EPSG:32633", "proj:transform": [10.0, 0.0, 5e5 + 160 * i, 0.0, -10.0, 5e6],
            "labelled_class": int((lab != 255).sum()), "labelled_height": int(held.sum()),
            "counts_class": [int((lab == c).sum()) for c in range(CLASSES)],
            "crop": None if truth["crop"][i] == 255 else int(truth["crop"][i]),
            "seen": truth["seen"][i], "yield": np.float32(truth["yield"][i]) if i % 5 else None,
        } | ({
            "fold": int(own[0]) if len(own) == 1 else None,
            "near": int(np.bitwise_or.reduce(truth["near"][i], axis=None)),
            "fold_labelled_class": [int(((fold == f) & (lab != 255)).sum()) for f in range(folds)],
            "fold_labelled_height": [int(((fold == f) & held).sum()) for f in range(folds)],
        } if split else {}))  # fmt: skip
    table = geopandas.GeoDataFrame(rows, geometry=[box(0, 0, 1, 1)] * COUNT, crs="OGC:CRS84")
    for column in ("fold", "crop"):
        if column in table:
            table[column] = table[column].astype("Int16")
    write_vectors(folder / INDEX, table)
    sensors = [
        {"name": "image", "bands": BANDS, "dtype": "uint16", "gsd_m": 10.0, "frames": 2},
        {"name": "dem", "bands": [{"name": "z"}], "dtype": "float32", "gsd_m": 10.0, "frames": 1},
    ]
    head = {
        "format": "npy", "size": SIZE, "stride": SIZE, "count": COUNT, "shards": -(-COUNT // PER),
        "folds": folds if split and folds > 3 else 0, "split": {"kind": "test"} if split else None,
        "sensors": sensors, "layers": layers, "scenes": [], "statistics": statistics,
    }  # fmt: skip
    members = {file.name: digest_file(file) for file in sorted(folder.iterdir())}
    head["geoml"] = record("tile", "tiles", {}, []) | {"members": members}
    (folder / NAME).write_text(json.dumps(head))
    return str(folder)


@pytest.fixture(scope="module")
def truth():
    return arrays()


@pytest.fixture(scope="module")
def path(truth, tmp_path_factory):
    return write(tmp_path_factory.mktemp("loader") / "tiles", truth)


def side_of(truth, side, member, folds=FOLDS):
    """Pixels of a side, by the sentence that says what may train."""
    test, val = (member, (member + 1) % folds) if folds > 3 else (2, 1)
    if side != "train":
        return truth["fold"] == (val if side == "val" else test)
    near_held = (truth["near"] >> test & 1) | (truth["near"] >> val & 1)
    return (near_held == 0) & (truth["fold"] != 255)


def same(a, b):
    """Whether two batches are equal to the bit."""
    assert a.keys() == b.keys()
    for key in a:
        if isinstance(a[key], torch.Tensor):
            assert a[key].dtype == b[key].dtype
            assert torch.equal(a[key].nan_to_num(7e9), b[key].nan_to_num(7e9)), key
        else:
            assert list(a[key]) == list(b[key])
    return True


def test_what_is_taken_is_what_was_saved(path, truth):
    tiles, order = read_tileset(path), [19, 0, 7, 7, 6, 13]
    wanted = [("images", "image", "image"), ("images", "dem", "dem"), ("valid", None, "valid"), ("labels", "height", "height")]  # fmt: skip
    for kind, name, key in [*wanted, ("folds", None, "fold"), ("near", None, "near")]:
        got = tiles.take(kind, order, name)
        assert got.dtype == truth[key].dtype
        assert np.array_equal(got, truth[key][order], equal_nan=got.dtype.kind == "f")
        assert all(
            np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
            for a, b in zip(tiles.views(kind, order, name), got, strict=True)
        )
    assert tiles.take("images", [], "dem").shape == (0, 1, 1, SIZE, SIZE)


def test_large_and_small_tiles_are_taken_alike(path, truth, monkeypatch):
    small = read_tileset(path).take("images", range(COUNT))
    monkeypatch.setattr("geoml_cli.formats.tileset.SMALL", 0)
    assert np.array_equal(read_tileset(path).take("images", range(COUNT)), small)
    assert np.array_equal(small, truth["image"])


def test_a_sample_holds_physical_values_place_and_time(path, truth):
    ds = TileDataset(path, split="all")
    one, i = ds[11], 11
    assert one["id"] == "t11" and len(ds) == COUNT
    stored = truth["image"][i].astype(np.float64)
    scale, offset = np.array([1e-4, 1])[:, None, None], np.array([-0.1, 0])[:, None, None]
    assert one["image"].dtype == torch.float32
    np.testing.assert_allclose(one["image"], stored * scale + offset, rtol=1e-5, atol=1e-6)
    assert np.array_equal(one["valid"], truth["valid"][i])
    assert np.array_equal(one["dem"], truth["dem"][i])
    assert np.array_equal(one["dem_valid"], truth["dem_valid"][i])
    noon = datetime(2020, 1, 2, 12, tzinfo=UTC).timestamp() / 86400
    assert one["day"][0] == pytest.approx(noon) and one["day"][1].isnan()
    assert one["dem_day"].isnan().all()
    middle = 5e5 + 160 * i + 80, 5e6 - 80
    lonlat = Transformer.from_crs(32633, 4326, always_xy=True).transform(*middle)
    assert one["lonlat"].tolist() == pytest.approx(lonlat, abs=1e-5)
    assert np.array_equal(one["class"], truth["class"][i]) and one["class"].dtype == torch.int64
    assert np.array_equal(one["height"], truth["height"][i], equal_nan=True)
    whole = ds.read(range(COUNT))
    assert whole["crop"].tolist() == truth["crop"].tolist()
    present = np.array([[np.nan] * 3 if s is None else [float(c in s) for c in range(3)] for s in truth["seen"]])  # fmt: skip
    assert np.array_equal(whole["seen"], present.astype(np.float32), equal_nan=True)
    known = np.arange(COUNT) % 5 > 0
    assert np.array_equal(whole["yield"].isnan(), ~known)
    np.testing.assert_allclose(whole["yield"][known], truth["yield"][known], rtol=1e-6)


@pytest.mark.parametrize("side", ["train", "val", "test"])
@pytest.mark.parametrize("member", range(FOLDS))
def test_labels_hold_on_the_ground_of_their_side_alone(path, truth, side, member):
    may = side_of(truth, side, member)
    ds = TileDataset(path, split=side, member=member)
    got = ds.read(range(len(ds)))
    rows = [int(name[1:]) for name in got["id"]]
    labels = np.where(may, truth["class"], 255)
    heights = np.where(may, truth["height"], np.nan)
    assert np.array_equal(got["class"], labels[rows])
    assert np.array_equal(got["height"], heights[rows].astype(np.float32), equal_nan=True)
    test, val = member, (member + 1) % FOLDS
    if (
        side == "train"
    ):  # a tile trains if nothing of it is near held ground, nor all of it on no side
        near = np.bitwise_or.reduce(truth["near"].reshape(COUNT, -1), axis=1)
        whole = ((near >> test | near >> val) & 1 == 0) & (truth["fold"] != 255).any((1, 2))
    else:
        whole = (truth["fold"] == (val if side == "val" else test)).all((1, 2))
    assert got["crop"].tolist() == np.where(whole, truth["crop"], 255)[rows].tolist()
    assert (got["seen"].isnan().any(1) | torch.from_numpy(whole[rows])).all()
    known = (labels != 255).any((1, 2)) | ~np.isnan(heights).all((1, 2))
    known |= whole & ((truth["crop"] != 255) | (np.arange(COUNT) % 5 > 0))
    known |= whole & np.array([s is not None for s in truth["seen"]])
    assert rows == np.flatnonzero(known).tolist() and 0 < len(rows) < COUNT


@pytest.mark.parametrize("layer", ["class", "height"])
def test_only_tiles_with_a_label_of_the_wanted_layer_are_in(path, truth, layer):
    for side in ("train", "val"):
        ds = TileDataset(path, split=side, member=2, layers=[layer], sensors=["dem"])
        held = truth["class"] != 255 if layer == "class" else ~np.isnan(truth["height"])
        seen = (held & side_of(truth, side, 2)).any((1, 2))
        assert ds.rows.tolist() == np.flatnonzero(seen).tolist()
        assert set(ds[0]) == {"image", "valid", "day", "lonlat", "id", layer}
        assert ds[0]["image"].shape == (1, 1, SIZE, SIZE)


def test_a_plain_split_has_one_member_and_no_split_trains_on_all(tmp_path):
    truth = arrays(folds=3, seed=4)
    path = write(tmp_path / "plain", truth, folds=3)
    assert parts_of(read_tileset(path)) == [Part(0, 1, 2)]
    for side in ("train", "val", "test"):
        ds = TileDataset(path, split=side, layers=["class"])
        may = side_of(truth, side, 0, folds=3)
        assert np.array_equal(
            ds.read(range(len(ds)))["class"], np.where(may, truth["class"], 255)[ds.rows]
        )
    with pytest.raises(UsageMistake, match="member 1: the tile set has 1"):
        TileDataset(path, member=1)
    free = write(tmp_path / "free", truth, split=False)
    ds = TileDataset(free, layers=["class"])
    assert len(ds) == COUNT - 1 and len(TileDataset(free, split="val")) == 0  # one has no label
    assert np.array_equal(ds.read(range(len(ds)))["class"], truth["class"][ds.rows])
    bare = write(tmp_path / "bare", truth, folds=3, layers=[])
    near = np.bitwise_or.reduce(truth["near"].reshape(COUNT, -1), axis=1)
    assert TileDataset(bare).rows.tolist() == np.flatnonzero((near & 0b110 == 0) & (truth["fold"] != 255).any((1, 2))).tolist()  # fmt: skip


def test_what_the_index_tells_is_not_read(path, truth, monkeypatch):
    tiles = read_tileset(path)
    wholly = (truth["fold"] == truth["fold"][:, :1, :1]).all((1, 2))
    near = np.bitwise_or.reduce(truth["near"].reshape(COUNT, -1), axis=1)
    sure = np.flatnonzero(wholly & (near & 0b11 == 0))  # of member 0, held: 0 and 1
    sides = Sides(tiles, parts_of(tiles)[0])
    monkeypatch.setattr(type(tiles), "take", lambda *_: pytest.fail("read an array"))
    monkeypatch.setattr(type(tiles), "views", lambda *_: pytest.fail("read an array"))
    assert len(sure) and (~np.isin(np.arange(COUNT), sure)).any()
    found = sides.pixels("train", sure)
    assert (truth["fold"][sure] == 255).any() or found is None
    assert sides.pixels("val", np.flatnonzero(wholly)) is not None
    ds = TileDataset(tiles, split="all", layers=[])
    full = [i for i in range(COUNT) if truth["valid"][i].all()]
    assert len(full) > 3 and ds.images[0].valid(np.array(full)).all()


@pytest.mark.parametrize("k", range(8))
@pytest.mark.parametrize("dtype", [np.uint16, np.float32, bool, np.uint8])
def test_tiles_are_turned_as_the_device_turns_them(k, dtype):
    tile = np.random.default_rng(k).integers(0, 200, (2, 3, 12, 12)).astype(dtype)
    to = bool if dtype is bool else np.int64 if dtype is np.uint8 else np.float32
    got = gather([tile, tile], 2, to, np.array([k, 0]))
    assert got.dtype == to and np.array_equal(got[1], tile.astype(to))
    assert np.array_equal(got[0], turn(torch.from_numpy(tile.astype(to)), k))


def test_image_masks_and_labels_of_a_tile_are_turned_alike_and_all_eight_ways_occur(path):
    ds = TileDataset(path, split="all")
    plain = {k: v for b in batches(ds, size=COUNT, shuffle=True) for k, v in b.items()}
    ways = set()
    for epoch in range(6):
        [got] = batches(ds, size=COUNT, epoch=epoch, augment="dihedral")
        back = [plain["id"].index(name) for name in got["id"]]
        for i, j in enumerate(back):
            fits = [k for k in range(8) if torch.equal(turn(plain["image"][j], k), got["image"][i])]
            assert len(fits) == 1
            ways.add(fits[0])
            for key in ("valid", "dem", "dem_valid", "class", "height"):
                there = turn(plain[key][j], fits[0])
                assert torch.equal(there.nan_to_num(9), got[key][i].nan_to_num(9))
            assert torch.equal(got["crop"][i], plain["crop"][j])
    assert ways == set(range(8))


def test_an_epoch_is_a_permutation_that_follows_from_seed_and_epoch(path):
    ds = TileDataset(path, split="all")

    def ids(**more):
        return [name for batch in batches(ds, size=6, workers=0, **more) for name in batch["id"]]

    assert sorted(ids()) == sorted(ids(epoch=1)) == sorted(f"t{i}" for i in range(COUNT))
    assert ids() == ids() and ids(seed=1) == ids(seed=1)
    assert len({tuple(ids(seed=s, epoch=e)) for s in range(3) for e in range(3)}) == 9
    assert ids(shuffle=False) == [f"t{i}" for i in range(COUNT)]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_an_epoch_taken_up_gives_the_rest_of_it_with_any_workers(path, workers):
    ds = TileDataset(path)
    how = {"size": 3, "seed": 5, "epoch": 2, "augment": "dihedral"}
    whole = list(batches(ds, workers=0, **how))
    assert len(whole) == -(-len(ds) // 3) > 3
    for start in (0, 2, len(whole)):
        rest = list(batches(ds, workers=workers, start=start, **how))
        assert len(rest) == len(whole) - start
        assert all(same(a, b) for a, b in zip(rest, whole[start:], strict=True))


@pytest.mark.parametrize("context", [pytest.param("spawn", marks=pytest.mark.slow), "fork"])
def test_pytorchs_own_loader_reads_in_processes(path, context):
    ds = TileDataset(path)
    ds[0]  # maps are open here: each process opens its own
    for collate in (None, ds.collate):
        loader = DataLoader(
            ds, batch_size=4, num_workers=2, multiprocessing_context=context, collate_fn=collate
        )
        ours = batches(ds, size=4, shuffle=False)
        assert all(same(a, b) for a, b in zip(loader, ours, strict=True))
    mixed = [i for b in DataLoader(ds, batch_size=4, shuffle=True) for i in b["id"]]
    assert sorted(mixed) == sorted(ds.read(range(len(ds)))["id"])


def test_maps_do_not_travel(path):
    ds = TileDataset(path, layers=["class"])
    before = len(pickle.dumps(ds))
    ds.read(range(len(ds)))
    assert len(pickle.dumps(ds)) == before
    assert same(pickle.loads(pickle.dumps(ds)).read([0, 2]), ds.read([0, 2]))


@pytest.mark.parametrize("hold", [
    lambda a: a, lambda a: a[1:, :3][0].T, lambda a: torch.from_numpy(a), lambda a: torch.from_numpy(a)[5].t(),
    lambda a: torch.from_numpy(a).numpy()[2:], lambda a: torch.from_numpy(a).view(-1).untyped_storage(),
])  # fmt: skip
def test_memory_is_used_again_only_when_nothing_of_it_is_held(hold):
    buffers, shape = Buffers(), (LARGE // 1024, 256)
    first = buffers.empty(shape, np.float32)
    where = first.__array_interface__["data"][0]
    held = hold(first)
    del first
    second = buffers.empty(shape, np.float32)
    assert second.__array_interface__["data"][0] != where
    del held
    third = buffers.empty(shape, np.float32)
    assert third.__array_interface__["data"][0] == where and third.flags.writeable
    assert third.shape == shape and third.dtype == np.float32
    del second, third
    assert pickle.loads(pickle.dumps(buffers))._spare == {}
    many = [buffers.empty(shape, np.float32) for _ in range(30)]
    del many
    assert len(buffers._spare[LARGE]) <= 8


def test_batches_that_are_kept_do_not_change(path, monkeypatch):
    monkeypatch.setattr("geoml_cli.stages.buffers.LARGE", 1)
    ds = TileDataset(path, split="all")
    how = {"size": 3, "augment": "dihedral"}
    kept, copies, parts = [], [], []
    for n, batch in enumerate(batches(ds, **how)):
        if n % 2:  # some are kept whole, of some a part, the others are let go
            kept.append(batch)
            copies.append({k: v.clone() if k != "id" else v for k, v in batch.items()})
        elif n % 4:
            parts.append((batch["image"][0, :, 1], batch["image"][0, :, 1].clone()))
    del batch
    list(batches(ds, epoch=1, **how))
    assert all(same(a, b) for a, b in zip(kept, copies, strict=True)) and len(kept) > 2
    assert parts and all(torch.equal(a, b) for a, b in parts)


def waited(until, timeout=5.0):
    end = time.monotonic() + timeout
    while not until() and time.monotonic() < end:
        time.sleep(0.005)
    return until()


def threads():
    return [t for t in threading.enumerate() if t.name.startswith("geoml-batches")]


@pytest.mark.parametrize(("workers", "depth"), [(1, 1), (2, 3), (4, 2)])
def test_a_slow_consumer_is_not_run_away_from(workers, depth):
    made = []
    results = in_order(lambda i: made.append(i) or i, range(40), workers, depth)
    for taken in range(1, 41):
        assert next(results) == taken - 1
        waited(lambda n=taken: len(made) >= min(n + depth, 40))
        time.sleep(0.002)
        assert len(made) <= taken + depth
    assert next(results, None) is None and not threads()


def test_threads_end_when_the_consumer_stops_or_fails():
    for stop in ("close", "raise", "forget"):
        results = in_order(lambda i: i, range(1000), 3, 6)
        assert next(results) == 0 and len(threads()) > 0
        if stop == "raise":
            with pytest.raises(ZeroDivisionError):
                for _ in results:
                    1 / 0  # noqa: B018
        if stop != "forget":
            results.close()
        del results
        assert not threads()


def test_an_error_in_a_worker_arrives_where_its_batch_is_wanted(path, monkeypatch):
    def make(i):
        if i == 5:
            raise OSError("the disk is gone")
        return i

    got = []
    with pytest.raises(OSError, match="the disk is gone"):
        got.extend(iter_into(in_order(make, range(20), 2, 4), got))
    assert got == [0, 1, 2, 3, 4] and not threads()
    ds = TileDataset(path)
    monkeypatch.setattr(ds.images[0], "values", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(batches(ds))


def iter_into(results, got):
    for result in results:
        got.append(result)
    return []


def test_a_consumer_that_works_in_threads_overlaps_reading():
    began = time.monotonic()
    for _ in in_order(lambda _: time.sleep(0.02), range(20), 2, 3):
        time.sleep(0.01)
    assert time.monotonic() - began < 0.4 + 0.15  # one after the other: 0.6 s


AIM = Aim("classes", "pixel", ("class",), tuple(map(str, range(CLASSES))))


def test_the_feed_of_training_is_the_same_ground(path, truth):
    tiles = read_tileset(path)
    for member, part in enumerate(parts_of(tiles)):
        feed = Feed(tiles, part, AIM, ["image"])
        labels = np.where(side_of(truth, "train", member), truth["class"], 255)
        counts = np.stack([(labels == c).sum(axis=(1, 2)) for c in range(CLASSES)], axis=1)
        assert (
            feed.counts.tolist() == counts.sum(0).tolist()
            and feed.rows.tolist() == np.flatnonzero(counts.any(1)).tolist()
        )
        feed.weights = class_weights(feed.counts, "sqrt")
        for workers in (0, 2):
            order = feed.order(1, 3)
            assert sorted(order.tolist()) == feed.rows.tolist()
            parts = list(feed.epoch(order, 4, 0, workers))
            assert np.array_equal(torch.cat([p.target for p in parts]), labels[order])
            table = np.append(feed.weights, np.zeros(253)).astype(np.float32)
            assert np.array_equal(torch.cat([p.weight for p in parts]), table[labels[order]])
            later = list(feed.epoch(order, 4, 1, workers))
            assert [p.rows for p in later] == [p.rows for p in parts[1:]]
        for side in ("val", "test"):
            want = np.where(side_of(truth, side, member), truth["class"], 255)
            rows = feed.held(side)
            assert rows.tolist() == np.flatnonzero((want != 255).any((1, 2))).tolist()
            found = [b.target for b in feed.held_batches(rows, side, 3)]
            assert np.array_equal(torch.cat(found), want[rows])


def test_norms_are_those_of_the_head_or_are_measured(path, truth, tmp_path):
    tiles = read_tileset(path)
    for member, part in enumerate(parts_of(tiles)):
        feed = Feed(tiles, part, AIM, ["image"])
        [(mean, std)], rows = feed.norms, feed.rows
        seen = (truth["valid"] & side_of(truth, "train", member)[:, None])[rows]
        for c, (scale, offset) in enumerate([(1e-4, -0.1), (1, 0)]):
            values = truth["image"][rows][:, :, c][seen] * scale + offset
            assert (mean[c], std[c]) == pytest.approx((values.mean(), values.std()), rel=1e-5)
    said = {"image": {"parts": [{"member": 2, "count": [9, 9], "mean": [1, 2], "std": [3, 0]}]}}
    other = read_tileset(write(tmp_path / "t", truth, statistics=said))
    [(mean, std)] = Feed(other, parts_of(other)[2], AIM, ["image"]).norms
    assert mean.tolist() == [1, 2] and std.tolist() == [3, 1e-6]
    assert Feed(other, parts_of(other)[1], AIM, ["image"]).norms[0][0][0] != 1


class Counted(Tiles):
    """A format that reads when asked: all the loader needs is `take`."""

    def take(self, kind, rows, name=None):
        return read_tileset(str(self.folder)).take(kind, rows, name)


def test_any_format_slots_in_by_its_name(path, tmp_path, truth, monkeypatch):
    monkeypatch.setitem(OPENERS, "npy", Counted)
    other = TileDataset(path)
    assert type(other.tiles) is Counted
    monkeypatch.undo()
    for a, b in zip(batches(other, augment="dihedral"), batches(TileDataset(path), augment="dihedral"), strict=True):  # fmt: skip
        same(a, b)
    monkeypatch.delitem(OPENERS, "npy")
    with pytest.raises(GeomlError, match="run the `geoml tile` that made it"):
        open_tiles(path)


def test_mistakes_are_said(path, tmp_path, truth):
    for more, said in [
        ({"split": "dev"}, "one of train, val, test, all"),
        ({"member": 4}, "member 4: the tile set has 4"),
        ({"sensors": ["sar"]}, "sensor 'sar': the tile set has image, dem"),
        ({"layers": ["x"]}, "layer 'x': the tile set has class"),
    ]:
        with pytest.raises(UsageMistake, match=said):
            TileDataset(path, **more)
    with pytest.raises(UsageMistake, match="augment 'spin'"):
        batches(TileDataset(path), augment="spin")
    with pytest.raises(GeomlError, match="two things of a sample are called dem"):
        TileDataset(write(tmp_path / "t", truth, layers=[PIXEL[0] | {"name": "dem"}]))
