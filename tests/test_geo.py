"""Numbers about places, against brute force and other libraries."""

import json
from dataclasses import replace

import numpy as np
import pytest
import rasterio.windows
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Geod, Transformer
from rasterio.transform import from_origin, rowcol

from geoml_cli.errors import GeomlError, UsageMistake
from geoml_cli.formats.items import bbox_of
from geoml_cli.geo.bounds import footprint, parse_bbox
from geoml_cli.geo.classes import legend, read_classes
from geoml_cli.geo.grid import LONLAT, Bounds, Grid, Window, apply, crs_name, same_crs
from geoml_cli.geo.splits import Lattice, assign, portion

UTM = Grid("EPSG:32633", from_origin(500_000, 5_000_000, 10, 10), 90, 120)
GRIDS = st.one_of(
    st.builds(
        lambda x, y, res, h, w: Grid("EPSG:32633", from_origin(x, y, res, res), h, w),
        st.floats(1e5, 9e5),
        st.floats(1e3, 9.9e6),
        st.sampled_from([0.3, 10, 28.5, 28.49999999927454, 1000 / 3]),
        st.integers(1, 11_000),
        st.integers(1, 11_000),
    ),
    st.builds(
        lambda x, y, res, h, w: Grid(LONLAT, from_origin(x, y, res, res), h, w),
        st.floats(-180, 179),
        st.floats(-80, 90),
        st.sampled_from([1e-5, 1 / 3600, 0.25]),
        st.integers(1, 11_000),
        st.integers(1, 11_000),
    ),
)


@st.composite
def inside(draw, grid: Grid) -> Window:
    row, col = draw(st.integers(0, grid.height - 1)), draw(st.integers(0, grid.width - 1))
    return Window(
        row, col, draw(st.integers(1, grid.height - row)), draw(st.integers(1, grid.width - col))
    )


@given(data=st.data(), grid=GRIDS)
def test_rows_and_columns_come_back_from_coordinates(data, grid):
    rows = np.array(
        data.draw(st.lists(st.integers(-grid.height, 2 * grid.height), min_size=1, max_size=9))
    )
    cols = np.array(
        data.draw(
            st.lists(
                st.integers(-grid.width, 2 * grid.width), min_size=len(rows), max_size=len(rows)
            )
        )
    )
    x, y = grid.xy(rows, cols)
    again = grid.rowcol(x, y)
    assert (again[0] == rows).all() and (again[1] == cols).all()
    theirs = rowcol(grid.transform, x, y)
    assert (np.array(theirs) == np.array(again)).all()


@given(data=st.data(), grid=GRIDS)
def test_the_bounds_of_a_window_are_covered_by_that_window_alone(data, grid):
    window = data.draw(inside(grid))
    crop = grid.crop(window)
    assert grid.window_of(crop.bounds) == window
    theirs = rasterio.windows.bounds(
        rasterio.windows.Window(window.col, window.row, window.width, window.height), grid.transform
    )
    assert crop.bounds == pytest.approx(theirs, rel=1e-14)
    x, y = grid.xy(window.row, window.col)
    assert crop.xy(0, 0) == (pytest.approx(x, rel=1e-14), pytest.approx(y, rel=1e-14))


def test_a_window_of_bounds_is_the_smallest_and_stays_on_the_grid():
    west, south, east, north = UTM.bounds
    assert UTM.window_of(Bounds(west + 11, north - 29, west + 19, north - 21)) == Window(2, 1, 1, 1)
    assert UTM.window_of(Bounds(west - 1e6, south - 1e6, east + 1e6, north + 1e6)) == Window(
        0, 0, 90, 120
    )
    assert UTM.window_of(Bounds(east, south, east + 1, north)) is None
    assert UTM.window_of(Bounds(west, north + 1, east, north + 2)) is None


def test_a_grid_that_runs_south_up_works_too():
    flipped = Grid("EPSG:32633", Affine(10, 0, 500_000, 0, 10, 4_999_100), 90, 120)
    assert flipped.bounds == UTM.bounds and flipped.north_up
    assert flipped.window_of(flipped.crop(Window(3, 4, 5, 6)).bounds) == Window(3, 4, 5, 6)


@pytest.mark.parametrize("place", [(500_000, 5_000_000), (500_000, 10_000), (350_000, 7_000_000)])
def test_ground_size_is_that_of_the_ellipsoid(place):
    grid = replace(UTM, transform=from_origin(*place, 10, 10))
    move = Transformer.from_crs(32633, 4326, always_xy=True)
    lon, lat = move.transform(*apply(grid.transform, np.array([0, 120]), np.array([45, 45])))
    across = Geod(ellps="WGS84").inv(lon[0], lat[0], lon[1], lat[1])[2] / 120
    assert grid.gsd_m() == pytest.approx(across, rel=1e-4)
    assert grid.gsd_m() == pytest.approx(10, rel=2e-3)


