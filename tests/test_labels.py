"""Label layers: what is burnt is what lies there, told by shapely, numpy, GDAL and the ellipsoid."""

import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import geopandas
import made
import numpy as np
import pytest
import rasterio
import rasterio.warp
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as some
from pyproj import Geod

from geoml_cli.errors import GeomlError
from geoml_cli.geo.bounds import project
from geoml_cli.geo.buffers import widened
from geoml_cli.geo.classes import legend
from geoml_cli.geo.grid import Grid, Window, between
from geoml_cli.stages.labels import Layer, Wish, burn, of_tile

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
GRID = Grid("EPSG:32633", Affine(10, 0, 500_000, 0, -10, 5_000_000), 60, 80)
WHOLE = Window(0, 0, 60, 80)
NAMES = np.array(["a", "b", "c"])


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def blobs(count=12, seed=0, grid=GRID):
    """Polygons, some with a hole, that overlap each other and the rim of a grid."""
    rng = np.random.default_rng(seed)
    west, south, east, north = grid.bounds
    out = []
    for x, y in rng.uniform((west, south), (east, north), (count, 2)):
        ring = shapely.Point(x, y).buffer(rng.uniform(40, 180), quad_segs=3)
        out.append(ring.difference(shapely.Point(x, y).buffer(25)) if rng.random() < 0.5 else ring)
    return np.array(out)


def save(shapes, crs="EPSG:32633", path="labels.gpkg", **columns):
    columns = columns or {"class": NAMES[np.arange(len(shapes)) % 3]}
    geopandas.GeoDataFrame(columns, geometry=list(shapes), crs=crs).to_file(path)
    return path


def layer(path="labels.gpkg", column="class", **more):
    return Layer(Wish(path, column=column, **more))


def burnt(opened, grid=GRID, window=None):
    return burn(opened.on(grid), grid, window or Window(0, 0, grid.height, grid.width))


def centres(grid=GRID):
    rows, cols = np.mgrid[: grid.height, : grid.width]
    return grid.xy(rows, cols)


def on_top(shapes, grid=GRID):
    """The number of the last shape that holds each pixel's centre; -1 where none does."""
    x, y = centres(grid)
    top = np.full(x.shape, -1)
    for i, shape in enumerate(shapes):
        top[shapely.contains_xy(shape, x, y)] = i
    return top


def test_a_pixel_has_the_class_of_the_last_polygon_that_holds_its_centre():
    shapes = blobs()
    save(shapes)
    top = on_top(shapes)
    expected = np.where(top < 0, 255, top % 3)
    got = burnt(layer())
    assert got.dtype == np.uint8 and (got == expected).all()
    assert [c.name for c in layer().classes] == ["a", "b", "c"]
    assert 0.2 < (got != 255).mean() < 0.95


@given(some.integers(-20, 70), some.integers(-20, 70), some.integers(1, 40), some.booleans())
def test_a_window_shows_what_the_whole_shows(row, col, size, touched):
    opened = _opened(touched)
    whole = burnt(opened)
    got = burn(opened.on(GRID), GRID, Window(row, col, size, size))
    rows, cols = np.arange(row, row + size), np.arange(col, col + size)
    on_r, on_c = (rows >= 0) & (rows < 60), (cols >= 0) & (cols < 80)
    assert (got[np.ix_(on_r, on_c)] == whole[np.ix_(rows[on_r], cols[on_c])]).all()


def _opened(touched, known={}):  # noqa: B006 - kept between examples
    if touched not in known:
        wiggly = [shape.segmentize(2) for shape in blobs(seed=4)]  # hundreds of vertices each
        known[touched] = layer(save(wiggly), all_touched=touched)
    return known[touched]


