"""`geoml align` of polygons and lines, CRASAR's JSON, and `evaluate --task alignment`."""

import json
import runpy
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from scipy import stats
from shapely import affinity

from geoml_cli.cli import run
from geoml_cli.core.edge_votes import edge_maps, sample_normals, vote
from geoml_cli.errors import GeomlError
from geoml_cli.formats import crasar
from geoml_cli.geo import displacements, offsets
from geoml_cli.geo.grid import Grid
from geoml_cli.geo.outlines import outline_of, sides_of
from geoml_cli.geo.overlaps import new_overlaps, part, translate
from geoml_cli.geo.touching import bodies, move_sheet, touching

TOWN = runpy.run_path(str(Path(__file__).parents[1] / "examples/align-buildings/town.py"))
GRID = Grid("EPSG:32637", TOWN["PLACE"], TOWN["HIGH"], TOWN["WIDE"])


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    """A folder with ortho.tif, right.gpkg, drawn.gpkg and aligned.parquet; only to read."""
    folder = tmp_path_factory.mktemp("town")
    TOWN["main"](folder)
    line = ["align", str(folder / "drawn.gpkg"), "--to", str(folder / "ortho.tif")]
    assert run([*line, "-o", str(folder / "aligned.parquet")]) == 0
    return folder


def boxes(*corners: tuple[float, float, float, float]) -> np.ndarray:
    return np.array([shapely.box(*one) for one in corners], object)


def test_footprints_come_back_onto_their_roofs(town):
    right, drawn = (geopandas.read_file(town / f"{n}.gpkg") for n in ("right", "drawn"))
    found = geopandas.read_parquet(town / "aligned.parquet")
    off = [t.distance(right.centroid).to_numpy() / 0.15 for t in (drawn.centroid, found.centroid)]
    assert off[0].mean() > 12 and off[1].mean() < 0.6
    assert list(found["id"]) == list(drawn["id"]) and found.crs == drawn.crs
    step = np.stack([found.centroid.x - drawn.centroid.x, found.centroid.y - drawn.centroid.y], 1)
    np.testing.assert_allclose(found[["dx_px", "dy_px"]], step / [0.15, -0.15], atol=1e-6)
    length = np.hypot(found.dx_m, found.dy_m)  # on the ground: the grid's scale is .9996 there
    np.testing.assert_allclose(length * 0.9996, np.hypot(*step.T), rtol=1e-4)


def test_confidence_and_deviation_hold_what_they_say(town):
    right = geopandas.read_file(town / "right.gpkg")
    found = geopandas.read_parquet(town / "aligned.parquet")
    error = found.centroid.distance(right.centroid).to_numpy() / 0.15
    size = np.sqrt(right.area.to_numpy()) / 0.15
    sure = found.confidence.to_numpy()
    assert abs((error <= 0.1 * size).mean() - sure.mean()) < 0.1
    assert np.quantile(error / found.sd_px, 0.9) < 3


def test_what_lies_right_stays_to_the_bit(town, tmp_path):
    out = tmp_path / "same.gpkg"
    assert (
        run(["align", str(town / "right.gpkg"), "--to", str(town / "ortho.tif"), "-o", str(out)])
        == 0
    )
    before, after = geopandas.read_file(town / "right.gpkg"), geopandas.read_file(out)
    assert shapely.equals_exact(before.geometry, after.geometry, 0).all()
    assert set(after.status) == {"right"}


def test_over_ground_that_shows_nothing_of_them_all_stay(town, tmp_path):
    with rasterio.open(town / "ortho.tif") as src:
        profile = {**src.profile, "driver": "GTiff"}
    noise = np.random.default_rng(0).integers(0, 200, (3, GRID.height, GRID.width), np.uint8)
    with rasterio.open(tmp_path / "other.tif", "w", **profile) as out:
        out.write(noise)
    line = ["align", str(town / "drawn.gpkg"), "--to", str(tmp_path / "other.tif")]
    assert run([*line, "-o", str(tmp_path / "x.gpkg")]) == 0
    found = geopandas.read_file(tmp_path / "x.gpkg")
    assert set(found.status) == {"stayed"} and found.confidence.max() < 0.5
    assert found.geometry.equals(geopandas.read_file(town / "drawn.gpkg").geometry)