def test_degrees_shrink_towards_the_pole():
    at = {
        lat: Grid(LONLAT, from_origin(10, lat, 0.01, 0.01), 10, 10).gsd_m() for lat in (0.05, 60.05)
    }
    assert at[60.05] / at[0.05] == pytest.approx(
        (1 + 0.5) / 2, rel=0.01
    )  # one axis halves, one stays


def test_one_crs_has_one_name():
    wkt = rasterio.crs.CRS.from_epsg(32633).to_wkt()
    assert crs_name("epsg:32633") == crs_name(wkt) == "EPSG:32633"
    assert same_crs(wkt, "EPSG:32633") and not same_crs("EPSG:32633", "EPSG:32634")
    assert same_crs("EPSG:4326", LONLAT)
    own = crs_name("+proj=laea +lat_0=12 +lon_0=34")
    assert same_crs(own, "+proj=laea +lat_0=12 +lon_0=34")
    with pytest.raises(GeomlError, match="'EPSG:1' is no CRS"):
        crs_name("EPSG:1")


def lattice(n=4, folds=3, buffer=37.0, seed=0, grid=UTM) -> Lattice:
    return Lattice(grid.crs, grid.bounds, assign(n, folds, seed), buffer)


def test_blocks_tile_the_scene_and_hold_their_fold():
    one = lattice()
    boxes = [box for _, box in one.boxes()]
    assert sum(box.area for box in boxes) == pytest.approx(shapely.box(*UTM.bounds).area)
    assert shapely.union_all(boxes).equals(shapely.box(*UTM.bounds))
    fold, _ = one.on(UTM)
    x, y = UTM.xy(*np.mgrid[:90, :120])
    for number, box in one.boxes():
        held = shapely.contains_xy(shapely.buffer(box, -1e-6), x, y)
        assert held.any() and (fold[held] == number).all()
    assert Lattice.from_dict(json.loads(json.dumps(one.to_dict()))) == one


@given(seed=st.integers(0, 9), buffer=st.floats(0, 100), n=st.integers(2, 4))
def test_near_marks_every_fold_within_the_buffer_and_none_beyond_its_square(seed, buffer, n):
    one = lattice(n, 3, buffer, seed)
    fold, near = one.on(UTM)
    x, y = UTM.xy(*np.mgrid[:90:7, :120:7])
    near = near[::7, ::7]
    for f in range(one.count):
        ground = shapely.union_all([box for number, box in one.boxes() if number == f])
        away = shapely.distance(shapely.points(x, y), ground)
        says = (near >> f & 1).astype(bool)
        assert says[away < buffer - 1e-6].all()
        assert not says[away > buffer * 2**0.5 + 1e-6].any()  # the corner of the square
        square = shapely.box(x - buffer, y - buffer, x + buffer, y + buffer)
        touches = shapely.area(shapely.intersection(square, ground)) > 1e-6
        if buffer > 0.01:
            assert (says == touches).all()
    assert ((near >> fold[::7, ::7].astype(np.uint32)) & 1).all(), "the own fold is near"


def test_the_same_ground_has_the_same_fold_in_another_crs():
    one = lattice(buffer=30)
    other = Grid("EPSG:32634", from_origin(26_000, 5_020_000, 7, 7), 200, 200)
    move = Transformer.from_crs(32633, 32634, always_xy=True)
    x, y = move.transform(*UTM.xy(np.array([45]), np.array([60])))
    other = replace(other, transform=from_origin(float(x[0]) - 700, float(y[0]) + 700, 7, 7))
    fold, near = one.on(other)
    back = Transformer.from_crs(32634, 32633, always_xy=True)
    x, y = back.transform(*other.xy(*np.mgrid[:200, :200]))
    shapes = shapely.points(x, y)
    held = np.zeros(fold.shape, bool)
    for number, box in one.boxes():
        mine = shapely.contains_properly(shapely.buffer(box, -1e-3), shapes)
        assert (fold[mine] == number).all() and (near[mine] >> number & 1).all()
        held |= mine
    assert held.sum() > 15_000
    degrees = Grid(LONLAT, from_origin(15, 45.15, 1e-4, 1e-4), 150, 150)
    lon, lat = degrees.xy(*np.mgrid[:150, :150])
    x, y = Transformer.from_crs(4326, 32633, always_xy=True).transform(lon, lat)
    rows, cols = UTM.rowcol(x, y)
    hit = (rows >= 0) & (rows < 90) & (cols >= 0) & (cols < 120)
    assert hit.sum() > 500
    centre_x, centre_y = UTM.xy(rows, cols)
    deep = hit & (one.near(x, y) == 1 << one.fold_at(x, y))  # at least 30 m from other folds
    assert (one.on(degrees)[0][deep] == one.fold_at(centre_x, centre_y)[deep]).all()


