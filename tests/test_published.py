"""Whole models that others published: fine-tuned layouts, masked autoencoders, checkpoints with a card."""

import json
from collections import OrderedDict

import made
import numpy as np
import pytest
import rasterio
import torch

from geoml_cli import registry
from geoml_cli.cli import run
from geoml_cli.core import network as networks
from geoml_cli.core.batch import Batch
from geoml_cli.stages.models import open_model
from geoml_cli.stages.published import card_of, spec_of

ENCODER = "prithvi:width=32,layers=4,heads=4,patch=16,image=32"
FINE = {
    "encoder": ENCODER + ",layout=interleave,neck=upscale,upscaled=8",
    "head": "fcn:width=16,skips=0",
    "bands": ["red", "nir"],
    "classes": ["land", "water"],
    "mean": [100, 90],
    "std": [50, 40],
    "window": 32,
    "licence": "Apache-2.0",
}
FILLS = {k: v for k, v in FINE.items() if k != "classes"} | {
    "encoder": ENCODER,
    "head": "mae:width=32,layers=1,heads=4",
    "fills": True,
}


def network_of(card):
    torch.manual_seed(0)
    names = card.get("classes") or card["bands"]
    aim = {"names": names, "kind": "values" if card.get("fills") else "classes"}
    bands = [{"common_name": name, "wavelength_nm": None} for name in card["bands"]]
    network = networks.build(spec_of({"frames": 1} | card, {"aim": aim, "bands": bands}))
    for module in network.modules():  # running statistics that are not those of a new one
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1), module.running_var.uniform_(0.5, 2)
    for value in network.parameters():
        value.data += 0.02 * torch.randn_like(value)
    return network.eval()


def as_mmsegmentation(network):
    """The state as a trainer of the mmsegmentation family leaves it, with an auxiliary head and numbers of numpy."""
    state = OrderedDict()
    for key, value in network.sensors[0].encoder.state_dict().items():
        state[key if key.startswith("neck.") else f"backbone.{key}"] = value
    head = network.head
    state["decode_head.convs.0.conv.weight"] = head.hidden[0][0].weight.data
    for name, value in head.hidden[0][1].state_dict().items():
        state[f"decode_head.convs.0.bn.{name}"] = value
    state["decode_head.conv_seg.weight"] = head.scores[0].weight.data
    state["decode_head.conv_seg.bias"] = head.scores[0].bias.data
    state["auxiliary_head.conv_seg.bias"] = torch.zeros(2)
    told = {"meta": {"best": np.float64(0.88), "epoch": 3}, "optimizer": {"state": {}}}
    return {"state_dict": state, **told}


@pytest.fixture
def scene(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return made.scene(tmp_path, 32, 32)[0]


def test_a_fine_tuned_layout_maps_as_its_network_does(scene, tmp_path):
    network = network_of(FINE)
    torch.save(as_mmsegmentation(network), tmp_path / "flood.pth")
    (tmp_path / "flood.json").write_text(json.dumps(FINE))
    assert (
        run(["predict", str(scene), "--model", "flood.pth", "-o", "maps/", "--probabilities"]) == 0
    )
    with rasterio.open(scene) as dataset:
        x = torch.from_numpy(dataset.read()).float()
    mean, std = (torch.tensor(FINE[k], dtype=torch.float32).view(2, 1, 1) for k in ("mean", "std"))
    with torch.no_grad():
        seen = torch.ones(1, 1, 32, 32, dtype=torch.bool)
        window = ((x - mean) / std)[None, None]
        want = network(Batch(window, seen)).softmax(1)[0, 1]
    with rasterio.open("maps/scene_probabilities.tif") as dataset:
        got = dataset.read(2) * dataset.scales[1]
    np.testing.assert_allclose(got, want, atol=0.0021)  # shares are kept in steps of 0.004
    with rasterio.open("maps/scene.tif") as dataset:
        assert dataset.tags()["CLASS_1"] == "water"


def test_a_masked_autoencoder_fills_gaps_as_its_network_does(scene, tmp_path):
    network = network_of(FILLS)
    state = {f"encoder.{k}": v for k, v in network.sensors[0].encoder.state_dict().items()}
    state |= {f"decoder.{k}": v for k, v in network.head.decoders[0].state_dict().items()}
    torch.save(OrderedDict(state), tmp_path / "filler.pt")
    (tmp_path / "filler.json").write_text(json.dumps(FILLS))
    with rasterio.open(scene) as dataset:
        data = dataset.read()
    data[:, 4:12, 8:30] = 0
    made.write(tmp_path / "gap.tif", data, nodata=0)
    from rasterio import open as reopen

    with reopen("gap.tif", "r+") as dataset:
        dataset.descriptions = ("red", "nir")
    assert run(["predict", "gap.tif", "--model", "filler.pt", "-o", "filled.tif"]) == 0
    mean, std = (torch.tensor(FILLS[k], dtype=torch.float32).view(2, 1, 1) for k in ("mean", "std"))
    x = torch.from_numpy(data).float()
    valid = torch.from_numpy(data != 0).all(0)
    with torch.no_grad():
        said = network(Batch(((x - mean) / std)[None, None], valid[None, None]))[0] * std + mean
    with rasterio.open("filled.tif") as dataset:
        got = dataset.read()
        assert dataset.descriptions == ("red", "nir")
    np.testing.assert_allclose(got[:, valid], x[:, valid], rtol=1e-6)
    np.testing.assert_allclose(got[:, ~valid], said[:, ~valid], rtol=1e-4)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"head": None}, "names no head"),
        ({"head": "fcn:width=16,skips=0,depth=2"}, "misses hidden.1.0.weight"),
        ({"head": "unet"}, "knows no published layout"),
        ({"encoder": ENCODER + ",neck=upscale,upscaled=4"}, "neck.fpn1.0.weight is"),
        ({"classes": None}, "classes or values"),
        ({"frames": "two"}, "frames is 'two'"),
    ],
)
def test_a_card_that_does_not_fit_is_told_in_a_line(scene, tmp_path, change, said, capfd):
    torch.save(as_mmsegmentation(network_of(FINE)), tmp_path / "flood.pth")
    card = {k: v for k, v in (FINE | change).items() if v is not None}
    (tmp_path / "flood.json").write_text(json.dumps(card))
    assert run(["predict", str(scene), "--model", "flood.pth", "-o", "map.tif"]) in (1, 2)
    err = capfd.readouterr().err
    assert said in err and len(err.strip().splitlines()) == 1
    assert not (tmp_path / "map.tif").exists()


