"""`geoml predict`: the map is the whole-image result, wherever the windows fall, and survives a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import made
import numpy as np
import pytest
import rasterio
import torch

from geoml_cli.cli import run
from geoml_cli.core import network as networks
from geoml_cli.core.aim import Aim
from geoml_cli.core.batch import Batch
from geoml_cli.core.lattice import finite, mirror
from geoml_cli.formats.model import read_model


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small model of folds, trained for a moment."""
    folder = tmp_path_factory.mktemp("trained")
    made.scene(folder)
    before = Path.cwd()
    os.chdir(folder)
    try:
        cut = [
            "--labels",
            "labels.gpkg",
            "--label-column",
            "class",
            "--size",
            "32",
            "--split",
            "blocks:4",
        ]
        assert (
            run(["tile", "scene.tif", *cut, "--folds", "3", "--buffer", "2", "-o", "tiles/"]) == 0
        )
        fit = [
            "--encoder",
            "unet:width=4,depth=2",
            "--epochs",
            "25",
            "--lr",
            "1e-2",
            "--batch",
            "4",
            "--device",
            "cpu",
        ]
        assert run(["train", "tiles/", *fit, "-o", "model/"]) == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def here(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").symlink_to(trained / "model")
    (tmp_path / "scene.tif").write_bytes((trained / "scene.tif").read_bytes())
    return tmp_path


def predict(*more, scene="scene.tif", out="maps/"):
    return run(
        ["predict", scene, "--model", "model", "-o", out, "--device", "cpu", *map(str, more)]
    )


def read(path="maps/scene.tif"):
    with rasterio.open(path) as dataset:
        return dataset.read(1)


def whole_image(path="scene.tif"):
    """Class ids and probabilities of the mean of all members, in one pass over the mirrored image."""
    model = read_model("model")
    halo = 64
    with rasterio.open(path) as dataset:
        data = dataset.read().astype(np.float32)
        valid = (dataset.read_masks() > 0).all(0) & np.isfinite(data).all(0)
    h, w = valid.shape
    up = [(halo, halo + -n % model.head["stride"]) for n in (h, w)]
    rows, cols = (mirror(-a, n + a + b, n) for (a, b), n in zip(up, (h, w), strict=True))
    data, mask = data[:, rows][:, :, cols], valid[rows][:, cols]
    batch = Batch(torch.from_numpy(data)[None, None], torch.from_numpy(mask)[None, None])
    total = 0
    for state in model.weights():
        network = networks.build(model.head["network"])
        network.load_state_dict(state)
        with torch.no_grad():
            total = total + network.eval()(batch).softmax(1)[0, :, halo : halo + h, halo : halo + w]
    return np.where(valid, total.argmax(0).numpy(), 255), total.numpy()


@pytest.mark.parametrize("window", [16, 32, 56, 512])
def test_windows_leave_no_trace(here, window):
    assert predict("--window", window) == 0
    want, spread = whole_image()
    assert (want == made.regions(96, 80)).mean() > 0.9  # it has learnt something to get wrong
    top = np.sort(spread, axis=0)
    clear = top[-1] - top[-2] > 1e-5  # where two classes tie, float noise decides
    assert clear.mean() > 0.999
    assert (read()[clear] == want[clear]).all()


@pytest.mark.parametrize("shape", [(1, 90), (90, 3), (7, 7)])
def test_rasters_thinner_than_a_window(here, shape):
    made.write(here / "thin.tif", made.image(made.regions(*shape)))
    assert predict(scene="thin.tif") == 0
    want, spread = whole_image("thin.tif")
    top = np.sort(spread, axis=0)
    clear = top[-1] - top[-2] > 1e-5
    assert (read("maps/thin.tif")[clear] == want[clear]).all()


def test_batches_and_readers_change_nothing(here):
    assert (
        predict("--window", 32, "--batch", 1) == 0
        and predict("--window", 32, "--batch", 1, "-j", 4, out="four/") == 0
    )
    assert made.content(here / "maps") == made.content(here / "four")
    assert predict("--window", 32, "--batch", 7, out="seven/") == 0
    assert (read() == read("seven/scene.tif")).mean() > 0.999


def test_the_map_lies_on_the_scene_and_says_its_classes(here, capsys):
    assert predict() == 0
    assert capsys.readouterr().out == "maps/scene.tif\n"
    with rasterio.open("maps/scene.tif") as dataset, rasterio.open("scene.tif") as scene:
        assert (dataset.transform, dataset.crs, dataset.shape) == (
            scene.transform,
            scene.crs,
            scene.shape,
        )
        assert dataset.nodata == 255 and dataset.tags()["CLASS_2"] == "water"
        assert dataset.colormap(1)[2][:3] == (0x3B, 0x7D, 0xD8)
    from rio_cogeo import cog_validate

    assert cog_validate("maps/scene.tif")[0]
    assert sorted(p.name for p in Path("maps").iterdir()) == [
        "ground.parquet",
        "items.json",
        "scene.tif",
    ]
    import pystac

    [item] = json.loads(Path("maps/items.json").read_text())["features"]
    item = pystac.Item.from_dict(item)
    assert item.assets["map"].extra_fields["classification:classes"][1]["name"] == "forest"


def test_nodata_stays_nodata(here):
    with rasterio.open("scene.tif") as source:
        data = source.read().astype(np.float32)
    data[:, 20:40, 10:30] = np.nan
    data[0, 60, :] = -9999
    made.write(here / "holes.tif", data, nodata=-9999)
    assert predict("--window", 32, scene="holes.tif") == 0
    got = read("maps/holes.tif")
    assert (
        (got[20:40, 10:30] == 255).all()
        and (got[60] == 255).all()
        and (got == 255).sum() == 20 * 20 + 80
    )


def test_an_all_nodata_raster_gives_an_all_nodata_map_and_a_warning(here, capsys):
    made.write(here / "none.tif", np.zeros((2, 40, 40), np.uint8), nodata=0)
    assert predict(scene="none.tif") == 0
    assert (read("maps/none.tif") == 255).all() and "no valid pixel" in capsys.readouterr().err


def test_bands_are_found_by_name(here):
    with rasterio.open("scene.tif") as source:
        data = source.read()
    extra = np.concatenate([data[1:], np.zeros_like(data[:1]), data[:1]])
    made.write(here / "order.tif", extra, names=("nir", "blue", "red"))
    assert predict() == 0 and predict(scene="order.tif", out="o/") == 0
    assert (read() == read("o/order.tif")).all()


def test_scale_and_offset_are_undone(here):
    with rasterio.open("scene.tif") as source:
        data = source.read()
    with rasterio.open(
        made.write(here / "scaled.tif", (data.astype(np.int16) * 4 + 100)), "r+"
    ) as dataset:
        dataset.scales, dataset.offsets = (0.25, 0.25), (-25, -25)
    assert predict() == 0 and predict(scene="scaled.tif", out="s/") == 0
    assert (read() == read("s/scaled.tif")).mean() > 0.999


def test_out_of_fold_asks_the_member_that_never_saw_the_ground(here):
    assert predict("--out-of-fold") == 0
    model = read_model("model")
    with rasterio.open("scene.tif") as source:
        rows, cols = np.mgrid[: source.height, : source.width]
        xs, ys = source.transform * (cols + 0.5, rows + 0.5)
    folds = model.split.fold_at(xs, ys)
    for member, state in enumerate(model.weights()):
        network = networks.build(model.head["network"])
        network.load_state_dict(state)
        with rasterio.open("scene.tif") as source:
            data = np.pad(
                source.read().astype(np.float32), ((0, 0), (32, 32), (32, 32)), mode="reflect"
            )
        batch = Batch(
            torch.from_numpy(data)[None, None], torch.ones(1, 1, *data.shape[1:], dtype=torch.bool)
        )
        with torch.no_grad():
            want = network.eval()(batch).argmax(1)[0, 32:-32, 32:-32].numpy()
        mine = folds == member
        assert mine.any() and (read()[mine] == want[mine]).mean() > 0.999
    import geopandas

    assert json.loads(Path("maps/items.json").read_text())["geoml:out_of_fold"] is True
    ground = geopandas.read_parquet("maps/ground.parquet")
    assert set(ground["member"]) == {0, 1, 2}


def test_many_inputs_paths_and_items_on_stdin(here, monkeypatch, capsys):
    import io

    (here / "b.tif").write_bytes((here / "scene.tif").read_bytes())
    monkeypatch.setattr(sys, "stdin", io.StringIO("scene.tif\nb.tif\n"))
    assert predict(scene="-") == 0
    assert capsys.readouterr().out == "maps/b.tif\nmaps/scene.tif\n"
    assert (read("maps/b.tif") == read()).all()
    assert (
        predict("--ndjson", scene="maps/items.json", out="x/") == 1
    )  # a map is no scene: bands are missing
    assert "band" in capsys.readouterr().err


def test_one_file_when_named_so(here):
    assert predict(out="map.tif") == 0 and predict(out="maps/") == 0
    assert (read("map.tif") == read()).all()
    before = Path("map.tif").stat().st_mtime_ns
    assert predict(out="map.tif") == 0 and Path("map.tif").stat().st_mtime_ns == before


def test_keep_going_maps_the_rest(here, capsys):
    import rasterio.shutil

    rasterio.shutil.copy("scene.tif", "whole.tif", driver="COG")
    Path("torn.tif").write_bytes(Path("whole.tif").read_bytes()[:-2000])
    words = [
        "predict",
        "torn.tif",
        "scene.tif",
        "--model",
        "model",
        "-o",
        "maps/",
        "--device",
        "cpu",
    ]
    assert run(words) == 1 and not Path("maps").exists()
    assert run([*words, "--keep-going"]) == 3
    said = capsys.readouterr()
    assert said.out == "maps/scene.tif\n" and "torn.tif" in said.err
    assert run([*words, "--keep-going"]) == 3  # still incomplete: never 0


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_goes_on_to_the_same_bytes(here, signum):
    made.write(here / "big.tif", made.image(made.regions(192, 256, sites=60)))
    words = ["--model", "model", "--window", "16", "--batch", "2", "--device", "cpu"]
    assert run(["predict", "big.tif", *words, "-o", "whole/"]) == 0
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    code = (  # slow enough to be caught half way
        "import sys, time, geoml_cli.cli as cli, geoml_cli.stages.stream as stage\n"
        "write = stage.Making.write\n"
        "stage.Making.write = lambda *a: (time.sleep(0.005), write(*a))\n"
        "cli.main(sys.argv[1:])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "predict", "big.tif", *words, "-o", "killed/"],
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    marks = here / ".killed.part/big.done"
    until = time.monotonic() + 60
    while time.monotonic() < until and not (marks.exists() and sum(marks.read_bytes()) > 50):
        time.sleep(0.01)
    os.kill(process.pid, signum)
    assert process.wait() == (-9 if signum == signal.SIGKILL else 130)
    done = marks.read_bytes()
    assert 50 < sum(done) < len(done) and not (here / "killed").exists()
    computed = []
    plain = Aim.decode
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Aim,
            "decode",
            lambda self, s: (computed.append(len(s)), plain(self, s))[1],
        )
        assert run(["predict", "big.tif", *words, "-o", "killed/"]) == 0
    assert sum(computed) <= len(done) - sum(done) + 2  # what was on disk is not computed again
    assert made.content(here / "whole") == made.content(here / "killed")


def test_up_to_date_and_stale(here):
    assert predict() == 0
    stamp = here / "maps/items.json"
    before = stamp.stat().st_mtime_ns
    assert predict() == 0 and stamp.stat().st_mtime_ns == before
    data = made.image(made.regions(96, 80, seed=9))
    made.write(here / "scene.tif", data)
    old = read()
    assert predict() == 0 and (read() != old).any()
    (here / "maps/scene.tif").write_bytes(b"damaged")
    assert predict() == 0 and read().shape == (96, 80)


@pytest.mark.parametrize(
    "scene, words",
    [
        ({"names": ("red", "swir")}, ["no band nir", "red, swir"]),
        ({"res": 50}, ["50", "10", "finer"]),
        ({"crs": None}, ["no CRS"]),
    ],
)
def test_what_the_model_cannot_be_right_about_is_refused(here, capsys, scene, words):
    made.write(here / "other.tif", made.image(made.regions(64, 64)), **scene)
    assert predict(scene="other.tif") == 1
    [line] = capsys.readouterr().err.splitlines()
    assert all(word in line for word in ["other.tif", *words]), line
    assert not Path("maps").exists() and not list(here.glob(".maps*"))


def test_damaged_weights_are_said(here, trained, capsys):
    import shutil

    (here / "model").unlink()
    shutil.copytree(trained / "model", here / "model")
    weights = here / "model/weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-50])
    assert predict() == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "weights.safetensors" in line and "changed or damaged" in line


def test_an_output_that_is_not_ours_is_kept(here, capsys):
    Path("maps").mkdir()
    Path("maps/notes.txt").write_text("mine")
    assert predict() == 1 and "not written by geoml" in capsys.readouterr().err
    assert Path("maps/notes.txt").read_text() == "mine" and len(list(Path("maps").iterdir())) == 1
    assert predict("--force") == 0 and not Path("maps/notes.txt").exists()


@pytest.mark.parametrize("length", [1, 2, 5])
def test_mirror_is_numpys_reflect(length):
    line = np.arange(length)
    if length > 1:
        want = np.pad(line, (7, 9), mode="reflect")
        assert (line[mirror(-7, length + 16, length)] == want).all()
    else:
        assert (mirror(-7, 17, 1) == 0).all()


def test_windows_start_on_the_lattice():
    axis = finite(1000, 1, 13, 8, 100)
    assert axis.firsts[:3] == (-16, 88, 192) and axis.size == 104 + 2 * 16
    assert axis.edges[:3] == (0, 104, 208) and axis.edges[-1] == 1000
    assert finite(77, 1, 13, 8, 100).size == 80 + 2 * 16


def test_fewer_windows_at_a_time_where_memory_runs_out(here, monkeypatch, capsys):
    assert predict(out="whole/") == 0
    plain, asked = networks.Network.forward, []

    def small(self, batch):
        asked.append(len(batch.images))
        if len(batch.images) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return plain(self, batch)

    monkeypatch.setattr(networks.Network, "forward", small)
    assert predict("--window", 16, "--batch", 9) == 0
    assert "out of memory: going on with 2 windows" in capsys.readouterr().err
    assert asked[0] > 2 and max(asked[1:]) == 2  # once is enough
    assert (read() == read("whole/scene.tif")).all()
    monkeypatch.setattr(networks.Network, "forward", lambda *_: (_ for _ in ()).throw(MemoryError))
    assert predict("--window", 32, out="none/") == 1
    assert "lower --window" in capsys.readouterr().err
