"""Splits: the same ground is always on the same side, and what trains keeps its distance."""

import hashlib
import json
import math
from dataclasses import dataclass

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
import torch
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Geod, Transformer
from rasterio.transform import from_origin

from geoml_cli.cli import run
from geoml_cli.core import device as devices
from geoml_cli.core import lattice
from geoml_cli.core.aim import Aim
from geoml_cli.core.batch import Batch
from geoml_cli.core.infer import Answers, Mapper
from geoml_cli.errors import GeomlError, UsageMistake
from geoml_cli.formats.stamp import record
from geoml_cli.geo.apart import distances, leakage
from geoml_cli.geo.bounds import footprint
from geoml_cli.geo.cells import Cells, Scattered
from geoml_cli.geo.deal import deal
from geoml_cli.geo.grid import LONLAT, Bounds, Grid, Window
from geoml_cli.geo.metric import lonlat, pixel_m, stretch
from geoml_cli.geo.regions import Regions, in_degrees
from geoml_cli.geo.splits import NONE, PLAIN, Lattice, assign, balance, portion
from geoml_cli.stages.model_folder import ground_table
from geoml_cli.stages.sides import Part
from geoml_cli.stages.split import SplitWish, blocks_of, folds_of, inputs, lay, parse, read_split

GEOD = Geod(ellps="WGS84")
UTM = Grid("EPSG:32633", from_origin(500_000, 5_000_000, 10, 10), 90, 120)
PLACES = [  # crs, x, y: ordinary, high north, across the antimeridian, round a pole
    (32633, 500_000, 5_000_000),
    (32633, 620_000, 8_900_000),
    (32601, 199_000, 7_000_000),
    (32760, 820_000, 8_100_000),
    (3413, -3_000, 4_000),
    (3031, 100_000, -40_000),
    (4326, 11, 0.05),
]


def grid_at(crs: int, x: float, y: float, size: int = 100, px: float = 60) -> Grid:
    step = px / 111_000 if crs == 4326 else px
    return Grid(f"EPSG:{crs}", from_origin(x, y, step, step), size, size)


def shapes_over(grid: Grid, count: int = 9, seed: int = 0) -> tuple[list, list[int]]:
    """Circles over a grid that do not touch each other's centres, and a fold for each."""
    rng = np.random.default_rng(seed)
    b, step = grid.bounds, grid.transform.a
    at = rng.uniform(b[:2], b[2:], (count, 2))
    radii = rng.uniform(2, 12, count) * step
    return [shapely.Point(p).buffer(r) for p, r in zip(at, radii, strict=True)], rng.integers(
        0, 3, count
    ).tolist()


def every_kind(grid: Grid, buffer_m: float) -> dict:
    shapes, folds = shapes_over(grid)
    step = pixel_m(grid)
    narrow = (
        1 / stretch(grid.crs, *grid.xy(np.array([50]), np.array([50])), grid.transform.a)[0, 0, 0]
    )
    return {
        "blocks": Lattice(grid.crs, grid.bounds, portion(4, (0.7, 0.15, 0.15), 1), buffer_m * narrow * 1.02),
        "cells": Cells(20 * step, PLAIN, 3, buffer_m),
        "regions": Regions(in_degrees(shapes, grid.crs), tuple(folds), 3, buffer_m, step, True),
    }  # fmt: skip


# the same ground, the same side


@given(
    place=st.sampled_from(PLACES),
    dx=st.floats(-30, 30),
    dy=st.floats(-30, 30),
    px=st.sampled_from([10, 23.7, 60]),
    folds=st.sampled_from([0, 5]),
)
def test_the_same_ground_is_on_the_same_side_in_any_grid_and_crs(place, dx, dy, px, folds):
    shares = (1,) * folds if folds else PLAIN
    cells = Cells(700.0, shares, 7, 90.0)
    first = grid_at(*place)
    shift = 1 / 111_000 if place[0] == 4326 else 1
    t = first.transform
    other = Grid(first.crs, Affine(t.a * px / 60, 0, t.c + dx * shift, 0, t.e * px / 60, t.f + dy * shift), 80, 70)  # fmt: skip
    fold, near = cells.on(other)
    back = Transformer.from_crs(first.crs, "OGC:CRS84", always_xy=True)
    lon, lat = back.transform(*other.xy(*np.mgrid[:80, :70]))
    row, col = cells.cell_at(lon, lat)
    pairs, which = np.unique(np.stack([row.ravel(), col.ravel()]), axis=1, return_inverse=True)
    alone = np.array([cells.fold_of(np.array(r), np.array(c)) for r, c in pairs.T])
    alone = alone[which].reshape(row.shape)
    # a pixel whose centre lies within a fiftieth of a pixel of a border may fall either way
    assert (fold == alone).mean() > 0.998
    deep = near == np.uint32(1) << alone.astype(np.uint32)
    assert (fold == alone)[deep].all()


