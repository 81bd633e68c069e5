"""Encoders that start from a checkpoint: loaded by name or refused, and only what changed is stored."""

import os
import pickle
import shutil
from pathlib import Path

import made
import pytest
import rasterio
import torch
from safetensors.torch import load_file, save_file

from geoml_cli.cli import run
from geoml_cli.core import network as networks
from geoml_cli.formats.model import read_model
from geoml_cli.stages.networks import load_networks

UNET = ["--encoder", "unet:width=4,depth=2", "--device", "cpu", "--epochs", "2"]
INSIDE = "0.sensors.0.encoder."


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A folder with a scene, its tiles and a model of them, first/; only to read."""
    folder = tmp_path_factory.mktemp("begun")
    made.scene(folder)
    words = ["--labels", "labels.gpkg", "--label-column", "class", "--size", "32"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run(["tile", "scene.tif", *words, "--buffer", "2", "-o", "tiles/"]) == 0
        assert run(["train", "tiles/", *UNET, "-o", "first/"]) == 0
    return folder


@pytest.fixture
def here(begun, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(begun, tmp_path, dirs_exist_ok=True)
    return tmp_path


def train(*words, out="second/"):
    return run(["train", "tiles/", *UNET, "--encoder-weights", *map(str, words), "-o", out])


def encoder(folder):
    state = load_file(f"{folder}/weights.safetensors")
    return {k.removeprefix(INSIDE): v for k, v in state.items() if k.startswith(INSIDE)}


def test_a_frozen_encoder_is_not_stored_again_and_answers_as_it_did(here):
    assert train("first/", "--tune", "head") == 0
    first, stored = encoder("first"), load_file("second/weights.safetensors")
    assert not any(k.startswith(INSIDE) for k in stored) and "0.head.last.weight" in stored
    model = read_model("second")
    [network] = load_networks(model, model.head["network"])
    held = network.sensors[0].encoder.state_dict()
    assert all(torch.equal(held[k], v) for k, v in first.items())
    assert run(["predict", "scene.tif", "--model", "second/", "-o", "map.tif"]) == 0
    with rasterio.open("map.tif") as source:
        assert len(set(source.read(1).ravel().tolist())) >= 1
    assert run(["info", "second/", "--check"]) == 0


def test_the_last_blocks_alone_are_trained_and_stored(here):
    assert train("first/", "--tune", "last:1") == 0
    names = {k for k in load_file("second/weights.safetensors") if k.startswith(INSIDE)}
    blocks = {k.removeprefix(INSIDE).split(".")[1] for k in names}
    assert blocks == {"2"}  # of levels 0, 1, 2


def test_all_of_it_is_stored_where_all_is_trained(here):
    assert train("first/") == 0
    assert set(encoder("second")) == set(encoder("first"))
    assert read_model("second").head["base"] is None


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_checkpoint_file_is_as_good_as_a_model_folder(here, suffix):
    state = encoder("first")
    if suffix == ".pth":
        torch.save({"state_dict": state, "epoch": 3}, f"w{suffix}")
    else:
        save_file(state, f"w{suffix}")
    assert train(f"w{suffix}", "--tune", "head") == 0
    assert train("first/", "--tune", "head", out="third/") == 0
    a, b = (load_file(f"{n}/weights.safetensors") for n in ("second", "third"))
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_the_base_has_to_be_there_and_to_be_the_same(here, capsys):
    assert train("first/", "--tune", "head") == 0
    path = Path("first/weights.safetensors")
    kept = path.read_bytes()
    path.rename("elsewhere.safetensors")
    predict = ["predict", "scene.tif", "--model", "second/", "-o", "map.tif"]
    assert run(predict) == 1
    assert "put it back" in capsys.readouterr().err
    path.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    assert run(predict) == 1
    assert "sha256" in capsys.readouterr().err


def test_a_checkpoint_that_does_not_fit_is_refused_by_name(here, capsys):
    state = encoder("first")
    some = next(k for k in state if k.endswith("weight"))
    for change, said in [
        ({k: v for k, v in state.items() if k != some}, f"misses {some}"),
        (state | {"fc.weight": torch.zeros(3)}, "has also fc.weight"),
        (state | {some: torch.zeros(9, 9)}, f"{some} is (9, 9)"),
    ]:
        save_file(change, "odd.safetensors")
        assert train("odd.safetensors") == 1
        assert said in capsys.readouterr().err and not Path("second").exists()


class Hostile:
    def __reduce__(self):
        return os.system, ("touch harmed",)


def test_a_checkpoint_that_holds_code_is_not_run(here, capsys):
    Path("bad.pth").write_bytes(pickle.dumps({"state_dict": Hostile()}))
    assert train("bad.pth") == 1
    assert "bad.pth" in capsys.readouterr().err and not Path("harmed").exists()


def test_deeper_blocks_learn_more_slowly(here):
    from geoml_cli.core.tune import groups

    network = networks.build(read_model("first").head["network"])
    rates = {g["lr"] for g in groups(network, 1.0, 0.1, 0.5)}
    assert rates >= {1.0} and min(rates) < 0.5


def test_low_rank_adapters_are_all_that_is_stored(here):
    pytest.importorskip("peft")
    assert train("first/", "--adapter", "lora:rank=2,targets=conv") == 0
    names = [k for k in load_file("second/weights.safetensors") if k.startswith(INSIDE)]
    learnt = [k for k in names if "lora_" in k]
    assert learnt and all(
        "lora_" in k or "running" in k or "num_batches" in k or "base_layer" in k for k in names
    )
    model = read_model("second")
    [network] = load_networks(model, model.head["network"])
    state = load_file("second/weights.safetensors")
    found = network.state_dict()
    assert all(torch.equal(found[k.removeprefix("0.")], v) for k, v in state.items())
    assert run(["predict", "scene.tif", "--model", "second/", "-o", "map.tif"]) == 0
