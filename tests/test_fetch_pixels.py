"""What `geoml fetch` does to pixels: scale and offset, masks, grids, entire files."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import served
from pyproj import Transformer
from rasterio.enums import Resampling
from rasterio.transform import from_origin
from rasterio.vrt import WarpedVRT
from rasterio.windows import from_bounds
from test_fetch import bytes_of, fetch, items_file, one_line, parts, read
from test_items import check_valid

from geoml_cli.geo.grid import Grid
from geoml_cli.geo.snap import on_lattice

CORNER = (500_000, 5_000_000)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(path, data, size=10.0, crs="EPSG:32633", **more):
    """A GeoTIFF of an array (h, w) or (c, h, w) whose corner is CORNER."""
    data = np.atleast_3d(data.T).T if data.ndim == 2 else data
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=data.shape[1],
        width=data.shape[2],
        count=data.shape[0],
        dtype=data.dtype,
        crs=crs,
        transform=from_origin(*CORNER, size, size),
        **more,
    ) as out:
        out.write(data)
    return Path(path).absolute()


def pixels(name, key, folder="scenes"):
    with rasterio.open(f"{folder}/{name}/{key}.tif") as dataset:
        return dataset.read(), dataset.dataset_mask() > 0, dataset.profile


def sentinel(name, rasters, link="planetarycomputer.microsoft.com", **properties):
    item = served.item(name, rasters, Path.cwd(), "2023-06-01T10:00:00Z")
    item["properties"] |= {"s2:processing_baseline": "05.09"} | properties
    item["collection"] = "sentinel-2-l2a"
    item["links"] = [
        {"rel": "collection", "href": f"https://{link}/api/stac/v1/collections/sentinel-2-l2a"}
    ]
    return item


def dn(seed=0, size=40, low=1000, high=9000):
    return np.random.default_rng(seed).integers(low, high, (size, size)).astype("uint16")


def test_scale_and_offset_are_applied_once_by_the_providers_rule(home):
    stored = dn()
    stored[0, :5] = 0  # nodata by the product's definition
    pc = put("pc/B04.tif", stored)
    es = put("es/red.tif", np.where(stored == 0, 0, stored - 1000).astype("uint16"))
    flagged = sentinel("es", {"red": es}, "earth-search.aws.element84.com")
    flagged["properties"]["earthsearch:boa_offset_applied"] = True
    flagged["assets"]["red"]["raster:bands"] = [{"nodata": 0, "scale": 0.0001, "offset": -0.1}]
    old = put("old/B04.tif", stored)
    items_file(
        "items.json",
        sentinel("pc", {"B04": pc}),
        flagged,
        sentinel("old", {"B04": old}, **{"s2:processing_baseline": "02.14"}),
    )
    assert fetch("--bands", "red", catalog="items.json") == 0
    want = np.where(stored == 0, np.nan, (stored.astype(float) - 1000) / 10000)
    for name in ("pc", "es"):
        values, valid, profile = pixels(name, "red")
        assert profile["dtype"] == "float32"
        np.testing.assert_allclose(values[0], want, rtol=1e-6)
        assert np.array_equal(valid, stored != 0)
    np.testing.assert_allclose(
        pixels("old", "red")[0][0], np.where(stored == 0, np.nan, stored / 10000), rtol=1e-6
    )
    asset = read()["pc"]["assets"]["red"]
    [said] = asset["geoml:scaling"]
    assert (said["scale"], said["offset"]) == (0.0001, -0.1) and "05.09" in said["rule"]
    [band] = asset["bands"]
    assert band["eo:common_name"] == "red" and band["unit"] == "reflectance"
    assert "raster:scale" not in band and "raster:offset" not in band
    for item in read().values():
        check_valid(item)
    # fetched from the copies, nothing is scaled a second time
    assert fetch(catalog="scenes/items.json", out="again") == 0
    np.testing.assert_array_equal(pixels("pc", "red", "again")[0], pixels("pc", "red")[0])


def test_raw_leaves_digital_numbers_alone_and_tells_what_they_mean(home):
    stored = dn()
    items_file("items.json", sentinel("pc", {"B04": put("pc/B04.tif", stored)}))
    assert fetch("--bands", "red", "--raw", catalog="items.json") == 0
    with rasterio.open("scenes/pc/red.tif") as copy:
        assert np.array_equal(copy.read(1), stored) and copy.dtypes == ("uint16",)
        assert copy.scales == (0.0001,) and copy.offsets[0] == pytest.approx(-0.1)
    [band] = read()["pc"]["assets"]["red"]["bands"]
    assert band["raster:scale"] == 0.0001 and band["raster:offset"] == -0.1


def test_pixels_that_contradict_the_metadata_are_reported(home, capsys):
    dark = np.random.default_rng(1).integers(100, 900, (200, 200)).astype("uint16")
    items_file("items.json", sentinel("odd", {"B02": put("odd/B02.tif", dark)}))
    assert fetch("--bands", "blue", catalog="items.json") == 0
    assert "seem to be free of the offset" in capsys.readouterr().err
    fine = np.random.default_rng(1).integers(1100, 1900, (200, 200)).astype("uint16")
    items_file("items.json", sentinel("fine", {"B02": put("odd/B02.tif", fine)}))
    assert fetch("--bands", "blue", catalog="items.json") == 0
    assert capsys.readouterr().err == ""


def test_without_names_the_usual_bands_of_the_collection_are_kept(home):
    rasters = {key: put(f"x/{key}.tif", dn()) for key in ("B04", "B08", "SCL", "AOT", "visual")}
    items_file("items.json", sentinel("x", rasters))
    assert fetch(catalog="items.json") == 0
    assert sorted(read()["x"]["assets"]) == ["nir", "red"]


def test_bands_of_one_asset_share_a_file_in_the_order_asked_for(home):
    image = np.random.default_rng(0).integers(1, 255, (4, 50, 60)).astype("uint8")
    item = served.item(
        "n", {"image": put("n.tif", image, photometric="minisblack")}, home, "2021-06-01T00:00:00Z"
    )
    items_file("items.json", item | {"collection": "naip"})
    assert fetch("--bands", "nir,red", catalog="items.json") == 0
    values, _, _ = pixels("n", "image")
    assert np.array_equal(values, image[[3, 0]])
    bands = read()["n"]["assets"]["image"]["bands"]
    assert [band["eo:common_name"] for band in bands] == ["nir", "red"]
    assert fetch("--bands", "green", catalog="items.json", out="one") == 0
    assert np.array_equal(pixels("n", "green", "one")[0][0], image[1])


SCL = np.repeat(np.repeat(np.arange(16, dtype="uint8").reshape(4, 4) % 12, 5, 0), 5, 1)  # 20 x 20
CLASSES = {"clouds": (8, 9), "shadows": (3,), "snow": (11,)}  # of ESA's scene classification


@pytest.mark.parametrize("names", ["clouds", "clouds,shadows", "snow"])
@pytest.mark.parametrize("raw", [True, False])
def test_a_mask_layer_hides_what_is_called_by_name(home, names, raw):
    stored = dn()
    rasters = {"B04": put("x/B04.tif", stored), "SCL": put("x/SCL.tif", SCL, size=20.0)}
    items_file("items.json", sentinel("x", rasters))
    box = ["--bbox", "15.0005,45.1502,15.0042,45.1532"]  # not on the borders of 20 m pixels
    assert (
        fetch("--bands", "red", "--mask", names, *["--raw"] * raw, *box, catalog="items.json") == 0
    )
    values, valid, profile = pixels("x", "red")
    col = round((profile["transform"].c - CORNER[0]) / 10)
    row = round((CORNER[1] - profile["transform"].f) / 10)
    height, width = valid.shape
    assert 0 < col and 0 < row and height > 20 and width > 20
    bad = [value for name in names.split(",") for value in CLASSES[name]]
    fine = np.repeat(np.repeat(~np.isin(SCL, bad), 2, 0), 2, 1)[
        row : row + height, col : col + width
    ]
    assert np.array_equal(valid, fine) and 0 < fine.mean() < 1
    there = stored[row : row + height, col : col + width]
    want = there if raw else (there.astype(float) - 1000) / 10000
    np.testing.assert_allclose(values[0][valid], want[valid], rtol=1e-6)
    assert sorted(p.name for p in Path("scenes/x").iterdir()) == ["red.tif"]
    assert parts() == []


def test_a_mask_layer_can_be_kept_too_and_is_not_masked(home):
    rasters = {"B04": put("x/B04.tif", dn()), "SCL": put("x/SCL.tif", SCL, size=20.0)}
    items_file("items.json", sentinel("x", rasters))
    assert fetch("--bands", "red,scl", "--mask", "clouds", catalog="items.json") == 0
    assert np.array_equal(pixels("x", "scl")[0][0], SCL)


def test_unknown_names_of_masks_are_told(home, capsys):
    items_file("items.json", sentinel("x", {"B04": put("x/B04.tif", dn())}))
    assert fetch("--mask", "fog", catalog="items.json") == 1
    said = capsys.readouterr().err
    assert one_line(said) and "clouds" in said
    assert fetch("--mask", "clouds", catalog="items.json") == 1
    assert "no asset" in capsys.readouterr().err


# grids


def lattice(profile, size):
    """Whether the borders are whole multiples of a pixel."""
    t = profile["transform"]
    return all(abs(v / size - round(v / size)) < 1e-6 for v in (t.c, t.f)) and t.a == size == -t.e


def test_a_slope_stays_a_slope_on_another_grid(home):
    rows, cols = np.mgrid[0:300, 0:320]
    slope = (3.0 * cols + 2.0 * rows).astype("float32")  # bilinear interpolation is exact on it
    items_file(
        "items.json", served.item("x", {"d": put("d.tif", slope)}, home, "2023-06-01T00:00:00Z")
    )
    assert fetch("--resolution", 7, catalog="items.json") == 0
    values, valid, profile = pixels("x", "d")
    assert lattice(profile, 7)
    h, w = valid.shape
    x = profile["transform"].c + (np.arange(w) + 0.5) * 7
    y = profile["transform"].f - (np.arange(h) + 0.5) * 7
    col, row = (x - CORNER[0]) / 10 - 0.5, (CORNER[1] - y) / 10 - 0.5
    want = 3.0 * col[None] + 2.0 * row[:, None]
    inner = np.ix_((row > 1) & (row < 298), (col > 1) & (col < 318))
    assert valid[inner].all() and inner[0].size > 400
    np.testing.assert_allclose(values[0][inner], want[inner], atol=2e-3)


@pytest.mark.parametrize("how", ["nearest", "bilinear", "cubic"])
def test_another_crs_is_what_gdal_makes_of_it(home, how):
    path = put("d.tif", dn(size=700).astype("float32"))
    items_file("items.json", served.item("x", {"d": path}, home, "2023-06-01T00:00:00Z"))
    crs = ["--crs", "EPSG:3035", "--resolution", "10"]
    assert fetch(*crs, "--resampling", how, catalog="items.json") == 0
    values, valid, profile = pixels("x", "d")
    assert lattice(profile, 10) and profile["crs"].to_epsg() == 3035
    with (
        rasterio.open(path) as source,
        WarpedVRT(
            source,
            crs="EPSG:3035",
            transform=profile["transform"],
            height=profile["height"],
            width=profile["width"],
            resampling=Resampling[how],
            nodata=-1,
            tolerance=1e-9,
        ) as vrt,
    ):
        want = vrt.read(1)
    both = valid & (want != -1)
    assert both.mean() > 0.8 and (valid ^ (want != -1)).mean() < 0.001
    np.testing.assert_allclose(values[0][both], want[both], rtol=1e-4, atol=0.5)


def test_runs_over_other_areas_line_up_pixel_on_pixel(home):
    items_file(
        "items.json",
        served.item("x", {"d": put("d.tif", dn(size=500))}, home, "2023-06-01T00:00:00Z"),
    )
    grid = ["--crs", "EPSG:3035", "--resolution", "20"]
    assert fetch(*grid, "--bbox", "15.005,45.115,15.04,45.14", catalog="items.json", out="a") == 0
    assert fetch(*grid, "--bbox", "15.02,45.12,15.06,45.15", catalog="items.json", out="b") == 0
    with rasterio.open("a/x/d.tif") as a, rasterio.open("b/x/d.tif") as b:
        west, south = max(a.bounds.left, b.bounds.left), max(a.bounds.bottom, b.bounds.bottom)
        east, north = min(a.bounds.right, b.bounds.right), min(a.bounds.top, b.bounds.top)
        cuts = [
            d.read(1, window=from_bounds(west, south, east, north, d.transform)) for d in (a, b)
        ]
    assert cuts[0].shape == cuts[1].shape and cuts[0].size > 1000
    assert np.array_equal(*cuts)


def test_classes_are_never_mixed(home):
    rasters = {"SCL": put("x/SCL.tif", SCL, size=20.0)}
    items_file("items.json", sentinel("x", rasters))
    assert fetch("--bands", "scl", "--resolution", 7, catalog="items.json") == 0
    values, valid, _ = pixels("x", "scl")
    assert set(np.unique(values[0][valid])) <= set(np.unique(SCL))


def test_hidden_pixels_do_not_bleed_into_others(home):
    stored = np.full((40, 40), 2000, "uint16")
    stored[np.repeat(np.repeat(np.isin(SCL, (8, 9)), 2, 0), 2, 1)] = 9999
    rasters = {"B04": put("x/B04.tif", stored), "SCL": put("x/SCL.tif", SCL, size=20.0)}
    items_file("items.json", sentinel("x", rasters))
    ask = ["--bands", "red", "--mask", "clouds", "--resolution", "13"]
    assert fetch(*ask, catalog="items.json") == 0
    values, valid, _ = pixels("x", "red")
    assert 0.5 < valid.mean() < 1
    np.testing.assert_allclose(values[0][valid], 0.1, rtol=1e-5)


def test_averages_of_whole_pixels_are_averages(home):
    stored = dn(size=200).astype("float32")
    items_file(
        "items.json", served.item("x", {"d": put("d.tif", stored)}, home, "2023-06-01T00:00:00Z")
    )
    assert fetch("--resolution", 50, "--resampling", "average", catalog="items.json") == 0
    values, _, profile = pixels("x", "d")
    assert lattice(profile, 50)
    np.testing.assert_allclose(values[0], stored.reshape(40, 5, 40, 5).mean((1, 3)), rtol=1e-5)


def test_like_gives_the_very_grid_of_a_raster(home):
    put("like.tif", np.zeros((37, 41), "uint8"), size=13.0)
    stored = dn(size=60)
    items_file(
        "items.json", served.item("x", {"d": put("d.tif", stored)}, home, "2023-06-01T00:00:00Z")
    )
    assert fetch("--like", "like.tif", "--resampling", "nearest", catalog="items.json") == 0
    values, valid, profile = pixels("x", "d")
    with rasterio.open("like.tif") as like:
        assert (like.transform, like.shape) == (profile["transform"], valid.shape)
    cols = np.floor((np.arange(41) + 0.5) * 1.3).astype(int)
    rows = np.floor((np.arange(37) + 0.5) * 1.3).astype(int)
    assert np.array_equal(values[0], stored[np.ix_(rows, cols)])
    where = Path("like.tif").read_bytes()
    put("like.tif", np.zeros((30, 30), "uint8"), size=13.0)
    assert fetch("--like", "like.tif", "--resampling", "nearest", catalog="items.json") == 0
    assert pixels("x", "d")[1].shape == (30, 30) and where != Path("like.tif").read_bytes()


def test_a_coarse_grid_needs_little_memory_and_no_fold_in_longitude(home):
    grid = Grid("OGC:CRS84", rasterio.Affine(0.1, 0, 179.5, 0, -0.1, 10), 10, 10)
    from geoml_cli.geo.bounds import footprint

    found = on_lattice(footprint(grid.outline()), "EPSG:4326", 0.25)
    assert (found.width, found.height) == (4, 4) and found.transform.c == 179.5
    line = Transformer.from_crs("EPSG:32601", "EPSG:4326", always_xy=True)
    assert line.transform(300_000, 0)[0] < 180


# entire files


def test_whole_files_are_copied_bit_for_bit(home):
    path = put("d.tif", dn(), tiled=True, blockxsize=16, blockysize=16, compress="lzw")
    Path("meta.xml").write_text("<a/>")
    item = served.item("x", {"d": path}, home, "2023-06-01T00:00:00Z")
    item["assets"]["meta"] = {
        "href": "./meta.xml",
        "type": "application/xml",
        "roles": ["metadata"],
    }
    item["assets"]["d"]["file:checksum"] = "1220" + hashlib.sha256(path.read_bytes()).hexdigest()
    item["assets"]["d"]["file:size"] = path.stat().st_size
    items_file("items.json", item)
    assert fetch("--whole", "--bands", "d,meta", catalog="items.json") == 0
    assert Path("scenes/x/d.tif").read_bytes() == path.read_bytes()
    assert Path("scenes/x/meta.xml").read_text() == "<a/>"
    assets = read()["x"]["assets"]
    assert assets["d"]["type"] == "image/tiff" and assets["meta"]["type"] == "application/xml"
    check_valid(read()["x"])
    before = bytes_of("scenes")
    assert fetch("--whole", "--bands", "d,meta", catalog="items.json") == 0
    assert bytes_of("scenes") == before


@pytest.mark.parametrize("code, name", [("1220", "sha256"), ("1114", "sha1"), ("d50110", "md5")])
def test_a_wrong_checksum_is_an_error(home, capsys, code, name):
    path = put("d.tif", dn())
    item = served.item("x", {"d": path}, home, "2023-06-01T00:00:00Z")
    right = hashlib.new(name, path.read_bytes()).hexdigest()
    item["assets"]["d"]["file:checksum"] = code + right
    items_file("items.json", item)
    assert fetch("--whole", catalog="items.json") == 0
    item["assets"]["d"]["file:checksum"] = code + right[::-1]
    items_file("bad.json", item)
    assert fetch("--whole", catalog="bad.json", out="bad") == 1
    said = capsys.readouterr().err
    assert one_line(said) and name in said and not Path("bad").exists() and parts() == []


def test_a_download_that_breaks_off_goes_on_where_it_was(home):
    data = put("web/d.tif", np.random.default_rng(0).integers(0, 255, (1500, 2000)).astype("uint8"))
    size = data.stat().st_size
    item = served.item("x", {"d": data}, home / "web", "2023-06-01T00:00:00Z")
    served.put(Path("web/items.json"), {"type": "FeatureCollection", "features": [item]})
    broken = []

    def rule(path, span):
        if path.endswith("d.tif") and (not span or not span.startswith("bytes=0-")):
            broken.append(span)
            return "half" if len(broken) < 4 else None
        return None

    with served.serving(home / "web", rule=rule) as server:
        assert fetch("--whole", catalog=f"{server.url}/items.json") == 0
        asked = [span for _, path, span in server.log if path.endswith("d.tif")]
    assert Path("scenes/x/d.tif").read_bytes() == data.read_bytes()
    assert len(broken) == 4
    firsts = [int(span.split("=")[1].split("-")[0]) for span in asked[2:]]
    assert (
        firsts == sorted(firsts) and firsts[0] > size * 0.4
    )  # what had come was not asked for again


def test_copies_open_in_other_programs(home, monkeypatch):
    odc = pytest.importorskip("odc.stac", reason="odc-stac is not installed")
    stackstac = pytest.importorskip("stackstac", reason="stackstac is not installed")
    import pandas
    import pystac

    stored = dn(size=64)
    rasters = {"B04": put("x/B04.tif", stored), "B08": put("x/B08.tif", dn(1, 64))}
    items_file("items.json", sentinel("x", rasters))
    assert fetch("--bands", "red,nir", catalog="items.json") == 0
    items = list(pystac.ItemCollection.from_file("scenes/items.json"))
    want = (stored.astype(float) - 1000) / 10000
    for item in items:
        for asset in item.assets.values():
            asset.href = str(Path("scenes", asset.href).absolute())
    cube = odc.load(items, bands=["red", "nir"])
    np.testing.assert_allclose(cube["red"].values[0], want, rtol=1e-6)
    # today's pystac takes proj:epsg out of items that it reads, so it gets them as they are written;
    # its rescaling does not run with numpy 2, whatever the items
    plain = list(read().values())
    for asset in (asset for item in plain for asset in item["assets"].values()):
        asset["href"] = str(Path("scenes", asset["href"]).absolute())
    times = pandas.to_datetime  # stackstac passes it a word that pandas 3 has dropped
    monkeypatch.setattr(
        pandas, "to_datetime", lambda *a, infer_datetime_format=None, **k: times(*a, **k)
    )
    how = {"dtype": np.dtype("float64"), "fill_value": np.float64("nan"), "rescale": False}
    stack = stackstac.stack(plain, assets=["red"], **how).compute()
    np.testing.assert_allclose(stack.values[0, 0], want, rtol=1e-6)


def test_a_dry_run_tells_pixels_of_the_grid_asked_for(home, capsys):
    items_file(
        "items.json",
        served.item("x", {"d": put("d.tif", dn(size=100))}, home, "2023-06-01T00:00:00Z"),
    )
    assert fetch("--resolution", 50, "--dry-run", catalog="items.json") == 0
    assert "400 pixels" in capsys.readouterr().err
    assert json.loads(Path("items.json").read_text()) and not Path("scenes").exists()


def test_a_dry_run_tells_the_bytes_of_the_blocks_it_would_read(home, capsys):
    data = np.random.default_rng(0).integers(0, 255, (128, 128)).astype("uint8")
    blocks = {"tiled": True, "blockxsize": 64, "blockysize": 64}
    put("d.tif", data, **blocks)
    items_file("items.json", served.item("x", {"d": home / "d.tif"}, home, "2023-06-01T00:00:00Z"))
    assert fetch("--dry-run", catalog="items.json") == 0
    assert f"would read {128 * 128} bytes of blocks" in capsys.readouterr().err
    assert fetch("--dry-run", "--bbox", "15.0001,45.1526,15.002,45.1534", catalog="items.json") == 0
    assert f"would read {64 * 64} bytes of blocks" in capsys.readouterr().err  # the first of four
