"""What is written reads back equal, byte for byte where that is promised."""

import json
import os
from dataclasses import replace

import duckdb
import geopandas
import made
import numpy as np
import pytest
import rasterio
import shapely
import torch
from hypothesis import given
from hypothesis import strategies as st
from rasterio.transform import from_origin
from rio_cogeo.cogeo import cog_validate

from geoml_cli.errors import GeomlError
from geoml_cli.formats import items as stac
from geoml_cli.formats.bands import Band, bands_of_asset
from geoml_cli.formats.cog import GDAL_TYPES, Journal, Layout, save_cog
from geoml_cli.formats.digest import digest_file, sha256_file
from geoml_cli.formats.jsonfile import canonical, dumps, read_json, sha256_of
from geoml_cli.formats.model import Model, save_weights
from geoml_cli.formats.raster import Reader, describe, physical
from geoml_cli.formats.tileset import TileSet, read_tileset, save_array
from geoml_cli.formats.vectors import class_value, digest_vectors, read_vectors, write_vectors
from geoml_cli.geo.grid import Grid, Window

UTM = Grid("EPSG:32633", from_origin(500_000, 5_000_000, 10, 10), 530, 700)
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=12)
FINITE = st.floats(allow_nan=False, allow_infinity=False)


def small(height=30, width=40, **more):
    return replace(UTM, height=height, width=width, **more)


