"""Items, areas and times: what is written is valid, what is asked for is found, nothing leads outside."""

import json
import math

import numpy as np
import pytest
import rasterio
import served
import shapely
from affine import Affine
from jsonschema import Draft7Validator
from pystac.validation.local_validator import get_local_schema_cache
from rasterio.warp import transform_bounds
from rasterio.windows import from_bounds
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

from geoml_cli.errors import GeomlError, UsageMistake
from geoml_cli.formats import items as stac
from geoml_cli.formats.bands import Band, bands_of_asset
from geoml_cli.formats.copies import asset_words, declare, item_without_files, safe_name
from geoml_cli.formats.raster import describe
from geoml_cli.geo.bounds import area_of, cover, cut, dissolve, footprint
from geoml_cli.geo.grid import LONLAT, Bounds, Grid, between
from geoml_cli.geo.query import Query, ground_of, matches, parse_times

ITEM_SCHEMA = "https://schemas.stacspec.org/v1.1.0/item-spec/json-schema/item.json"
UTM = Grid("EPSG:32632", Affine(10, 0, 400_000, 0, -10, 5_300_000), 2000, 2500)
GRIDS = {
    "utm": UTM,
    "dateline": Grid("EPSG:32660", Affine(100, 0, 570_000, 0, -100, 5_850_000), 2300, 2300),
    "beyond 180": Grid("EPSG:4326", Affine(0.1, 0, 170, 0, -0.1, 60), 100, 200),
    "beyond -180": Grid("EPSG:4326", Affine(0.1, 0, -190, 0, -0.1, 60), 100, 200),
    "0 to 360": Grid("EPSG:4326", Affine(1, 0, 0, 0, -1, 90), 180, 360),
    "world": Grid("EPSG:4326", Affine(1, 0, -180, 0, -1, 90), 180, 360),
    "north pole": Grid("EPSG:3413", Affine(1000, 0, -2e6, 0, -1000, 2e6), 4000, 4000),
    "south pole": Grid("EPSG:3031", Affine(1000, 0, -2e6, 0, -1000, 2e6), 4000, 4000),
    "pacific": Grid("EPSG:3832", Affine(5000, 0, -5e6, 0, -5000, 5e6), 2000, 2000),
}


def check_valid(item):
    """Check an item against the STAC 1.1 core schema that pystac carries: no network."""
    store = get_local_schema_cache()
    registry = Registry().with_resources(
        (uri, Resource.from_contents(schema, default_specification=DRAFT7))
        for uri, schema in store.items()
    )
    errors = [
        e.message for e in Draft7Validator(store[ITEM_SCHEMA], registry=registry).iter_errors(item)
    ]
    assert not errors
    prefixes = {
        word.partition(":")[0]
        for words in [
            item["properties"],
            *item["assets"].values(),
            *(band for asset in item["assets"].values() for band in asset.get("bands", [])),
        ]
        for word in words
        if ":" in word
    }
    names = {"projection": "proj", "raster": "raster", "eo": "eo", "file": "file"}
    listed = {url.split("/")[3] for url in item["stac_extensions"]}
    # version 2 of these extensions refuses an item that lists them and has none of their fields
    assert {names[name] for name in listed & set(names)} == prefixes & set(names.values())


def places(grid, seed=0):
    """Random places on the globe and around a grid: lon, lat, and row, col on it (may lie outside)."""
    rng = np.random.default_rng(seed)
    rows = rng.uniform(-0.5, 1.5, 3000) * grid.height
    cols = rng.uniform(-0.5, 1.5, 3000) * grid.width
    x, y = grid.transform * (cols, rows)
    lon, lat = between(grid.crs, LONLAT).transform(x, y)
    seen = np.isfinite(lon) & (np.abs(lat) < 89.9)
    return (lon[seen] + 180) % 360 - 180, lat[seen], rows[seen], cols[seen]