def test_two_crs_agree_pixel_by_pixel():
    """Grids of two UTM zones and one in degrees, matched by pyproj alone."""
    cells = Cells(1000.0, PLAIN, 0, 60.0)
    one = Grid("EPSG:32633", from_origin(760_000, 5_000_000, 20, 20), 200, 200)
    fold, near = cells.on(one)
    for other in (
        Grid("EPSG:32634", from_origin(287_000, 4_999_000, 20, 20), 300, 300),
        Grid("EPSG:4326", from_origin(18.3, 45.11, 2e-4, 2e-4), 300, 300),
    ):
        theirs, _ = cells.on(other)
        move = Transformer.from_crs(one.crs, other.crs, always_xy=True)
        rows, cols = other.rowcol(*move.transform(*one.xy(*np.mgrid[:200, :200])))
        hit = (rows >= 0) & (rows < 300) & (cols >= 0) & (cols < 300)
        alone = hit & (near & (near - 1) == 0)  # further than 60 m from every other fold
        assert alone.sum() > 10_000 and len(np.unique(fold[alone])) == 3
        assert (theirs[rows[alone], cols[alone]] == fold[alone]).all()


def test_folds_of_cells_are_the_hash_that_is_written_down():
    """By hashlib alone: no later version may deal the same ground otherwise."""
    cells = Cells(5000.0, PLAIN, 42, 0.0)
    for row, col, shares in [(0, 0, PLAIN), (1234, 77, PLAIN), (2001, 4000, (1,) * 5)]:
        value = int.from_bytes(hashlib.blake2b(f"42:{row}:{col}".encode(), digest_size=8).digest(), "big")  # fmt: skip
        at = value / 2**64
        want = int(np.searchsorted(np.cumsum(shares) / sum(shares), at, side="right"))
        assert Cells(5000.0, shares, 42, 0.0).fold_of(np.array(row), np.array(col)) == want
    assert cells.fold_of(np.arange(8), np.arange(8) * 9).tolist() == [0, 0, 0, 0, 1, 0, 0, 1]