@pytest.mark.slow
def test_the_same_run_gives_the_same_bytes(town, tmp_path):
    line = ["align", str(town / "drawn.gpkg"), "--to", str(town / "ortho.tif")]
    assert run([*line, "-o", str(tmp_path / "again.parquet")]) == 0
    one, two = (
        geopandas.read_parquet(p) for p in (town / "aligned.parquet", tmp_path / "again.parquet")
    )
    assert one.equals(two)
    assert run([*line, "-o", str(town / "aligned.parquet")]) == 0  # up to date


def as_crasar(table: geopandas.GeoDataFrame, version: str | None, drawn_by: str) -> list[dict]:
    there = table.to_crs("OGC:CRS84").geometry
    out = []
    for k, (here, far) in enumerate(zip(table.geometry, there, strict=True)):
        x, y = (~GRID.transform) * np.array(here.exterior.coords).T
        one = {"label": "no damage", drawn_by: "custom" if k == 3 else "Microsoft"}
        one["pixels"] = [{"x": float(a), "y": float(b)} for a, b in zip(x, y, strict=True)]
        one["EPSG:4326"] = [{"lon": a, "lat": b} for a, b in far.exterior.coords]
        one |= {"id": f"b{k}"} if version is None else {"view_id": f"v{k}", "building_id": f"b{k}"}
        out.append(one | ({} if version is None else {"payload_version": version}))
    return out


@pytest.mark.parametrize(
    ("version", "key"), [(None, "source"), ("1.1", "source"), ("2.0", "geometry_source")]
)
def test_crasar_s_buildings_are_read_and_written_in_their_version(town, tmp_path, version, key):
    plain = as_crasar(geopandas.read_file(town / "drawn.gpkg"), version, key)
    path = tmp_path / "ortho.geo.tif.json"
    path.write_text(json.dumps(plain))
    if version is None:  # held against the other run: the same shapes but for the custom one
        assert (
            run(
                [
                    "align",
                    str(path),
                    "--to",
                    str(town / "ortho.tif"),
                    "-o",
                    str(tmp_path / "o.json"),
                ]
            )
            == 0
        )
        found = json.loads((tmp_path / "o.json").read_text())
        aligned = geopandas.read_parquet(town / "aligned.parquet")
        assert found[3]["pixels"] == plain[3]["pixels"] and not found[3]["adjusted"]
        moved = [(o["alignment"]["dx_px"], o["alignment"]["dy_px"]) for o in found]
        off = np.delete(np.array(moved) - aligned[["dx_px", "dy_px"]], 3, 0)
        assert np.abs(off).max() < 0.5
        assert (
            run(
                [
                    "align",
                    str(path),
                    "--to",
                    str(town / "ortho.tif"),
                    "-o",
                    str(tmp_path / "o.json"),
                ]
            )
            == 0
        )
    objects = crasar.read_objects(str(path), GRID)
    assert objects.kind == "buildings" and list(np.flatnonzero(objects.custom)) == [3]
    crasar.write_objects(tmp_path / "w.json", objects, objects.xy, GRID, [{}] * len(plain))
    assert json.loads((tmp_path / "w.json").read_text()) == [
        {**o, "adjusted": False, "alignment": {}} for o in plain
    ]


@pytest.mark.parametrize("degrees", [True, False])
def test_swapped_axes_are_found(town, tmp_path, degrees):
    plain = as_crasar(geopandas.read_file(town / "drawn.gpkg"), None, "source")
    straight = [[(p["x"], p["y"]) for p in o["pixels"]] for o in plain]
    for one in plain:
        one["pixels"] = [{"x": p["y"], "y": p["x"]} for p in one["pixels"]]
        if not degrees:
            del one["EPSG:4326"]
    (tmp_path / "s.json").write_text(json.dumps(plain))
    found = crasar.read_objects(str(tmp_path / "s.json"), GRID)
    assert found.swapped and np.allclose(found.xy[0], straight[0])