@pytest.mark.parametrize("grid_crs", ["EPSG:32633", "EPSG:4326", "EPSG:3035"])
@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:4326", "EPSG:3857"])
def test_polygons_much_larger_than_a_grid_keep_their_edges(crs, grid_crs):
    x, y = between("OGC:CRS84", grid_crs).transform(15.2, 45.1)
    step = 2e-4 if grid_crs == "EPSG:4326" else 20
    grid = Grid(grid_crs, Affine(step, 0, x, 0, -step, y), 60, 80)
    angle = np.linspace(0, 2 * np.pi, 20_000, endpoint=False)
    away = 300_000 + 400 * np.sin(angle * 900)  # a rim that winds, through the middle of the grid
    u, v = between(grid_crs, "EPSG:32633").transform(x + 40 * step, y - 30 * step)
    ring = np.stack(
        [u - 300_000 * 0.6 + away * np.cos(angle), v - 300_000 * 0.8 + away * np.sin(angle)], 1
    )
    shape = project(shapely.Polygon(ring), "EPSG:32633", crs)
    save([shape], crs=crs)
    expected = shapely.contains_xy(shape, *between(grid_crs, crs).transform(*centres(grid)))
    got = burnt(layer(), grid) == 0
    assert 0.1 < expected.mean() < 0.9 and (got == expected).mean() > 0.999
    assert sum(map(len, layer().on(grid).shapes)) < 40_000  # not the whole rim: 320 kB


def test_all_touched_covers_every_pixel_that_a_polygon_meets():
    shapes = blobs(4, seed=2)
    save(shapes)
    got = burnt(layer(all_touched=True)) != 255
    boxes = [shapely.box(*GRID.crop(Window(r, c, 1, 1)).bounds) for r, c in np.ndindex(60, 80)]
    area = shapely.area(shapely.intersection(np.array(boxes), shapely.union_all(shapes)))
    assert got[(area > 1e-3).reshape(60, 80)].all()
    assert not got[
        (shapely.distance(boxes, shapely.union_all(shapes)) > 1e-6).reshape(60, 80)
    ].any()


def test_long_edges_bend_on_their_way_to_another_crs():
    grid = Grid("EPSG:3035", Affine(500, 0, 4_000_000, 0, -500, 3_500_000), 90, 1000)
    box = shapely.box(4.2, 54.05, 25, 54.2)  # in degrees its edges follow parallels
    save([box], crs="EPSG:4326")
    lon, lat = between(grid.crs, "EPSG:4326").transform(*centres(grid))
    inside = shapely.contains_xy(box, lon, lat)
    got = burnt(layer(), grid) != 255
    assert inside.any() and (got != inside).mean() < 2e-4
    ends = shapely.contains_xy(project(box, "EPSG:4326", grid.crs), *centres(grid))
    assert (ends != inside).mean() > 0.05  # with corners alone it would lie elsewhere


def test_the_same_shapes_in_any_crs_fall_on_the_same_pixels():
    save(blobs())
    ours = burnt(layer())
    for crs in ("EPSG:4326", "EPSG:32634", "EPSG:3857", "EPSG:3035"):
        geopandas.read_file("labels.gpkg").to_crs(crs).to_file("other.gpkg")
        assert (burnt(layer("other.gpkg")) == ours).mean() > 0.998


@pytest.mark.parametrize("lat", [0.02, 45, -70])
@pytest.mark.parametrize("crs", ["OGC:CRS84", "EPSG:3857"])
def test_a_buffered_line_has_its_area_on_the_ground(lat, crs):
    geod, width = Geod(ellps="WGS84"), 150
    xy = np.array([(15.0, lat), (15.03, lat + 0.01), (15.04, lat - 0.015)])
    line = shapely.LineString(xy)
    save([project(line, "OGC:CRS84", crs)], crs=crs)
    length = geod.geometry_length(line)
    corner = np.diff(shapely.get_coordinates(_flat(line, lat)), axis=0)
    turn = np.arccos((corner[0] @ corner[1]) / np.prod(np.linalg.norm(corner, axis=1)))
    # a strip and two half circles; inside of a corner the strips overlap
    area = 2 * width * length + np.pi * width**2 - width**2 * (np.tan(turn / 2) - turn / 2)
    utm = f"EPSG:{32633 if lat > 0 else 32733}"
    x, y = between("OGC:CRS84", utm).transform(15.02, lat)
    grid = Grid(utm, Affine(10, 0, x - 4000, 0, -10, y + 4000), 800, 800)
    held = (burnt(layer(buffer_m=width), grid) != 255).sum()
    assert held * 100 == pytest.approx(area, rel=0.01)
    degrees = [shapely.from_wkb(shape) for shape in layer(buffer_m=width).on(grid).shapes]
    ground = abs(geod.geometry_area_perimeter(project(degrees[0], utm, "OGC:CRS84"))[0])
    assert ground == pytest.approx(area, rel=0.01)