@pytest.mark.parametrize("name", GRIDS)
def test_a_footprint_holds_what_the_grid_holds(name):
    grid = GRIDS[name]
    ground = footprint(grid.outline())
    west, south, east, north = ground.bounds
    assert -180 <= west < east <= 180 and -90 <= south < north <= 90
    lon, lat, rows, cols = places(grid)
    edge = 1.0 if grid.crs == "EPSG:4326" else 20  # chords of the outline bend less than that
    deep = (rows > edge) & (rows < grid.height - edge) & (cols > edge) & (cols < grid.width - edge)
    away = (
        (rows < -edge) | (rows > grid.height + edge) | (cols < -edge) | (cols > grid.width + edge)
    )
    if name in (
        "0 to 360",
        "world",
        "beyond 180",
        "beyond -180",
    ):  # columns beyond come round again
        away = (rows < -edge) | (rows > grid.height + edge)
        away &= np.abs(lat) < 90
    inside = shapely.contains_xy(ground, lon, lat)
    assert inside[deep].all() and deep.sum() > 300
    assert not inside[away].any()


def window_by_rasterio(grid, bounds):
    there = transform_bounds("OGC:CRS84", grid.crs, *bounds, densify_pts=301)
    w = from_bounds(*there, transform=grid.transform)
    top, left = max(0, math.floor(w.row_off + 1e-6)), max(0, math.floor(w.col_off + 1e-6))
    bottom = min(grid.height, math.ceil(w.row_off + w.height - 1e-6))
    right = min(grid.width, math.ceil(w.col_off + w.width - 1e-6))
    return (top, left, bottom - top, right - left) if bottom > top and right > left else None


def test_cover_is_the_window_that_rasterio_finds():
    rng, found = np.random.default_rng(1), 0
    for _ in range(150):
        west, south = 7.5 + rng.random() * 0.6, 47.5 + rng.random() * 0.5
        bounds = Bounds(west, south, west + rng.random() * 0.2, south + rng.random() * 0.1)
        got = cover(area_of(bounds), UTM)
        want = window_by_rasterio(UTM, bounds)
        if (
            got is None and want is not None
        ):  # the bounds of the bent box meet the grid, the box does not
            lon, lat = np.meshgrid(
                *(np.linspace(*ends, 60) for ends in zip(bounds[:2], bounds[2:], strict=True))
            )
            rows, cols = UTM.rowcol(*between(LONLAT, UTM.crs).transform(lon, lat))
            assert not ((rows >= 0) & (rows < UTM.height) & (cols >= 0) & (cols < UTM.width)).any()
            continue
        assert (tuple(got) if got else None) == want
        found += got is not None
    assert found > 40


def test_cover_across_the_antimeridian_is_that_of_the_same_box_beyond_180():
    grid = GRIDS["dateline"]
    whole = cover(area_of(Bounds(179.5, 51, -179.5, 52)), grid)
    assert tuple(whole) == window_by_rasterio(grid, (179.5, 51, 180.5, 52))
    west = cover(area_of(Bounds(179.5, 51, 180, 52)), grid)
    east = cover(area_of(Bounds(-180, 51, -179.5, 52)), grid)
    assert west.col == whole.col and east.col + east.width == whole.col + whole.width
    for name in ("beyond 180", "beyond -180"):  # 0.1 degree pixels: 5 columns on each side
        grid = GRIDS[name]
        window = cover(area_of(Bounds(179.5, 55, -179.5, 56)), grid)
        start = (179.5 - grid.transform.c) / 0.1 if name == "beyond 180" else (-180.5 + 190) / 0.1
        assert tuple(window) == (40, round(start), 10, 10)


@pytest.mark.parametrize("name", GRIDS)
def test_cover_holds_every_place_of_the_area(name):
    grid = GRIDS[name]
    lon, lat, rows, cols = places(grid, seed=3)
    inside = (rows > 0) & (rows < grid.height) & (cols > 0) & (cols < grid.width)
    for n in np.flatnonzero(inside)[:20]:
        half = 0.4
        east = (lon[n] + half + 180) % 360 - 180
        west = (lon[n] - half + 180) % 360 - 180
        area = area_of(Bounds(west, max(-90, lat[n] - half), east, min(90, lat[n] + half)))
        window = cover(area, grid)
        mine = inside & shapely.contains_xy(area, lon, lat)
        assert window is not None and mine[n]
        assert (rows[mine] >= window.row).all() and (rows[mine] <= window.row + window.height).all()
        assert (cols[mine] >= window.col).all() and (cols[mine] <= window.col + window.width).all()