def test_adjustments_are_read_kept_and_told_to_neighbours(town, tmp_path):
    (tmp_path / "none.json").write_text("[[[0, 0], [0, 0]]]")
    assert len(crasar.read_arrows(str(tmp_path / "none.json"), GRID)) == 0
    drawn = geopandas.read_file(town / "drawn.gpkg")
    corner = (~GRID.transform) * np.array(drawn.geometry[5].exterior.coords[0])
    arrows = np.array([[corner, np.array(corner) + [-20, 30]]])
    crasar.write_arrows(tmp_path / "a.json", arrows)
    np.testing.assert_allclose(crasar.read_arrows(str(tmp_path / "a.json"), GRID), arrows)
    line = [
        "align",
        str(town / "drawn.gpkg"),
        "--to",
        str(town / "ortho.tif"),
        "-o",
        str(tmp_path / "o.geojson"),
    ]
    assert run([*line, "--adjustments", str(tmp_path / "a.json")]) == 0
    found = geopandas.read_file(tmp_path / "o.geojson")
    assert found.status[5] == "given" and found.confidence[5] == 1
    np.testing.assert_allclose([found.dx_px[5], found.dy_px[5]], [-20, 30], atol=1e-6)


def test_roads_follow_the_nearest_arrow_of_each_vertex(town, tmp_path):
    line = shapely.LineString([(100, 100), (500, 100), (900, 100)])
    drawn = affinity.affine_transform(line, GRID.transform.to_shapely())
    geopandas.GeoDataFrame(geometry=[drawn], crs=GRID.crs).to_file(tmp_path / "r.gpkg")
    crasar.write_arrows(
        tmp_path / "a.json", np.array([[[90, 90], [95, 90]], [[880, 100], [880, 108]]])
    )
    command = ["align", str(tmp_path / "r.gpkg"), "--to", str(town / "ortho.tif")]
    assert run([*command, "-o", str(tmp_path / "o.gpkg")]) == 2  # neither arrows nor a width
    told = ["--adjustments", str(tmp_path / "a.json"), "-o", str(tmp_path / "o.gpkg")]
    assert run([*command, *told]) == 0
    found = geopandas.read_file(tmp_path / "o.gpkg").geometry[0]
    back = affinity.affine_transform(found, (~GRID.transform).to_shapely())
    np.testing.assert_allclose(back.coords, [(105, 100), (500, 108), (900, 108)], atol=1e-5)


def test_votes_are_most_where_the_square_is():
    image = np.zeros((1, 120, 120), np.float32)
    image[0, 40:80, 50:90] = 1
    valid = np.ones((120, 120), bool)
    outline = outline_of(shapely.box(50 - 7, 40 + 5, 90 - 7, 80 + 5))
    votes = vote(edge_maps(image, valid), sample_normals(*outline), np.zeros(2, int), 12)
    row, col = np.unravel_index(votes.argmax(), votes.shape)
    assert abs(col - 12 - 7) <= 1 and abs(row - 12 + 5) <= 1
    masked = edge_maps(image, valid & (np.arange(120) < 70))
    assert not masked[:, :, 68:].any() and masked[:, 45:75, 50].any()


def test_outlines_are_as_long_as_shapely_says():
    shape = shapely.Point(3, 4).buffer(30).difference(shapely.box(0, 0, 9, 9))
    found = outline_of(shape)
    assert found.length.sum() == pytest.approx(shape.length)
    assert np.allclose(shapely.distance(shape.boundary, shapely.points(found.xy)), 0, atol=1e-9)
    assert np.allclose(np.hypot(*found.normal.T), 1)
    road = sides_of(np.array([[0.0, 0], [50, 0], [50, 40]]), 1, 8, 20)
    line = shapely.LineString([[30, 0], [50, 0], [50, 20]])
    assert np.allclose(shapely.distance(line, shapely.points(road.xy)).max(), 4)
    assert road.length.sum() == pytest.approx(80)