def values_of(dtype: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Random values over the whole range of a type."""
    rng = np.random.default_rng(seed)
    if dtype.startswith("float"):
        return rng.normal(0, 1e3, shape).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)


NODATA = {
    "float32": float("nan"),
    "float64": -1e30,
    "int8": -128,
    "int16": -32768,
    "int32": -(2**31),
}


@pytest.mark.parametrize("dtype", GDAL_TYPES)
def test_a_cog_reads_back_as_it_was_written(dtype, tmp_path):
    nodata = NODATA.get(dtype, float(np.iinfo(dtype).max) if "int" in dtype else None)
    data = values_of(dtype, (2, 530, 700))
    data[:, :9] = nodata
    bands = (
        Band("red", unit="reflectance", scale=1e-4, offset=-0.1, nodata=nodata),
        Band("nir", scale=2.5, nodata=nodata),
    )
    tags = {"GEOML": '{"a": "<&>\'\\""}', "CLASS_0": "été, x = y"}
    path = tmp_path / "a.tif"
    save_cog(path, data, Layout(UTM, bands, dtype, tags=tags))
    assert os.listdir(tmp_path) == ["a.tif"]  # neither sidecar nor raw file
    valid, errors, warnings = cog_validate(path, strict=True)
    assert valid, errors + warnings
    with rasterio.open(path) as found:
        assert found.dtypes == (dtype, dtype)
        np.testing.assert_array_equal(found.read(), data)
        assert (found.descriptions, found.units) == (("red", "nir"), ("reflectance", None))
        assert (found.scales, found.offsets) == ((1e-4, 2.5), (-0.1, 0.0))
        np.testing.assert_array_equal(found.nodatavals, (nodata, nodata))
        assert found.transform == UTM.transform and found.crs.to_epsg() == 32633
        assert found.overviews(1) == [2] and set(found.block_shapes) == {(512, 512)}
        assert {k: found.tags()[k] for k in tags} == tags
    raster = describe(str(path))
    assert (raster.grid, raster.dtype) == (UTM, dtype)
    for ours, theirs in zip(bands, raster.bands, strict=True):
        assert theirs.to_dict() == replace(ours, gsd_m=theirs.gsd_m).to_dict()
    with Reader(raster) as reader:
        again, seen = reader.read(Window(-3, 690, 20, 30))  # sticks out at two sides
    assert not seen[:12].any() and seen[12:, :10].all() and not seen[:, 10:].any()
    np.testing.assert_array_equal(again[:, 3:, :10], data[:, :17, 690:])


def test_a_class_map_keeps_its_colours_and_names(tmp_path):
    colors = {0: (1, 2, 3), 7: (250, 0, 90), 254: (9, 9, 9)}
    data = np.random.default_rng(0).choice([0, 7, 254, 255], (1, 600, 600)).astype(np.uint8)
    layout = Layout(
        replace(UTM, height=600, width=600), (Band("class", nodata=255),), "uint8", True, colors
    )
    save_cog(tmp_path / "m.tif", data, layout)
    assert os.listdir(tmp_path) == ["m.tif"]
    with rasterio.open(tmp_path / "m.tif") as found:
        table = found.colormap(1)
        assert {k: table[k] for k in colors} == {k: (*rgb, 255) for k, rgb in colors.items()}
        assert (found.read() == data).all() and found.nodata == 255
        small = found.read(
            1, out_shape=(300, 300)
        )  # of an overview: no class is the mean of others
        assert set(np.unique(small)) == {0, 7, 254, 255}


@pytest.mark.parametrize(
    "grid",
    [
        Grid("EPSG:4326", from_origin(-180, 90, 0.5, 0.25), 8, 9),
        Grid("OGC:CRS84", from_origin(179.99999, 1e-7, 1 / 3, 1 / 7), 8, 9),
        Grid("EPSG:3031", from_origin(-1e6 / 3, 2e6 / 7, 100 / 3, 10), 8, 9),
    ],
    ids=lambda grid: grid.crs,
)
def test_a_grid_survives_its_file_to_the_last_bit(grid, tmp_path):
    save_cog(tmp_path / "a.tif", np.ones((1, 8, 9), np.uint8), Layout(grid, (Band("a"),), "uint8"))
    found = describe(str(tmp_path / "a.tif")).grid
    assert found.transform == grid.transform and (found.height, found.width) == (8, 9)
    assert Grid.from_dict(json.loads(json.dumps(found.to_dict()))) == found


@given(
    name=TEXT,
    unit=TEXT,
    key=st.from_regex("[A-Za-z_]{1,9}", fullmatch=True),
    value=TEXT,
    scale=FINITE,
    offset=FINITE,
)
def test_any_words_and_numbers_survive_a_cog(
    name, unit, key, value, scale, offset, tmp_path_factory
):
    path = tmp_path_factory.mktemp("words") / "a.tif"
    key = f"my_{key}"
    band = Band(name, unit=unit, scale=scale, offset=offset)
    save_cog(
        path, np.ones((1, 2, 2), np.int16), Layout(small(2, 2), (band,), "int16", tags={key: value})
    )
    with rasterio.open(path) as found:
        assert (found.descriptions, found.units, found.tags()[key]) == ((name,), (unit,), value)
        assert (found.scales, found.offsets) == ((scale,), (offset,))


def test_equal_arrays_give_equal_cogs(tmp_path):
    data = values_of("uint16", (3, 530, 700))
    layout = Layout(UTM, tuple(Band(n) for n in "abc"), "uint16")
    for name in "ab":
        (tmp_path / name).mkdir()
        save_cog(tmp_path / name / "x.tif", data, layout)
    assert made.content(tmp_path / "a") == made.content(tmp_path / "b")


@given(data=st.data())
def test_a_journal_goes_on_from_what_was_synced(data, tmp_path_factory):
    """Whatever was written and synced before a kill is there; the rest is asked for again."""
    folder = tmp_path_factory.mktemp("journal")
    height, width = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    block = data.draw(st.tuples(st.integers(1, 20), st.integers(1, 50)))
    layout = Layout(small(height, width), (Band("a"), Band("b")), "int16")
    image = values_of("int16", (2, height, width))
    for _ in range(data.draw(st.integers(1, 4))):
        journal = Journal(folder, "x", layout, block)
        todo = [i for i in range(len(journal.blocks)) if not journal.done[i]]
        half = todo[: data.draw(st.integers(0, len(todo)))]
        for i in half:
            journal.write(i, image[(slice(None), *journal.blocks[i].slices)])
        if data.draw(st.booleans()):
            journal.sync()
            todo = todo[len(half) :]
        journal.close()
        again = Journal(folder, "x", layout, block)
        assert [i for i in range(len(again.blocks)) if not again.done[i]] == todo
        again.close()
    last = Journal(folder, "x", layout, block)
    for i in np.flatnonzero(~last.done):
        last.write(i, image[(slice(None), *last.blocks[i].slices)])
    last.sync()
    last.finish(folder / "x.tif")
    assert os.listdir(folder) == ["x.tif"]
    with rasterio.open(folder / "x.tif") as found:
        assert (found.read() == image).all()


def test_a_block_is_on_the_disk_before_it_counts_as_done(tmp_path, monkeypatch):
    """Else a power cut could leave a block that is marked and not there."""
    journal = Journal(tmp_path, "x", Layout(small(), (Band("a"),), "uint8"), (10, 40))
    journal.write(0, np.ones((1, 10, 40)))
    names = {os.fstat(h).st_ino: n for h, n in ((journal._raw, "raw"), (journal._marks, "marks"))}
    order = []
    for call in ("fdatasync", "pwrite"):
        real = getattr(os, call)

        def noted(handle, *rest, call=call, real=real):
            order.append((call, names[os.fstat(handle).st_ino]))
            return real(handle, *rest)

        monkeypatch.setattr(os, call, noted)
    journal.sync()
    assert order == [("fdatasync", "raw"), ("pwrite", "marks"), ("fdatasync", "marks")]
    journal.close()


def test_a_journal_of_another_layout_begins_anew(tmp_path):
    first = Journal(tmp_path, "x", Layout(small(), (Band("a"),), "uint8"), (10, 10))
    first.write(0, np.ones((1, 10, 10)))
    first.sync()
    first.close()
    for layout, block in [
        (Layout(small(), (Band("a"),), "uint8"), (10, 5)),
        (Layout(small(), (Band("a"),), "uint16"), (10, 5)),
    ]:
        other = Journal(tmp_path, "x", layout, block)
        assert not other.done.any()
        other.close()


def test_a_type_that_geotiff_has_not_is_refused_by_name(tmp_path):
    with pytest.raises(GeomlError, match="x: cannot write values of type complex64"):
        Journal(tmp_path, "x", Layout(small(), (Band("a"),), "complex64"), (9, 9))
    assert not os.listdir(tmp_path)


BANDS = st.builds(
    Band,
    TEXT,
    common_name=st.none() | st.sampled_from(["red", "nir"]),
    wavelength_nm=st.none() | st.integers(300, 2500).map(float),
    gsd_m=st.none() | st.floats(0.1, 1000),
    unit=st.none() | TEXT,
    scale=FINITE.filter(bool),
    offset=FINITE,
    nodata=st.none() | FINITE,
)


@given(BANDS)
def test_a_band_is_the_same_in_json_and_in_stac(band):
    assert Band.from_dict(json.loads(dumps(band.to_dict()))) == band
    said = bands_of_asset(json.loads(dumps({"bands": [band.to_stac("uint16")]})))
    assert Band.from_dict(said[0]) == band


def test_nan_nodata_is_a_word_in_json():
    band = Band("a", nodata=float("nan"))
    assert json.loads(dumps(band.to_dict()))["nodata"] == "nan"
    assert np.isnan(Band.from_dict(band.to_dict()).nodata)
    assert np.isnan(Band.from_dict(bands_of_asset({"bands": [band.to_stac("float32")]})[0]).nodata)


def test_physical_values_are_scaled_once():
    stored = np.array([[[1000, 2000]], [[7, 9]]], np.uint16)
    found = physical(stored, [Band("a", scale=1e-4, offset=-0.1), Band("b")])
    np.testing.assert_allclose(found, [[[0, 0.1]], [[7, 9]]], atol=1e-7)
    assert found.dtype == np.float32


def test_items_read_back_with_hrefs_that_open(tmp_path, monkeypatch):
    folder = tmp_path / "scenes"
    folder.mkdir()
    features = []
    for name in ("b", "a"):
        path = folder / f"{name}.tif"
        bands = (Band("B04", unit="reflectance", scale=1e-4, nodata=0),)
        save_cog(path, values_of("uint16", (1, 30, 40)), Layout(small(), bands, "uint16"))
        item = stac.item_of(name, "2023-05-01T00:00:00Z")
        stac.add_raster(item, "data", describe(str(path)), folder)
        features.append(item)
    collection = stac.collection_of(features)
    (folder / "items.json").write_text(dumps(collection))
    assert [item["id"] for item in collection["features"]] == ["a", "b"]
    for base in (tmp_path, folder):
        monkeypatch.chdir(base)
        for item in stac.read_items(os.path.relpath(folder / "items.json")):
            [(key, raster)] = stac.rasters_of(item).items()
            assert key == "data" and raster.grid == small()
            assert raster.bands[0].scale == 1e-4 and raster.bands[0].nodata == 0
            asset = item["assets"]["data"]
            assert asset["file:checksum"] == "1220" + sha256_file(raster.path)
            assert asset["file:size"] == os.path.getsize(raster.path)
            square = shapely.geometry.shape(item["geometry"])
            west, north = 500_000, 5_000_000
            corners = geopandas.points_from_xy([west, west + 400], [north, north - 300], crs=32633)
            assert shapely.distance(square, corners.to_crs(4326)).max() < 1e-9
            assert item["bbox"] == pytest.approx(square.bounds)


def test_items_are_stac(tmp_path):
    pystac = pytest.importorskip("pystac")
    path = tmp_path / "a.tif"
    save_cog(path, values_of("uint8", (1, 30, 40)), Layout(small(), (Band("a"),), "uint8"))
    item = stac.item_of("a", "2023-05-01T00:00:00Z")
    stac.add_raster(item, "data", describe(str(path)), tmp_path)
    found = pystac.Item.from_dict(item)
    assert found.datetime.isoformat() == "2023-05-01T00:00:00+00:00"
    assert found.assets["data"].to_dict()["proj:shape"] == [30, 40]


def table(n=5):
    shapes = [shapely.box(i, i, i + 1, i + 0.5) for i in range(n)]
    columns = {
        "id": [f"t{i}" for i in range(n)],
        "counts": [[i, 2] for i in range(n)],
        "fold": range(n),
    }
    return geopandas.GeoDataFrame(columns, geometry=shapes, crs="OGC:CRS84")


def test_geoparquet_opens_elsewhere_and_equal_tables_give_equal_bytes(tmp_path):
    path = tmp_path / "a.parquet"
    write_vectors(path, table())
    write_vectors(tmp_path / "b.parquet", table())
    assert path.read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["a.parquet", "b.parquet"]
    found = geopandas.read_parquet(path)
    assert found.crs.equals("OGC:CRS84") and found.geometry.geom_equals(table().geometry).all()
    assert [list(c) for c in found["counts"]] == [[i, 2] for i in range(5)]
    rows = duckdb.sql(f"select id, counts[1], fold from '{path}' order by fold").fetchall()
    assert rows == [(f"t{i}", i, i) for i in range(5)]
    again = read_vectors(str(path), ["id"])
    assert again.geometry.geom_equals(table().geometry).all()


def test_vectors_of_each_kind_read_alike(tmp_path):
    plain = table().drop(columns="counts")
    for name in ("a.gpkg", "a.geojson", "a.shp", "a.fgb", "a.parquet"):
        path = tmp_path / name
        plain.to_parquet(path) if name.endswith("parquet") else plain.to_file(path)
        found = read_vectors(str(path), ["id", "fold"])
        found = found.set_index("id").loc[plain["id"]]  # flatgeobuf sorts by place
        assert found["fold"].tolist() == plain["fold"].tolist(), name
        assert shapely.equals(found.geometry.to_numpy(), plain.geometry.to_numpy()).all(), name


def test_features_without_a_geometry_are_left_out(tmp_path):
    some = geopandas.GeoDataFrame(
        {"id": [1, 2, 3]}, geometry=[None, shapely.Point(1, 2), shapely.Polygon()], crs=4326
    )
    some.to_file(tmp_path / "a.gpkg")
    assert read_vectors(str(tmp_path / "a.gpkg"))["id"].tolist() == [2]


def test_the_digest_of_a_shapefile_is_that_of_all_its_files(tmp_path):
    plain = table().drop(columns="counts")
    plain.to_file(tmp_path / "a.shp")
    before = digest_vectors(str(tmp_path / "a.shp"))
    (tmp_path / "a.txt").write_text("not a part")
    assert digest_vectors(str(tmp_path / "a.shp")) == before
    dbf = bytearray((tmp_path / "a.dbf").read_bytes())
    dbf[-3] ^= 1
    (tmp_path / "a.dbf").write_bytes(dbf)
    assert digest_vectors(str(tmp_path / "a.shp")) != before


BAD_VECTORS = [
    ("gone.gpkg", None, "no such file"),
    ("zero.gpkg", b"", "not readable as a vector file"),
    ("text.geojson", b"hello", "not readable as a vector file"),
    (
        "torn.geojson",
        b'{"type": "FeatureCollection", "features": [{"type": "Fea',
        "not readable as a vector file",
    ),
    ("torn.parquet", b"PAR1 and no more", "not readable as a vector file"),
    ("none.geojson", b'{"type": "FeatureCollection", "features": []}', "holds no features"),
]


@pytest.mark.parametrize(("name", "content", "says"), BAD_VECTORS, ids=[b[0] for b in BAD_VECTORS])
def test_a_bad_vector_file_is_one_line_with_its_path(name, content, says, tmp_path):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(GeomlError) as caught:
        read_vectors(str(path))
    assert str(caught.value).startswith(f"{path}: ") and says in str(caught.value)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("name", ["a.gpkg", "a.shp", "a.parquet", "a.fgb"])
def test_a_truncated_vector_file_is_one_line_or_whole(name, share, tmp_path):
    """GDAL mends some; what it cannot read must not come out as its traceback."""
    plain = table(200).drop(columns="counts")
    path = tmp_path / name
    plain.to_parquet(path) if name.endswith("parquet") else plain.to_file(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    try:
        read_vectors(str(path))
    except GeomlError as error:
        assert str(path) in str(error)


def test_class_names_are_spelled_one_way():
    assert [class_value(v) for v in (3, 3.0, "3", " water ", None, float("nan"), "", 2.5)] == [
        "3", "3", "3", "water", None, None, None, "2.5",
    ]  # fmt: skip


def test_the_arrays_of_a_tile_set_are_those_that_were_saved(finished, tmp_path):
    tiles = read_tileset(str(finished / "tiles"))
    n = len(tiles.index)
    assert tiles.array("images", 0).shape == (n, 1, 2, 32, 32)
    assert isinstance(tiles.array("images", 0), np.memmap)
    order = [n - 1, 0, 2]
    assert (
        tiles.take("labels", order) == np.load(finished / "tiles/labels-class-00000.npy")[order]
    ).all()
    for dtype in ("uint8", "int16", "float32", "bool"):
        array = values_of("uint8", (3, 4, 5)).astype(dtype)
        save_array(tmp_path / "a.npy", array)
        again = np.load(tmp_path / "a.npy", mmap_mode="r", allow_pickle=False)
        assert again.dtype == dtype and (again == array).all()


def test_an_array_with_objects_in_it_is_never_loaded(finished, tmp_path):
    tiles = read_tileset(str(finished / "tiles"))
    np.save(tmp_path / "images-image-00000.npy", np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(GeomlError, match="images-image-00000.npy: damaged"):
        TileSet(tmp_path, tiles.head, tiles.index).array("images", 0)


def test_weights_read_back_to_the_bit(tmp_path):
    states = [
        {
            "encoder.0.weight": torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(i)),
            "mean": torch.tensor([float("nan"), 1e-30, -0.0]),
            "count": torch.tensor(7 + i),
            "strided": torch.arange(12.0).reshape(3, 4).T,
        }
        for i in range(12)  # 1. and 10. and 11. are not mixed up
    ]
    save_weights(tmp_path / "weights.safetensors", states)
    found = Model(tmp_path, {"members": 12}).weights()
    for ours, theirs in zip(states, found, strict=True):
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            assert theirs[key].dtype == value.dtype and theirs[key].shape == value.shape
            assert theirs[key].numpy().tobytes() == value.contiguous().numpy().tobytes()
    assert oct((tmp_path / "weights.safetensors").stat().st_mode)[-3:] == "644"


def test_truncated_weights_are_one_line(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_weights(path, [{"a": torch.ones(100)}])
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(GeomlError, match="weights.safetensors: damaged"):
        Model(tmp_path, {"members": 1}).weights()


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | FINITE | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=9,
)


@given(value=PLAIN)
def test_json_reads_back_equal(value, tmp_path_factory):
    path = tmp_path_factory.mktemp("json") / "a.json"
    path.write_text(dumps(value), encoding="utf-8")
    assert read_json(path) == value
    assert dumps(read_json(path)) == dumps(value) and dumps(value).endswith("\n")


@given(st.dictionaries(TEXT, st.integers(), min_size=2))
def test_a_digest_of_json_does_not_depend_on_order(value):
    turned = dict(reversed(value.items()))
    assert sha256_of(turned) == sha256_of(value) and canonical(turned) == canonical(value)
    other = value | {next(iter(value)): 10**30}
    assert sha256_of(other) != sha256_of(value)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b'{"a": 1', b"\xff\xfe", b"[" * 100_000, b"{} {}"],
    ids=lambda b: repr(b[:8]),
)
def test_damaged_json_is_one_line_with_its_path(content, tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(GeomlError) as caught:
        read_json(path)
    assert str(caught.value).startswith(f"{path}: damaged JSON") and len(str(caught.value)) < 300


def test_numbers_that_json_has_not_are_never_written():
    with pytest.raises(ValueError):
        dumps({"a": float("nan")})


def test_a_digest_is_remembered_and_forgotten_with_the_file(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(b"one")
    os.utime(path, ns=(1, 10**18))
    assert digest_file(path) == sha256_file(path)
    reads = []
    monkeypatch.setattr(
        "geoml_cli.formats.digest.sha256_file", lambda p: reads.append(p) or sha256_file(p)
    )
    assert digest_file(path) == sha256_file(path) and not reads
    path.write_bytes(b"two")
    assert digest_file(path) == sha256_file(path) and len(reads) == 1
    digest_file(path)
    assert len(reads) == 2  # written a moment ago: it may change again within a tick of the clock


def test_a_cache_that_cannot_be_had_only_costs_time(tmp_path, monkeypatch):
    (tmp_path / "geoml").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert digest_file(__file__) == sha256_file(__file__)
    (tmp_path / "geoml").unlink()
    (tmp_path / "geoml").mkdir()
    (tmp_path / "geoml/digests.sqlite").write_bytes(b"not a database, surely" * 99)
    assert digest_file(__file__) == sha256_file(__file__)