def _flat(line, lat):
    scale = np.array([np.cos(np.radians(lat)), 1])
    return shapely.transform(line, lambda xy: xy * scale)


def test_points_and_long_lines_are_widened_everywhere():
    geod = Geod(ellps="WGS84")
    points = shapely.points([(0, 0), (179.9999, 65), (33, -84), (-60, 90), (10, -90)])
    for shape in widened(points, 2000):
        area = sum(abs(geod.geometry_area_perimeter(p)[0]) for p in shapely.get_parts(shape))
        assert area == pytest.approx(np.pi * 2000**2, rel=0.02)
        west, south, east, north = shape.bounds
        assert -180 <= west and east <= 180 and -90 <= south and north <= 90
    line = shapely.LineString([(5, 10), (5, 62)])
    area, _ = geod.geometry_area_perimeter(widened(np.array([line]), 5000)[0])
    length = geod.geometry_length(line)
    assert abs(area) == pytest.approx(10_000 * length + np.pi * 5000**2, rel=0.005)


def test_points_label_the_pixel_that_holds_them_and_order_holds_between_kinds():
    inside, x, y = shapely.box(500_100, 4_999_700, 500_400, 4_999_900), 500_205, 4_999_805
    shapes = [shapely.Point(x, y), inside, shapely.MultiPoint([(x + 40, y), (500_003, 4_999_999)])]
    save(shapes)
    got = burnt(layer())
    row, col = 19, 20
    assert got[row, col] == 1  # the polygon comes later than the point
    assert got[row, col + 4] == 2 and got[0, 0] == 2 and (got == 2).sum() == 2
    assert (got == 1).sum() == 30 * 20 - 1 and (got != 255).sum() == 30 * 20 + 1


def test_burn_order_is_that_of_a_column():
    shapes, rank = blobs(), np.random.default_rng(3).permutation(12)
    save(shapes, **{"class": NAMES[np.arange(12) % 3], "rank": rank})
    order = np.argsort(rank)
    top = on_top(shapes[order])
    expected = np.where(top < 0, 255, order[top] % 3)
    assert (burnt(layer(order="rank")) == expected).all()
    assert (burnt(layer()) != expected).any()


def test_background_and_area_of_validity():
    shapes, area = blobs(5), shapely.Point(500_400, 4_999_700).buffer(200)
    save(shapes)
    save([area], path="area.gpkg")
    top, within = on_top(shapes), on_top([area]) == 0
    opened = layer(background="rest", area="area.gpkg")
    assert [c.name for c in opened.classes] == ["a", "b", "c", "rest"]
    expected = np.where(within, np.where(top < 0, 3, top % 3), 255)
    assert (burnt(opened) == expected).all()
    made.write("area.tif", within[None].astype(np.uint8))
    assert (burnt(layer(background="rest", area="area.tif")) == expected).all()
    known = layer(background="b")
    assert len(known.classes) == 3
    assert (burnt(known) == np.where(top < 0, 1, top % 3)).all()


def test_a_class_map_merges_renames_orders_colours_and_ignores():
    shapes = blobs()
    save(shapes, kind=np.arange(12) % 4)
    with open("map.csv", "w") as file:
        file.write("value;name;color;id\n3.0;tree;#00FF00;1\n1;tree;;1\n0;;;\n2;water;#0000ff;0\n")
    opened = layer(column="kind", classes="map.csv", background="water")
    assert [(c.id, c.name, c.color) for c in opened.classes] == [
        (0, "water", "#0000ff"),
        (1, "tree", "#00ff00"),
    ]
    top = on_top(shapes)
    ids = np.array([255, 1, 0, 1])
    assert (burnt(opened) == np.where(top < 0, 0, ids[top % 4])).all()