def test_a_checkpoint_without_a_card_is_told(scene, tmp_path, capfd):
    torch.save({"state_dict": {"a": torch.zeros(1)}}, tmp_path / "flood.pth")
    assert run(["predict", str(scene), "--model", "flood.pth", "-o", "map.tif"]) == 1
    assert "flood.json" in capfd.readouterr().err


def published(name):
    known = registry.weights()[name]
    head = {"aim": {"names": known.get("classes", known["bands"] * known["frames"]),
            "kind": "classes" if "classes" in known else "values"}, "bands": card_of(known)["bands"]}  # fmt: skip
    with torch.device("meta"):
        return known, networks.build(spec_of({"frames": known["frames"]} | known, head))


@pytest.mark.parametrize("name", [n for n in registry.weights() if "1.0-100m-" in n])
def test_fine_tuned_models_are_of_the_published_size(name):
    """Files hold each parameter three times (Adam's two averages), and those of an auxiliary head of two convolutions."""
    known, network = published(name)
    wide, classes = network.sensors[0].channels[-1], len(known["classes"])
    auxiliary = 9 * 256 * (wide + 256) + 4 * 256 + classes * 257
    mine = sum(p.numel() for p in network.parameters())
    assert (mine + auxiliary) * 12 / 1e6 == pytest.approx(known["megabytes"], rel=0.03)


def test_published_autoencoders_are_models_that_fill():
    names = [n for n, known in registry.weights().items() if known.get("fills")]
    assert len(names) == 7
    for name in names:
        known, network = published(name)
        inside = [*network.sensors[0].encoder.parameters(), *network.head.parameters()]
        assert sum(p.numel() for p in inside) * 4 / 1e6 == pytest.approx(known["megabytes"], abs=5)


def test_a_published_name_is_opened_with_its_units(monkeypatch, tmp_path):
    file = tmp_path / "x.pt"
    torch.save({"a": torch.zeros(1)}, file)
    from geoml_cli.stages import published as stage
    from geoml_cli.stages.base import Checkpoint

    monkeypatch.setattr(stage, "checkpoint_of", lambda name: Checkpoint(name, file))
    opened = open_model("prithvi-eo-2.0-300m")
    assert opened.head["aim"]["fills"] and opened.head["sensors"][0]["frames"] == 4
    assert opened.head["aim"]["names"][:2] == ["blue-1", "green-1"]
    crops = open_model("prithvi-eo-1.0-100m-crops")
    assert [c["name"] for c in crops.head["classes"]][2] == "corn"
    card = card_of(registry.weights()["prithvi-eo-1.0-100m-crops"])
    assert card["mean"][3] == pytest.approx(0.2968881459)  # reflectance
