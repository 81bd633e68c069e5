"""Layouts of windows: where they lie, what they leave out, and how often."""

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from hypothesis import assume, given
from hypothesis import strategies as st
from pyproj import Geod, Transformer
from rasterio.transform import from_origin
from scipy.stats import chi2
from shapely import segmentize
from shapely.geometry import Polygon, box

from geoml_cli import registry
from geoml_cli.errors import GeomlError, UsageMistake
from geoml_cli.geo.field import Field, Pick, choose
from geoml_cli.geo.grid import LONLAT, Bounds, Grid, Window
from geoml_cli.geo.windows import EDGES, blocks, starts

PARITY = Path(__file__).parents[2] / "shared" / "parity" / "torchgeo_samplers.json"
UTM = from_origin(500_000, 5_000_000, 10, 10)
RANDOM = ["random", "area", "balanced"]


def none(path):
    raise AssertionError(f"{path} was asked for")


def flat(height: int, width: int) -> Grid:
    return Grid("EPSG:32633", UTM, height, width)


def field(*grids, size, stride=None, strata=None, read_strata=none, read_places=none) -> Field:
    pair = size if isinstance(size, tuple) else (size, size)
    step = stride if isinstance(stride, tuple) else (stride or pair[0], stride or pair[1])
    return Field(tuple(grids), pair, step, strata, read_strata, read_places)


def draw(spec: str, over: Field, seed: int = 0) -> list[Pick]:
    rng = np.random.Generator(np.random.PCG64(seed))
    return registry.make("samplers", spec, over, rng)


def of(maps):
    """The strata of places whose classes are arrays."""
    return lambda place, window: maps[place][window.slices]


def near(counts, shares) -> bool:
    """Whether counts follow shares: a chi-square test that fails one time in a thousand."""
    expected = np.asarray(shares) / np.sum(shares) * np.sum(counts)
    assert (expected > 5).all(), "too few for the test"
    score = float(((np.asarray(counts) - expected) ** 2 / expected).sum())
    return score < chi2.ppf(0.999, len(expected) - 1)


LENGTHS = {
    "length": st.integers(1, 400),
    "size": st.integers(1, 130),
    "stride": st.integers(1, 130),
}


@given(**LENGTHS)
def test_windows_leave_no_ground_out(length, size, stride):
    for edge in ("pad", "shift"):
        firsts = starts(length, size, stride, edge)
        assert firsts == sorted(set(firsts)) and firsts[0] == 0
        seen = {p for first in firsts for p in range(first, first + size)}
        if stride <= size:
            assert seen >= set(range(length))
            without_last = {p for first in firsts[:-1] for p in range(first, first + size)}
            assert not without_last >= set(range(length)), "the last window is there for nothing"
        assert all(first < length for first in firsts), "a window beside the scene"


@given(**LENGTHS)
def test_shifted_and_dropped_windows_stick_out_nowhere(length, size, stride):
    dropped = starts(length, size, stride, "drop")
    assert dropped == [f for f in range(0, length, stride) if f + size <= length]
    shifted = starts(length, size, stride, "shift")
    if length >= size:
        assert all(0 <= first <= length - size for first in shifted)
        assert shifted[: len(dropped)] == dropped and len(shifted) - len(dropped) <= 1
    else:
        assert shifted == starts(length, size, stride, "pad") == [0] and not dropped


@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    size=st.tuples(st.integers(1, 50), st.integers(1, 50)),
)
def test_blocks_cover_a_scene_exactly_once(height, width, size):
    seen = np.zeros((height, width), int)
    for block in blocks(height, width, size):
        assert 0 < block.height <= size[0] and 0 < block.width <= size[1]
        seen[block.slices] += 1
    assert (seen == 1).all()


PAIRS = st.tuples(st.integers(1, 40), st.integers(1, 40))
LAYOUTS = {
    "shape": st.tuples(st.integers(1, 90), st.integers(1, 90)),
    "size": PAIRS,
    "stride": PAIRS,
    "edge": st.sampled_from(EDGES),
    "origin": st.sampled_from(["upper-left", "lower-left"]),
}


def layout(shape, size, stride, edge, origin) -> list[Pick]:
    return draw(f"grid:edge={edge},origin={origin}", field(flat(*shape), size=size, stride=stride))