def test_a_legend_has_colours_for_all_where_the_map_takes_the_whole_palette():
    palette = [c.color for c in legend([str(i) for i in range(16)])]
    taken = {str(i): color for i, color in enumerate(palette)}
    assert len(set(palette)) == 16
    assert [c.color for c in legend([*taken, "one more"], taken)][:16] == palette


def test_the_rest_of_the_values_and_values_that_no_row_names():
    save(blobs(), kind=np.arange(12))
    with open("map.csv", "w") as file:
        file.write("value,name\n*,other\n7,seven\n")
    opened = layer(column="kind", classes="map.csv")
    assert [c.name for c in opened.classes] == ["other", "seven"]
    top = on_top(blobs())
    assert (burnt(opened) == np.where(top < 0, 255, top == 7)).all()
    assert set(np.unique(burnt(Layer(Wish("labels.gpkg", classes="map.csv"))))) == {0, 255}
    with open("map.csv", "w") as file:
        file.write("value,name\n7,seven\n")
    with pytest.raises(GeomlError, match=r"map.csv: does not name the values 0, 1, 2, .* 1 more"):
        layer(column="kind", classes="map.csv")


def test_values_of_polygons_and_the_mean_of_points_in_a_pixel():
    shapes = blobs(6)
    rng = np.random.default_rng(5)
    height = rng.normal(size=6)
    save(shapes, height=height)
    got, top = burnt(layer(column="height", kind="values")), on_top(shapes)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, np.where(top < 0, np.nan, height[top]).astype(np.float32))
    xy, height = (
        rng.uniform((500_000, 4_999_900), (500_100, 5_000_000), (300, 2)),
        rng.normal(size=300),
    )
    save(shapely.points(xy), height=height)
    opened = layer(column="height", kind="values", background="-7")
    sums, counts = np.zeros((60, 80)), np.zeros((60, 80))
    for (x, y), h in zip(xy, height, strict=True):
        at = int((5_000_000 - y) // 10), int((x - 500_000) // 10)
        sums[at] += h
        counts[at] += 1
    expected = np.where(counts, sums / np.maximum(counts, 1), -7)
    np.testing.assert_allclose(burnt(opened), expected, rtol=1e-5)
    assert counts.max() > 3


@pytest.mark.parametrize("kind", ["classes", "values"])
def test_the_label_of_a_tile(kind):
    size, rng = 20, np.random.default_rng(1)
    save(blobs(8), **{"class": NAMES[np.arange(8) % 3], "height": rng.normal(size=8)})
    column = "class" if kind == "classes" else "height"
    for row in (-5, 0, 17, 40):
        for col in (0, 33, 60):
            window = Window(row, col, size, size)
            told = {}
            for per in (
                ("majority", "present", "centre") if kind == "classes" else ("mean", "centre")
            ):
                opened = layer(column=column, kind=kind, per=per)
                pixels = burnt(opened, window=window)
                told[per] = of_tile(opened.on(GRID), pixels, GRID, window)
            middle = pixels[10, 10]
            if kind == "values":
                seen = pixels[~np.isnan(pixels)]
                assert told["mean"] == (pytest.approx(seen.mean(), abs=1e-6) if len(seen) else None)
                assert told["centre"] == (None if np.isnan(middle) else middle)
                continue
            found = pixels[pixels != 255].tolist()
            assert told["present"] == (sorted(set(found)) or None)
            assert told["majority"] == (max(range(3), key=found.count) if found else None)
            assert told["centre"] == (None if middle == 255 else middle)


def test_the_label_of_a_tile_is_that_of_the_point_nearest_to_its_centre():
    rng = np.random.default_rng(9)
    xy = rng.uniform((500_000, 4_999_400), (500_800, 5_000_000), (60, 2))
    save(shapely.points(xy), **{"class": NAMES[np.arange(60) % 3], "height": np.arange(60.0)})
    for row, col in np.ndindex(6, 8):
        window = Window(row * 10, col * 10, 10, 10)
        middle = np.array([500_050 + col * 100, 4_999_950 - row * 100])
        inside = np.flatnonzero((np.abs(xy - middle) < 50).all(axis=1))
        nearest = inside[np.hypot(*(xy[inside] - middle).T).argmin()] if len(inside) else None
        for column, kind in (("class", "classes"), ("height", "values")):
            opened = layer(column=column, kind=kind, per="centre")
            pixels = burnt(opened, window=window)
            told = of_tile(opened.on(GRID), pixels, GRID, window)
            want = None if nearest is None else nearest % 3 if kind == "classes" else nearest
            assert told == want
            if nearest is None:
                continue
            r, c = (int(v) // 10 for v in (5_000_000 - xy[nearest, 1], xy[nearest, 0] - 500_000))
            pixels[r - window.row, c - window.col] = 255 if kind == "classes" else np.nan
            cells = (xy[inside] - (500_000, 5_000_000)) // 10
            left = inside[(cells != cells[inside == nearest]).any(axis=1)]
            again = of_tile(opened.on(GRID), pixels, GRID, window)  # its ground is not valid
            second = left[np.hypot(*(xy[left] - middle).T).argmin()] if len(left) else None
            assert again == (
                None if second is None else second % 3 if kind == "classes" else second
            )


def raster(path, data, crs="EPSG:32633", transform=None, **more):
    transform = transform or GRID.transform
    return str(made.write(path, data[None], crs=crs, transform=transform, names=("b",), **more))


def test_a_class_raster_on_the_same_pixels_is_read_as_it_is():
    truth = np.random.default_rng(0).integers(-1, 4, (70, 90)).astype(np.int16)
    raster("labels.tif", truth, transform=Affine(10, 0, 499_950, 0, -10, 5_000_050), nodata=2)
    with open("map.csv", "w") as file:
        file.write("value,name\n-1,\n0,x\n1,y\n3,x\n")
    opened = Layer(Wish("labels.tif", classes="map.csv"))
    ids = np.array([255, 0, 1, 255, 0])
    assert (burnt(opened) == ids[truth + 1][5:65, 5:85]).all()
    beyond = burn(opened.on(GRID), GRID, Window(-7, -7, 10, 10))
    assert (beyond[:2] == 255).all() and (beyond[2:, 2:] == ids[truth + 1][:8, :8]).all()
    assert [c.name for c in Layer(Wish("labels.tif")).classes] == ["-1", "0", "1", "3"]


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:4326", "EPSG:3857"])
def test_a_class_raster_on_another_grid_is_what_gdal_makes_of_it(crs):
    truth = made.regions(400, 400, seed=3)
    there = Grid("EPSG:32633", Affine(4, 0, 499_800, 0, -4, 5_000_300), 400, 400)
    if crs == "EPSG:32633":
        transform, data = Affine(20, 0, 499_800, 0, -20, 5_000_300), truth[:100, :100]  # 2x
    else:
        data, transform = rasterio.warp.reproject(
            truth + 1,
            src_transform=there.transform,
            src_crs=there.crs,
            dst_crs=crs,
            init_dest_nodata=True,
            dst_nodata=0,
        )
        data = data[0] if data.ndim == 3 else data
    raster("labels.tif", data, crs=crs, transform=transform, nodata=0 if crs != "EPSG:32633" else 9)
    expected = np.full((60, 80), 255, np.uint8)
    rasterio.warp.reproject(
        data.astype(np.uint8),
        expected,
        src_transform=transform,
        src_crs=crs,
        dst_transform=GRID.transform,
        dst_crs=GRID.crs,
        resampling=rasterio.warp.Resampling.nearest,
        init_dest_nodata=False,
        tolerance=0,
    )
    got = burnt(Layer(Wish("labels.tif")))
    values = sorted(set(np.unique(data)) - ({0} if crs != "EPSG:32633" else set()))
    back = np.append(values, [255] * (256 - len(values)))[got]
    assert (back == expected).mean() > 0.99 and (got != 255).mean() > 0.9


def test_a_raster_of_values_keeps_scale_nodata_and_its_mean_on_coarser_pixels():
    rng = np.random.default_rng(2)
    stored = rng.integers(1, 1000, (120, 160)).astype(np.int16)
    stored[:8, :8] = -1
    fine = Affine(5, 0, 500_000, 0, -5, 5_000_000)
    path = raster("height.tif", stored, transform=fine, nodata=-1)
    with rasterio.open(path, "r+") as dataset:
        dataset.scales, dataset.offsets, dataset.units = (0.1,), (-3,), ("m",)
    opened = Layer(Wish("height.tif", kind="values"))
    assert (opened.unit, opened.dtype, opened.classes) == ("m", "float32", [])
    got = burnt(opened)
    means = stored.reshape(60, 2, 80, 2).astype(float).mean((1, 3)) * 0.1 - 3
    assert np.isnan(got[:4, :4]).all() and np.isnan(got).sum() == 16
    np.testing.assert_allclose(got[8:, 8:], means[8:, 8:], rtol=1e-4)
    same = Grid("EPSG:32633", fine, 120, 160)
    np.testing.assert_allclose(burnt(opened, same)[8:], stored[8:] * 0.1 - 3, rtol=1e-5)
    parts = [burnt(opened, window=Window(r, c, 30, 20)) for r in (0, 30) for c in (0, 20, 40, 60)]
    joined = np.block([[*parts[:4]], [*parts[4:]]])
    np.testing.assert_array_equal(joined, got)
    plain = raster("plain.tif", stored.astype(np.float32), transform=fine)
    assert Layer(Wish(plain)).kind == "values"


def test_labels_across_the_antimeridian():
    box = shapely.box(179.9, -17.1, 180.1, -16.9).difference(
        shapely.box(179.98, -17.02, 180.02, -16.98)
    )
    halves = [
        shapely.intersection(box, shapely.box(179, -18, 180, -16)),
        shapely.transform(
            shapely.intersection(box, shapely.box(180, -18, 181, -16)), lambda xy: xy - [360, 0]
        ),
    ]
    leaping = shapely.transform(
        box, lambda xy: np.stack([(xy[:, 0] + 180) % 360 - 180, xy[:, 1]], 1)
    )
    utm = Grid("EPSG:32701", Affine(200, 0, 160_000, 0, -200, 8_130_000), 150, 200)
    beyond = Grid("EPSG:4326", Affine(0.002, 0, 179.8, 0, -0.002, -16.8), 200, 200)
    lon, lat = between("EPSG:32701", "OGC:CRS84").transform(*centres(utm))
    for shape in (box, shapely.MultiPolygon(halves), leaping):
        save([shape], crs="EPSG:4326")
        expected = shapely.contains_xy(box, lon % 360, lat)
        assert expected.any() and ((burnt(layer(), utm) == 0) == expected).mean() > 0.999
        got = burnt(layer(), beyond) == 0
        assert (got == shapely.contains_xy(box, *centres(beyond))).mean() > 0.998
    save([project(box, "EPSG:4326", "EPSG:32701")], crs="EPSG:32701")
    got = burnt(layer(), beyond) == 0
    assert (got == shapely.contains_xy(box, *centres(beyond))).mean() > 0.998


def test_a_layer_is_plain_data_that_opens_again_and_is_safe_in_threads():
    shapes, area = blobs(), shapely.Point(500_400, 4_999_700).buffer(250)
    save(shapes, kind=np.arange(12) % 4)
    save([area], path="area.gpkg")
    with open("map.csv", "w") as file:
        file.write("value,name\n1,tree\n*,\n2,water\n")
    vector = layer(column="kind", classes="map.csv", area="area.gpkg", background="bare")
    raster("labels.tif", made.regions(60, 80))
    for opened in (vector, Layer(Wish("labels.tif"))):
        plain = json.loads(json.dumps(opened.to_dict()))
        again = Layer.again(plain)
        assert again.to_dict() == opened.to_dict() and again.classes == opened.classes
        labels, other = opened.on(GRID), pickle.loads(pickle.dumps(again.on(GRID)))
        assert labels == other and hash(labels) == hash(other)
        windows = [Window(r, c, 9, 11) for r in range(0, 60, 3) for c in range(0, 80, 5)]
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda w: burn(other, GRID, w), windows))  # noqa: B023
        whole = np.pad(burnt(opened), ((0, 9), (0, 11)))
        for window, got in zip(windows, found, strict=True):
            seen = got[: 60 - window.row, : 80 - window.col]
            assert (seen == whole[window.slices][: seen.shape[0], : seen.shape[1]]).all()