def test_neighbours_tell_as_a_dense_gaussian_process_would():
    rng = np.random.default_rng(0)
    xy, scales = rng.uniform(0, 100, (12, 2)), displacements.Scales(3.0, 40.0, 0.7)
    sites = displacements.Gaussians(rng.normal(0, 3, (12, 2)), rng.uniform(0.2, 2, (12, 2)))
    told = displacements.told_by_others(displacements.nearest(xy), sites, scales)
    apart = np.linalg.norm(xy[:, None] - xy[None], axis=-1)
    like = 9 * np.exp(-((apart / 40) ** 2) / 2) + 1e7  # a mean that is not known: a wide one
    for i, axis in ((0, 0), (7, 1)):
        rest = np.arange(12) != i
        matrix = like[np.ix_(rest, rest)] + np.diag(0.49 + sites.var[rest, axis])
        pull = np.linalg.solve(matrix, like[rest, i])
        assert told.mean[i, axis] == pytest.approx(pull @ sites.mean[rest, axis], abs=1e-3)
        assert told.var[i, axis] == pytest.approx(1e7 + 9 + 0.49 - pull @ like[rest, i], abs=0.05)


def test_gaussian_votes_give_the_product_of_gaussians():
    ticks = np.arange(-30, 31) * 0.5
    grid = np.exp(-0.5 * ((ticks[None] - 3) ** 2 + (ticks[:, None] + 2) ** 2) / 4)[None]
    votes = displacements.Votes(grid, np.zeros((1, 2)), 0.5, 61)
    told = displacements.Gaussians(np.zeros((1, 2)), np.full((1, 2), 8.0))
    _, found = displacements.tilt(votes, told)
    np.testing.assert_allclose(found.mean, [[2, -4 / 3]], atol=0.01)
    np.testing.assert_allclose(found.var, 8 / 3 + 0.25 / 12, rtol=0.01)
    share = displacements.share_within(votes, told, found.mean, np.array([2.0]))
    assert share[0] == pytest.approx(1 - np.exp(-4 / 2 / (8 / 3)), abs=0.03)


def test_a_smooth_field_is_found_among_false_votes():
    rng = np.random.default_rng(1)
    xy = rng.uniform(0, 1000, (80, 2))
    truth = np.stack([8 + 6 * np.sin(xy[:, 0] / 300), -5 + 4 * np.cos(xy[:, 1] / 300)], 1)
    ticks = np.arange(-25, 26.0)
    at = np.where(
        rng.random((80, 1)) < 0.4, rng.uniform(-25, 25, (80, 2)), truth
    )  # four of ten false
    votes = np.exp(
        -0.5 * ((ticks - at[:, :1])[:, None] ** 2 + (ticks - at[:, 1:])[:, :, None] ** 2) / 9
    )
    votes += 0.9 * np.exp(
        -0.5 * ((ticks - truth[:, :1])[:, None] ** 2 + (ticks - truth[:, 1:])[:, :, None] ** 2) / 9
    )
    start = displacements.Gaussians(np.zeros((80, 2)), np.full((80, 2), 150.0))
    grids = displacements.Votes(displacements.likelihood(votes), np.zeros((80, 2)), 1.0, 51)
    field = displacements.settle(
        grids, start, displacements.scales_of(30, 60), displacements.nearest(xy)
    )
    alone = np.abs(ticks[votes.max(1).argmax(1)] - truth[:, 0])
    assert np.abs(field.found.mean - truth).max() < 2 < alone.max()


