"""`geoml fetch` on files: what is found, what is kept, pixel for pixel, and what is said when it cannot be."""

import hashlib
import json
import os
import re
import shutil
import time
from pathlib import Path

import geopandas
import numpy as np
import pystac
import pytest
import rasterio
import served
import shapely
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin
from rasterio.warp import transform_bounds
from rasterio.windows import Window, from_bounds
from test_items import check_valid, window_by_rasterio

from geoml_cli import registry
from geoml_cli.cli import run
from geoml_cli.formats import crop, cut
from geoml_cli.formats.raster import Reader, describe
from geoml_cli.formats.stamp import damage
from geoml_cli.geo.grid import Bounds
from geoml_cli.geo.grid import Window as Block
from geoml_cli.geo.query import Query
from geoml_cli.stages import keep
from geoml_cli.stages.catalog import homes

SHARED = Path("/work/shared/data")
BOX = (15.005, 45.135, 15.02, 45.145)  # inside scene a1 of `served.two_scenes`
AT = ",".join(map(str, BOX))


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with a static catalog of two scenes, where the tests stand."""
    served.two_scenes(tmp_path / "cat")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fetch(*more, out="scenes/", catalog="cat/catalog.json"):
    return run(["fetch", str(catalog), "-o", str(out), *map(str, more)])


def read(folder="scenes"):
    return {
        item["id"]: item for item in json.loads(Path(folder, "items.json").read_text())["features"]
    }


def bytes_of(folder):
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()
    }


def parts():
    return sorted(p for p in os.listdir() if p.startswith("."))


def one_line(text):
    return text.endswith("\n") and text.count("\n") == 1 and text.startswith("geoml: ")


def items_file(name, *items):
    return served.put(Path(name), {"type": "FeatureCollection", "features": list(items)})


def alone(path, **more):
    """items.json with one item of one raster."""
    here = Path.cwd()
    return items_file(
        "items.json", served.item("x", {"data": here / path}, here, "2023-01-01T00:00:00Z", **more)
    )


def test_a_crop_is_what_rasterio_reads_in_the_window_of_the_area(home, capsys):
    assert fetch("--bbox", AT) == 0
    assert capsys.readouterr().out == "scenes/items.json\n"
    [name] = read()
    assert name == "a1"  # b1 lies 20 km east
    for key, asset in read()["a1"]["assets"].items():
        with (
            rasterio.open(f"cat/a/a1/{key}.tif") as source,
            rasterio.open(f"scenes/a1/{key}.tif") as copy,
        ):
            there = transform_bounds("OGC:CRS84", source.crs, *BOX, densify_pts=301)
            window = from_bounds(*there, source.transform)
            row, col = int(window.row_off), int(window.col_off)
            last_row = int(np.ceil(window.row_off + window.height))
            last_col = int(np.ceil(window.col_off + window.width))
            window = Window(col, row, last_col - col, last_row - row)
            assert np.array_equal(copy.read(), source.read(window=window))
            assert copy.transform == source.window_transform(window) and copy.crs == source.crs
            assert copy.shape == tuple(asset["proj:shape"]) == (last_row - row, last_col - col)
            assert copy.tags()["TIFFTAG_DATETIME"] == "2023:06:01 10:20:30"
    assert parts() == []


def test_the_items_are_valid_and_describe_what_is_there(home):
    item = json.loads(Path("cat/a/a1/item.json").read_text())
    item["properties"] |= {"platform": "p", "proj:epsg": 32633, "eo:cloud_cover": 5}
    served.put(Path("cat/a/a1/item.json"), item)
    assert fetch("--bbox", AT) == 0
    made = read()["a1"]
    check_valid(made)
    assert made["properties"] == {
        "datetime": "2023-06-01T10:20:30Z",
        "platform": "p",
        "eo:cloud_cover": 5,
    }
    links = {link["rel"]: link["href"] for link in made["links"]}
    assert links == {
        "collection": "../cat/a/collection.json",
        "derived_from": "../cat/a/a1/item.json",
    }
    members = json.loads(Path("scenes/items.json").read_text())["geoml"]["members"]
    assert set(members) == {"a1/red.tif", "a1/nir.tif"}
    for asset in made["assets"].values():
        data = Path("scenes", asset["href"]).read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        assert asset["file:checksum"] == "1220" + digest == "1220" + members[asset["href"][2:]]
        assert asset["file:size"] == len(data)
        with rasterio.open(Path("scenes", asset["href"])) as copy:
            assert (
                asset["proj:transform"] == list(copy.transform)[:6]
                and asset["proj:code"] == "EPSG:32633"
            )
            there = transform_bounds(copy.crs, "OGC:CRS84", *copy.bounds)
    assert np.allclose(made["bbox"], there, atol=1e-7)
    [by_pystac] = pystac.ItemCollection.from_file("scenes/items.json")
    assert by_pystac.datetime.isoformat() == "2023-06-01T10:20:30+00:00"
    assert by_pystac.collection_id == "a" and set(by_pystac.assets) == {"red", "nir"}


SELECT = [
    (["--collection", "a"], ["a1"]),
    (["--collection", "b", "--collection", "a"], ["a1", "b1"]),
    (["--collection", "b", "--datetime", "2023/2024"], ["b1"]),
    (["--datetime", "2023"], ["a1"]),
    (["--datetime", "2023-06-01T10:20:30Z"], ["a1"]),
    (["--datetime", "2023-06-02/.."], ["b1"]),
    (["--limit", 1], ["a1"]),
    (["--bbox", "15.1,45,16,46"], ["b1"]),
    ([], ["a1", "b1"]),
]


@pytest.mark.parametrize(("options", "names"), SELECT, ids=lambda value: " ".join(map(str, value)))
def test_scenes_are_chosen_by_collection_time_place_and_number(home, options, names):
    assert fetch(*options) == 0
    assert list(read()) == names


def test_without_an_area_scenes_are_kept_whole(home):
    assert fetch("--bands", "nir", "--limit", 1) == 0
    assert list(read()["a1"]["assets"]) == ["nir"]
    with rasterio.open("cat/a/a1/nir.tif") as source, rasterio.open("scenes/a1/nir.tif") as copy:
        assert np.array_equal(source.read(), copy.read()) and source.transform == copy.transform


def test_all_shapes_of_a_file_in_any_crs_are_the_area_and_a_bbox_cuts_it(home):
    boxes = [
        shapely.box(500_500, 4_998_000, 500_900, 4_998_300),
        shapely.box(501_500, 4_999_000, 501_800, 4_999_400),
    ]
    geopandas.GeoDataFrame(geometry=boxes, crs="EPSG:32633").to_crs("EPSG:3857").to_file(
        "area.gpkg"
    )
    assert fetch("--intersects", "area.gpkg", "--bands", "red") == 0
    with rasterio.open(
        "scenes/a1/red.tif"
    ) as copy:  # from the west of one to the east of the other
        want = (500_500, 4_998_000, 501_800, 4_999_400)
        assert np.abs(np.subtract(copy.bounds, want)).max() <= 10
    west, south, east, north = transform_bounds(
        "EPSG:32633", "OGC:CRS84", 500_000, 4_998_500, 502_000, 5_000_000
    )
    assert (
        fetch(
            "--intersects",
            "area.gpkg",
            "--bbox",
            f"{west},{south},{east},{north}",
            "--bands",
            "red",
        )
        == 0
    )
    with rasterio.open("scenes/a1/red.tif") as copy:
        assert (
            np.abs(np.subtract(copy.bounds, (501_500, 4_999_000, 501_800, 4_999_400))).max() <= 10
        )


def test_items_come_through_a_pipe(home, monkeypatch, capsys):
    import io

    assert fetch("--bbox", AT, "--ndjson", out="one") == 0
    lines = capsys.readouterr().out
    [record] = map(json.loads, lines.splitlines())
    assert {asset["href"] for asset in record["assets"].values()} == {
        "one/a1/red.tif",
        "one/a1/nir.tif",
    }
    for text in (lines, json.dumps({"type": "FeatureCollection", "features": [record]})):
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        assert fetch(catalog="-", out="two") == 0
    first, second = bytes_of("one"), bytes_of("two")
    assert first["a1/red.tif"] == second["a1/red.tif"] and "collection" in read("two")["a1"]
    monkeypatch.setattr("sys.stdin", io.StringIO("cat/a/collection.json\ncat/b/b1/item.json\n"))
    assert fetch("--bands", "red", catalog="-", out="three") == 0
    assert list(read("three")) == ["a1", "b1"]
    capsys.readouterr()
    monkeypatch.setattr("sys.stdin", io.StringIO(" \n"))
    assert fetch(catalog="-", out="four") == 4
    assert one_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    "catalog",
    ["cat", "cat/a", "cat/a/collection.json", "cat/a/a1/item.json", "lines.ndjson", "made"],
)
def test_any_file_of_a_catalog_will_do(home, catalog):
    found = [json.loads(Path(f"cat/{n}/{n}1/item.json").read_text()) for n in "ab"]
    for item, n in zip(found, "ab", strict=True):
        for asset in item["assets"].values():
            asset["href"] = f"cat/{n}/{n}1/{asset['href']}"
    Path("lines.ndjson").write_text("\n".join(map(json.dumps, found)))
    assert fetch("--bands", "red", out="made") == 0
    assert fetch("--datetime", "2023", "--bands", "red", catalog=catalog) == 0
    assert list(read()) == ["a1"]
    assert bytes_of("scenes")["a1/red.tif"] == bytes_of("made")["a1/red.tif"]


def test_the_source_may_be_named_and_every_source_keeps_the_contract(home, capsys):
    assert fetch("--source", "static", "--limit", 1) == 0
    capsys.readouterr()
    assert fetch("--source", "items", out="other") == 1
    assert "holds Catalog, not STAC items" in capsys.readouterr().err
    assert fetch("--source", "itmes") == 2 and "did you mean items?" in capsys.readouterr().err
    hrefs = {"static": "cat/a/a1/item.json", "items": "cat/a/a1/item.json"}
    assert set(hrefs) | set(homes()) | {"stac"} == set(registry.names("sources"))
    for name in hrefs:  # those of servers have tests of their own
        part = registry.load("sources", name)
        asked = Query(hrefs[name])
        [item] = part.search(asked)
        assert asked.files == [hrefs[name]]
        assert all(Path(part.open(asset)).is_file() for asset in item["assets"].values())


def test_a_second_run_does_nothing_and_touched_inputs_only_touch_the_stamp(home, capsys):
    assert fetch("--bbox", AT) == 0
    before, stat = bytes_of("scenes"), os.stat("scenes/items.json")
    assert fetch("--bbox", AT, "-j", 3, "--json") == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["up_to_date"] and said["scenes"] == 1 and said["assets"] == 2
    assert os.stat("scenes/items.json").st_mtime_ns == stat.st_mtime_ns
    later = time.time() + 5
    os.utime("cat/a/a1/red.tif", (later, later))
    assert fetch("--bbox", AT) == 0
    assert (
        os.stat("scenes/items.json").st_ino == stat.st_ino
    )  # the same file, newer than its inputs
    assert os.stat("scenes/items.json").st_mtime_ns > stat.st_mtime_ns
    assert bytes_of("scenes") == before


def test_edited_inputs_are_read_again_and_others_are_not(home, monkeypatch):
    copied = []
    monkeypatch.setattr(
        keep,
        "copy",
        lambda cut, path, check: (copied.append(path.name), crop.copy(cut, path, check)),
    )
    assert fetch("--bbox", AT) == 0 and sorted(copied) == ["nir.tif", "red.tif"]
    old = bytes_of("scenes")
    copied.clear()
    served.noise(Path("cat/a/a1/red.tif"), 300, 260, seed=77)
    assert fetch("--bbox", AT) == 0 and copied == ["red.tif"]  # what is the same is taken over
    new = bytes_of("scenes")
    assert new["a1/nir.tif"] == old["a1/nir.tif"] and new["a1/red.tif"] != old["a1/red.tif"]
    copied.clear()
    item = json.loads(Path("cat/a/a1/item.json").read_text())
    served.put(
        Path("cat/a/a1/item.json"), item | {"properties": item["properties"] | {"platform": "q"}}
    )
    assert fetch("--bbox", AT) == 0 and copied == []
    assert read()["a1"]["properties"]["platform"] == "q" and damage("scenes") == []
    assert fetch("--bbox", "15.005,45.135,15.021,45.145") == 0 and len(copied) == 2
    assert fetch("--bbox", AT, out="fresh") == 0 and fetch("--bbox", AT) == 0
    assert {k: v for k, v in bytes_of("fresh").items() if ".tif" in k} == {
        k: v for k, v in bytes_of("scenes").items() if ".tif" in k
    }


def test_bytes_do_not_depend_on_jobs(home):
    assert fetch("-j", 1, out="one") == 0 and fetch("-j", 4, out="four") == 0
    assert bytes_of("one") == bytes_of("four")


def test_a_dry_run_says_what_it_would_read_and_writes_nothing(home, capsys):
    before = sorted(os.listdir())
    assert fetch("--dry-run", "--bands", "red") == 0
    said = capsys.readouterr()
    assert said.out == "" and sorted(os.listdir()) == before
    assert f"2 scenes, 2 assets, {2 * 300 * 260} pixels, {2 * 300 * 260 * 2} bytes" in said.err


def test_what_was_read_is_listed_for_make(home):
    assert fetch("--bbox", AT, "--bands", "red", "--depfile", "scenes.d") == 0
    line = Path("scenes.d").read_text().splitlines()[0]
    assert line.startswith("scenes/items.json:")
    assert {
        "cat/catalog.json",
        "cat/a/collection.json",
        "cat/a/a1/item.json",
        "cat/a/a1/red.tif",
    } <= set(line.split())


BAD = {  # name: (options, status, what is said)
    "nothing there": (["--bbox", "0,0,1,1"], 4, "none of the 2 items match"),
    "no such collection": (["--collection", "c"], 4, "holds no items of c"),
    "bbox of words": (["--bbox", "a,b"], 2, "--bbox"),
    "bbox upside down": (["--bbox", "15,46,16,45"], 2, "--bbox"),
    "no such time": (["--datetime", "2023-13"], 2, "--datetime"),
    "limit 0": (["--limit", 0], 2, "--limit"),
    "no such asset": (["--bands", "blue"], 1, "no asset or band called blue; it has red, nir"),
    "no such area": (["--intersects", "no.gpkg"], 1, "no.gpkg: no such file"),
    "area elsewhere": (["--intersects", "far.geojson", "--bbox", AT], 4, "no ground is in both"),
    "area no vectors": (["--intersects", "cat/catalog.json"], 1, "cat/catalog.json"),
    "no such catalog": (["nowhere.json"], 1, "nowhere.json: no such file"),
    "empty catalog": (["empty.json"], 1, "is empty"),
    "no JSON": (["half.json"], 1, "damaged JSON"),
    "not text": (["cat/a/a1/red.tif"], 1, "UTF-8"),
    "no STAC": (["other.json"], 1, "other.json"),
    "an API": (["api.json"], 1, "a STAC API"),
    "no items": (["none.json"], 4, "holds no items"),
    "empty folder": (["bare"], 1, "holds none of"),
    "dangling link": (["dangling.json"], 1, "gone.json: no such file"),
    "a file as output": (["-o", "scenes.tif"], 2, "writes a folder"),
    "output holds the input": (["-o", "cat"], 1, "which this run reads"),
    "output is not ours": (["-o", "bare2"], 1, "was not written by geoml"),
}


def spoil(home):
    for name, text in {
        "empty.json": "",
        "half.json": '{"type": "Catalog", "links": [',
        "other.json": '{"a": 1}',
        "api.json": '{"type": "Catalog", "id": "x", "conformsTo": []}',
        "none.json": '{"type": "FeatureCollection", "features": []}',
        "bare/note.txt": "",
        "bare2/note.txt": "mine",
    }.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text)
    geopandas.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1)], crs="EPSG:4326").to_file(
        "far.geojson"
    )
    whole = json.loads(Path("cat/a/collection.json").read_text())
    whole["links"].append({"rel": "item", "href": "./gone.json"})
    for link in whole["links"][:1]:
        link["href"] = "./cat/a/a1/item.json"
    served.put(Path("dangling.json"), whole)


@pytest.mark.parametrize("name", BAD)
def test_a_mistake_is_one_line_and_leaves_nothing(home, capsys, name):
    spoil(home)
    before = sorted(map(str, Path().rglob("*")))
    options, status, said = BAD[name]
    catalog = options.pop(0) if not options[0].startswith("-") else "cat/catalog.json"
    argv = ["fetch", catalog, *map(str, options)]
    assert run(argv if "-o" in argv else [*argv, "-o", "scenes"]) == status
    err = capsys.readouterr().err
    assert said in err and one_line(err)
    assert sorted(map(str, Path().rglob("*"))) == before


def no_crs(path):
    served.noise(path, 64, 64, crs=None)


def truncated(path):
    served.noise(path, 300, 260)
    path.write_bytes(path.read_bytes()[:60_000])


def rotated(path):
    served.noise(
        path, 64, 64, transform=from_origin(5e5, 5e6, 10, 10) * rasterio.Affine.rotation(10)
    )


SPOILT = {
    "missing": (Path.unlink, "no such file"),
    "zero bytes": (lambda path: path.write_bytes(b""), "zero bytes"),
    "truncated": (truncated, "not readable as a raster"),
    "no raster": (lambda path: path.write_text("<html>" * 99), "not readable as a raster"),
    "no CRS": (no_crs, "no CRS"),
    "rotated": (rotated, "rotated"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_bad_raster_ends_the_run_or_is_left_out(home, capsys, name):
    spoiler, said = SPOILT[name]
    spoiler(Path("cat/b/b1/red.tif"))
    assert fetch() == 1
    err = capsys.readouterr().err
    error = err.splitlines()[-1]  # before it, that what is done is kept
    assert said in error and "cat/b/b1/red.tif" in error and err.count("\n") <= 2
    assert not Path("scenes").exists()
    assert fetch("--keep-going", "--json") == 3
    got = capsys.readouterr()
    assert said in got.err and json.loads(got.out)["assets"] == 3
    assert set(read()["b1"]["assets"]) == {"nir"} and damage("scenes") == [] and parts() == []
    assert fetch("--keep-going") == 3  # what is incomplete is never up to date
    capsys.readouterr()
    served.noise(
        Path("cat/b/b1/red.tif"), 300, 260, transform=from_origin(520_000, 5_000_000, 10, 10)
    )
    assert fetch() == 0 and set(read()["b1"]["assets"]) == {"nir", "red"}


def test_broken_parts_of_a_catalog_are_left_out_with_keep_going(home, capsys):
    spoil(home)
    assert fetch("--keep-going", catalog="dangling.json") == 3
    assert "gone.json" in capsys.readouterr().err and list(read()) == ["a1"]
    assert fetch("--keep-going", "--bands", "red,blue", out="some") == 3
    assert [list(item["assets"]) for item in read("some").values()] == [["red"], ["red"]]
    assert fetch("--keep-going", "--bands", "blue", out="none") == 3
    assert not Path("none").exists() and parts() == []


def test_scenes_that_match_by_their_outline_only_are_counted(home, capsys):
    for name in "ab":
        item = json.loads(Path(f"cat/{name}/{name}1/item.json").read_text())
        ring = [[14, 44], [17, 44], [17, 46], [14, 46], [14, 44]]
        item |= {"geometry": {"type": "Polygon", "coordinates": [ring]}, "bbox": [14, 44, 17, 46]}
        served.put(Path(f"cat/{name}/{name}1/item.json"), item)
    assert fetch("--bbox", AT) == 0
    assert "1 of 2 scenes have no pixels in the area" in capsys.readouterr().err and list(
        read()
    ) == ["a1"]
    assert fetch("--bbox", "14.1,44.1,14.2,44.2", out="none") == 4
    assert not Path("none").exists() and parts() == []


def test_names_of_items_and_assets_never_lead_outside(home):
    raster = home / "cat/a/a1/red.tif"
    names = ["../x", "/", "", "items.json", "..", "a/b", "a_b", "A_B", "\u00e9", "x" * 300]
    made = [served.item(name, {"data": raster}, home, "2023-01-01T00:00:00Z") for name in names]
    for item in made:
        item["assets"]["../../data"] = item["assets"].pop("data")
    twin = json.loads(json.dumps(made[6])) | {"collection": "other"}
    items_file("items.json", *made, twin, made[5])  # the same item twice counts once
    before = sorted(os.listdir())
    assert fetch("--bbox", AT, catalog="items.json") == 0
    assert sorted(os.listdir()) == sorted([*before, "scenes"])
    found = json.loads(Path("scenes/items.json").read_text())["features"]
    hrefs = [item["assets"]["../../data"]["href"] for item in found]
    assert len(hrefs) == len({href.lower() for href in hrefs}) == len(names) + 1
    inside = Path("scenes").resolve()
    for href in hrefs:
        assert (
            Path("scenes", href).resolve().is_relative_to(inside) and Path("scenes", href).is_file()
        )
    for item in found:
        check_valid(item)


def test_what_is_about_the_pixels_is_kept(home):
    path = served.noise(home / "s.tif", 50, 40, dtype="int16", nodata=-32768, count=2)
    with rasterio.open(path, "r+") as dataset:
        dataset.scales, dataset.offsets, dataset.units = (0.0001, 2), (-0.1, 0), ("1", "K")
        dataset.set_band_description(1, "red")
        dataset.update_tags(
            TIFFTAG_DATETIME="2001:02:03 04:05:06",
            TIFFTAG_COPYRIGHT="ours & <theirs>",
            AREA_OR_POINT="Point",
        )
        dataset.update_tags(GEOML="{}")
    palette = served.noise(home / "p.tif", 50, 40, dtype="uint8", nodata=255)
    with rasterio.open(palette, "r+") as dataset:
        dataset.write_colormap(1, {0: (1, 2, 3, 255), 7: (255, 0, 9, 255)})
    items_file(
        "items.json", served.item("x", {"s": path, "p": palette}, home, "2023-01-01T00:00:00Z")
    )
    assert fetch("--raw", catalog="items.json") == 0
    with rasterio.open("scenes/x/s.tif") as copy, rasterio.open(path) as source:
        assert copy.dtypes == ("int16", "int16") and copy.nodata == -32768
        assert copy.scales == (0.0001, 2) and copy.offsets == (-0.1, 0) and copy.units == ("1", "K")
        assert copy.descriptions == ("red", None) == source.descriptions
        tags = source.tags()
        assert tags.pop("GEOML") and copy.tags() == tags  # another file's record is not ours
        assert copy.transform == source.transform
    with rasterio.open("scenes/x/p.tif") as copy, rasterio.open(palette) as source:
        table = copy.colormap(1)
        assert copy.colorinterp == (ColorInterp.palette,)
        assert table[0][:3] == (1, 2, 3) and table[7][:3] == (255, 0, 9)
        assert np.array_equal(copy.read(), source.read())


def test_what_the_catalog_says_of_bands_goes_into_the_copy(home):
    path = served.noise(home / "s.tif", 30, 30)
    with rasterio.open(path, "r+") as dataset:
        values = dataset.read()
        values[0, :5] = 0
        dataset.write(values)
    item = served.item("x", {"B04": path}, home, "2023-01-01T00:00:00Z")
    item["assets"]["B04"] |= {
        "eo:bands": [{"name": "red", "common_name": "red", "center_wavelength": 0.665}],
        "raster:bands": [{"nodata": 0, "scale": 0.0001, "offset": -0.1, "unit": "1"}],
        "title": "Red",
    }
    items_file("items.json", item)
    assert fetch("--raw", catalog="items.json") == 0
    with rasterio.open("scenes/x/B04.tif") as copy:
        assert (copy.nodata, copy.scales, copy.offsets, copy.units, copy.descriptions) == (
            0,
            (0.0001,),
            (-0.1,),
            ("1",),
            ("red",),
        )
    asset = read()["x"]["assets"]["B04"]
    check_valid(read()["x"])
    [band] = asset["bands"]
    assert band["raster:scale"] == 0.0001 and band["raster:offset"] == -0.1 and band["nodata"] == 0
    assert (
        band["eo:center_wavelength"] == 0.665
        and asset["title"] == "Red"
        and "raster:bands" not in asset
    )


def valid_of(path):
    raster = describe(str(path))
    with Reader(raster) as reader:
        return reader.read(Block(0, 0, raster.grid.height, raster.grid.width))


def masked_source(path, dtype, how, values=None):
    """A raster whose mask is in a mask band or an alpha band; False in the last rows."""
    kind = np.dtype(dtype)
    rng = np.random.default_rng(5)
    data = (
        rng.integers(1, 100, (1, 300, 280)).astype(dtype)
        if values is None
        else values.astype(dtype)
    )
    valid = np.ones(data.shape[1:], bool)
    valid[-40:, 10:] = False
    extra = how == "alpha"
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK="YES"),
        rasterio.open(
            path,
            "w",
            driver="GTiff",
            count=1 + extra,
            height=300,
            width=280,
            dtype=dtype,
            crs="EPSG:32633",
            transform=from_origin(500_000, 5_000_000, 10, 10),
            **({"photometric": "MINISBLACK", "alpha": "YES"} if extra else {}),
        ) as out,
    ):
        out.write(data[0], 1)
        if extra:
            out.write((valid * (255 if kind.kind == "u" else 1)).astype(dtype), 2)
            out.colorinterp = (ColorInterp.gray, ColorInterp.alpha)
        else:
            out.write_mask(valid)
    return data, valid


def every_value(dtype):
    span = np.iinfo(dtype)
    return np.resize(np.arange(span.min, span.max + 1), (1, 300, 280))


MASKS = {  # source: (dtype, kind of mask, values, dtype of the copy, nodata of the copy)
    "uint8 mask": ("uint8", "mask", None, "uint8", 0),
    "uint8 alpha": ("uint8", "alpha", None, "uint8", 0),
    "0 is taken": ("uint16", "mask", np.resize([0, 5], (1, 300, 280)), "uint16", 65535),
    "0 and 255 are taken": ("uint8", "mask", np.resize([0, 255, 254], (1, 300, 280)), "uint8", 253),
    "all are taken": ("uint8", "mask", every_value("uint8"), "int16", -32768),
    "all of 65536 are taken": ("int16", "mask", every_value("int16"), "int32", -(2**31)),
    "int32": ("int32", "mask", np.resize([0, 2**31 - 1], (1, 300, 280)), "int32", -(2**31)),
    "floats": ("float32", "mask", None, "float32", np.nan),
}


@pytest.mark.parametrize("name", MASKS)
def test_masked_pixels_are_nodata_in_the_copy(home, name, monkeypatch):
    dtype, how, values, copied_as, nodata = MASKS[name]
    monkeypatch.setattr(cut, "BLOCK_PX", 128)
    data, valid = masked_source(home / "m.tif", dtype, how, values)
    assert fetch(catalog=alone("m.tif")) == 0
    with rasterio.open("scenes/x/data.tif") as copy:
        assert copy.count == 1 and copy.dtypes == (copied_as,)
        assert np.array_equal([copy.nodata], [nodata], equal_nan=True)
        values, mask = copy.read(1), copy.read_masks(1) > 0
    assert np.array_equal(mask, valid) and np.array_equal(values[valid], data[0][valid])
    assert np.array_equal(valid_of("scenes/x/data.tif")[1], valid_of("m.tif")[1])
    assert sorted(os.listdir("scenes/x")) == ["data.tif"]
    monkeypatch.setattr(crop, "SMALL_BYTES", 0)  # block by block, through a file
    assert fetch(catalog="items.json", out="slow") == 0
    assert bytes_of("slow") == bytes_of("scenes")


def test_a_crop_of_a_masked_raster_depends_on_its_own_pixels(home):
    data = np.full((1, 300, 280), 9)
    data[0, 200:] = 0  # 0 is free in the north
    masked_source(home / "m.tif", "uint8", "mask", data)
    west, south, east, north = transform_bounds(
        "EPSG:32633", "OGC:CRS84", 500_500, 4_999_000, 501_000, 4_999_900
    )
    assert fetch("--bbox", f"{west},{south},{east},{north}", catalog=alone("m.tif")) == 0
    with rasterio.open("scenes/x/data.tif") as copy:
        assert copy.nodata == 0 and (copy.read_masks(1) > 0).all()


def test_nodata_values_are_copied_as_they_are(home):
    path = served.noise(home / "f.tif", 60, 50, dtype="float32", nodata=-1, count=2)
    with rasterio.open(path, "r+") as dataset:
        values = dataset.read()
        values[0, :3], values[1, 5:7], values[0, 9] = -1, np.nan, np.inf
        dataset.write(values)
    assert fetch(catalog=alone("f.tif")) == 0
    with rasterio.open("scenes/x/data.tif") as copy:
        assert copy.nodata == -1 and np.array_equal(copy.read(), values, equal_nan=True)
    assert np.array_equal(valid_of("scenes/x/data.tif")[1], valid_of(path)[1])


def test_bands_with_different_nodata_get_one(home):
    path = served.noise(home / "s.tif", 60, 50, count=2)
    with rasterio.open(path, "r+") as dataset:
        values = dataset.read()
        values[0, :3], values[1, 5:7] = 7, 9
        dataset.write(values)
    item = served.item("x", {"data": path}, home, "2023-01-01T00:00:00Z")
    item["assets"]["data"]["raster:bands"] = [{"nodata": 7}, {"nodata": 9}]
    items_file("items.json", item)
    assert fetch(catalog="items.json") == 0
    want = (values[0] != 7) & (values[1] != 9)
    with rasterio.open("scenes/x/data.tif") as copy:
        assert np.array_equal(copy.dataset_mask() > 0, want) and copy.nodata not in (7, 9)
        assert np.array_equal(copy.read()[:, want], values[:, want])


def test_a_nodata_value_that_pixels_cannot_have_is_dropped(home):
    path = served.noise(home / "s.tif", 30, 30, dtype="uint8")
    item = served.item("x", {"data": path}, home, "2023-01-01T00:00:00Z")
    item["assets"]["data"]["raster:bands"] = [{"nodata": -9999}]
    items_file("items.json", item)
    assert fetch(catalog="items.json") == 0
    with rasterio.open("scenes/x/data.tif") as copy:
        assert copy.nodata is None and (copy.read_masks(1) > 0).all()
    assert "nodata" not in read()["x"]["assets"]["data"]["bands"][0]


def test_overviews_hold_only_values_that_are_there(home):
    served.noise(home / "s.tif", 1100, 600, dtype="uint8")
    with rasterio.open("s.tif", "r+") as dataset:
        dataset.write(np.where(dataset.read() % 2, 10, 200).astype("uint8"))
    assert fetch(catalog=alone("s.tif")) == 0
    with rasterio.open("scenes/x/data.tif", overview_level=0) as small:
        assert set(np.unique(small.read())) == {10, 200}
        assert small.tags(ns="IMAGE_STRUCTURE")["COMPRESSION"] == "ZSTD"


def test_a_fetch_of_a_fetch_goes_on(home):
    assert fetch("--bbox", AT, out="one") == 0
    smaller = (15.01, 45.138, 15.015, 45.142)
    assert (
        fetch("--bbox", ",".join(map(str, smaller)), "--collection", "a", catalog="one", out="two")
        == 0
    )
    with rasterio.open("cat/a/a1/red.tif") as source, rasterio.open("two/a1/red.tif") as copy:
        row, col, height, width = window_by_rasterio(
            describe("cat/a/a1/red.tif").grid, Bounds(*smaller)
        )
        assert np.array_equal(copy.read(), source.read(window=Window(col, row, width, height)))
    assert fetch(catalog="one", out="one") == 1 and damage("one") == []


def dateline():
    path = SHARED / "k_extra/edge_case_rasters/cog_dateline.tif"
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    return path


def test_an_area_across_the_antimeridian_is_one_crop(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = dateline()
    ring = [[178, 50.6], [-178.7, 50.6], [-178.7, 52.7], [178, 52.7], [178, 50.6]]
    item = served.item("x", {"data": path}, Path("/"), "2020-01-01T00:00:00Z")
    item |= {
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [178, 50.6, -178.7, 52.7],
    }
    item["assets"]["data"]["href"] = str(path)
    items_file("items.json", item)
    assert fetch("--bbox", "179.5,51,-179.5,52", catalog="items.json") == 0
    row, col, height, width = window_by_rasterio(describe(str(path)).grid, (179.5, 51, 180.5, 52))
    with rasterio.open(path) as source, rasterio.open("scenes/x/data.tif") as copy:
        assert copy.shape == (height, width)
        assert np.array_equal(copy.read(), source.read(window=Window(col, row, width, height)))
    made = read()["x"]
    check_valid(made)
    assert (
        made["bbox"][0] > 179
        and made["bbox"][2] < -179
        and made["geometry"]["type"] == "MultiPolygon"
    )
    assert fetch("--bbox", "-178,51,170,52", catalog="items.json", out="none") == 4


def test_a_real_catalog(tmp_path, monkeypatch):
    source = SHARED / "stac/static_catalog_local_cogs"
    if not source.is_dir():
        pytest.skip(f"{source} is not here")
    monkeypatch.chdir(tmp_path)
    box = (-49.9, -3.78, -49.86, -3.73)
    assert fetch("--bbox", ",".join(map(str, box)), catalog=source / "catalog.json") == 0
    [made] = pystac.ItemCollection.from_file("scenes/items.json")
    assert made.id == "lsat5-para" and made.collection_id == "landsat-sample"
    check_valid(read()["lsat5-para"])
    for key in ("data", "labels"):
        with rasterio.open(source / f"landsat-sample/lsat5-para/{key}.tif") as whole:
            row, col, height, width = window_by_rasterio(describe(whole.name).grid, box)
            want, mask = (
                f(window=Window(col, row, width, height)) for f in (whole.read, whole.read_masks)
            )
            names, nodata = whole.descriptions, whole.nodata
        with rasterio.open(f"scenes/lsat5-para/{key}.tif") as copy:
            assert np.array_equal(copy.read(), want) and np.array_equal(copy.read_masks(), mask)
            assert copy.descriptions == names and copy.nodata == nodata


def test_edge_cases_among_real_rasters_keep_pixels_and_masks(tmp_path, monkeypatch, capsys):
    folder = dateline().parent
    monkeypatch.chdir(tmp_path)
    items = []
    for path in sorted(folder.glob("*.tif")):
        assets = {"data": {"href": str(path), "type": "image/tiff"}}
        items.append(
            dict(
                type="Feature",
                id=path.stem,
                geometry=None,
                properties={"datetime": "2020-01-01T00:00:00Z"},
                assets=assets,
            )
        )
    items_file("items.json", *items)
    assert fetch("--raw", "--keep-going", catalog="items.json") == 3
    refused = re.findall(
        r"edge_case_rasters/(\S+).tif: (rotated|placed by ground control)", capsys.readouterr().err
    )
    assert sorted(name for name, _ in refused) == ["au-3577-rotated", "au-gcp", "cog_gcps"]
    assert len(read()) == len(items) - 3
    for name in read():
        want, mask = valid_of(folder / f"{name}.tif")
        values, valid = valid_of(f"scenes/{name}/data.tif")
        assert np.array_equal(valid, mask) and np.array_equal(values[:, valid], want[:, mask]), name


def test_space_is_asked_for_before_the_first_block(home, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr(crop, "SMALL_BYTES", 0)
    assert fetch() == 1
    assert "no space left" in capsys.readouterr().err and not Path("scenes").exists()
    monkeypatch.undo()
    os.chdir(home)
    shutil.rmtree(".scenes.part")
    assert fetch() == 0