def test_inputs_name_every_file_and_follow_their_content():
    save(blobs())
    save([shapely.Point(500_400, 4_999_700).buffer(250)], path="area.gpkg")
    with open("map.csv", "w") as file:
        file.write("value,name\na,x\nb,y\nc,x\n")
    first = layer(classes="map.csv", area="area.gpkg").inputs()
    assert [one.path for one in first] == ["labels.gpkg", "map.csv", "area.gpkg"]
    assert [one.role for one in first] == ["labels", "classes", "label-area"] and len(
        {one.digest for one in first}
    ) == 3
    with open("map.csv", "a") as file:
        file.write("d,y\n")
    second = layer(classes="map.csv", area="area.gpkg").inputs()
    assert [a == b for a, b in zip(first, second, strict=True)] == [True, False, True]


def test_masks_of_pictures_share_one_legend():
    grid = Grid("", Affine.scale(1, -1), 20, 30)
    masks = {f"masks/{i}.png": made.regions(20, 30, seed=i) + 2 * i for i in range(3)}
    Path("masks").mkdir()
    for path, mask in masks.items():
        with rasterio.open(
            path, "w", driver="PNG", width=30, height=20, count=1, dtype="uint8"
        ) as out:
            out.write(mask.astype(np.uint8), 1)
    opened = Layer.of_many(Wish("masks"), list(masks))
    again = Layer.again(opened.to_dict() | {"masks": dict(enumerate(masks))})
    assert again.classes == opened.classes and again.inputs() == opened.inputs()
    values = [int(c.name) for c in opened.classes]
    assert values == sorted(set(np.concatenate([m.ravel() for m in masks.values()]).tolist()))
    for path, mask in masks.items():
        got = burn(opened.on_file(path, grid), grid, Window(0, 0, 20, 30))
        assert (np.array(values)[got] == mask).all()
    assert len(opened.inputs()) == 1
    with pytest.raises(GeomlError, match="30 x 20 pixels, its image 31 x 20"):
        opened.on_file("masks/0.png", Grid("", Affine.scale(1, -1), 20, 31))


