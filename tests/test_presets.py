"""What is known of well-known collections, against real items, product guides and plain arithmetic."""

import json
import math
import pickle
import tomllib
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from geoml_cli.errors import GeomlError
from geoml_cli.formats.bands import Band, bands_of_asset, said_of
from geoml_cli.formats.items import features
from geoml_cli.formats.presets import (
    contradiction,
    find_band,
    mask_of,
    masks_of,
    preset_of,
    scaling_of,
)
from geoml_cli.formats.product import tables

REAL = Path(__file__).parents[2] / "shared" / "data" / "stac"
FOLDER = files("geoml_cli") / "data" / "collections"
TABLES = sorted(file.name for file in FOLDER.iterdir() if file.name.endswith(".toml"))
EO = (  # the common names of the STAC eo extension 2.0
    "pan coastal blue green green05 yellow red rededge rededge071 rededge075 rededge078 nir nir08 nir09"
    " cirrus swir16 swir22 lwir lwir11 lwir12"
).split()
KINDS = {
    "assets": list,
    "also": list,
    "index": int,
    "common_name": str,
    "wavelength_nm": (int, float, dict),
    "gsd_m": (int, float),
    "unit": str,
    "nodata": (int, float),
    "scale": (int, float),
    "offset": (int, float),
    "fixed": bool,
    "shifted": bool,
    "categorical": bool,
}
PC = "https://planetarycomputer.microsoft.com/api/stac/v1"
ES = "https://earth-search.aws.element84.com/v1"


def item_of(collection, assets, at=PC, **properties):
    """A made item; `assets` are keys, or keys with what the asset says."""
    words = assets if isinstance(assets, dict) else {key: {} for key in assets}
    made = {key: {"href": f"./{key}.tif", "type": "image/tiff", **w} for key, w in words.items()}
    links = [{"rel": "collection", "href": f"{at}/collections/{collection}"}]
    head = {"type": "Feature", "id": "made", "collection": collection, "links": links}
    return head | {"properties": properties, "assets": made}


def said(scale=None, offset=None):
    """An asset of one band with a scale and offset."""
    words = {"scale": scale, "offset": offset}
    return {"raster:bands": [{k: v for k, v in words.items() if v is not None}]}


@pytest.fixture(scope="module")
def real():
    """Real items by collection, from Planetary Computer, Earth Search, USGS and LP DAAC."""
    if not REAL.is_dir():
        pytest.skip(f"{REAL} is not there: real items to check the tables against")
    found = {}
    folders = [REAL / "items", REAL / "pc_earthsearch_replay" / "responses"]
    for path in sorted(path for folder in folders for path in folder.glob("*.json")):
        value = json.loads(path.read_text())
        items = value.get("features", [value]) if isinstance(value, dict) else value
        for item in items:
            if item.get("type") == "Feature" and item.get("assets"):  # searches may leave them out
                found.setdefault(item.get("collection"), []).extend(features(item, path.name))
    return found


def host(item):
    """Where a real item comes from."""
    links = " ".join(str(link.get("href")) for link in item["links"])
    names = ("planetarycomputer", "earth-search", "landsatlook", "cmr.earthdata", "sentinel-cogs")
    return next(name for name in names if name in links)


@pytest.mark.parametrize("name", TABLES)
def test_every_table_holds_to_the_schema(name):
    table = tomllib.loads((FOLDER / name).read_text())
    assert set(table) <= {"title", "source", "collections", "default", "shift", "bands", "masks"}
    assert table["title"] and table["source"] and table["collections"]
    assert table["default"] and set(table["default"]) <= set(table["bands"])
    meant = {}
    for band, row in table["bands"].items():
        assert row["assets"], band
        for key, value in row.items():
            assert isinstance(value, KINDS[key]), f"{band}.{key}"
        assert row.get("common_name", "pan") in EO
        nm = row.get("wavelength_nm", 500)
        for value in nm.values() if isinstance(nm, dict) else [nm]:
            assert 400 <= value <= 13000, f"{band}: {value} nm"
        names = [band, *row.get("also", []), *([] if "index" in row else row["assets"])]
        for word in set(names):
            assert meant.setdefault(word, band) == band, f"{word} means two bands"
        if row.get("categorical"):
            assert not {"scale", "offset", "common_name"} & set(row), band
        if row.get("shifted"):
            assert table["shift"]["offset"] and table["shift"]["since"]
    for layer, mask in table.get("masks", {}).items():
        assert set(mask) == {"assets", "kind", "names"} and mask["names"], layer
        for test in mask["names"].values():
            if mask["kind"] == "classes":
                assert test and all(isinstance(value, int) for value in test)
            else:
                assert mask["kind"] == "bits" and set(test) <= {"bit", "count", "values"}
                count = test.get("count", 1)
                assert 0 <= test["bit"] < test["bit"] + count <= 32
                assert all(0 <= value < 2**count for value in test.get("values", []))
    words = [word for mask in table.get("masks", {}).values() for word in mask["names"]]
    assert len(words) == len(set(words)), "one name in two layers"


