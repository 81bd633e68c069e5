"""Which pixel of another grid holds a centre: against pyproj, pixel by pixel."""

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer

from geoml_cli.geo.grid import Grid, Window
from geoml_cli.geo.nearest import inside, overlap, pixels_under

UTM = Grid("EPSG:32725", Affine(30, 0, 286000, 0, -30, 9120000), 300, 260)


def exact(grid, window, other):
    """Fractional rows and columns by pyproj, pixel by pixel."""
    rows, cols = np.mgrid[
        window.row : window.row + window.height, window.col : window.col + window.width
    ]
    x, y = grid.transform * (cols + 0.5, rows + 0.5)
    x, y = Transformer.from_crs(grid.crs, other.crs, always_xy=True).transform(x, y)
    c, r = ~other.transform * (x, y)
    return r, c


@pytest.mark.parametrize(
    "other",
    [
        Grid("OGC:CRS84", Affine(1e-4, 0, -35.0, 0, -1e-4, -7.9), 900, 1000),
        Grid("EPSG:4326", Affine(3e-5, 0, -34.95, 0, -3e-5, -7.95), 3000, 3000),
        Grid("EPSG:32724", Affine(10, 0, 940000, 0, -10, 9121000), 900, 900),
        Grid("EPSG:3857", Affine(25, 0, -3894000, 0, -25, -884000), 500, 400),
    ],
    ids=lambda grid: grid.crs,
)
def test_every_centre_falls_into_the_pixel_that_pyproj_says(other):
    window = Window(40, 30, 200, 180)
    for got, want in zip(pixels_under(UTM, window, other), exact(UTM, window, other), strict=True):
        np.testing.assert_array_equal(got, np.floor(want))


def test_in_one_crs_it_is_exact_also_in_other_words():
    other = Grid("EPSG:32725", Affine(7, 0, 286003, 0, -7, 9119990), 1200, 1100)
    window = Window(0, 0, 300, 260)
    r, c = exact(UTM, window, other)
    for words in (
        other,
        Grid("+proj=utm +zone=25 +south +datum=WGS84", other.transform, 1200, 1100),
    ):
        rows, cols = pixels_under(UTM, window, words)
        np.testing.assert_array_equal(rows, np.floor(r))
        np.testing.assert_array_equal(cols, np.floor(c))


@given(ratio=st.integers(1, 8), row=st.integers(-5, 5), col=st.integers(-5, 5))
@settings(max_examples=40, deadline=None)
def test_finer_grids_of_one_corner_are_hit_in_the_middle(ratio, row, col):
    step = 30 / ratio
    shift = Affine.translation(286000 - col * step, 9120000 + row * step)
    other = Grid(UTM.crs, shift * Affine.scale(step, -step), 4000, 4000)
    rows, cols = pixels_under(UTM, Window(0, 0, 64, 64), other)
    np.testing.assert_array_equal(rows[:, 0], np.arange(64) * ratio + ratio // 2 + row)
    np.testing.assert_array_equal(cols[0], np.arange(64) * ratio + ratio // 2 + col)


def test_across_the_antimeridian_longitudes_go_round():
    map_ = Grid(
        "EPSG:32701", Affine(1000, 0, 100000, 0, -1000, 8000000), 100, 600
    )  # 176.8 E .. 177.6 W
    east = Grid("OGC:CRS84", Affine(0.01, 0, 175, 0, -0.01, -17), 400, 1000)  # 175 .. 185
    whole = Grid("OGC:CRS84", Affine(0.1, 0, -180, 0, -0.1, 90), 1800, 3600)
    window = Window(0, 0, 100, 600)
    lon, lat = Transformer.from_crs(map_.crs, "OGC:CRS84", always_xy=True).transform(
        *(map_.transform * (np.arange(600) + 0.5, np.full(600, 0.5)))
    )
    assert lon.min() < -170 and lon.max() > 170
    rows, cols = pixels_under(map_, window, east)
    np.testing.assert_array_equal(np.floor(((lon % 360) - 175) / 0.01), cols[0])
    assert inside(east, rows, cols).all()
    _, cols = pixels_under(map_, window, whole)
    np.testing.assert_array_equal(np.floor((lon + 180) / 0.1), cols[0])
    assert overlap(map_, east)


def test_what_has_no_coordinates_lies_nowhere():
    globe = Grid("OGC:CRS84", Affine(1, 0, -180, 0, -1, 90), 180, 360)
    ortho = Grid("+proj=ortho +lat_0=0 +lon_0=0", Affine(1e5, 0, -7e6, 0, -1e5, 7e6), 140, 140)
    rows, cols = pixels_under(globe, Window(0, 0, 180, 360), ortho)
    assert (rows[90, 0], cols[90, 0]) == (-1, -1)  # behind the globe
    assert not inside(ortho, rows, cols)[:, :80].any()
    assert (rows[90, 180], cols[90, 180]) == (70, 70)


def test_grids_apart_do_not_overlap():
    far = Grid("EPSG:32633", Affine(30, 0, 500000, 0, -30, 5000000), 100, 100)
    assert not overlap(UTM, far)
    assert overlap(UTM, Grid("OGC:CRS84", Affine(0.1, 0, -36, 0, -0.1, -7), 20, 20))
