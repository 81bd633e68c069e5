"""Codes of place, season and ground: the authors' numbers, closed forms, and what a code is for."""

from pathlib import Path

import numpy as np
import pytest

from geoml_cli.geo import codes

FIXTURE = Path(__file__).parents[2] / "shared/parity/agbd_encoders.pt"


@pytest.fixture(scope="module")
def saved():
    if not FIXTURE.is_file():
        pytest.skip(f"no {FIXTURE}: the authors' numbers are not beside this checkout")
    import torch

    found = torch.load(FIXTURE, weights_only=True)
    numbers = {k: {n: v.numpy() for n, v in found[k].items()} for k in ("inputs", "outputs")}
    return found["config"], numbers["inputs"], numbers["outputs"]


def close(found, want):
    np.testing.assert_allclose(found, want, atol=1e-6, rtol=1e-6)


def test_places_of_a_patch_are_the_authors(saved):
    about, _, want = saved
    found = codes.place_of_patch(about["lat"], about["lon"], about["patch"], about["resolution_m"])
    for name, one in zip(("lat_cos", "lat_sin", "lon_cos", "lon_sin"), found, strict=True):
        assert one.dtype == np.float64
        np.testing.assert_allclose(one, want[name], atol=1e-10, rtol=0)  # a pixel is 1e-6


@pytest.mark.parametrize("day", [-30, 0, 400])
def test_seasons_are_the_authors(saved, day):
    close(codes.season(18_003 + day), saved[2][f"doy_{day}"])
    assert np.datetime64("2019-04-17").astype(int) == 18_003


def test_relief_is_the_authors(saved):
    _, given, want = saved
    slope, cosine, sine = codes.relief(given["dem"], 10)
    close(slope, want["slope"])
    close(cosine, want["aspect_cos"])
    close(sine, want["aspect_sin"])


def test_cover_and_scalings_are_the_authors(saved):
    about, given, want = saved
    found = codes.cover(given["lc"][..., 0], given["lc"][..., 1])
    for name, one in zip(("lc_cos", "lc_sin", "lc_prob"), found, strict=True):
        close(one, want[name])
    norm, raw = about["norm"], given["raw"]
    close(codes.mean_std(raw, norm["mean"], norm["std"]), want["norm_mean_std"])
    close(codes.percentiles(raw, norm["p1"], norm["p99"]), want["norm_pct"])
    close(codes.min_max(raw, norm["min"], norm["max"]), want["norm_min_max"])
    close(codes.alos_db(given["alos"]), want["alos_db"])


def test_places_turn_with_their_angles():
    lat, lon = np.array([0.0, 90, -90, 22.5]), np.array([0.0, 180, -180, 90])
    found = codes.place(lat, lon)
    root = (0.5**0.5 + 1) / 2
    close(found[0], [1, 0, 0, root]), close(found[1], [0.5, 0.5, 0.5, root])
    close(found[2], [1, 0, 0, 0.5]), close(found[3], [0.5, 0.5, 0.5, 1])
    across = codes.place(10, 179.99999), codes.place(10, -179.99999)
    close(across[0][2:], across[1][2:])  # near stays near across the date line
    assert np.isnan(codes.place(np.nan, 3)[0]) and not np.isnan(codes.place(np.nan, 3)[2])


@pytest.mark.parametrize("lat", [0.0, -3.25, 58.0])
def test_pixels_of_a_patch_are_their_metres_apart(lat):
    lats, lons = codes.patch_degrees(lat, 20.0, 9, 30.0)
    assert lats[4, 4] == lat and lons[4, 4] == 20.0 and lats.shape == lons.shape == (9, 9)
    metre = np.pi * codes.EARTH_RADIUS_M / 180  # of a degree of a great circle
    np.testing.assert_allclose(np.diff(lats, axis=0) * metre, 30)  # rows go north
    np.testing.assert_allclose(np.diff(lons, axis=1) * metre * np.cos(np.radians(lats[:, :1])), 30)
    turned = codes.patch_degrees(lat, 20.0, 9, 30.0, north_up=True)
    np.testing.assert_allclose(turned[0], lats[::-1])
    np.testing.assert_allclose(turned[1], lons[::-1])


def test_a_year_comes_round():
    start = np.datetime64("2019-01-01").astype(int)
    close(codes.season(start), [1, 0.5])
    close(codes.season(start + 365 / 4), [0.5, 1])
    days = np.array([[3.0, 700], [np.nan, 12345.5]])
    cosine, sine = codes.season(days)
    assert cosine.shape == (2, 2) and np.isnan(cosine[1, 0])
    close(codes.season(days + 365)[1], sine)
    angle = np.arctan2(2 * sine - 1, 2 * cosine - 1)
    known = np.isfinite(days)
    close(np.exp(1j * angle[known]), np.exp(2j * np.pi * (days[known] - start) / 365))


@pytest.mark.parametrize("bearing", range(0, 360, 45))
def test_a_plane_has_its_slope_and_its_way_up(bearing):
    angle = np.radians(bearing)
    rows, cols = np.mgrid[:7, :5] * 20.0
    dem = 100 + 0.3 * (np.cos(angle) * cols + np.sin(angle) * rows)
    slope, cosine, sine = codes.relief(dem, 20)
    close(slope, np.full((7, 5), 0.3))
    close(cosine, np.full((7, 5), (np.cos(angle) + 1) / 2))
    close(sine, np.full((7, 5), (np.sin(angle) + 1) / 2))


def test_flat_ground_has_the_angle_0():
    slope, cosine, sine = codes.relief(np.full((4, 4), 7.0), 10)
    assert (slope == 0).all() and (cosine == 1).all() and (sine == 0.5).all()


def test_cover_leaves_what_is_unknown_at_0():
    cosine, sine, share = codes.cover(np.array([50, 25, 255, 100]), np.array([100, 255, 50, 0]))
    close(cosine, [0, 0.5, 0, 1]), close(sine, [0.5, 1, 0, 0.5]), close(share, [1, 0, 0.5, 0])


def test_scalings_map_their_bounds_and_keep_what_is_no_data():
    values = np.array([0.0, 2, 4, 6, 9])
    close(codes.mean_std(values, 4, 2), [0, -1, 0, 1, 2.5])
    close(codes.mean_std(values, 4, 2, nodata=None), [-2, -1, 0, 1, 2.5])
    close(codes.percentiles(values, 2, 6), [0, 0, 0.5, 1, 1])
    close(codes.min_max(values, 2, 6), [0, 0, 0.5, 1, 1.75])
    close(codes.min_max(values, 1, 9, nodata=9.0), [-0.125, 0.125, 0.375, 0.625, 0])


def test_backscatter_in_decibels():
    found = codes.alos_db(np.array([0, 1, 10, 10**4.15]))
    close(found, [-9999, -83, -63, 0])
    back = 10 ** ((codes.alos_db(np.array([1234.0])) + 83) / 20)
    close(back, [1234])