def test_features_without_a_label_are_left_out_with_a_word(caplog):
    shapes = blobs(4)
    save(shapes, **{"class": ["a", None, "a", " "], "height": [1, 2, None, 3]})
    with caplog.at_level("WARNING", "geoml"):
        got = burnt(layer())
    assert "2 of 4 features have no class; left out" in caplog.text
    assert ((got == 0) == (on_top(shapes[[0, 2]]) >= 0)).all()
    got = burnt(layer(column="height", kind="values"))
    assert (np.isnan(got) == (on_top(shapes[[0, 1, 3]]) < 0)).all()


BAD_MAPS = {
    "name\nx\n": "no column 'value'",
    "value,name\n,x\n": "line 2: no value",
    "value,name\na,x\na,y\n": "line 3: value a has a row already",
    "value,name,color\na,x,red\n": "line 2: color 'red'; write it as #rrggbb",
    "value,name,id\na,x,-1\n": "line 2: id '-1'",
    "value,name,id\na,x,0\nb,y,0\n": "classes x and y share the id 0",
    "value,name,id\na,x,0\nb,y,2\n": "ids 0, 2; 2 classes have the ids 0 to 1",
    "value,name,id\na,x,0\nb,y,\n": "class y has no id",
    "value,name\na,\n": "names no class",
    "value,name\na,x,y,z\n": "line 2: 4 cells under 2 headings",
}