def test_every_collection_is_spoken_for_once_and_tables_are_installed():
    ids = [
        name
        for file in TABLES
        for name in tomllib.loads((FOLDER / file).read_text())["collections"]
    ]
    assert len(ids) == len(set(ids)) == len(tables())
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    assert "data/collections/*.toml" in project["tool"]["setuptools"]["package-data"]["geoml_cli"]


@pytest.mark.parametrize(
    ("collection", "count"),
    [
        ("sentinel-2-l2a", 10),
        ("sentinel-2-c1-l2a", 10),
        ("sentinel-s2-l2a-cogs", 10),
        ("landsat-c2-l2", 6),
        ("landsat-c2l2-sr", 6),
        ("HLSL30.v1.5", 6),
        ("naip", 4),
        ("sentinel-1-rtc", 2),
        ("cop-dem-glo-30", 1),
    ],
)
def test_real_items_have_their_default_bands(real, collection, count):
    for item in real[collection]:
        preset = preset_of(item)
        assert preset.collection == collection and set(preset.default) <= set(preset.names)
        assert len(preset.default) == count, item["id"]
        picks = [find_band(item, name, preset) for name in preset.default]
        assert len({(pick.asset, pick.index) for pick in picks}) == count
        assert all(Band.from_dict(pick.said).name == pick.name for pick in picks)


def test_tables_agree_with_what_real_catalogs_say_of_a_band(real):
    checked = 0
    for items in real.values():
        for item in items:
            preset = preset_of(item)
            for name in preset.names if preset else ():
                pick = find_band(item, name, preset)
                row = preset.row_of(pick.asset, pick.index)
                rows = bands_of_asset(item["assets"][pick.asset])
                catalog = said_of(rows, (pick.index or 1) - 1) if name != "visual" else {}
                wrong = item["id"].startswith("LE07") and host(item) == "landsatlook"  # says OLI's
                nm = catalog.get("wavelength_nm")
                if nm and not wrong and nm != 2220.24:  # v0's slip for Sentinel-2A's 2202.4
                    assert pick.said["wavelength_nm"] == pytest.approx(nm, abs=10), name
                    checked += 1
                for word in ("nodata", "gsd_m"):
                    if word in catalog and (name, word) != ("temperature", "gsd_m"):
                        assert pick.said[word] == catalog[word], (item["id"], name, word)
                if "scale" in catalog and not row.fixed:
                    assert catalog["scale"] == row.scale, (item["id"], name)
                    checked += 1
                    if not row.shifted:
                        assert catalog.get("offset", 0) == row.offset, (item["id"], name)
                theirs, ours = catalog.get("common_name"), pick.said.get("common_name")
                if theirs and ours:  # `rededge` is the older, wider word
                    assert ours == theirs or theirs == "rededge", (item["id"], name)
    assert checked > 300


def test_names_of_one_catalog_find_the_band_in_another():
    pc, es = item_of("sentinel-2-l2a", ["B04", "B8A"]), item_of("sentinel-2-l2a", ["red", "nir08"])
    for name in ("red", "B04"):
        assert find_band(pc, name, preset_of(pc)).asset == "B04"
        assert find_band(es, name, preset_of(es)).asset == "red"
        assert find_band(es, name, preset_of(es)).said["wavelength_nm"] == 665
    assert find_band(es, "red", None).said == {"name": "red"}