@pytest.mark.parametrize(("size_m", "shares"), [(5000, PLAIN), (500, PLAIN), (20_000, (1,) * 5)])
def test_cells_cover_the_world_with_equal_ground_and_the_wanted_shares(size_m, shares):
    cells = Cells(float(size_m), shares, 0, 0.0)
    cols = cells.cols(np.arange(cells.rows))
    assert (cols >= 3).all()
    step = 180 / cells.rows
    for row in (0, 1, 5, cells.rows // 4, cells.rows // 2, cells.rows - 1):
        wide = 360 / cols[row]
        ring = shapely.segmentize(shapely.box(0, 90 - (row + 1) * step, wide, 90 - row * step), wide / 99)  # fmt: skip
        area = abs(GEOD.geometry_area_perimeter(ring)[0])
        assert area == pytest.approx(size_m**2, rel=0.02 if 20 < row < cells.rows - 20 else 0.1)
    row = np.repeat(np.arange(cells.rows // 3, cells.rows // 3 + 100), 300)
    dealt = cells.fold_of(row, np.tile(np.arange(300), 100))
    got = np.bincount(dealt, minlength=len(shares)) / len(dealt)
    np.testing.assert_allclose(got, np.array(shares) / sum(shares), atol=0.01)


def test_random_keeps_a_tile_on_its_side_at_other_dates_and_sensors():
    one = Scattered(2048.0, PLAIN, 0)
    folds = []
    for k in range(400):
        tile = Grid("EPSG:32633", from_origin(500_000 + 2560 * (k % 20), 5e6 - 2560 * (k // 20), 10, 10), 256, 256)  # fmt: skip
        fold, near = one.on(tile)
        assert len(np.unique(fold)) == 1 and (near == 1 << int(fold[0, 0])).all()
        coarse = Grid(tile.crs, tile.transform * Affine.scale(2), 128, 128)
        assert one.on(coarse)[0][0, 0] == fold[0, 0]
        folds.append(int(fold[0, 0]))
    shares = np.bincount(folds, minlength=3) / 400
    np.testing.assert_allclose(shares, [0.7, 0.15, 0.15], atol=0.06)


def test_tiles_without_a_place_are_dealt_by_name():
    picture = Grid("", Affine(1, 0, 0, 0, -1, 0), 64, 64)
    split = lay(SplitWish("random", size_px=(64, 64)), [picture], 9)
    folds = [split.named(f"chip-{k}") for k in range(1000)]
    np.testing.assert_allclose(np.bincount(folds) / 1000, [0.7, 0.15, 0.15], atol=0.04)
    digest = hashlib.blake2b(b"9:chip-7", digest_size=8).digest()
    assert split.named("chip-7") == np.searchsorted([0.7, 0.85], int.from_bytes(digest, "big") / 2**64)  # fmt: skip
    for text in ("auto", "blocks:4", "blocks:5km"):
        with pytest.raises(GeomlError, match="without a CRS .* --split random or none"):
            lay(SplitWish(text), [UTM, picture], 0)


# the buffer


def metres_to(ground: shapely.Geometry, lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """Geodesic metres (n,) from places to the nearest of points along the rims of some ground (CRS84)."""
    rims = shapely.get_coordinates(shapely.segmentize(shapely.boundary(ground), 4e-5))
    tree = shapely.STRtree(shapely.points(rims))
    scale = np.cos(np.radians(lat.mean()))
    flat = rims * [scale, 1]
    tree = shapely.STRtree(shapely.points(flat))
    at = shapely.points(np.column_stack([lon * scale, lat]))
    nearest = tree.nearest(at)
    away = GEOD.inv(lon, lat, *rims[nearest].T)[2]
    return np.where(shapely.contains_xy(ground, lon, lat), 0, away)


@pytest.mark.parametrize("place", [p for p in PLACES if p[0] not in (3413, 3031)][:3:2] + [PLACES[1], PLACES[6]])  # fmt: skip
@pytest.mark.parametrize("kind", ["blocks", "cells", "regions"])
def test_near_marks_every_fold_within_the_buffer_by_geodesics(place, kind):
    grid, buffer_m = grid_at(*place), 300.0
    split = every_kind(grid, buffer_m)[kind]
    fold, near = split.on(grid)
    rows, cols = np.mgrid[1:100:4, 2:100:5]
    lon, lat = Transformer.from_crs(grid.crs, "OGC:CRS84", always_xy=True).transform(*grid.xy(rows, cols))  # fmt: skip
    lon, lat = np.ravel(lon), np.ravel(lat)
    around = footprint(Grid(grid.crs, grid.transform * Affine.translation(-30, -30), 160, 160).outline(points=99))  # fmt: skip
    if around.geom_type == "MultiPolygon":  # measured on one side of the antimeridian
        side = lon > 0 if (lon > 0).mean() > 0.5 else lon < 0
        around = max(shapely.get_parts(around), key=shapely.area)
    else:
        side = np.ones(len(lon), bool)
    says = near[rows, cols].ravel()
    seen = 0
    for f, ground in split.areas(around):
        away = metres_to(ground, lon, lat)
        far = away
        if kind == "regions":  # also ground that others lie on top of counts as near
            whole = shapely.from_wkb(np.array(split.shapes, object))[np.array(split.folds) == f]
            far = metres_to(shapely.union_all(whole), lon, lat)
        bit = (says >> np.uint32(f) & 1).astype(bool)
        assert bit[side & (away < buffer_m * 0.995)].all(), f
        # never wider than a square's corner and a pixel
        wide = buffer_m * 1.5 + 2 * pixel_m(grid)
        assert not bit[side & (far > wide)].any()
        seen += int((side & (away > 0) & (away < buffer_m)).sum())
    assert seen > 20
    own = fold != NONE
    assert (near[own] >> fold[own].astype(np.uint32) & 1).all()
    if kind == "regions":
        assert (fold == NONE).any()


@pytest.mark.parametrize("place", [PLACES[4], PLACES[5], (3413, 1_000, 1_000)])
def test_near_holds_at_the_poles_by_points_on_the_sphere(place):
    grid, buffer_m = grid_at(*place, size=80), 250.0
    cells = Cells(900.0, (1,) * 5, 2, buffer_m)
    fold, near = cells.on(grid)
    lon, lat = lonlat(grid)
    up = np.stack([np.cos(np.radians(lat)) * np.cos(np.radians(lon)), np.cos(np.radians(lat)) * np.sin(np.radians(lon)), np.sin(np.radians(lat))], -1).reshape(-1, 3)  # fmt: skip
    apart = np.linalg.norm(up[::7, None] - up[None], axis=-1) * 6_356_000
    for i, bits in enumerate(near.ravel()[::7]):
        for f in np.unique(fold.ravel()[apart[i] < buffer_m]):
            assert bits >> np.uint32(f) & 1
    assert len(np.unique(near)) > 3


def test_interpolated_places_are_those_of_pyproj():
    for place in PLACES:
        grid = grid_at(*place, size=300)
        lon, lat = lonlat(grid)
        want = Transformer.from_crs(grid.crs, "OGC:CRS84", always_xy=True).transform(*grid.xy(*np.mgrid[:300, :300]))  # fmt: skip
        assert GEOD.inv(lon, lat, *want)[2].max() < 60 / 50


# ground


@pytest.mark.parametrize("place", PLACES)
def test_areas_are_apart_and_cover_the_ground(place):
    grid = grid_at(*place)
    ground = shapely.make_valid(footprint(grid.outline(points=65)))
    for kind, split in every_kind(grid, 0.0).items():
        if place[0] == 3413 and kind == "blocks":
            continue  # a block's corner next to the pole: its ring is drawn by degrees
        found = split.areas(ground)
        assert len({f for f, _ in found}) == len(found)
        total = sum(a.area for _, a in found)
        whole = shapely.union_all([a for _, a in found])
        assert total == pytest.approx(whole.area, rel=1e-9), kind
        if kind != "regions":
            assert shapely.difference(ground, whole).area < 1e-6 * ground.area, kind
        fold, _ = split.on(grid)
        lon, lat = lonlat(grid)
        for f, area in found:
            inner = shapely.contains_xy(area, lon, lat)
            # places right at a border may fall either way
            assert (fold[inner] == f).mean() > 0.985, (kind, f)


def test_ground_beyond_the_blocks_goes_with_the_rim():
    one = Lattice(UTM.crs, UTM.bounds, portion(4, (0.7, 0.15, 0.15), 1), 0.0)
    wide = Grid(UTM.crs, UTM.transform * Affine.translation(-20, -20), 130, 160)
    ground = footprint(wide.outline(points=65))
    found = one.areas(ground)
    assert sum(a.area for _, a in found) == pytest.approx(ground.area, rel=1e-6)
    fold, _ = one.on(wide)
    lon, lat = lonlat(wide)
    for f, area in found:
        assert (fold[shapely.contains_xy(area, lon, lat)] == f).mean() > 0.99


def test_overlapping_shapes_are_the_later_ones():
    one, two = shapely.box(0, 0, 2, 1), shapely.box(1, 0, 3, 1)
    regions = Regions(in_degrees([one, two], "OGC:CRS84"), (0, 2), 3, 0.0, 1.0, True)
    found = dict(regions.areas(shapely.box(-1, -1, 4, 2)))
    assert found[0].equals(shapely.box(0, 0, 1, 1)) and found[2].equals(two)
    fold, near = regions.on(Grid(LONLAT, from_origin(0, 1, 0.1, 0.1), 10, 30))
    assert (fold[:, :10] == 0).all() and (fold[:, 10:] == 2).all()
    assert (near[:, 11:19] == 0b101).all(), "both held out where they overlap"


def test_kinds_come_back_from_json():
    for place in PLACES[:2]:
        for split in [*every_kind(grid_at(*place), 30.0).values(), Scattered(64.0, PLAIN, 1)]:
            plain = json.loads(json.dumps(split.to_dict()))
            assert read_split(plain) == split and read_split(plain).count == 3
    assert read_split(None) is None
    with pytest.raises(GeomlError, match="kind 'later'"):
        read_split({"kind": "later"})


# dealing


@settings(max_examples=15)
@given(seed=st.integers(0, 5), folds=st.sampled_from([0, 3, 5]), bare=st.floats(0, 0.7))
def test_balanced_blocks_have_their_share_of_every_class(seed, folds, bare):
    rng = np.random.default_rng(seed)
    weights = rng.integers(1, 2000, (8, 8, 4)) * (rng.random((8, 8, 1)) >= bare)
    shares = (1,) * folds if folds else PLAIN
    dealt = np.array(balance(weights, shares, seed))
    held = np.array([weights[dealt == f].sum(axis=0) for f in range(len(shares))])
    got = held / weights.sum(axis=(0, 1))
    wanted = np.array(shares) / sum(shares)
    assert np.abs(got - wanted[:, None]).max() < 0.08
    assert balance(weights, shares, seed) == balance(weights, shares, seed)
    counts = np.bincount(dealt.ravel(), minlength=len(shares)) / 64
    assert np.abs(counts - wanted).max() < 0.25


def test_every_side_gets_labels_where_a_few_blocks_hold_them_all():
    weights = np.zeros((8, 8, 2), int)
    weights[0, 0], weights[5, 5], weights[7, 1] = (9000, 0), (10, 5), (1, 1)
    for seed in range(5):
        dealt = np.array(balance(weights, PLAIN, seed))
        assert {dealt[0, 0], dealt[5, 5], dealt[7, 1]} == {0, 1, 2} and dealt[0, 0] == 0
    assert balance(weights, PLAIN, 0) != balance(weights, PLAIN, 1)


def test_no_move_or_swap_makes_a_deal_better():
    """By brute force over all ways to deal eight things."""
    rng = np.random.default_rng(3)
    weights = rng.integers(1, 50, (8, 1))
    dealt = deal(weights, (1, 1, 1), 0)

    def uneven(folds: np.ndarray) -> float:
        return float(((np.bincount(folds, weights[:, 0], 3) - weights.sum() / 3) ** 2).sum())

    best = min(uneven(np.array(np.unravel_index(i, (3,) * 8))) for i in range(3**8))
    assert uneven(dealt) <= best + 0.02 * float(weights.sum()) ** 2


# from words to a split


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("auto", ("auto", 8)), ("none", ("none", 0)), ("random", ("random", 0)), ("blocks:6", ("blocks", 6)),
        ("blocks:5km", ("cells", 5000)), ("blocks:500m", ("cells", 500)), ("blocks:2.5km", ("cells", 2500)),
        ("areas.gpkg", ("file", 0)), ("old/tiles", ("file", 0)), ("https://x.org/a.geojson", ("file", 0)),
    ],
)  # fmt: skip
def test_splits_are_read(text, found):
    assert parse(text) == found


@pytest.mark.parametrize(
    ("text", "by", "folds"),
    [
        ("blocks", None, 0), ("blocks:1", None, 0), ("blocks:0km", None, 0), ("blocks:5 miles", None, 0),
        ("blocks:9000km", None, 0), ("", None, 0), ("none", None, 5), ("auto", None, 2), ("auto", None, 33),
        ("areas.gpkg", None, 5), ("blocks:8", "field", 0), ("blocks:2", None, 5),
    ],
)  # fmt: skip
def test_splits_that_cannot_be_are_mistakes_of_usage(text, by, folds):
    with pytest.raises(UsageMistake) as said:
        parse(text, by, folds)
    assert "\n" not in str(said.value) and "--" in str(said.value)


def test_blocks_are_laid_as_written_and_auto_looks_at_the_labels():
    grids = [UTM, Grid(UTM.crs, UTM.transform * Affine.translation(120, 0), 90, 120)]
    wish = SplitWish("blocks:4", buffer=2)
    split = lay(wish, grids, 5)
    assert split == Lattice(UTM.crs, Bounds(500_000, 4_999_100, 502_400, 5_000_000), portion(4, (0.7, 0.15, 0.15), 5), 20.0)  # fmt: skip
    auto = SplitWish("auto", buffer=2)
    blocks = blocks_of(auto, grids, 5)
    numbers = np.concatenate([blocks.numbers(grid) for grid in grids], axis=1)
    assert sorted(np.unique(numbers)) == list(range(blocks.rows * blocks.cols))
    weights = np.zeros((blocks.rows, blocks.cols, 1), int)
    weights[-1] = 100
    dealt = lay(auto, grids, 5, weights)
    assert set(dealt.folds[-1]) == {0, 1, 2} and dealt.buffer == 20.0
    assert lay(SplitWish("none"), grids, 0) is None


def test_a_buffer_wider_than_half_a_block_is_refused():
    with pytest.raises(UsageMistake, match="--buffer 12: blocks are 22 px a side"):
        lay(SplitWish("blocks:4", buffer=12), [UTM], 0)
    with pytest.raises(UsageMistake, match="--buffer 300m: cells are 500 m"):
        lay(SplitWish("blocks:500m", buffer=300, buffer_unit="m"), [UTM], 0)


@pytest.mark.parametrize("lat", [0, 45, 70])
def test_a_buffer_in_metres_is_that_wide_on_the_ground(lat):
    lonlat_grid = Grid("EPSG:4326", from_origin(10, lat, 1e-3, 1e-3), 400, 400)
    x, y = Transformer.from_crs(4326, 3857, always_xy=True).transform(10, lat)
    mercator = Grid("EPSG:3857", from_origin(x, y, 100, 100), 400, 400)
    for grid in (lonlat_grid, mercator):
        wish = SplitWish("blocks:4", buffer=500, buffer_unit="m")
        found = lay(wish, [grid], 0).buffer
        b = grid.bounds
        move = Transformer.from_crs(grid.crs, 4326, always_xy=True)
        steps = []
        for px, py in [(b.west, b.north), (b.west, b.south)]:
            for dx, dy in [(found, 0), (0, found)]:
                steps.append(
                    GEOD.inv(*move.transform(px, py), *move.transform(px + dx, py + dy))[2]
                )
        assert min(steps) == pytest.approx(500, rel=0.01)
        assert lay(SplitWish("blocks:9km", buffer=5), [grid], 0).buffer_m == pytest.approx(5 * pixel_m(grid))  # fmt: skip


# files, columns


@pytest.fixture
def areas(tmp_path):
    b = UTM.bounds
    middle = (b.west + b.east) / 2
    shapes = [shapely.box(b.west, b.south, middle, b.north), shapely.box(middle, b.south, b.east, 4_999_500)]  # fmt: skip
    table = geopandas.GeoDataFrame({"split": ["train", "Validation"]}, geometry=shapes, crs=UTM.crs)
    return table, tmp_path / "areas.gpkg"


@pytest.mark.parametrize("crs", [32633, 4326, 3857])
def test_a_file_of_areas_says_which_ground_is_where(areas, crs):
    table, path = areas
    table.to_crs(crs).to_file(path)
    wish = SplitWish(str(path), buffer=3)
    [read] = inputs(wish)
    assert (read.path, read.role) == (str(path), "split") and len(read.digest) == 64
    split = lay(wish, [UTM], 0)
    assert folds_of(wish, split) == 0 and split.count == 3
    fold, near = split.on(UTM)
    want = np.full((90, 120), NONE)
    want[:, :60], want[50:, 60:] = 0, 1
    clear = np.ones((90, 120), bool)
    clear[:, 59:61] = clear[49:51, 60:] = False  # touched by two
    assert (fold[clear] == want[clear]).all()
    assert (near[60:, 65:][:, 5:] == 0b10).all() and (near[60:, 52:56] & 0b10).sum() == 0
    assert (near[60:, 57:60] & 0b10).all() and (near[52:, 60:63] & 1).all()
    assert (near[:40, 70:] == 0).all()


def test_fold_numbers_and_rasters_of_them(areas, tmp_path):
    table, path = areas
    table = table.iloc[[0, 1, 1]].assign(fold=[1, 2, 3]).drop(columns="split")
    table.to_file(path)
    wish = SplitWish(str(path), buffer=0)
    split = lay(wish, [UTM], 0)
    assert folds_of(wish, split) == 3 and split.folds == (0, 1, 2)
    sides = np.full((9, 12), 9, np.uint8)
    sides[:, :4], sides[:5, 4:], sides[5:, 8:] = 4, 7, 5
    with rasterio.open(tmp_path / "s.tif", "w", driver="GTiff", width=12, height=9, count=1, dtype="uint8",
                       nodata=9, crs=UTM.crs, transform=from_origin(500_000, 5_000_000, 100, 100)) as out:  # fmt: skip
        out.write(sides, 1)
        out.update_tags(CLASS_4="train", CLASS_5="test", CLASS_7="val")
    wish = SplitWish(str(tmp_path / "s.tif"), buffer=0)
    fold, _ = lay(wish, [UTM], 0).on(UTM)
    want = np.array([0, 0, 0, 0, 0, 2, 0, 1, 0, 255])[sides].repeat(10, 0).repeat(10, 1)
    inner = np.zeros((90, 120), bool)
    inner[1::10, 1::10] = inner[5::10, 5::10] = inner[8::10, 8::10] = True
    assert (fold[inner] == want[inner]).all()


@pytest.mark.parametrize(
    ("column", "values", "says"),
    [
        ("split", ["train", "holdout"], "'holdout' is no side"),
        ("fold", [0, 5], "folds are 0, 5; number them"),
        ("fold", [0, 1], "2 folds; from 3"),
        ("other", ["train", "test"], "no column split"),
        ("split", [None, None], "column split is empty"),
    ],
)
def test_a_file_that_is_no_split_is_refused(areas, column, values, says):
    table, path = areas
    table.drop(columns="split").assign(**{column: values}).to_file(path)
    with pytest.raises(GeomlError, match=says) as said:
        lay(SplitWish(str(path)), [UTM], 0)
    assert str(path) in str(said.value) and "\n" not in str(said.value)


def fields(count: int = 60, seed: int = 0) -> geopandas.GeoDataFrame:
    rng = np.random.default_rng(seed)
    at = rng.uniform([500_000, 4_999_150], [501_150, 4_999_950], (count, 2))
    shapes = [shapely.box(x, y, x + w, y + w) for (x, y), w in zip(at, rng.uniform(15, 50, count), strict=True)]  # fmt: skip
    names = [f"farm {k}" for k in rng.integers(0, 25, count)]
    return geopandas.GeoDataFrame({"farm": [*names[:-1], None]}, geometry=shapes, crs=UTM.crs)


@pytest.mark.parametrize("folds", [0, 4])
def test_features_of_one_value_fall_on_one_side_by_their_area(folds):
    table = fields()
    wish = SplitWish("auto", by="farm", folds=folds, buffer=1.5, features=table)
    split = lay(wish, [UTM], 3)
    kept = table[table.farm.notna()]
    assert len(split.folds) == len(kept)
    by_farm = kept.assign(fold=list(split.folds)).groupby("farm").fold.nunique()
    assert (by_farm == 1).all()
    share = np.bincount(split.folds, kept.area, split.count) / kept.area.sum()
    wanted = np.array(wish.shares) / sum(wish.shares)
    np.testing.assert_allclose(share, wanted, atol=0.03)
    assert lay(wish, [UTM], 3) == split != lay(wish, [UTM], 4)
    fold, near = split.on(UTM)
    x, y = UTM.xy(*np.mgrid[:90, :120])
    for f in range(split.count):
        ground = shapely.union_all(kept.geometry.to_numpy()[np.array(split.folds) == f])
        away = shapely.distance(shapely.points(x, y), ground)
        says = (near >> np.uint32(f) & 1).astype(bool)
        assert says[away < 15 - 0.1].all() and not says[away > 15 + 10 * math.sqrt(2)].any()
    under = shapely.contains_xy(shapely.union_all(kept.geometry.to_numpy()), x, y)
    assert (fold[under] != NONE).all()


def test_points_stand_for_their_pixels():
    at = np.array([[500_005, 4_999_995], [500_605, 4_999_505], [501_105, 4_999_205], [500_012, 4_999_995]])  # fmt: skip
    table = geopandas.GeoDataFrame({"site": [1, 2, 3, 1]}, geometry=shapely.points(at), crs=UTM.crs)
    split = lay(SplitWish("auto", by="site", buffer=2, features=table), [UTM], 0)
    fold, near = split.on(UTM)
    rows, cols = UTM.rowcol(*at.T)
    assert fold[rows, cols].tolist() == list(split.folds) and (fold != NONE).sum() == 4
    within = (near >> np.uint32(split.folds[1]) & 1).astype(bool)
    assert within[49, 58:63].all() and within[47:52, 60].all() and within[48:51, 59:62].all()
    assert not within[44:47, 60].any() and not within[49, 55:58].any()
    with pytest.raises(GeomlError, match="2 values; 3 sides"):
        lay(SplitWish("auto", by="site", features=table.iloc[[0, 1]]), [UTM], 0)
    with pytest.raises(GeomlError, match="no column 'farm'; they have site"):
        lay(SplitWish("auto", by="farm", features=table), [UTM], 0)


# how far apart


def tiles(count: int, seed: int, crs: int = 32633, x: float = 500_000, y: float = 5e6):
    rng = np.random.default_rng(seed)
    cells = rng.permutation(144)[:count]
    shapes = [
        footprint(Grid(f"EPSG:{crs}", from_origin(x + 640 * (c % 12), y - 640 * (c // 12), 10, 10), 64, 64).outline())
        for c in cells
    ]  # fmt: skip
    return shapes, rng.choice([0, 1, 2], count, p=[0.4, 0.2, 0.4]), cells


@pytest.mark.parametrize("seed", range(3))
def test_leakage_is_the_share_of_test_tiles_beside_training_tiles(seed):
    shapes, folds, cells = tiles(40, seed)
    train = {divmod(int(c), 12) for c in cells[folds == 0]}
    beside = [
        any((r + dr, k + dk) in train for dr in (-1, 0, 1) for dk in (-1, 0, 1))
        for r, k in (divmod(int(c), 12) for c in cells[folds == 2])
    ]
    assert leakage(shapes, folds) == pytest.approx(np.mean(beside))
    again = np.where(folds == 1, NONE, folds)
    assert leakage(shapes, again) == pytest.approx(np.mean(beside)), "no side is not training"


@pytest.mark.parametrize(
    ("crs", "x", "y"), [(32633, 5e5, 5e6), (32601, 198_000, 7e6), (32633, 5e5, 8.9e6), (3413, -4000, 3000)]
)  # fmt: skip
@pytest.mark.parametrize("folds", [pytest.param(0, marks=pytest.mark.slow), 3])
def test_distances_are_those_of_brute_force_by_geodesics(crs, x, y, folds):
    shapes, sides, cells = tiles(14, 5, crs, x, y)
    found = distances(shapes, sides, folds)
    where = np.column_stack([cells % 12, cells // 12])
    back = Transformer.from_crs(crs, "OGC:CRS84", always_xy=True)
    want = []
    pairs = (
        [(sides == 2, sides == 0)] if not folds else [(sides == f, sides != f) for f in range(3)]
    )
    for test, train in pairs:
        for c, r in where[test]:
            rim = np.array([(u, v) for u in np.linspace(0, 1, 17) for v in np.linspace(0, 1, 17) if {u, v} & {0, 1}])  # fmt: skip
            mine = back.transform(x + 640 * (c + rim[:, 0]), y - 640 * (r + rim[:, 1]))
            best = np.inf
            for c2, r2 in where[train]:
                other = back.transform(x + 640 * (c2 + rim[:, 0]), y - 640 * (r2 + rim[:, 1]))
                a, b = (
                    np.repeat(np.arange(len(rim)), len(rim)),
                    np.tile(np.arange(len(rim)), len(rim)),
                )
                best = min(
                    best, GEOD.inv(mine[0][a], mine[1][a], other[0][b], other[1][b])[2].min()
                )
            want.append(best if best > 1 else 0.0)
    assert found["min_m"] == pytest.approx(min(want), rel=0.01, abs=1)
    assert found["median_m"] == pytest.approx(np.median(want), rel=0.01, abs=1)


def test_tiles_across_the_antimeridian_touch():
    west, east = shapely.box(179, 0, 180, 1), shapely.box(-180, 0, -179, 1)
    assert leakage([west, east], np.array([0, 2])) == 1.0
    assert distances([west, east], np.array([0, 2])) == {"min_m": 0.0, "median_m": 0.0}
    far = shapely.box(-179, 0, -178, 1)
    one = distances([west, far], np.array([0, 2]))["min_m"]
    assert one == pytest.approx(GEOD.inv(180, 0.99, -179, 0.99)[2], rel=0.01)
    assert distances([west, east], np.array([0, 0])) is None and leakage([west], np.array([0])) == 0


# where the split is used


@dataclass(frozen=True)
class Opened:
    """As much of a tile set as ground is told by."""

    head: dict
    index: geopandas.GeoDataFrame
    split: object


def ground_of(split, parts) -> geopandas.GeoDataFrame:
    shapes = [footprint(UTM.crop(Window(0, 40 * k, 90, 40)).outline()) for k in range(3)]
    index = geopandas.GeoDataFrame(
        {"scene": "s", "fold": [0, 2, None]}, geometry=shapes, crs=LONLAT
    )
    index["fold"] = index["fold"].astype("Int16")
    nowhere = Grid("", UTM.transform, 9, 9)
    scenes = [{"id": "s", "datetime": None, **UTM.to_dict()}, {"id": "n", "datetime": None, **nowhere.to_dict()}]  # fmt: skip
    return ground_table(Opened({"scenes": scenes}, index, split), parts)


def test_the_ground_of_a_model_is_that_of_each_side():
    lattice = Lattice(UTM.crs, UTM.bounds, assign(3, 3, 0), 20.0)
    lon, lat = lonlat(UTM)
    fold = lattice.on(UTM)[0]
    table = ground_of(lattice, [Part(k, (k + 1) % 3, k) for k in range(3)])
    assert len(table) == 9 and set(table["scene"]) == {"s"}
    for row in table.itertuples():
        wanted = {"test": row.member, "val": (row.member + 1) % 3, "train": (row.member + 2) % 3}
        inner = shapely.contains_xy(row.geometry, lon, lat)
        assert (inner == (fold == wanted[row.role])).mean() > 0.99
    table = ground_of(Scattered(900.0, PLAIN, 0), [Part(0, 1, 2)]).set_index("role").geometry
    assert set(table.index) == {"train", "test"}
    assert (shapely.contains_xy(table["train"], lon, lat)[:, :40]).all()
    assert (shapely.contains_xy(table["test"], lon, lat)[:, 40:80]).all()
    [one] = ground_of(None, [Part(0, None, None)]).itertuples()
    assert one.role == "train" and one.geometry.equals(footprint(UTM.outline()))


class Constant(torch.nn.Module):
    """A network that always says one class, loudly or softly."""

    def __init__(self, number: int, height: float) -> None:
        super().__init__()
        self.number, self.height = number, height

    def physical(self, outputs):
        return outputs

    def forward(self, batch):
        out = torch.zeros(len(batch.images), 3, *batch.images.shape[-2:])
        out[:, self.number] = self.height
        return out


def test_ground_of_no_fold_is_mapped_by_the_mean_of_all_members():
    answers = Answers(Aim("classes", "pixel", (), ("a", "b", "c")))
    members = [Constant(0, 1), Constant(1, 1), Constant(2, 9)]
    mapper = Mapper(members, answers, devices.pick("cpu"), "none")
    batch = Batch(torch.zeros(1, 1, 2, 1, 4), torch.ones(1, 1, 1, 4, dtype=torch.bool))
    laid = lattice.lay((1, 4), 1, halo=0, stride=1, blend=None)

    def ids(folds):
        [said] = mapper.ask(batch, [(0, 0)], laid, folds)
        return answers.of(said[None])["map"].tolist()

    assert ids([np.array([[0, 1, 2, NONE]], np.uint8)]) == [[[[0, 1, 2, 2]]]]
    assert ids(None) == [[[[2, 2, 2, 2]]]]


def test_no_map_is_out_of_fold_where_tiles_were_dealt_at_random(tmp_path, capsys):
    plain = Scattered(512.0, (1,) * 5, 0).to_dict()
    head = {"halo": 8, "folds": 5, "aim": {"kind": "classes", "per": "pixel", "names": ["a", "b"], "binary": False}, "sensors": [{"frames": 1}], "codes": [], "network": {"encoder": "pixel", "head": "linear", "adapter": None}, "split": plain, "geoml": record("train", "model", {}, []) | {"members": {}}}  # fmt: skip
    (tmp_path / "model").mkdir()
    (tmp_path / "model/model.json").write_text(json.dumps(head))
    (tmp_path / "a.tif").touch()
    argv = ["predict", str(tmp_path / "a.tif"), "--model", str(tmp_path / "model"), "--out-of-fold"]
    assert run([*argv, "-o", str(tmp_path / "maps")]) == 1
    said = capsys.readouterr().err
    assert "dealt at random" in said and said.count("\n") == 1 and not (tmp_path / "maps").exists()