def test_cover_round_a_pole_is_the_circle_of_latitude():
    window = cover(area_of(Bounds(-180, 85, 180, 90)), GRIDS["north pole"])
    x, _ = between(LONLAT, "EPSG:3413").transform(-45 + 90, 85)  # true north is up at 45 W
    assert window.height == window.width == 2 * math.ceil(abs(x) / 1000)


def test_an_area_whose_bounds_alone_meet_the_grid_misses_it():
    corner = shapely.Polygon([(8.2, 47.4), (9, 47.4), (9, 48)])
    box = shapely.box(*footprint(UTM.outline()).bounds)
    assert shapely.intersects(shapely.box(*corner.bounds), shapely.box(7.66, 47.6, 8.3, 47.9))
    assert not shapely.intersects(corner, box) and cover(corner, UTM) is None


def test_scattered_shapes_count_where_they_lie_on_the_grid():
    east, north = 410_000, 5_295_000
    shapes = np.array(
        [shapely.box(east, north - 200, east + 300, north), shapely.box(9e5, 5.2e6, 9.1e5, 5.29e6)]
    )
    window = cover(dissolve(shapes, "EPSG:32632"), UTM)
    row, col = (5_300_000 - north) // 10, (east - 400_000) // 10
    assert abs(window.row - row) <= 1 and abs(window.col - col) <= 1
    assert 20 <= window.height <= 22 and 30 <= window.width <= 32


def test_a_point_covers_its_pixel():
    x, y = 400_000 + 55.0, 5_300_000 - 65.0
    assert tuple(cover(dissolve(np.array([shapely.Point(x, y)]), "EPSG:32632"), UTM)) == (
        6,
        5,
        1,
        1,
    )


def test_shapes_of_any_crs_dissolve_to_the_ground_they_have_in_degrees():
    square = shapely.box(-5e5, -1e5, 5e5, 1e5)  # 150 E is x = 0: reaches from 145.5 to 154.5
    ground = dissolve(np.array([square, shapely.box(3e6, -1e5, 4e6, 1e5)]), "EPSG:3832")
    lon, _ = between("EPSG:3832", LONLAT).transform([-5e5, 5e5, 3e6, 4e6], [0, 0, 0, 0])
    assert lon[2] > 0 > lon[3]  # the second one crosses the antimeridian
    spans = sorted(part.bounds[::2] for part in ground.geoms)
    want = [(-180, lon[3]), (lon[0], lon[1]), (lon[2], 180)]
    assert np.allclose(spans, want, atol=1e-9)


def test_cut_brings_back_what_runs_beyond_180():
    assert cut(shapely.box(170, 0, 200, 10)).equals(area_of(Bounds(170, 0, -160, 10)))
    assert cut(shapely.box(-200, 0, -170, 10)).equals(area_of(Bounds(160, 0, -170, 10)))
    assert cut(shapely.box(0, -90, 360, 90)).equals(shapely.box(-180, -90, 180, 90))


TIMES = {
    "2023": ("2023-01-01T00:00:00", "2023-12-31T23:59:59.999999"),
    "2024-02": ("2024-02-01T00:00:00", "2024-02-29T23:59:59.999999"),
    "2023-05-01": ("2023-05-01T00:00:00", "2023-05-01T23:59:59.999999"),
    "2023-05-01T10:00:00Z": ("2023-05-01T10:00:00", "2023-05-01T10:00:00.999999"),
    "2023-05-01t12:00:00.5+02:00": ("2023-05-01T10:00:00.500000", "2023-05-01T10:00:00.500000"),
    "2022-11/2023": ("2022-11-01T00:00:00", "2023-12-31T23:59:59.999999"),
    "../2023": (None, "2023-12-31T23:59:59.999999"),
    "2023-05/..": ("2023-05-01T00:00:00", None),
}


@pytest.mark.parametrize("text", TIMES)
def test_times_include_the_last_unit_named(text):
    got = [when and when.isoformat() for when in parse_times(text)]
    assert got == [when and when + "+00:00" for when in TIMES[text]]