def painted(shape, windows, margin=90) -> np.ndarray:
    """How many windows hold each pixel of a scene and of `margin` pixels round it."""
    seen = np.zeros((shape[0] + 2 * margin, shape[1] + 2 * margin), int)
    for window in windows:
        seen[Window(window.row + margin, window.col + margin, *window[2:]).slices] += 1
    return seen


def rimmed(shape, seen, margin=90) -> np.ndarray:
    return seen[margin : margin + shape[0], margin : margin + shape[1]]


@given(**LAYOUTS)
def test_a_grid_covers_the_scene_and_sticks_out_only_where_told(shape, size, stride, edge, origin):
    picks = layout(shape, size, stride, edge, origin)
    windows = [p.window for p in picks]
    assert len(set(windows)) == len(windows) and all(w[2:] == size for w in windows)
    seen = painted(shape, windows)
    outside = seen.sum() - rimmed(shape, seen).sum()
    fits = shape[0] >= size[0] and shape[1] >= size[1]
    if edge == "drop":
        assert outside == 0 and (fits or not picks)
    if edge == "shift" and fits:
        assert outside == 0
    if edge != "drop" and all(s <= z for s, z in zip(stride, size, strict=True)):
        assert (rimmed(shape, seen) > 0).all()


GAPS = st.sampled_from([0, 0, 0, 1, 7, 60])


@given(**{**LAYOUTS, "stride": st.tuples(GAPS, GAPS)})
def test_what_windows_own_holds_each_pixel_once(shape, size, stride, edge, origin):
    stride = (size[0] + stride[0], size[1] + stride[1])
    picks = layout(shape, size, stride, edge, origin)
    own = rimmed(shape, painted(shape, [p.own or p.window for p in picks]))
    every = rimmed(shape, painted(shape, [p.window for p in picks]))
    assert ((own == 1) == (every > 0)).all() and own.max(initial=0) <= 1
    if stride == size and edge != "drop":
        assert (own == 1).all()
    before = np.zeros_like(own)  # what each owns is all that no earlier window holds
    for pick in picks:
        mine = rimmed(shape, painted(shape, [pick.window]))
        owned = rimmed(shape, painted(shape, [pick.own or pick.window]))
        assert (owned == mine * (before == 0)).all()
        before += mine


@given(**LAYOUTS)
def test_windows_that_overlap_by_the_stride_own_all_they_hold(shape, size, stride, edge, origin):
    assume(all(s < z for s, z in zip(stride, size, strict=True)))
    assert all(p.own is None for p in layout(shape, size, stride, edge, origin))


@given(**LAYOUTS)
def test_a_grid_from_below_is_the_one_from_above_upside_down(shape, size, stride, edge, origin):
    def turned(window):
        return window and Window(shape[0] - window.row - window.height, *window[1:])

    above = layout(shape, size, stride, edge, "upper-left")
    below = layout(shape, size, stride, edge, "lower-left")
    assert [Pick(p.place, turned(p.window), turned(p.own)) for p in above] == below


def test_a_hundred_thousand_windows_are_laid_at_once():
    over = field(flat(84_000, 84_000), size=256)
    picks = draw("grid", over)
    assert len(picks) == math.ceil(84_000 / 256) ** 2 == 108_241
    last = 84_000 - 256
    assert picks[-1] == Pick(0, Window(last, last, 256, 256), Window(83_968, 83_968, 32, 32))


def both(value, by=(1, 1)) -> tuple[int, int]:
    pair = value if isinstance(value, list) else [value, value]
    return tuple(round(v / b) for v, b in zip(pair, by, strict=True))


def parity_cases():
    return json.loads(PARITY.read_text())["cases"] if PARITY.is_file() else []


