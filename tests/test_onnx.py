"""ONNX files as models: the same numbers as the network they came from, and as their authors' own program."""

import json
import os
import re
import sys
import warnings
import zipfile
from pathlib import Path

import made
import numpy as np
import pytest
import rasterio
import torch

from geoml_cli.cli import run
from geoml_cli.core.batch import Batch
from geoml_cli.core.lattice import mirror
from geoml_cli.formats.card import KINDS, read_card
from geoml_cli.stages.models import open_model

pytest.importorskip("onnxruntime")
CARD = {"bands": ["red", "nir"], "classes": list(made.NAMES)}
ROOT = Path(__file__).parents[1]
CHIPS = ROOT / "../shared/data/h_masks/ukis_cloud_shadow"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made.scene(tmp_path)
    return tmp_path


class Last(torch.nn.Module):
    """Channels last, in and out."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def net(outputs=3, end=None, seed=0):
    """Two convolutions: a halo of 3."""
    torch.manual_seed(seed)
    layers = [torch.nn.Conv2d(2, 5, 5, padding=2), torch.nn.ReLU(), torch.nn.Conv2d(5, outputs, 3, padding=1)]  # fmt: skip
    return torch.nn.Sequential(*layers, *([end] if end else [])).eval()


def export(network, path="net.onnx", card=CARD, size=None, shape=(1, 2, 32, 32), free=(2, 3)):
    axes = {0: "b"} | ({} if size else {i: f"n{i}" for i in free})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (torch.zeros(shape),), path, input_names=["x"], output_names=["y"], dynamic_axes={"x": axes, "y": axes}, dynamo=False)  # fmt: skip
    if card is not None:
        Path(path).with_suffix(".json").write_text(json.dumps(card))
    return path


def predict(*words, status=0, model="net.onnx", out="map.tif"):
    words = ["predict", "scene.tif", "--model", model, *map(str, words)]
    assert run([*words, "-o", out, "--device", "cpu"]) == status


def read(path):
    with rasterio.open(path) as dataset:
        return dataset.read()


def whole(network, mean=0.0, std=1.0):
    """Outputs (K, H, W) over the mirrored scene in one pass."""
    data = read("scene.tif").astype(np.float32)
    rows, cols = (mirror(-9, n + 18, n) for n in data.shape[1:])
    image = torch.from_numpy((data[:, rows][:, :, cols] - mean) / std)[None]
    with torch.inference_mode():
        return network(image)[0, :, 9:-9, 9:-9]


def test_a_map_is_what_torch_says(here):
    network = net()
    stats = {"mean": [90, 80], "std": [60, 40]}
    export(network, card=CARD | stats | {"halo": 3})
    predict("--window", 32, "--probabilities", out="maps/")
    mean, std = (np.array(stats[k], np.float32)[:, None, None] for k in ("mean", "std"))
    want = whole(network, mean, std).softmax(0).numpy()
    assert (read("maps/scene.tif")[0] == want.argmax(0)).mean() > 0.999
    assert np.abs(read("maps/scene_probabilities.tif") / 250 - want).max() < 0.5 / 250 + 1e-4
    with rasterio.open("maps/scene.tif") as dataset:
        assert dataset.tags()["CLASS_2"] == "water"


def test_probabilities_and_channels_last(here):
    network = net(end=torch.nn.Softmax(1))
    export(Last(network), card=CARD | {"outputs": "probabilities", "layout": "NHWC"}, shape=(1, 32, 32, 2), free=(1, 2))  # fmt: skip
    batch = Batch(torch.rand(3, 1, 2, 20, 20), torch.ones(3, 1, 20, 20, dtype=torch.bool))
    [found] = open_model("net.onnx").load()
    with torch.inference_mode():
        assert torch.allclose(found(batch).softmax(1), network(batch.images[:, 0]), atol=1e-6)


def test_what_is_not_valid_enters_as_the_mean(here):
    export(net(), card=CARD | {"mean": [5, 7], "std": [2, 3]})
    [found] = open_model("net.onnx").load()
    images, valid = torch.rand(1, 1, 2, 16, 16), torch.ones(1, 1, 16, 16, dtype=torch.bool)
    valid[..., 4:9, 4:9] = False
    mean = images.clone()
    mean[0, 0, :, 4:9, 4:9] = torch.tensor([5.0, 7.0])[:, None, None]
    holes = torch.where(valid[:, :, None], images, torch.nan)
    assert torch.equal(found(Batch(holes, valid)), found(Batch(mean, torch.ones_like(valid))))


def test_one_output_of_two_classes_and_values(here):
    export(net(1), card={"bands": ["red", "nir"], "classes": ["no", "yes"]})
    assert open_model("net.onnx").head["aim"]["binary"]
    predict("--window", 64)
    assert set(np.unique(read("map.tif"))) <= {0, 1}
    export(net(1), "v.onnx", {"bands": ["red", "nir"], "values": [{"name": "height", "unit": "m"}], "halo": 3})  # fmt: skip
    predict(model="v.onnx", out="v.tif")
    with rasterio.open("v.tif") as dataset:
        assert dataset.units == ("m",) and dataset.descriptions == ("height",)
        want = whole(net(1))[0].numpy()
        assert np.allclose(dataset.read(1), want, rtol=1e-4, atol=1e-4 * np.abs(want).max())


def test_a_graph_of_one_size_is_given_windows_of_that_size(here, capsys):
    export(net(), size=32)
    assert open_model("net.onnx").head["blend"]["window"] == 32
    predict()
    predict("--window", 64, out="x.tif", status=2)
    assert "32 px only" in capsys.readouterr().err


@pytest.mark.parametrize(
    "card, words",
    [
        (None, "no such file"),
        ("{", "no JSON"),
        ({"bands": ["red", "nir"]}, "either classes or values"),
        (CARD | {"colour": 1}, "unknown key 'colour'"),
        (CARD | {"bands": ["red"]}, "names 1 bands, the graph takes 2"),
        (CARD | {"classes": ["a", "b"]}, "names 2 classes, the graph gives 3"),
        (CARD | {"mean": [1]}, "mean must be 2 numbers"),
        (CARD | {"std": [1, 0]}, "std holds"),
        (CARD | {"layout": "CHW"}, "NCHW or NHWC"),
        (CARD | {"window": 64, "overlap": 40}, "more than half"),
        (CARD | {"classes": ["a", "", "c"]}, "has no name"),
    ],
)
def test_what_is_wrong_with_a_card_is_said(here, capsys, card, words):
    export(net(), card=card if isinstance(card, dict) else None)
    if isinstance(card, str):
        Path("net.json").write_text(card)
    predict(status=1)
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1 and "net.json" in said
    assert not Path("map.tif").exists()


def test_a_file_that_is_no_graph(here, capsys):
    export(net())
    Path("net.onnx").write_bytes(b"no graph at all")
    predict(status=1)
    assert "not readable as an ONNX graph" in capsys.readouterr().err


def test_a_wheel_and_an_installed_package_are_not_imported(here, monkeypatch, capsys):
    export(net())
    wheel = here / "cloudy_nets-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("cloudy_nets/__init__.py", "raise SystemExit('imported')")
        archive.write("net.onnx", "cloudy_nets/net.onnx")
        archive.write("net.json", "cloudy_nets/net.json")
        archive.writestr("cloudy_nets-1.0.dist-info/METADATA", "Name: cloudy-nets\nVersion: 1.0\n")
        archive.writestr(
            "cloudy_nets-1.0.dist-info/RECORD", "cloudy_nets/net.onnx,,\ncloudy_nets/net.json,,\n"
        )
    predict()
    predict(model=f"pkg:{wheel}/net.onnx", out="wheel.tif")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(here / "site")
    monkeypatch.syspath_prepend(str(here / "site"))
    predict(model="pkg:cloudy-nets/cloudy_nets/net.onnx", out="package.tif")
    assert (read("map.tif") == read("wheel.tif")).all()
    assert (read("map.tif") == read("package.tif")).all()
    assert "cloudy_nets" not in sys.modules
    predict(model=f"pkg:{wheel}/other.onnx", out="x.tif", status=1)
    assert "it holds net.onnx" in capsys.readouterr().err
    predict(model="pkg:nowhere-to-be-found/net.onnx", out="x.tif", status=1)
    assert "not installed" in capsys.readouterr().err


def test_a_changed_graph_makes_the_map_stale(here):
    export(net())
    predict()
    before = read("map.tif")
    export(net(seed=1))
    predict()
    assert (read("map.tif") != before).any()


def wheel_of_clouds():
    here = [Path(os.environ.get("GEOML_UKIS_WHEEL", "-")), *ROOT.glob("examples/cloud-mask/wheel/*.whl")]  # fmt: skip
    return next((one.resolve() for one in here if one.is_file()), None)


@pytest.mark.parametrize("bands", [4, 6])
@pytest.mark.parametrize("chip", ["sentinel2", "landsat5", "landsat7"])
def test_clouds_are_those_of_the_authors_own_program(here, chip, bands, monkeypatch):
    wheel = wheel_of_clouds()
    if wheel is None or not CHIPS.is_dir():
        pytest.skip("needs the wheel of ukis-csmask (make -C examples/cloud-mask) and its chips")
    pytest.importorskip("scipy")
    monkeypatch.syspath_prepend(str(here / "own"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(here / "own")
    from ukis_csmask.mask import CSmask

    data = read(CHIPS / f"{chip}.tif")
    names = ("blue", "green", "red", "nir", "swir16", "swir22")
    made.write(here / "scene.tif", data, res=30, names=names)
    with rasterio.open("scene.tif", "r+") as dataset:
        dataset.scales = (1e-4,) * 6
    image = np.moveaxis(data[:bands], 0, -1).astype(np.float32) * np.float32(1e-4)
    want = CSmask(image, list(names[:bands]), product_level="l1c").csm[..., 0]
    predict(model=f"pkg:{wheel}/model_{bands}b_l1c.onnx")
    assert (read("map.tif")[0] == want).all() and len(np.unique(want)) == 3
    for name in [name for name in sys.modules if name.startswith("ukis_csmask")]:
        del sys.modules[name]


def test_the_card_that_help_shows_is_one(capsys):
    assert run(["help", "models"]) == 0
    text = capsys.readouterr().out
    text = text[text.index('{"bands"') : text.index("\n\nBands")]
    kept = [re.sub(r"\s{4,}[\w(].*", "", x) for x in text.splitlines() if '"values"' not in x]
    card = json.loads(re.sub(r"}\s+or.*", "}", "".join(kept)))
    of_checkpoints = {"encoder", "head", "frames", "fills"}
    assert set(card) | {"values", "source", "licence"} | of_checkpoints == set(KINDS)
    read_card(card, "help")
