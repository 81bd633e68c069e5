"""Several processes are one: the same weights and scores as one process with the same batches."""

import json
import subprocess
import sys
from pathlib import Path

import made
import pytest
import torch
from safetensors.torch import load_file

from geoml_cli.cli import run

GROUP = ["--encoder", "unet:width=8,depth=1,norm=group,dropout=0.0", "--head", "unet:norm=group"]
SAME = ["--augment", "none", "--epochs", "3", "--batch", "4", "--device", "cpu", "--clip", "0"]
TWO = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture
def tiles(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made.scene(tmp_path)
    words = ["--labels", "labels.gpkg", "--label-column", "class", "--size", "16", "--buffer", "0"]
    assert run(["tile", "scene.tif", *words, "-o", "tiles/"]) == 0
    return tmp_path


def several(*words):
    command = [sys.executable, *TWO, "-m", "geoml_cli", "train", "tiles/", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


@pytest.mark.slow
def test_two_processes_end_with_the_weights_of_one(tiles):
    assert run(["train", "tiles/", *GROUP, *SAME, "-o", "one/"]) == 0
    done = several(*GROUP, *SAME, "-o", "two/")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["two/model.json"]
    one, two = (load_file(f"{n}/weights.safetensors") for n in ("one", "two"))
    for key, value in one.items():
        assert torch.allclose(value, two[key], rtol=1e-3, atol=2e-5), key
    rows = [[json.loads(x) for x in Path(f"{n}/history.jsonl").read_text().splitlines()] for n in ("one", "two")]  # fmt: skip
    for a, b in zip(*rows, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4) and a["miou"] == pytest.approx(
            b["miou"], abs=0.01
        )
    a, b = (json.loads(Path(f"{n}/scores.json").read_text()) for n in ("one", "two"))
    assert a["scored"]["n"] == b["scored"]["n"]
    assert a["metrics"]["accuracy"]["value"] == pytest.approx(
        b["metrics"]["accuracy"]["value"], abs=0.01
    )


@pytest.mark.slow
def test_batch_norm_on_several_cpus_is_refused(tiles):
    done = several("--encoder", "unet:width=4,depth=1", *SAME, "-o", "two/")
    assert done.returncode != 0 and "group norm" in done.stderr
    assert not (tiles / "two").exists()