def test_blocks_are_dealt_out_evenly_and_by_seed():
    counts = np.bincount(np.ravel(assign(8, 5, 0)))
    assert counts.max() - counts.min() <= 1 and counts.sum() == 64
    assert assign(8, 5, 0) == assign(8, 5, 0) != assign(8, 5, 1)
    assert np.bincount(np.ravel(portion(8, (0.7, 0.15, 0.15), 3))).tolist() == [44, 10, 10]


def test_a_plain_footprint_is_its_ring():
    ring = UTM.outline()
    assert (ring[0] == ring[-1]).all() and len(ring) == 81
    assert footprint(ring).equals(shapely.Polygon(ring))


@pytest.mark.parametrize(
    ("code", "x", "y"),
    [(32601, 200_000, 7_000_000), (32660, 550_000, 7_000_000), (3832, 3_300_000, 0)],
)
def test_a_footprint_across_the_antimeridian_is_cut_there(code, x, y):
    grid = Grid(f"EPSG:{code}", from_origin(x, y, 1000, 1000), 300, 300)
    shape = footprint(grid.outline(points=101))
    assert shape.geom_type == "MultiPolygon" and shape.is_valid and len(shape.geoms) == 2
    assert shape.bounds[0] == -180 and shape.bounds[2] == 180
    west, _, east, _ = bbox_of(shape)
    assert west > east, "RFC 7946: a box across the antimeridian has west > east"
    lon, lat = Transformer.from_crs(code, 4326, always_xy=True).transform(
        *grid.xy(*np.mgrid[5:295:10, 5:295:10])
    )
    assert shapely.contains_xy(shape, lon, lat).all()
    lon, lat = Transformer.from_crs(code, 4326, always_xy=True).transform(
        *grid.xy(np.arange(300), np.full(300, 320))
    )
    assert not shapely.contains_xy(shape, lon, lat).any()


def test_columns_beyond_180_degrees_are_brought_back():
    grid = Grid(LONLAT, from_origin(175, 10, 0.1, 0.1), 100, 100)
    shape = footprint(grid.outline())
    parts = shapely.union(shapely.box(175, 0, 180, 10), shapely.box(-180, 0, -175, 10))
    assert shapely.equals(shapely.normalize(shape), shapely.normalize(parts))
    turned = footprint(Grid(LONLAT, from_origin(0, 90, 1, 1), 180, 360).outline())
    assert shapely.area(turned) == pytest.approx(360 * 180) and turned.bounds == (
        -180,
        -90,
        180,
        90,
    )


@pytest.mark.parametrize(("code", "pole"), [(3413, 90), (3031, -90)])
def test_a_footprint_round_a_pole_holds_the_pole(code, pole):
    grid = Grid(f"EPSG:{code}", from_origin(-1_000_000, 1_200_000, 10_000, 10_000), 200, 220)
    shape = footprint(grid.outline(points=101))
    assert shape.is_valid and (pole in shape.bounds)
    lon, lat = Transformer.from_crs(code, 4326, always_xy=True).transform(
        *grid.xy(*np.mgrid[3:197:9, 3:217:9])
    )
    assert shapely.contains_xy(shape, lon, lat).all()
    assert bbox_of(shape)[0] == -180 and bbox_of(shape)[2] == 180


@pytest.mark.parametrize(
    "text", ["1,2,3", "a,b,c,d", "0,5,1,4", "-181,0,1,1", "0,0,0,1", "0,-91,1,1", "nan,0,1,1", ""]
)
def test_a_wrong_bbox_is_a_mistake_of_usage(text):
    with pytest.raises(UsageMistake, match="--bbox"):
        parse_bbox(text)


def test_a_bbox_is_read_as_west_south_east_north():
    assert parse_bbox("170, -10, -170.5,10") == Bounds(170, -10, -170.5, 10)


def test_a_legend_has_one_colour_a_class():
    found = legend(["water", "x", "y", "forest"], {"y": "#010203"})
    assert [c.name for c in found] == ["water", "x", "y", "forest"]
    assert len({c.color for c in found}) == 4 and found[2].rgb == (1, 2, 3)
    assert read_classes([c.to_dict() for c in found]) == found