def test_one_b_number_means_other_light_in_l30_and_s30():
    keys = ["B02", "B05", "B06", "B07", "B08", "B8A", "B10", "B11", "B12"]
    l30, s30 = item_of("hls2-l30", keys), item_of("hls2-s30", keys)
    nm = {
        key: [find_band(i, key, preset_of(i)).said["wavelength_nm"] for i in (l30, s30)]
        for key in ("B05", "B06", "B07", "B10", "B11")
    }
    assert nm["B05"] == [865, 703.9] and nm["B11"] == [12005, 1613.7]
    for name, keys in {
        "nir08": ("B05", "B8A"),
        "swir16": ("B06", "B11"),
        "swir22": ("B07", "B12"),
    }.items():
        picks = [find_band(i, name, preset_of(i)) for i in (l30, s30)]
        assert tuple(pick.asset for pick in picks) == keys
        assert abs(picks[0].said["wavelength_nm"] - picks[1].said["wavelength_nm"]) < 10
    assert find_band(l30, "nir", preset_of(l30)).asset == "B05"
    assert find_band(s30, "nir", preset_of(s30)).asset == "B08"


@pytest.mark.parametrize(
    ("instruments", "nm"),
    [(["tm"], 830), (["etm+"], 835), (["ETM"], 835), (["OLI", "TIRS"], 865), ([], None)],
)
def test_wavelengths_of_landsat_follow_the_instrument(instruments, nm):
    item = item_of("landsat-c2-l2", ["nir08"], instruments=instruments)
    assert find_band(item, "nir", preset_of(item)).said.get("wavelength_nm") == nm


def test_bands_of_one_file_have_a_number(real):
    item = real["naip"][0]
    preset = preset_of(item)
    pick = find_band(item, "nir", preset)
    assert (pick.asset, pick.index, pick.said["gsd_m"]) == ("image", 4, item["properties"]["gsd"])
    assert find_band(item, "image", preset).index is None
    assert find_band(item, "nir", None).index == 4  # by eo:bands alone
    assert scaling_of(item, "image", 4, preset).scale == 1


def test_unknown_collections_are_found_by_what_the_catalog_says(real):
    item = {**real["sentinel-2-l2a"][0], "collection": "mine", "links": []}
    assert preset_of(item) is None
    assert find_band(item, "red", None).asset == "B04"  # not the picture, which repeats red
    assert find_band(item, "B04", None).said["wavelength_nm"] == 665
    with pytest.raises(GeomlError, match="several bands are called rededge: B05, B06, B07, B8A"):
        find_band(item, "rededge", None)


def test_a_collection_is_known_by_its_link_too():
    item = item_of("sentinel-2-l2a", ["B04"])
    del item["collection"]
    assert preset_of(item).collection == "sentinel-2-l2a"
    assert preset_of({**item, "links": []}) is None
    assert preset_of(item_of("sentinel-2-l2a", ["pixels"])) is None


def test_unknown_names_are_answered_with_near_ones():
    item = item_of("sentinel-2-l2a", ["B04", "B08", "SCL"])
    with pytest.raises(
        GeomlError, match="item made: no asset or band called nri; did you mean nir"
    ):
        find_band(item, "nri", preset_of(item))
    with pytest.raises(GeomlError, match="called blue"):  # known, but not there
        find_band(item, "blue", preset_of(item))


def test_qa_pixel_means_what_the_product_guide_says():
    # LSDS-1619 and LSDS-1618, examples of QA_PIXEL values
    guide = {
        1: {"nodata"},
        21824: set(),
        21952: {"water"},
        22280: {"clouds"},
        23888: {"shadows"},
        23952: {"shadows", "water"},
        30048: {"snow"},
        54596: {"cirrus"},
        55052: {"clouds", "cirrus"},
        5440: set(),
        5504: {"water"},
        5896: {"clouds"},
        7440: {"shadows"},
        13664: {"snow"},
    }
    item = item_of("landsat-c2-l2", ["qa_pixel", "qa_radsat"])
    preset = preset_of(item)
    layer = np.array(list(guide), np.uint16).reshape(2, -1)
    bits = {"nodata": 1, "clouds": 8, "cirrus": 4, "shadows": 16, "snow": 32, "water": 128}
    for name, bit in bits.items():
        rule = mask_of(item, preset, (name,))
        assert rule.asset == "qa_pixel"
        assert rule.bad(layer).ravel().tolist() == [name in words for words in guide.values()]
        every = np.arange(2**16, dtype=np.uint16)
        assert np.array_equal(rule.bad(every), every & bit != 0)
    both = pickle.loads(pickle.dumps(mask_of(item, preset, ("clouds", "shadows"))))
    assert both.bad(layer).sum() == sum(bool({"clouds", "shadows"} & w) for w in guide.values())