BAD_TIMES = [
    "",
    "..",
    "../..",
    "/",
    "2023-13",
    "2023-02-30",
    "summer",
    "2024/2023",
    "1/2/3",
    "0000",
    "2023-5",
] + ["20230501", "2023-05-01T25:00:00Z", "2023-05-01T10:00Z", "2023-05-01T10:00:00+99:00", "..2023"]


@pytest.mark.parametrize("text", BAD_TIMES)
def test_what_is_no_time_is_refused(text):
    with pytest.raises(UsageMistake, match="--datetime"):
        parse_times(text)


def made_item(**more):
    return {"type": "Feature", "id": "x", "geometry": None, "properties": {}, "assets": {}} | more


OVERLAPS = [  # properties, range, whether they share a moment
    ({"datetime": "2023-06-30T23:59:59.999Z"}, "2023-06", True),
    ({"datetime": "2023-07-01T00:00:00Z"}, "2023-06", False),
    ({"datetime": "2023-06-30T23:30:00-01:00"}, "2023-06", False),
    ({"datetime": "2023-07-01 00:30:00+01:00"}, "2023-06", True),
    (
        {
            "datetime": None,
            "start_datetime": "2023-01-01T00:00:00Z",
            "end_datetime": "2023-12-31T00:00:00Z",
        },
        "2023-06",
        True,
    ),
    (
        {
            "datetime": None,
            "start_datetime": "2023-07-01T00:00:00Z",
            "end_datetime": "2023-12-31T00:00:00Z",
        },
        "../2023-06",
        False,
    ),
    (
        {
            "datetime": None,
            "start_datetime": "2022-07-01T00:00:00Z",
            "end_datetime": "2022-12-31T00:00:00Z",
        },
        "2023/..",
        False,
    ),
    ({"datetime": None}, "2023", False),
    ({}, "../2023", False),
]


@pytest.mark.parametrize(("properties", "text", "same"), OVERLAPS)
def test_items_match_where_times_overlap(properties, text, same):
    start, end = parse_times(text)
    assert matches(Query("", start=start, end=end), made_item(properties=properties)) is same


def test_items_match_by_collection():
    asked = Query("", collections=("a", "b"))
    assert matches(asked, made_item(collection="b"))
    assert matches(asked, made_item(properties={"collection": "a"}))
    assert not matches(asked, made_item(collection="c")) and not matches(asked, made_item())


def outline(*corners, **more):
    return made_item(geometry={"type": "Polygon", "coordinates": [[*corners, corners[0]]]}, **more)


CROSSING = [(178, 50), (-179, 50), (-179, 52), (178, 52)]  # drawn across, as many catalogs do


def test_items_match_across_the_antimeridian():
    def found(item, *bounds):
        return matches(Query("", area=area_of(Bounds(*bounds))), item)

    for item in (
        outline(*CROSSING),
        outline(*[(lon % 360, lat) for lon, lat in CROSSING]),
        outline(*[(lon % 360 - 360, lat) for lon, lat in CROSSING]),
        made_item(geometry=shapely.geometry.mapping(area_of(Bounds(178, 50, -179, 52)))),
        made_item(bbox=[178, 50, -179, 52]),
        made_item(bbox=[178, 50, 0, -179, 52, 9]),
    ):
        assert found(item, 179, 50, 179.5, 51) and found(item, -179.9, 50, -179.5, 51)
        assert found(item, 179.9, 50, -179.9, 51) and not found(item, 179, 53, -179, 54)
        assert not found(item, -178, 50, 177, 52) or item.get("bbox") is None
    crossing = outline(*CROSSING, bbox=[178, 50, -179, 52])
    assert not found(crossing, 0, 50, 10, 52)  # its bbox says which of the two is meant
    wide = outline(
        (-170, 50), (170, 50), (170, 52), (-170, 52)
    )  # both are possible: neither is missed
    assert found(wide, 0, 50, 10, 52) and found(wide, 175, 50, 176, 52)
    assert matches(
        Query("", area=area_of(Bounds(0, 0, 1, 1))), made_item()
    )  # says nothing: pixels decide