def test_walls_stay_shared_and_nothing_new_overlaps():
    pair = boxes((0, 0, 10, 10), (10, 2, 20, 8), (40, 0, 50, 10), (52, 0, 60, 10))
    assert list(touching(pair)) == [0, 0, 1, 2]
    body, sheet = bodies(pair)
    assert body[0] == body[1] and not sheet.any()
    shift = np.array([[1.0, 2], [6, 0], [-3, 0]])
    moved = translate(pair, part(pair, body, shift, np.ones(3), np.full(3, 99.0))[body])
    assert not len(new_overlaps(pair, moved)) and len(
        new_overlaps(pair, translate(pair, shift[body]))
    )
    assert shapely.intersection(moved[0], moved[1]).length == pytest.approx(6)
    apart = boxes((0, 0, 9, 9), (30, 30, 39, 39))
    free = np.array([[3.0, 0], [0, 5]])
    assert np.array_equal(part(apart, np.arange(2), free, np.ones(2), np.ones(2)), free)
    tight = part(pair, body, shift, np.array([1.0, 9, 9]), np.array([0.0, 0, 0]))
    assert np.array_equal(tight, shift)  # what is sure does not give way


def test_a_sheet_stays_a_coverage():
    rng = np.random.default_rng(0)
    cells = [(10 * x, 10 * y, 10 * x + 10, 10 * y + 10) for x in range(5) for y in range(4)]
    sheet = boxes(*cells[:-1], (40, 30, 45, 40), (45, 30, 50, 40))  # with a corner on an edge
    assert bodies(sheet)[1].all()
    moved = move_sheet(sheet, rng.normal(0, 1, (len(sheet), 2)), rng.uniform(1, 2, len(sheet)))
    whole = shapely.union_all(moved)
    assert whole.geom_type == "Polygon" and not whole.interiors
    assert shapely.area(moved).sum() == pytest.approx(whole.area)


def test_scores_are_those_of_scipy_numpy_and_shapely(town, tmp_path):
    paths = [str(town / n) for n in ("aligned.parquet", "right.gpkg", "drawn.gpkg")]
    line = ["evaluate", paths[0], "--truth", paths[1], "--task", "alignment", "--before", paths[2]]
    assert run([*line, "--bootstrap", "50", "-o", str(tmp_path / "s.json")]) == 0
    said = {
        k: v["value"] for k, v in json.loads((tmp_path / "s.json").read_text())["metrics"].items()
    }
    after, right, drawn = (
        geopandas.read_parquet(paths[0]),
        *(geopandas.read_file(p) for p in paths[1:]),
    )
    error = after.centroid.distance(right.centroid)
    overlap = after.intersection(right).area / after.union(right).area
    before = (drawn.intersection(right).area / drawn.union(right).area).mean()
    needed = np.stack([right.centroid.x - drawn.centroid.x, right.centroid.y - drawn.centroid.y], 1)
    assert said["error_mean_m"] == pytest.approx(error.mean(), rel=1e-3)
    assert said["error_p90_px"] == pytest.approx(np.quantile(error, 0.9) / 0.15, rel=2e-3)
    assert said["iou"] == pytest.approx(overlap.mean(), abs=1e-6)
    assert said["relative_gain"] == pytest.approx(
        (overlap.mean() - before) / (1 - before), abs=1e-5
    )
    assert said["share_above_08"] == (overlap > 0.8).mean()
    assert said["circular_variance"] == pytest.approx(
        stats.circvar(np.arctan2(*needed.T[::-1])), abs=1e-6
    )
    assert said["length_variation"] == pytest.approx(stats.variation(np.hypot(*needed.T)), rel=1e-4)
    affine = np.c_[np.ones(len(drawn)), drawn.centroid.x - 5e5, drawn.centroid.y - 4e6]
    left = needed - affine @ np.linalg.lstsq(affine, needed, rcond=None)[0]
    assert said["affine_error_mean_m"] == pytest.approx(np.hypot(*left.T).mean(), rel=1e-3)
    assert run([*line[:6], "--fail-if", "iou<0.999", "-o", str(tmp_path / "t.json")]) == 1
    told = json.loads((tmp_path / "t.json").read_text())[
        "metrics"
    ]  # before, from the columns alone
    assert told["iou_before"]["value"] == pytest.approx(before, abs=1e-4)


