"""`geoml align` of rasters: known offsets are mended to parts of a pixel, or nothing moves and it is said."""

import json
from pathlib import Path

import geopandas
import made
import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from rasterio.warp import Resampling, calculate_default_transform, reproject
from scipy import ndimage
from test_aligners import land

from geoml_cli.cli import run
from geoml_cli.geo.grid import apply
from geoml_cli.stages import align_measure

SIDE, RES = 200, 10.0
HOME = from_origin(500_000, 5_000_000, RES, RES)


def bytes_of(image: np.ndarray) -> np.ndarray:
    """Values 1..255 (1, H, W)."""
    return np.clip(image * 40 + 128, 1, 255).round().astype(np.uint8)[None]


def cut(dx: float = 0, dy: float = 0, seed: int = 1, side: int = SIDE) -> np.ndarray:
    """Some land, shown dx, dy px to the right and down of where it is."""
    rows, cols = np.mgrid[:side, :side].astype(float) + 40
    return ndimage.map_coordinates(land(side + 80, seed), [rows - dy, cols - dx], order=5)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with ref.tif, moved.tif that is 2.4 px right and 1.7 px up of it, and other.tif of other ground."""
    monkeypatch.chdir(tmp_path)
    made.write(Path("ref.tif"), bytes_of(cut()), res=RES, names=("red",), nodata=0)
    made.write(Path("moved.tif"), bytes_of(cut(2.4, -1.7)), res=RES, names=("red",), nodata=0)
    made.write(Path("other.tif"), bytes_of(cut(seed=2)), res=RES, names=("red",), nodata=0)
    return tmp_path


def align(*words: str) -> int:
    return run(["align", *words, "--device", "cpu"])


def estimate(path: str) -> dict:
    return json.loads(Path(path).read_text())


def off(path: str, inner: int = 12) -> float:
    """Root mean square difference from the reference where both are seen, grey levels."""
    with rasterio.open("ref.tif") as a, rasterio.open(path) as b:
        ours, theirs = a.read(1).astype(float), b.read(1).astype(float)
        seen = b.read_masks(1) > 0
    seen[:inner] = seen[-inner:] = seen[:, :inner] = seen[:, -inner:] = False
    assert seen.mean() > 0.3
    return float(np.sqrt(((ours - theirs)[seen] ** 2).mean()))


def test_a_shift_is_found_and_mended(here, capsys):
    assert align("moved.tif", "--to", "ref.tif", "-o", "out") == 0
    assert capsys.readouterr().out == "out/moved.tif\n"
    said = estimate("out/moved_estimate.json")
    assert said["shift_px"] == pytest.approx([2.4, -1.7], abs=0.01)
    assert said["shift_m"] == pytest.approx([24, 17], abs=0.2)  # east, north
    assert said["moved"]
    assert said["confidence"] > 0.99
    assert said["correlation"]["after"] > 0.98 > said["correlation"]["before"]
    assert off("out/moved.tif") < 3 < off("moved.tif")
    with rasterio.open("out/moved.tif") as found, rasterio.open("moved.tif") as source:
        assert (found.transform, found.crs, found.nodata) == (source.transform, source.crs, 0)
        assert (found.read(1)[:, -2:] == 0).all()  # what came in from beyond the rim
    ties = geopandas.read_parquet("out/moved_ties.parquet")
    assert ties.crs == "EPSG:32633"
    good = ties[ties.kept]
    assert len(good) >= 4
    assert np.abs(good[["dx_px", "dy_px"]] - [2.4, -1.7]).to_numpy().max() < 0.1
    assert (good.residual_px < 0.1).all()
    item = json.loads(Path("out/items.json").read_text())["features"][0]
    assert item["properties"]["geoml:alignment"]["moved"]
    assert {"data", "ties", "estimate", "checkerboard"} == set(item["assets"])


def test_the_same_bytes_twice_and_nothing_to_do_the_third_time(here, capsys):
    for out in ("a", "b"):
        assert align("moved.tif", "--to", "ref.tif", "--transform", "affine", "-o", out) == 0
    assert {p.name for p in Path("a").iterdir()} == {p.name for p in Path("b").iterdir()}
    for file in Path("a").iterdir():
        assert file.read_bytes() == (Path("b") / file.name).read_bytes(), file.name
    capsys.readouterr()
    words = ("moved.tif", "--to", "ref.tif", "--transform", "affine", "-o", "a", "--json")
    assert align(*words) == 0
    assert json.loads(capsys.readouterr().out)["up_to_date"]


def test_the_grid_alone_is_moved_and_pixels_stay(here):
    assert align("moved.tif", "--to", "ref.tif", "--geotransform-only", "-o", "out.tif") == 0
    with rasterio.open("out.tif") as found, rasterio.open("moved.tif") as source:
        assert np.array_equal(found.read(), source.read())
        t = found.transform
        assert (t.a, t.e) == (RES, -RES)
        assert t.c == pytest.approx(HOME.c - 24, abs=0.1)
        assert t.f == pytest.approx(HOME.f - 17, abs=0.1)


def test_an_image_that_is_in_place_is_left_alone(here):
    with rasterio.open("ref.tif") as source:
        made.write(Path("same.tif"), source.read() // 2 + 20, res=RES, names=("red",), nodata=0)
    assert align("same.tif", "--to", "ref.tif", "-o", "out") == 0
    said = estimate("out/same_estimate.json")
    assert (said["moved"], said["why"]) == (False, "in place")
    with rasterio.open("out/same.tif") as found, rasterio.open("same.tif") as source:
        assert np.array_equal(found.read(), source.read())


def test_what_is_not_sure_stays_and_the_status_says_so(here, capsys):
    assert align("other.tif", "--to", "ref.tif", "-o", "out") == 1
    assert "not sure where it lies on ref.tif" in capsys.readouterr().err
    assert not Path("out").exists()
    words = ["other.tif", "moved.tif", "--to", "ref.tif", "--keep-going", "--json", "-o", "out"]
    assert align(*words) == 3
    told = json.loads(capsys.readouterr().out)
    assert told["failed"] == ["other"]
    assert told["images"]["other"] == {"moved": False, "why": "not sure"}
    assert told["images"]["moved"]["moved"]
    with rasterio.open("out/other.tif") as found, rasterio.open("other.tif") as source:
        assert np.array_equal(found.read(), source.read())
    assert align("other.tif", "--to", "ref.tif", "--confidence", "0", "-o", "any") == 0


@pytest.mark.parametrize("factor", [1, 3])
def test_another_crs_and_pixel_size_make_no_difference(here, factor, capsys):
    """Ground truth by GDAL: the shifted image is warped to another zone, with other pixels."""
    with rasterio.open("moved.tif") as source:
        to, wide, high = calculate_default_transform(
            source.crs, "EPSG:32634", SIDE, SIDE, *source.bounds, resolution=RES * factor
        )
        data = np.zeros((1, high, wide), np.uint8)
        reproject(
            source.read(), data, src_transform=source.transform, src_crs=source.crs, src_nodata=0,
            dst_transform=to, dst_crs="EPSG:32634", dst_nodata=0,
            resampling=Resampling.cubic if factor == 1 else Resampling.average,
        )  # fmt: skip
    made.write(Path("far.tif"), data, crs="EPSG:32634", transform=to, names=("red",), nodata=0)
    assert (data > 0).mean() > 0.3
    assert align("far.tif", "--to", "ref.tif", "--like", "ref.tif", "-o", "out") == 0
    said = estimate("out/far_estimate.json")
    assert said["shift_m"] == pytest.approx([24, 17], abs=1.0 * factor)
    if factor == 1:
        assert off("out/far.tif") < 4


def test_clouds_of_a_mask_are_not_looked_at(here):
    """A bright cloud that stands still in the grid would hold the image where it is."""
    cloud = np.zeros((1, SIDE, SIDE), np.uint8)
    cloud[0, 30:110, 20:120] = 1
    made.write(Path("cloud.tif"), cloud, res=RES, names=("cloud",))
    blob = (land(SIDE, 7) * 10 + 200).clip(1, 255)
    for name in ("ref", "moved"):
        with rasterio.open(f"{name}.tif") as source:
            data = np.where(cloud, blob, source.read()).astype(np.uint8)
        made.write(Path(f"{name}-cloudy.tif"), data, res=RES, names=("red",), nodata=0)
    assert (
        align("moved-cloudy.tif", "--to", "ref-cloudy.tif", "--mask", "cloud.tif", "-o", "out") == 0
    )
    assert estimate("out/moved-cloudy_estimate.json")["shift_px"] == pytest.approx(
        [2.4, -1.7], abs=0.03
    )


def test_a_large_raster_is_looked_at_coarse_then_in_windows(here, monkeypatch):
    monkeypatch.setattr(align_measure, "WHOLE_PX", 64)
    for transform in ("shift", "similarity", "field"):
        assert align("moved.tif", "--to", "ref.tif", "--transform", transform, "-o", transform) == 0
        said = estimate(f"{transform}/moved_estimate.json")
        assert said["shift_px"] == pytest.approx([2.4, -1.7], abs=0.03), transform
        assert off(f"{transform}/moved.tif") < 3


def turned() -> None:
    """turned.tif: ref.tif turned by a degree about its middle."""
    a = np.radians(1.0)
    c = (SIDE - 1) / 2
    rows, cols = np.mgrid[:SIDE, :SIDE].astype(float) - c
    x, y = np.cos(a) * cols - np.sin(a) * rows, np.sin(a) * cols + np.cos(a) * rows
    image = ndimage.map_coordinates(land(SIDE + 80, 1), [y + c + 40, x + c + 40], order=5)
    made.write(Path("turned.tif"), bytes_of(image), res=RES, names=("red",), nodata=0)


@pytest.mark.parametrize("aligner", ["phase", "features", "ecc"])
def test_a_turned_image_is_turned_back(here, aligner):
    turned()
    transform = "affine" if aligner == "ecc" else "similarity"
    assert align("turned.tif", "--to", "ref.tif", "--aligner", aligner, "--transform", transform, "-o", "out") == 0  # fmt: skip
    matrix = np.array(estimate("out/turned_estimate.json")["matrix"])
    assert np.degrees(np.arctan2(matrix[0, 1], matrix[0, 0])) == pytest.approx(1.0, abs=0.06)
    assert off("out/turned.tif") < 0.5 * off("turned.tif")


def test_a_turned_grid_says_where_its_pixels_are(here):
    turned()
    words = ["--transform", "affine", "--geotransform-only", "-o", "out"]
    assert align("turned.tif", "--to", "ref.tif", *words) == 0
    with rasterio.open("out/turned.tif") as found, rasterio.open("turned.tif") as source:
        assert np.array_equal(found.read(), source.read())
        t = found.transform
    # where the ground of a pixel is: turned about the middle of the image, rows count down
    a, c = np.radians(1.0), SIDE / 2
    x, y = 180.0 - c, 30.0 - c
    col, row = np.cos(a) * x - np.sin(a) * y + c, np.sin(a) * x + np.cos(a) * y + c
    assert apply(t, 180.0, 30.0) == pytest.approx(apply(HOME, col, row), abs=1.5)


def series() -> list[str]:
    """Four dates off by known shifts."""
    names = []
    for k, (dx, dy) in enumerate([(0.0, 0.0), (1.5, -0.5), (-0.75, 2.25), (2.0, 1.0)]):
        name = f"day{k}.tif"
        noise = np.random.default_rng(k).normal(0, 0.1, (SIDE, SIDE))
        made.write(Path(name), bytes_of(cut(dx, dy) + noise), res=RES, names=("red",), nodata=0)
        with rasterio.open(name, "r+") as dataset:
            dataset.update_tags(TIFFTAG_DATETIME=f"2023:0{k + 1}:01 10:00:00")
        names.append(name)
    return names


def test_a_series_is_aligned_to_its_first_date_or_to_its_mean(here):
    names = series()
    assert align(*names[::-1], "--to", "first", "-o", "first") == 0
    assert estimate("first/day0_estimate.json")["why"] == "reference"
    assert estimate("first/day2_estimate.json")["shift_px"] == pytest.approx(
        [-0.75, 2.25], abs=0.03
    )
    assert align(*names, "--to", "joint", "-o", "joint") == 0
    truth = np.array([(0.0, 0.0), (1.5, -0.5), (-0.75, 2.25), (2.0, 1.0)])
    got = [estimate(f"joint/day{k}_estimate.json")["shift_px"] for k in range(4)]
    assert np.abs(np.array(got) - (truth - truth.mean(0))).max() < 0.03


def test_a_stopped_run_goes_on(here, monkeypatch):
    """The deadline comes after the first image; what is done is kept, and the bytes are those of a quiet run."""
    words = [*series(), "--to", "ref.tif"]
    assert align(*words, "-o", "quiet") == 0
    from geoml_cli.stages.align_rasters import Making

    made_once, count = Making._one, []

    def once(self, job, i, *more):  # type: ignore[no-untyped-def]
        count.append(i)
        if len(count) == 3:
            job.signals.caught = 15
        job.check()
        return made_once(self, job, i, *more)

    monkeypatch.setattr(Making, "_one", once)
    assert align(*words, "-o", "out") == 143
    assert align(*words, "-o", "out") == 0
    assert count == [0, 1, 2, 2, 3]
    for file in Path("quiet").iterdir():
        assert file.read_bytes() == (Path("out") / file.name).read_bytes(), file.name


def test_bands_that_both_have_are_compared(here):
    """Red is the second band of one and the first of the other, and the others are of other ground."""
    strange = bytes_of(cut(seed=5))
    made.write(Path("two.tif"), np.concatenate([strange, bytes_of(cut(2.4, -1.7))]), res=RES, names=("nir", "red"), nodata=0)  # fmt: skip
    assert align("two.tif", "--to", "ref.tif", "-o", "out") == 0
    said = estimate("out/two_estimate.json")
    assert said["bands"] == ["red", "red"]
    assert said["shift_px"] == pytest.approx([2.4, -1.7], abs=0.01)
    made.write(Path("plain.tif"), np.concatenate([strange, bytes_of(cut(2.4, -1.7))]), res=RES, names=("a", "b"), nodata=0)  # fmt: skip
    assert align("plain.tif", "--to", "ref.tif", "--band", "red,b", "-o", "named") == 0
    assert estimate("named/plain_estimate.json")["bands"] == ["red", "b"]


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["moved.tif", "--to", "first"], 2, "is for a series"),
        (["moved.tif", "--to", "none.tif"], 1, "no such file"),
        (["moved.tif", "--to", "ref.tif", "--band", "blue"], 1, "no band blue; it has red"),
        (["moved.tif", "--to", "ref.tif", "--aligner", "fase"], 2, "did you mean phase?"),
        (["moved.tif", "--to", "ref.tif", "--aligner", "phase:reach=3"], 2, "say it by --max-shift"),
        (["moved.tif", "--to", "ref.tif", "--transform", "field", "--geotransform-only"], 2, "a grid can be"),
        (["moved.tif", "other.tif", "--to", "joint", "--transform", "affine"], 2, "finds shifts"),
        (["moved.tif", "--to", "ref.tif", "--adjustments", "a.json"], 2, "is for vectors"),
        (["away.tif", "--to", "ref.tif"], 1, "no common ground"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_one_line(here, capsys, words, status, says):
    away = from_origin(600_000, 5_000_000, RES, RES)
    made.write(Path("away.tif"), bytes_of(cut()), transform=away, names=("red",))
    assert align(*words, "-o", "out") == status
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1
    assert not Path("out").exists()