def test_ground_round_a_pole():
    ring = [(lon, 80) for lon in range(-180, 180, 30)]
    ground = ground_of(outline(*ring, bbox=[-180, 80, 180, 90]))
    assert shapely.contains_xy(ground, 77, 89)


@pytest.mark.parametrize(
    "geometry",
    [{"type": "Blob"}, {"type": "Polygon", "coordinates": [[1, 2]]}, {"type": "Polygon"}],
)
def test_a_damaged_geometry_is_said(geometry):
    with pytest.raises(GeomlError, match="item x: damaged geometry"):
        ground_of(made_item(geometry=geometry))


HOSTILE = [
    "../x",
    "/",
    "",
    "..",
    ".",
    "a/b",
    "a\\b",
    "\0",
    "x" * 300,
    "items.json",
    "é",
    "a b",
    ".hid",
    "-n",
    "C:",
    "a\nb",
    "~",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_stays_one_plain_name(name):
    safe = safe_name(name)
    assert safe == safe.strip("./-") and len(safe) <= 100 and safe != "items.json"
    assert safe.replace(".", "").replace("_", "").replace("-", "").isalnum() and safe.isascii()


def test_different_names_stay_different():
    assert len({safe_name(name) for name in [*HOSTILE, "a_b", "a", "..x"]}) == len(HOSTILE) + 3
    assert safe_name("S2A_28QCH_20200714_0_L2A.v1") == "S2A_28QCH_20200714_0_L2A.v1"


OPEN = [  # href, base, what opens
    ("./a.tif", "cat/one", "cat/one/a.tif"),
    ("../a.tif", "cat/one", "cat/a.tif"),
    ("/data/a.tif", "cat", "/data/a.tif"),
    ("file:///data/a%20b.tif", "cat", "/data/a b.tif"),
    ("https://x.org/a.tif?sig=1", "cat", "https://x.org/a.tif?sig=1"),
    ("./a.tif", "https://x.org/cat", "https://x.org/cat/a.tif"),
    ("/etc/passwd", "https://x.org/cat", "https://x.org/etc/passwd"),  # of the server
    ("/vsicurl/http://y", "https://x.org/cat", "https://x.org/vsicurl/http://y"),
    ("s3://bucket/a.tif", "https://x.org/cat", "s3://bucket/a.tif"),
]


@pytest.mark.parametrize(("href", "base", "opens"), OPEN)
def test_hrefs_open_from_here(href, base, opens):
    assert stac.openable(href, base) == opens


def test_a_remote_catalog_cannot_name_local_files():
    with pytest.raises(GeomlError, match="on its author's own disk"):
        stac.openable("file:///etc/passwd", "https://x.org/cat")


def test_items_are_read_from_any_shape_of_json():
    one, two = made_item(id="1"), made_item(id="2")
    whole = {"type": "FeatureCollection", "features": [one, two]}
    texts = [json.dumps(whole), json.dumps([one, two]), f"{json.dumps(one)}\n{json.dumps(two)}\n"]
    texts += ["\ufeff" + json.dumps(whole), "\x1e" + json.dumps(one) + "\n\x1e" + json.dumps(two)]
    for text in texts:
        assert [item["id"] for item in stac.parse_items(text, "x")] == ["1", "2"]
    [odd] = stac.parse_items(json.dumps(made_item(id=7, properties={"a": float("nan")})), "x")
    assert odd["id"] == "7" and odd["properties"]["a"] is None and odd["links"] == []


WRONG = {
    "{": "damaged JSON",
    "[" * 100_000: "damaged JSON",
    '{"type": "Collection"}': "holds Collection",
    "3": "holds int",
    json.dumps({"type": "FeatureCollection", "features": [{"type": "Feature"}]}): "holds Feature",
    json.dumps(made_item(assets={"a": "x.tif"})): "asset a",
    json.dumps(made_item(assets={"a": {}})): "asset a",
    json.dumps(made_item(properties=[1])): "properties",
    json.dumps(made_item(bbox="1")): "bbox",
    json.dumps(made_item(id=[])): "id",
}


@pytest.mark.parametrize("text", WRONG, ids=list(WRONG.values()))
def test_wrong_items_are_said_in_one_line(text):
    with pytest.raises(GeomlError, match=WRONG[text]) as caught:
        stac.parse_items(text, "here.json")
    assert str(caught.value).startswith("here.json: ") and "\n" not in str(caught.value)


def test_an_item_of_rasters_is_valid_and_says_what_is_there(tmp_path):
    one = served.noise(tmp_path / "one.tif", 40, 30, count=2)
    two = served.noise(
        tmp_path / "two.tif", 20, 15, transform=Affine(20, 0, 500_000, 0, -20, 5_000_000)
    )
    made = stac.item_of("x", "2023-01-01T00:00:00Z")
    said = [
        {"name": "red", "common_name": "red", "wavelength_nm": 665.0, "scale": 0.0001},
        {"name": "n"},
    ]
    stac.add_raster(made, "one", describe(str(one), said), tmp_path)
    check_valid(made)
    stac.add_raster(made, "two", describe(str(two)), tmp_path)
    check_valid(made)
    assert made["assets"]["one"]["bands"][0] == {
        "name": "red",
        "data_type": "uint16",
        "eo:common_name": "red",
        "eo:center_wavelength": 0.665,
        "gsd": 10.0,
        "raster:scale": 0.0001,
    } | {"gsd": made["assets"]["one"]["bands"][0]["gsd"]}
    with rasterio.open(one) as dataset:
        assert np.allclose(
            made["bbox"], transform_bounds(dataset.crs, "OGC:CRS84", *dataset.bounds), atol=1e-7
        )
    ground = shapely.geometry.shape(made["geometry"])
    assert ground.exterior.is_ccw and len(ground.exterior.coords) < 20  # RFC 7946; no idle vertices


@pytest.mark.parametrize("name", ["dateline", "north pole", "beyond 180", "0 to 360"])
def test_geometry_of_items_stays_within_180(tmp_path, name):
    grid = GRIDS[name]
    path = served.noise(
        tmp_path / "a.tif",
        1,
        1,
        crs=grid.crs,
        tiled=False,
        blockxsize=None,
        blockysize=None,
        transform=grid.transform * Affine.scale(grid.width, grid.height),
    )
    made = stac.item_of("x", "2023-01-01T00:00:00Z")
    stac.add_raster(made, "a", describe(str(path)), tmp_path)
    check_valid(made)
    west, _, east, _ = made["bbox"]
    assert (west > east) is (name in ("dateline", "beyond 180"))
    assert shapely.geometry.shape(made["geometry"]).is_valid
    assert all(
        -180 <= lon <= 180
        for lon in shapely.get_coordinates(shapely.geometry.shape(made["geometry"]))[:, 0]
    )


def catalog_item():
    return made_item(
        id="s",
        collection="c",
        stac_extensions=[
            "https://stac-extensions.github.io/view/v1.0.0/schema.json",
            "https://stac-extensions.github.io/storage/v1.0.0/schema.json",
            "https://stac-extensions.github.io/projection/v1.1.0/schema.json",
            "https://stac-extensions.github.io/card4l/v0.1.0/optical/schema.json",
            "eo",
            None,
        ],
        properties={
            "datetime": "2022-10-03 18:02:35+02:00",
            "view:off_nadir": 3,
            "proj:epsg": 32617,
            "platform": "p",
            "card4l:x": 1,
            "eo:cloud_cover": 4,
            "eo:bands": [{}],
        },
        links=[
            {
                "rel": "self",
                "href": "https://me:pw@x.org/s.json?sig=secret",
                "type": "application/geo+json",
            },
            {"rel": "collection", "href": "https://x.org/c.json"},
            {"rel": "root", "href": "https://x.org/"},
            {"rel": "via", "href": "/nowhere/there.json"},
        ],
    )


def test_a_copied_item_keeps_what_stays_true(tmp_path):
    source = catalog_item()
    made = item_without_files(source, tmp_path)
    path = served.noise(tmp_path / "a.tif", 20, 20)
    asset = {
        "href": "x",
        "type": "image/tiff",
        "roles": ["overview", "visual"],
        "title": "T",
        "proj:shape": [1, 1],
        "eo:bands": [{"name": "b"}],
        "storage:tier": "x",
        "nodata": 0,
        "classification:classes": [],
    }
    stac.add_raster(made, "a", describe(str(path)), tmp_path, **asset_words(asset))
    declare(made, source)
    check_valid(made)
    assert made["properties"] == {
        "datetime": "2022-10-03T16:02:35Z",
        "view:off_nadir": 3,
        "platform": "p",
        "card4l:x": 1,
        "eo:cloud_cover": 4,
    }
    assert made["collection"] == "c"
    assert made["links"] == [
        {"rel": "derived_from", "href": "https://x.org/s.json", "type": "application/geo+json"},
        {"rel": "collection", "href": "https://x.org/c.json"},
    ]
    kept = made["assets"]["a"]
    assert (
        kept["roles"] == ["visual"]
        and kept["title"] == "T"
        and kept["classification:classes"] == []
    )
    assert not {"storage:tier", "nodata", "eo:bands"} & set(kept) and kept["proj:shape"] == [20, 20]
    assert {url.split("/")[3] for url in made["stac_extensions"]} == {
        "view",
        "projection",
        "file",
        "eo",
    }


def test_a_collection_without_a_link_becomes_a_property(tmp_path):
    made = item_without_files(catalog_item() | {"links": []}, tmp_path)
    assert "collection" not in made and made["properties"]["collection"] == "c"
    assert matches(Query("", collections=("c",)), made)


@pytest.mark.parametrize(
    ("asset", "is_one"),
    [
        ({"href": "a.tif"}, True),
        ({"href": "a.TIF?sig=1"}, True),
        ({"href": "a", "type": "image/TIFF; application=geotiff"}, True),
        ({"href": "a", "type": "image/vnd.stac.geotiff; cloud-optimized=true"}, True),
        ({"href": "a.jp2", "roles": ["data"]}, True),
        ({"href": "a.tif", "roles": ["thumbnail"]}, False),
        ({"href": "a.tif", "roles": ["overview", "data"]}, False),
        ({"href": "a.xml", "roles": None, "type": None}, False),
        ({"href": "a.jpg", "type": "image/jpeg"}, False),
    ],
)
def test_raster_assets_are_told_from_others(asset, is_one):
    assert stac.is_raster_asset(asset) is is_one


@pytest.mark.parametrize("count", [1, 3])
def test_what_an_asset_says_as_a_whole_is_true_of_each_band(tmp_path, count):
    path = served.noise(tmp_path / "a.tif", 20, 20, count=count)
    whole = {"raster:scale": 0.5, "raster:offset": -1, "nodata": 0, "unit": "K", "gsd": 12}
    plain = describe(str(path), bands_of_asset(whole))
    assert [(b.scale, b.offset, b.nodata, b.unit, b.gsd_m) for b in plain.bands] == [
        (0.5, -1, 0, "K", 12)
    ] * count
    assert [b.name for b in plain.bands] == [f"B{n + 1}" for n in range(count)]
    own = {"bands": [{"name": f"n{n}", "raster:scale": n + 1} for n in range(count)]}
    named = describe(str(path), bands_of_asset(whole | own))
    assert [(b.name, b.scale, b.offset) for b in named.bands] == [
        (f"n{n}", n + 1, -1) for n in range(count)
    ]


def test_bands_that_are_not_as_stac_wants_them_say_nothing():
    odd = {
        "eo:bands": [0, {"name": 7, "center_wavelength": "x"}],
        "raster:bands": "x",
        "nodata": "none",
    }
    assert bands_of_asset(odd) == [{}, {"name": "7"}]
    assert bands_of_asset({"raster:bands": [{"nodata": "nan", "scale": "2", "offset": True}]}) == [
        {"nodata": "nan"}
    ]
    assert bands_of_asset({"title": "x"}) == []


@pytest.mark.parametrize("nodata", [float("nan"), float("inf"), float("-inf"), -1e30, 0.0])
def test_any_nodata_value_can_be_said_in_json(nodata):
    plain = json.dumps(Band("x", nodata=nodata).to_stac("float32"), allow_nan=False)
    [said] = bands_of_asset({"bands": [json.loads(plain)]})
    assert np.array_equal([Band.from_dict(said).nodata], [nodata], equal_nan=True)