def test_polynomials_of_their_degree_are_explained_whole():
    xy = np.random.default_rng(0).uniform(0, 100, (30, 2))
    shift = np.stack([3 + 0.1 * xy[:, 0], xy[:, 0] * xy[:, 1] / 500], 1)
    assert (
        np.abs(offsets.fit(xy, shift, 2) - shift).max()
        < 1e-9
        < np.abs(offsets.fit(xy, shift, 1) - shift).max()
    )
    assert offsets.circular_variance(np.array([[1.0, 0], [-2, 0]])) == pytest.approx(1)


def test_road_lines_move_by_vertex_and_stay_joined(tmp_path):
    image = np.full((1, 500, 700), 90, np.uint8)
    image[0, 236:264] = 180
    image[0, :, 336:364] = 180
    noise = np.random.default_rng(0).normal(0, 4, image.shape)
    place = Affine(0.3, 0, 500_000, 0, -0.3, 4_000_000)
    kind = {
        "driver": "GTiff",
        "count": 1,
        "dtype": "uint8",
        "crs": "EPSG:32637",
        "transform": place,
    }
    with rasterio.open(tmp_path / "o.tif", "w", height=500, width=700, **kind) as out:
        out.write((image + noise).clip(0, 255).astype(np.uint8))
    lines = [[(x, 250) for x in range(50, 351, 60)], [(350, 250), (420, 250), (650, 250)],
             [(350, y) for y in range(50, 451, 50)]]  # fmt: skip
    moved = [shapely.LineString(np.array(one) + [9, -7]) for one in lines]
    drawn = [affinity.affine_transform(one, place.to_shapely()) for one in moved]
    geopandas.GeoDataFrame(geometry=drawn, crs="EPSG:32637").to_file(tmp_path / "r.gpkg")
    line = [
        "align",
        str(tmp_path / "r.gpkg"),
        "--to",
        str(tmp_path / "o.tif"),
        "--road-width",
        "8.4",
    ]
    assert run([*line, "--reach", "30", "-o", str(tmp_path / "a.gpkg")]) == 0
    found = geopandas.read_file(tmp_path / "a.gpkg")
    back = [affinity.affine_transform(one, (~place).to_shapely()) for one in found.geometry]
    along = np.array(back[0].coords)[:-1], np.array(back[2].coords)
    assert np.abs(along[0][:, 1] - 250).mean() < 2 and np.abs(along[1][:, 0] - 350).mean() < 2
    ends = [np.array(one.coords) for one in back]
    assert (ends[0][-1] == ends[1][0]).all() and (ends[2] == ends[0][-1]).all(1).any()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (["drawn.gpkg", "-o", "x.shp"], "name NAME.parquet, NAME.gpkg or NAME.geojson"),
        (["drawn.gpkg", "-o", "x.json"], "name NAME.parquet"),
        (["drawn.gpkg", "right.gpkg", "-o", "x.gpkg"], "one vector file a run"),
        (["far.gpkg", "-o", "x.gpkg"], "no shape lies on"),
        (["points.gpkg", "-o", "x.gpkg"], "polygons or lines can be aligned"),
        (["bad.json", "-o", "x.json"], "payload_version 9"),
    ],
)
def test_what_cannot_be_meant_is_said_in_a_line(town, tmp_path, monkeypatch, capsys, line, says):
    monkeypatch.chdir(tmp_path)
    for name in ("drawn.gpkg", "right.gpkg", "ortho.tif"):
        Path(name).symlink_to(town / name)
    square = shapely.box(0, 0, 1, 1)
    geopandas.GeoDataFrame(geometry=[square], crs="EPSG:32637").to_file("far.gpkg")
    geopandas.GeoDataFrame(geometry=[square.centroid], crs="EPSG:32637").to_file("points.gpkg")
    Path("bad.json").write_text('[{"pixels": [{"x": 1, "y": 2}], "payload_version": "9"}]')
    assert run(["align", *line, "--to", "ortho.tif"]) in (1, 2)
    assert says in capsys.readouterr().err
    assert not list(Path().glob("x.*"))


def test_adjustments_are_no_shapes():
    with pytest.raises(GeomlError, match="no such file"):
        crasar.read_objects("none.json", GRID)