def test_names_of_two_layers_make_two_rules():
    item = item_of("landsat-c2-l2", ["qa_pixel", "qa_radsat"])
    rules = masks_of(item, preset_of(item), ("clouds", "saturated"))
    assert [rule.asset for rule in rules] == ["qa_pixel", "qa_radsat"]
    values = np.array([0, 1, 64, 128, 2048], np.uint16)  # bands 1 and 7, an unused bit, dark ground
    assert rules[1].bad(values).tolist() == [False, True, True, False, False]
    with pytest.raises(GeomlError, match="2 mask layers"):
        mask_of(item, preset_of(item), ("clouds", "saturated"))


def test_real_bitfields_say_the_same_as_the_table(real):
    item = real["landsat-c2-l2"][0]
    fields = {f["name"]: f for f in item["assets"]["qa_pixel"]["classification:bitfields"]}
    names = {
        "clouds": "cloud",
        "cirrus": "cirrus",
        "shadows": "cloud_shadow",
        "snow": "snow",
        "water": "water",
        "cloud-edges": "dilated_cloud",
        "nodata": "fill",
    }
    preset = preset_of(item)
    for name, theirs in names.items():
        rule = mask_of(item, preset, (name,))
        assert rule.tests == ((fields[theirs]["offset"], fields[theirs]["length"], ()),)