def parity_field(case) -> Field:
    across, down = case["res"]
    per_pixel = (down, across) if case["units"] == "crs" else (1, 1)
    grids = []
    for west, south, east, north in case["boxes"]:
        if case["roi"]:
            west, south = max(west, case["roi"][0]), max(south, case["roi"][1])
            east, north = min(east, case["roi"][2]), min(north, case["roi"][3])
        shape = int((north - south) // down), int((east - west) // across)
        grids.append(Grid("EPSG:32633", from_origin(west, north, across, down), *shape))
    size = both(case["size"], per_pixel)
    stride = size if case["stride"] is None else both(case["stride"], per_pixel)
    return field(*grids, size=size, stride=stride)


@pytest.mark.skipif(not PARITY.is_file(), reason=f"{PARITY} is not here")
@pytest.mark.parametrize("case", parity_cases())
def test_the_grid_is_torchgeos_where_asked(case):
    over = parity_field(case)
    boxes = [
        list(over.grids[p.place].crop(p.window).bounds) for p in draw("grid:like=torchgeo", over)
    ]
    assert boxes == case["grid_windows_xmin_ymin_xmax_ymax"]
    assert len(draw("random", over)) == case["random_default_length"]
    assert len(draw("random:like=torchgeo", over)) == case["random_default_length"]


@given(shape=LAYOUTS["shape"], size=PAIRS, stride=PAIRS)
def test_torchgeos_grid_follows_its_published_formula(shape, size, stride):
    over = field(flat(*shape), size=size, stride=stride)
    windows = [p.window for p in draw("grid:like=torchgeo", over)]
    if any(n < s for n, s in zip(shape, size, strict=True)):
        assert not windows
        return
    rows, cols = (math.ceil((n - s) / t) + 1 for n, s, t in zip(shape, size, stride, strict=True))
    south, west = over.grids[0].bounds.south, over.grids[0].bounds.west
    corners = [
        (west + j * stride[1] * 10, south + i * stride[0] * 10)
        for i in range(rows)
        for j in range(cols)
    ]
    assert [over.grids[0].crop(w).bounds[:2] for w in windows] == corners


def test_torchgeos_grid_starts_in_the_south_of_a_grid_that_runs_south_up():
    up = Grid("EPSG:32633", Affine(10, 0, 0, 0, 10, 0), 50, 40)
    windows = [p.window for p in draw("grid:like=torchgeo", field(up, size=32))]
    assert [w[:2] for w in windows] == [(0, 0), (0, 32), (32, 0), (32, 32)]


def test_random_windows_have_every_position_with_the_same_chance():
    over = field(flat(12, 9), flat(8, 30), flat(3, 3), flat(5, 7), size=(5, 7))
    picks = draw("random:count=30000", over)
    counts = Counter((p.place, *p.window[:2]) for p in picks)
    room = {0: (8, 3), 1: (4, 24), 3: (1, 1)}
    every = [
        (i, r, c) for i, (down, across) in room.items() for r in range(down) for c in range(across)
    ]
    assert sum(counts[p] for p in every) == len(picks) == 30000
    assert near([counts[p] for p in every], np.ones(len(every)))


def test_torchgeos_random_windows_follow_area_and_miss_the_last_position():
    wide = Grid("EPSG:32633", from_origin(0, 0, 20, 20), 8, 30)
    over = field(flat(12, 9), wide, flat(3, 300), flat(5, 7), size=(5, 7))
    picks = draw("random:count=30000,like=torchgeo", over)
    places = Counter(p.place for p in picks)
    assert set(places) == {0, 1, 3}
    assert near([places[0], places[1], places[3]], [12 * 9 * 100, 8 * 30 * 400, 5 * 7 * 100])
    first = Counter(p.window[:2] for p in picks if p.place == 0)
    # int(u * (12 - 5)) rows up from the lowest, int(u * (9 - 7)) columns from the left
    every = [(7 - up, right) for up in range(7) for right in range(2)]
    assert set(first) == set(every) and near([first[p] for p in every], np.ones(len(every)))


GLOBE = Grid(LONLAT, from_origin(-180, 90, 0.5, 0.5), 360, 720)


def middle_latitudes(picks, grid) -> np.ndarray:
    return np.array(
        [grid.transform.f + grid.transform.e * (p.window.row + p.window.height / 2) for p in picks]
    )


def test_area_draws_rows_of_a_geographic_grid_by_the_ground_under_them():
    lat = middle_latitudes(draw("area:count=20000", field(GLOBE, size=2)), GLOBE)
    edges = np.linspace(-80, 80, 9)
    geod = Geod(ellps="WGS84")
    bands = [
        abs(geod.geometry_area_perimeter(segmentize(box(0, a, 10, b), 0.05))[0])
        for a, b in zip(edges[:-1], edges[1:], strict=True)
    ]
    assert near(np.histogram(lat, edges)[0], bands)
    cosine = np.diff(np.sin(np.radians(edges)))
    assert np.array(bands) / sum(bands) == pytest.approx(cosine / cosine.sum(), rel=0.01)
    even = middle_latitudes(draw("random:count=20000", field(GLOBE, size=2)), GLOBE)
    assert not near(np.histogram(even, edges)[0], bands), "the test tells the two apart"


def test_area_follows_the_scale_of_a_projection():
    world = Grid("EPSG:3857", from_origin(-2e7, 2e7, 1e5, 1e5), 400, 400)
    picks = draw("area:count=20000", field(world, size=2))
    y = np.array([2e7 - 1e5 * (p.window.row + 1) for p in picks])
    lat = np.array(Transformer.from_crs(3857, 4326, always_xy=True).transform(0 * y, y)[1])
    edges = np.linspace(-80, 80, 9)
    assert near(np.histogram(lat, edges)[0], np.diff(np.sin(np.radians(edges))))


def ground(grid: Grid) -> float:
    """Geodesic area of a grid by its outline, m2."""
    ring = Polygon(grid.outline(points=2001))
    return abs(Geod(ellps="WGS84").geometry_area_perimeter(ring)[0])


PLACES = {
    "degrees": Grid(LONLAT, from_origin(10, 61, 0.01, 0.01), 100, 150),
    "utm": flat(10_000, 9_000),
    "mercator": Grid("EPSG:3857", from_origin(1e6, 9e6, 500, 500), 2000, 1500),
    "polar": Grid("EPSG:3413", from_origin(1e5, -1e5, 1000, 1000), 800, 900),
    "laea": Grid("EPSG:3035", from_origin(4e6, 3e6, 100, 100), 3000, 2000),
    "turned": Grid("EPSG:32633", UTM * Affine.rotation(30), 4000, 3000),
    "turned degrees": Grid(
        LONLAT,
        Affine.translation(10, 50) * Affine.rotation(20) * Affine.scale(0.001, -0.001),
        900,
        800,
    ),
    "feet": Grid("EPSG:2263", from_origin(1e6, 2e5, 100, 100), 300, 200),
    "small": flat(7, 5),
}


@pytest.mark.parametrize("name", PLACES)
def test_ground_area_is_that_of_the_ellipsoid(name):
    grid = PLACES[name]
    cells, areas = registry.load("samplers", "area")._cells(grid, (0, 0), (grid.height, grid.width))
    assert areas.sum() == pytest.approx(ground(grid), rel=1e-3 if name == "polar" else 2e-4)
    assert (cells[:, 2] * cells[:, 3]).sum() == grid.height * grid.width


def test_area_deals_scenes_by_their_ground():
    grids = [PLACES[n] for n in ("degrees", "mercator", "feet", "utm")]
    places = Counter(p.place for p in draw("area:count=20000", field(*grids, size=64)))
    assert near([places[i] for i in range(4)], [ground(g) for g in grids])


def test_area_does_without_ground_that_a_projection_cannot_reach():
    disc = Grid("ESRI:54009", from_origin(-18_100_000, 9_100_000, 1e5, 1e5), 182, 362)  # Mollweide
    picks = draw("area:count=20000", field(disc, size=1))
    x, y = disc.xy(*np.array([p.window[:2] for p in picks]).T)
    lon, lat = Transformer.from_crs(disc.crs, LONLAT, always_xy=True).transform(x, y)
    assert np.isfinite(lon).mean() > 0.98  # cells are coarser than the rim is round
    edges = np.linspace(-80, 80, 9)
    share = np.histogram(lat[np.isfinite(lat)], edges, density=True)[0]
    want = np.diff(np.sin(np.radians(edges)))
    # equal-area, so only the rim, whose cells are left out, takes a little from the poles
    assert share / share.sum() == pytest.approx(want / want.sum(), rel=0.15)


def test_area_needs_to_know_where_a_scene_lies():
    with pytest.raises(GeomlError, match="without a CRS"):
        draw("area", field(Grid("", UTM, 50, 50), size=8))


def shares_of(picks, maps, size) -> Counter:
    """Classes of the central pixels of windows."""
    return Counter(
        int(maps[p.place][p.window.row + size // 2, p.window.col + size // 2]) for p in picks
    )


def test_balanced_gives_every_class_the_same_share():
    rng = np.random.default_rng(5)
    maps = [np.full((700, 1100), 255, np.uint8), np.full((300, 300), 7, np.uint8)]
    maps[0][100:600, 100:1000] = rng.choice([0, 2, 3], (500, 900), p=[0.95, 0.049, 0.001])
    over = field(*[flat(*m.shape) for m in maps], size=32, strata=of(maps))
    picks = draw("balanced:count=400", over)
    inner = maps[1][16:285, 16:285]  # pixels whose window need not be moved
    assert len(picks) == 400 and len({(p.place, p.window) for p in picks}) == 400
    counts = shares_of(picks, maps, 32)
    assert counts == {0: 100, 2: 100, 3: 100, 7: 100} and inner.size > 100


def test_balanced_draws_every_pixel_of_a_class_with_the_same_chance():
    classes = np.full((1300, 900), 255, np.uint8)
    classes[100:1200, 100:800] = 0
    classes[400:500, 300:800] = 1
    over = field(flat(1300, 900), size=9, strata=of([classes]))
    picks = draw("balanced:count=20000", over)
    centre = np.array([(p.window.row + 4, p.window.col + 4) for p in picks])
    edges = [np.linspace(100, 1200, 12), np.linspace(100, 800, 8)]
    cell = [np.histogram2d(*np.nonzero(classes == c), bins=edges)[0].ravel() for c in (0, 1)]
    drawn = classes[centre[:, 0], centre[:, 1]]
    for c in (0, 1):
        got = np.histogram2d(*centre[drawn == c].T, bins=edges)[0].ravel()
        assert (got[cell[c] == 0] == 0).all() and got.sum() == 10000
        assert near(got[cell[c] > 0], cell[c][cell[c] > 0])


@given(
    data=st.data(),
    size=st.integers(1, 9),
    count=st.integers(1, 60),
    seed=st.integers(0, 99),
)
def test_balanced_repeats_a_window_no_more_than_needed(data, size, count, seed):
    shape = data.draw(st.tuples(st.integers(9, 30), st.integers(9, 30)))
    rare = data.draw(st.integers(1, 5))
    classes = np.zeros(shape, np.uint8)
    flat_index = np.random.default_rng(seed).choice(classes.size, rare, replace=False)
    classes.flat[flat_index] = 1
    over = field(flat(*shape), size=size, strata=of([classes]))
    picks = draw(f"balanced:count={count}", over, seed)
    assert len(picks) == count
    offers = []
    for c in (0, 1):
        rows, cols = np.nonzero(classes == c)
        top = np.clip(rows - size // 2, 0, shape[0] - size)
        left = np.clip(cols - size // 2, 0, shape[1] - size)
        offers.append(set(zip(top.tolist(), left.tolist(), strict=True)))
    uses = Counter(p.window[:2] for p in picks)
    shares = {0: count // 2, 1: count - count // 2}  # the rarer has the odd one
    assert set(uses) <= offers[0] | offers[1]
    only_rare = sum(n for w, n in uses.items() if w in offers[1])
    assert only_rare >= shares[1]
    few = math.ceil(shares[1] / len(offers[1]))
    rest = max(len(offers[0] - offers[1]), 1)
    assert max(uses.values()) <= max(few, 1) + (shares[0] > rest) * math.ceil(shares[0] / rest)


def test_balanced_finds_every_window_of_a_scene_little_larger_than_a_tile():
    over = field(flat(300, 300), size=290, strata=of([np.zeros((300, 300), np.uint8)]))
    # most pixels lie at the rim, so that their windows are moved to the same few places
    windows = [p.window for p in draw("balanced:count=121", over)]
    assert len(set(windows)) == len(windows) == 11 * 11


def test_a_class_of_one_pixel_is_repeated_and_said_so(caplog):
    classes = np.zeros((64, 64), np.uint8)
    classes[30, 40] = 3
    picks = draw("balanced:count=20", field(flat(64, 64), size=16, strata=of([classes])))
    uses = Counter(p.window for p in picks)
    assert uses.pop(Window(22, 32, 16, 16)) == 10 and len(uses) == 10
    assert "class 3: 10 tiles asked, 1 that differ show it" in caplog.text


def test_balanced_takes_the_strata_of_a_file_and_gives_the_share_of_absent_ones_away():
    strata = np.repeat(np.array([[0, 4, 255]], np.uint8), 40, axis=1).repeat(80, axis=0)  # 80 x 120
    asked = []

    def read_strata(path):
        asked.append(path)
        return of([strata])

    over = field(flat(80, 120), size=8, read_strata=read_strata)
    picks = draw("balanced:count=31,stratum=zones.gpkg", over)
    assert asked == ["zones.gpkg"]
    counts = shares_of(picks, [strata], 8)
    assert sum(counts.values()) == 31 and set(counts) <= {0, 4}
    assert sorted(counts.values()) == [15, 16]


def test_balanced_looks_at_blocks_of_bounded_size():
    seen = []

    def strata(place, window):
        seen.append(window)
        return np.full(window[2:], window.row // 512 % 2, np.uint8)

    picks = draw("balanced:count=10", field(flat(2000, 1500), size=64, strata=strata))
    assert len(picks) == 10 and max(w.height * w.width for w in seen) <= 512 * 512
    assert len(seen) <= 2 * 4 * 3, "each block is read once to count, once more to draw"


def test_balanced_without_classes_is_a_mistake_and_without_pixels_empty():
    with pytest.raises(UsageMistake, match="give --labels, or balanced:stratum=FILE"):
        draw("balanced", field(flat(64, 64), size=16))
    empty = of([np.full((64, 64), 255, np.uint8)])
    assert draw("balanced", field(flat(64, 64), size=16, strata=empty)) == []


def test_a_file_gives_one_window_centred_on_each_feature(caplog):
    north, east = (
        flat(100, 120),
        Grid("EPSG:32633", from_origin(500_600, 5_000_000, 10, 10), 100, 120),
    )
    points = np.array(
        [
            (500_305, 4_999_495),  # pixel (50, 30) of the first alone
            (500_905, 4_999_395),  # (60, 90) of the first, (60, 30) of the second
            (500_001, 4_999_999),  # the first's corner
            (400_000, 4_999_395),  # nowhere
            (np.nan, np.nan),
            (501_799, 4_999_001),  # the second's far corner
            (500_305, 4_999_000),  # on the lower edge, which is beside the last row
        ]
    )
    over = field(north, east, size=(20, 30), read_places=lambda path: [points, points])
    picks = draw("file:path=points.gpkg", over)
    assert picks == [
        Pick(0, Window(40, 15, 20, 30), None),
        Pick(0, Window(50, 75, 20, 30), None),
        Pick(0, Window(0, 0, 20, 30), None),
        Pick(1, Window(50, 15, 20, 30), None),
        Pick(1, Window(80, 90, 20, 30), None),
    ]
    assert "points.gpkg: 3 of 7 features lie on no scene" in caplog.text


def test_a_file_has_to_be_named():
    with pytest.raises(UsageMistake, match="file:path=points.gpkg"):
        draw("file", field(flat(64, 64), size=16))


def test_scenes_smaller_than_a_tile_are_left_out_with_a_count(caplog):
    over = field(flat(64, 64), flat(15, 64), flat(16, 16), size=16)
    assert {p.place for p in draw("random:count=3000", over)} == {0, 2}
    assert caplog.text.count("1 of 3 scenes are smaller than a tile of 16 x 16 px") == 1
    assert draw("random:count=5", field(flat(9, 9), size=16)) == []
    assert draw("area:count=5", field(flat(9, 9), size=16)) == []


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("grid:edge=keep", "edge is shift or pad or drop"),
        ("grid:origin=south", "origin is upper-left or lower-left"),
        ("grid:like=rastervision", "like is torchgeo"),
        ("grid:like=torchgeo,edge=drop", "leave these out"),
        ("random:like=x", "like is torchgeo"),
        ("random:count=0", "at least 1"),
        ("area:count=-3", "at least 1"),
        ("balanced:count=0", "at least 1"),
    ],
)
def test_a_wrong_option_of_a_sampler_is_said(spec, says):
    strata = of([np.zeros((64, 64), np.uint8)])
    with pytest.raises(UsageMistake, match=says):
        draw(spec, field(flat(64, 64), size=16, strata=strata))


def test_files_that_options_name_are_declared():
    for name in registry.names("samplers"):
        files = registry.constant("samplers", name, "FILES") or ()
        options = registry.options("samplers", name)
        assert set(files) == {k for k in options if k in ("path", "stratum")}


def test_weights_that_differ_in_their_last_bits_draw_alike():
    weights = np.random.default_rng(3).random(1000)
    near_by = np.nextafter(weights, 2)
    a, b = (choose(np.random.Generator(np.random.PCG64(7)), w, 5000) for w in (weights, near_by))
    assert (a == b).all()
    counts = np.bincount(choose(np.random.Generator(np.random.PCG64(7)), weights[:9], 9000))
    assert near(counts, weights[:9])


@st.composite
def fields(draw):
    """Two or three scenes, some smaller than a tile, with classes and points on them."""
    shapes = draw(
        st.lists(st.tuples(st.integers(1, 70), st.integers(1, 70)), min_size=2, max_size=3)
    )
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    grids = [
        Grid(LONLAT, from_origin(10 + i, 50, 0.01, 0.01), *shape) if i % 2 else flat(*shape)
        for i, shape in enumerate(shapes)
    ]
    maps = [rng.choice(np.array([0, 1, 5, 255], np.uint8), shape) for shape in shapes]
    points = [np.stack(g.xy(*rng.uniform(-5, 75, (2, 8))), axis=1) for g in grids]
    return field(
        *grids,
        size=draw(st.tuples(st.integers(1, 40), st.integers(1, 40))),
        stride=draw(st.tuples(st.integers(1, 40), st.integers(1, 40))),
        strata=of(maps),
        read_strata=lambda path: of(maps),
        read_places=lambda path: points,
    )


def specs() -> list[str]:
    """Every sampler of the room, with what it cannot do without."""
    needs = {"file": "file:path=points.gpkg"}
    return [needs.get(name, name) for name in registry.names("samplers")]


@pytest.mark.parametrize("spec", specs())
@given(over=fields(), seed=st.integers(0, 9))
def test_every_sampler_gives_picks_that_lie_inside(spec, over, seed):
    picks = draw(spec, over, seed)
    again = draw(spec, over, seed)
    assert picks == again and isinstance(picks, list)
    for pick in picks:
        assert type(pick) is Pick and type(pick.window) is Window
        assert all(type(n) is int for n in (pick.place, *pick.window, *(pick.own or ())))
        grid, (row, col, height, width) = over.grids[pick.place], pick.window
        assert (height, width) == over.size and row >= 0 and col >= 0
        if grid.height >= height and grid.width >= width:
            assert row + height <= grid.height and col + width <= grid.width
        else:
            assert spec == "grid", "a scene smaller than a tile"
        if pick.own:
            top, left, tall, long = pick.own
            assert row <= top < top + tall <= row + height and tall > 0
            assert col <= left < left + long <= col + width and long > 0


@pytest.mark.parametrize("name", RANDOM)
def test_the_seed_decides_and_the_order_is_that_of_the_ground(name):
    maps = [np.arange(120 * 90, dtype=np.uint16).reshape(120, 90).astype(np.uint8) % 3] * 2
    over = field(flat(120, 90), flat(120, 90), size=16, strata=of(maps))
    one, same, other = (draw(f"{name}:count=50", over, seed) for seed in (1, 1, 2))
    assert one == same != other and len(one) == 50
    assert one == sorted(one, key=lambda p: (p.place, p.window[:2]))


@pytest.mark.parametrize("name", RANDOM)
def test_without_a_count_there_are_as_many_as_side_by_side(name):
    maps = [np.zeros((100, 90), np.uint8), np.zeros((16, 33), np.uint8)]
    over = field(flat(100, 90), flat(16, 33), size=16, strata=of(maps))
    assert len(draw(name, over)) == 7 * 6 + 1 * 3


def test_bounds_of_a_window_are_ground():
    """One window by hand, from its pixel to its coordinates."""
    [pick] = draw("grid:edge=drop,origin=lower-left", field(flat(50, 40), size=32))
    assert flat(50, 40).crop(pick.window).bounds == Bounds(500_000, 4_999_500, 500_320, 4_999_820)