@pytest.mark.parametrize("text", BAD_MAPS)
def test_a_class_map_that_is_wrong_is_refused_in_one_line(text):
    save(blobs(3))
    with open("map.csv", "w") as file:
        file.write(text)
    with pytest.raises(GeomlError) as found:
        layer(classes="map.csv")
    assert BAD_MAPS[text] in str(found.value) and "\n" not in str(found.value)


def test_labels_that_are_wrong_are_refused_in_one_line():
    save(blobs(3), **{"class": list("abc"), "height": ["1", "tall", "x"], "mixed": [1, 2, 3]})
    save([shapely.LineString([(500_000, 4_999_000), (500_500, 4_999_900)])], path="lines.gpkg")
    save([shapely.Point(500_000, 4_999_000)], crs="EPSG:4326", path="metres.gpkg")
    save(shapely.points(np.full((300, 2), (500_000, 4_999_000))), path="many.gpkg", kind=range(300))
    with open("table.csv", "w") as file:
        file.write("lon,lat,class\n15,45,a\n")
    truth = np.zeros((60, 80))
    raster("float.tif", truth)
    raster("byte.tif", truth.astype(np.uint8))
    made.write("two.tif", np.zeros((2, 60, 80), np.uint8))
    wrong = [
        (Wish("labels.gpkg"), "which column holds the class?"),
        (Wish("labels.gpkg", kind="values"), "which column holds the value?"),
        (Wish("labels.gpkg", column="nope"), "no column 'nope'; it has class, height, mixed"),
        (Wish("labels.gpkg", column="class", order="nope"), "no column 'nope'"),
        (
            Wish("labels.gpkg", column="height", kind="values"),
            "no number in row 2 ('tall'), 3 ('x')",
        ),
        (Wish("labels.gpkg", column="class", per="mean"), "'mean' is not for classes"),
        (Wish("labels.gpkg", column="mixed", kind="values", per="majority"), "not for values"),
        (Wish("labels.gpkg", column="class", per="tile"), "not 'tile'"),
        (Wish("labels.gpkg", column="class", kind="numbers"), "not 'numbers'"),
        (Wish("labels.gpkg", column="class", name="a/b"), "layer 'a/b'"),
        (Wish("labels.gpkg", column="class", buffer_m=-1), "a buffer of -1 m"),
        (Wish("labels.gpkg", column="class", area="lines.gpkg"), "the area of labels is polygons"),
        (Wish("labels.gpkg", column="mixed", kind="values", background="x"), "write a number"),
        (Wish("labels.gpkg", column="mixed", kind="values", classes="m.csv"), "m.csv: "),
        (Wish("labels.gpkg", column="class", classes="m.csv"), "m.csv: no such file"),
        (Wish("lines.gpkg", column="class"), "give a buffer in metres"),
        (Wish("metres.gpkg", column="class"), "no degrees in EPSG:4326"),
        (Wish("many.gpkg", column="kind"), "300 classes; there is room for 255"),
        (Wish("table.csv", column="class"), "ogr2ogr"),
        (Wish("missing.gpkg", column="class"), "no such file"),
        (Wish("https://example.org/x.geojson", column="class"), "local files"),
        (Wish("float.tif", kind="classes"), "classes are whole numbers, this is float64"),
        (Wish("byte.tif", column="class"), "a column is for vector files"),
        (Wish("byte.tif", all_touched=True), "a rule for touched pixels is for vector files"),
        (Wish("two.tif"), "labels are one band, this has 2"),
    ]
    for wish, words in wrong:
        with pytest.raises(GeomlError) as found:
            Layer(wish)
        assert words in str(found.value) and "\n" not in str(found.value), wish