def test_scene_classes_fmask_and_modis_state():
    s2, hls = item_of("sentinel-2-l2a", ["SCL"]), item_of("hls2-s30", ["Fmask"])
    scl = np.arange(12, dtype=np.uint8)
    rule = mask_of(s2, preset_of(s2), ("clouds", "cirrus", "shadows", "nodata"))
    assert np.flatnonzero(rule.bad(scl)).tolist() == [0, 3, 8, 9, 10]
    fmask = np.array([0, 1, 2, 4, 8, 16, 32, 64, 192, 255], np.uint8)
    rule = mask_of(hls, preset_of(hls), ("clouds", "shadows"))
    assert rule.bad(fmask).tolist() == [False, False, True, False, True, *[False] * 4, True]
    rule = mask_of(hls, preset_of(hls), ("aerosol",))
    assert fmask[rule.bad(fmask)].tolist() == [192, 255]
    modis = item_of("modis-09A1-061", ["sur_refl_b01", "sur_refl_state_500m"])
    state = np.arange(2**16, dtype=np.uint16)
    preset = preset_of(modis)
    assert np.array_equal(
        mask_of(modis, preset, ("clouds",)).bad(state), (state % 4 == 1) | (state % 4 == 2)
    )
    land = mask_of(modis, preset, ("water",)).bad(state)
    assert set(np.unique(state[land] // 8 % 8)) == {0, 3, 5, 6, 7}
    vi = item_of("modis-13Q1-061", ["250m_16_days_pixel_reliability"])
    rule = mask_of(vi, preset_of(vi), ("clouds", "nodata"))
    assert rule.bad(np.array([-1, 0, 1, 2, 3], np.int8)).tolist() == [
        True,
        False,
        False,
        False,
        True,
    ]
    assert rule.bad(np.array([255, 0], np.uint8)).tolist() == [True, False]


def test_masks_that_are_not_known_are_refused():
    s2 = item_of("sentinel-2-l2a", ["B04"])
    with pytest.raises(GeomlError, match="--mask fog: Sentinel-2 Level-2A has clouds, cirrus"):
        masks_of(s2, preset_of(s2), ("fog",))
    with pytest.raises(GeomlError, match="item made: has no asset scl or SCL"):
        masks_of(s2, preset_of(s2), ("clouds",))
    naip = item_of("naip", ["image"])
    for preset in (preset_of(naip), None):
        with pytest.raises(GeomlError, match="no mask layer is known for"):
            masks_of(naip, preset, ("clouds",))


def test_real_sentinel_2_items_are_scaled_by_their_providers_rule(real):
    seen = set()
    for name in ("sentinel-2-l2a", "sentinel-2-c1-l2a", "sentinel-s2-l2a-cogs"):
        for item in real[name]:
            preset = preset_of(item)
            base = item["properties"].get("s2:processing_baseline", "")
            # by hand: what each catalog is known to do with ESA's 1000
            kept = {
                "planetarycomputer": base >= "04.00",
                "earth-search": name == "sentinel-2-c1-l2a",
                "sentinel-cogs": False,
            }[host(item)]
            for band in preset.default:
                pick = find_band(item, band, preset)
                found = scaling_of(item, pick.asset, None, preset)
                assert (found.scale, found.offset) == (1e-4, -0.1 if kept else 0), found.rule
                assert found.unit == "reflectance"
                jp2 = f"{pick.asset}-jp2"
                if jp2 in item["assets"]:  # ESA's own file
                    assert scaling_of(item, jp2, None, preset).offset == -0.1
            for key in {"SCL", "scl", "visual"} & set(item["assets"]):
                plain = scaling_of(item, key, None, preset)
                assert (plain.scale, plain.offset) == (1, 0)
            for key in {"AOT", "aot", "WVP", "wvp"} & set(item["assets"]):
                plain = scaling_of(item, key, None, preset)
                assert (plain.scale, plain.offset) == (0.001, 0)
            seen.add((name, host(item), kept))
    assert len(seen) == 6, seen  # both of Planetary Computer's, and four more


def test_the_rule_is_told_to_people(real):
    def rule(collection, where, **asked):
        item = next(
            i
            for i in real[collection]
            if host(i) == where and asked.items() <= i["properties"].items()
        )
        return scaling_of(
            item, find_band(item, "red", preset_of(item)).asset, None, preset_of(item)
        ).rule

    new = {"s2:processing_baseline": "05.10"}
    told = rule("sentinel-2-l2a", "planetarycomputer", **new)
    assert told == "sentinel-2-l2a: baseline 05.10 on Planetary Computer, offset -1000"
    told = rule("sentinel-2-l2a", "earth-search", **{"earthsearch:boa_offset_applied": True})
    assert "on Earth Search, 1000 already taken out of the pixels (earthsearch:boa" in told
    told = rule("sentinel-2-c1-l2a", "earth-search")
    assert told.endswith("on Earth Search, offset -1000 as the catalog says")
    assert "before 04.00, offset 0" in rule("sentinel-s2-l2a-cogs", "sentinel-cogs")
    told = rule("landsat-c2l2-sr", "landsatlook")  # its items say nothing
    assert told.startswith("landsat-c2l2-sr: scale 2.75e-05, offset -0.2 by USGS")
    told = rule("landsat-c2-l2", "planetarycomputer")
    assert told == "landsat-c2-l2: scale 2.75e-05, offset -0.2 as the catalog says"


def test_one_scene_has_the_same_reflectance_from_every_catalog():
    truth = np.random.default_rng(0).uniform(-0.02, 0.9, 1000)
    esa = np.round(truth * 10000 + 1000)  # what ESA has written since baseline 04.00
    new = {"s2:processing_baseline": "05.11"}
    flag = {"earthsearch:boa_offset_applied": True}
    lying = said(1e-4, -0.1)
    served = [
        (item_of("sentinel-2-l2a", ["B04"], **new), "B04", esa),
        (item_of("sentinel-2-l2a", {"red": lying}, ES, **new, **flag), "red", esa - 1000),
        (item_of("sentinel-2-l2a", {"red-jp2": lying}, ES, **new, **flag), "red-jp2", esa),
        (item_of("sentinel-2-c1-l2a", {"red": lying}, ES, **new), "red", esa),
        (
            item_of("sentinel-s2-l2a-cogs", ["B04"], ES, **{"sentinel:boa_offset_applied": True}),
            "B04",
            esa - 1000,
        ),
        (
            item_of("sentinel-2-l2a", {"B04": lying}, **{"s2:processing_baseline": "02.12"}),
            "B04",
            esa - 1000,
        ),
    ]
    for item, key, stored in served:
        found = scaling_of(item, key, None, preset_of(item))
        assert np.allclose(stored * found.scale + found.offset, truth, atol=5.1e-5), found.rule


@pytest.mark.parametrize(
    ("product", "offset"),
    [
        ("S2A_MSIL2A_20211201T000000_N0301_R000_T00AAA_20211201T000000.SAFE", 0),
        ("S2A_MSIL2A_20180101T000000_N0500_R000_T00AAA_20230901T000000.SAFE", -0.1),
    ],
)
def test_the_products_name_tells_the_baseline_where_no_property_does(product, offset):
    item = item_of("sentinel-2-l2a", ["B04"], **{"s2:product_uri": product})
    assert scaling_of(item, "B04", None, preset_of(item)).offset == offset


def test_an_unknown_baseline_is_refused_and_not_guessed():
    item = item_of("sentinel-2-l2a", ["B04", "SCL"])
    with pytest.raises(GeomlError, match="item made: says no processing baseline.*--raw"):
        scaling_of(item, "B04", None, preset_of(item))
    assert scaling_of(item, "SCL", None, preset_of(item)).scale == 1


def test_our_own_copies_are_taken_at_their_word():
    copy = {"geoml:fingerprint": "1", "bands": [{"name": "red", "nodata": "nan", "unit": "mine"}]}
    item = item_of("sentinel-2-l2a", {"red": copy}, **{"s2:processing_baseline": "05.11"})
    found = scaling_of(item, "red", None, preset_of(item))
    assert (found.scale, found.offset, found.unit) == (1, 0, "mine")
    assert math.isnan(float(find_band(item, "red", preset_of(item)).said["nodata"]))


@pytest.mark.parametrize(
    ("collection", "key", "stored", "physical", "unit"),
    [
        ("landsat-c2-l2", "red", 18182, 0.300005, "reflectance"),
        ("landsat-c2-l2", "lwir11", 44177, 299.99787, "K"),
        ("landsat-c2-l2", "lwir", 44177, 299.99787, "K"),
        ("landsat-c2-l2", "emis", 9700, 0.97, "emissivity"),
        ("hls2-l30", "B04", 3000, 0.3, "reflectance"),
        ("hls2-l30", "B10", 2512, 25.12, "degC"),
        ("hls2-s30", "B10", 3000, 0.3, "reflectance"),
        ("modis-09A1-061", "sur_refl_b01", 3000, 0.3, "reflectance"),
        ("modis-13Q1-061", "250m_16_days_NDVI", 8123, 0.8123, "NDVI"),
        ("modis-11A1-061", "LST_Day_1km", 15000, 300.0, "K"),
        ("modis-11A1-061", "Emis_31", 245, 0.98, "emissivity"),
        ("modis-11A1-061", "Day_view_angl", 130, 65.0, "deg"),
        ("sentinel-1-rtc", "vv", 0.125, 0.125, "power"),
        ("cop-dem-glo-90", "data", 812.5, 812.5, "m"),
    ],
)
def test_values_become_physical_as_the_guides_say(collection, key, stored, physical, unit):
    item = item_of(collection, [key])
    found = scaling_of(item, key, None, preset_of(item))
    assert stored * found.scale + found.offset == pytest.approx(physical, rel=1e-6)
    assert found.unit == unit


def test_the_guide_holds_where_the_catalog_is_known_to_be_wrong():
    item = item_of("modis-11A1-061", {"Emis_31": said(0.002), "LST_Day_1km": said(0.02)})
    found = scaling_of(item, "Emis_31", None, preset_of(item))
    assert (found.scale, found.offset) == (0.002, 0.49)
    assert "the catalog says scale 0.002, offset 0" in found.rule
    assert "as the catalog says" in scaling_of(item, "LST_Day_1km", None, preset_of(item)).rule


def test_what_is_not_known_is_scaled_as_the_catalog_says():
    item = item_of("mine", {"a": said(0.5, 3), "b": {}, "c": {"raster:bands": [{}, {"scale": 2}]}})
    found = scaling_of(item, "a", None, None)
    assert (found.scale, found.offset) == (0.5, 3)
    assert scaling_of(item, "b", None, None).rule == "mine: values as stored"
    assert [scaling_of(item, "c", i, None).scale for i in (1, 2)] == [1, 2]


EDGED = ("blue", "green", "red")


def ground(kind, count=40_000):
    """Reflectance of red light as it is spread over some ground."""
    rng = np.random.default_rng(7)
    return {
        "fields": rng.lognormal(np.log(0.06), 0.5, count),
        "water": rng.normal(0.01, 0.008, count),
        "clouds": rng.uniform(0.3, 1.0, count),
        "desert": rng.normal(0.4, 0.05, count),
        "mixed": np.r_[
            rng.normal(0.35, 0.05, count // 2), rng.lognormal(np.log(0.06), 0.5, count // 2)
        ],
    }[kind]


def claims():
    """An item that claims pixels with the 1000, one that claims pixels free of it, and their keys."""
    new = {"s2:processing_baseline": "05.11"}
    flag = {"earthsearch:boa_offset_applied": True}
    pc = item_of("sentinel-2-l2a", ["B02", "B03", "B04", "B08", "SCL"], **new)
    es = item_of("sentinel-2-l2a", dict.fromkeys(EDGED, said(1e-4, -0.1)), ES, **new, **flag)
    return pc, es


def told(item, key, dn, name="red"):
    preset = preset_of(item)
    return contradiction(scaling_of(item, key, None, preset), item, preset, dn, name)


@pytest.mark.parametrize("kind", ["fields", "water", "clouds", "desert", "mixed"])
def test_pixels_that_agree_with_the_claim_are_not_doubted(kind):
    pc, es = claims()
    free = np.clip(np.round(ground(kind) * 10000), 1, None)
    assert told(pc, "B04", free + 1000) is None
    assert told(es, "red", free) is None


@pytest.mark.parametrize("kind", ["fields", "water", "mixed"])
def test_pixels_that_contradict_the_claim_are_told(kind):
    pc, es = claims()
    free = np.clip(np.round(ground(kind) * 10000), 1, None).reshape(200, 200)
    line = told(pc, "B04", free, "made/B04")
    assert line.startswith("item made: B04: ") and "free of the offset of 1000" in line
    line = told(es, "blue", free + 1000, "blue")
    assert "seem to hold an offset of 1000" in line and "boa_offset_applied" in line
    assert "\n" not in line


def test_dry_ground_is_not_taken_for_an_offset_in_red():
    _, es = claims()
    steppe = np.random.default_rng(3).normal(1864, 250, 40_000)  # as in a real scene, free of it
    assert told(es, "red", steppe) is None
    assert told(es, "red", np.round(ground("fields") * 10000) + 1000)  # and this holds it


def test_real_pixels_are_doubted_only_where_the_claim_is_wrong():
    folder = REAL.parent / "a_multispectral_landcover" / "s2_100k_sample"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there: real pixels to doubt")
    import rasterio

    pc, es = claims()
    caught = {"free": 0, "held": 0}
    for path in sorted(folder.glob("*.tif")):
        with rasterio.open(path) as file:
            bands = file.read().astype(float)
        # by hand: some band of a scene without the 1000 is darker than reflectance 0.07; with it, none
        darkest = min(np.percentile(band[band > 0], 0.1) for band in bands)
        state = "free" if darkest < 700 else "held" if 850 < darkest < 1250 else None
        if state is None:  # snow, clouds or desert: nobody can tell
            continue
        for at, name in enumerate(EDGED, 1):
            dn = bands[at][bands[at] > 0]
            lines = told(pc, f"B0{at + 1}", dn, name), told(es, name, dn, name)
            right, wrong = lines if state == "held" else lines[::-1]
            assert right is None, (path.name, name, right)
            caught[state] += wrong is not None
    assert caught["free"] >= 12 and caught["held"] >= 5, caught


def test_nothing_is_told_of_few_pixels_other_bands_or_other_collections():
    pc, es = claims()
    free = np.clip(np.round(ground("fields") * 10000), 1, None)
    assert told(pc, "B04", free[:900]) is None
    assert told(es, "blue", free[:9000] + 1000, "blue") is None
    assert told(pc, "SCL", free, "SCL") is None
    assert told(pc, "B08", free, "nir")  # dark in any band is dark
    landsat = item_of("landsat-c2-l2", ["red"])
    assert told(landsat, "red", free) is None
    mine = item_of("mine", ["red"])
    assert contradiction(scaling_of(mine, "red", None, None), mine, None, free, "red") is None
    old = item_of("sentinel-2-l2a", ["B04"], **{"s2:processing_baseline": "02.12"})
    assert told(old, "B04", free + 1000) is None  # it cannot hold what came later
