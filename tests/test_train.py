"""`geoml train`: what it learns, says, refuses and leaves behind; weights equal to the bit."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import made
import pytest
from safetensors.torch import load_file

from geoml_cli.cli import run
from geoml_cli.core.aim import Aim
from geoml_cli.formats.model import read_model
from geoml_cli.formats.tileset import read_tileset
from geoml_cli.stages.feed import Feed, Part, parts_of

AIM = Aim("classes", "pixel", ("class",), made.NAMES)
SMALL = ["--encoder", "unet:width=4,depth=1", "--batch", "4", "--device", "cpu"]


@pytest.fixture
def tiles(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made.scene(tmp_path)
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
    assert run(["tile", "scene.tif", *cut, "--buffer", "2", "-o", "tiles/"]) == 0
    return tmp_path


def train(*more, out="model/"):
    return run(["train", "tiles/", *SMALL, "-o", out, *map(str, more)])


def test_training_pixels_stay_away_from_held_ground(tiles):
    found = read_tileset("tiles")
    [part] = parts_of(found)
    feed = Feed(found, part, AIM)
    near, folds = found.take("near", feed.rows), found.take("folds", feed.rows)
    labels = feed.targets(feed.rows, "train")
    assert (folds[labels != 255] == 0).all() and ((near[labels != 255] & 0b110) == 0).all()
    assert feed.counts.sum() == (labels != 255).sum() > 0
    for side, fold in (("val", 1), ("test", 2)):
        rows = feed.held(side)
        assert (
            len(rows) and (found.take("folds", rows)[feed.targets(rows, side) != 255] == fold).all()
        )


def test_statistics_of_training_pixels(tiles):
    found = read_tileset("tiles")
    feed = Feed(found, Part(0, None, None), AIM)
    [(mean, std)] = feed.norms
    images, valid = found.take("images", feed.rows)[:, 0], found.take("valid", feed.rows)[:, 0]
    for c in range(2):
        values = images[:, c][valid].astype(float)
        assert (mean[c], std[c]) == pytest.approx((values.mean(), values.std()), rel=1e-9)


def test_model_folder_says_what_it_is(tiles, capsys):
    assert train("--epochs", 2) == 0
    assert capsys.readouterr().out == "model/model.json\n"
    model = read_model("model")
    assert [b.name for b in model.bands] == ["red", "nir"] and [
        c.name for c in model.classes
    ] == list(made.NAMES)
    assert (
        model.head["halo"] == 10
        and model.head["stride"] == 2
        and model.head["gsd_m"] == pytest.approx(10, rel=1e-3)
    )
    rows = [json.loads(line) for line in Path("model/history.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2] and all(0 <= row["miou"] <= 1 for row in rows)
    import geopandas

    ground = geopandas.read_parquet("model/ground.parquet")
    assert set(ground["role"]) == {"train", "val", "test"} and ground.crs.to_string() == "OGC:CRS84"
    assert not (Path("model") / "checkpoints").exists()
    item = json.loads(Path("model/item.json").read_text())
    import pystac

    assert pystac.Item.from_dict(item).assets["weights"].href == "./weights.safetensors"


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tiles):
    assert train("--epochs", 2) == 0 and train("--epochs", 2, "-j", 3, out="again/") == 0
    assert made.content(tiles / "model") == made.content(tiles / "again")
    assert train("--epochs", 2, "--seed", 1, out="other/") == 0
    ours, theirs = load_file("model/weights.safetensors"), load_file("other/weights.safetensors")
    assert any((ours[k] != theirs[k]).any() for k in ours)


def test_the_micro_batch_is_recorded(tiles):
    assert train("--epochs", 1, "--micro-batch", 2) == 0
    assert read_model("model").head["geoml"]["arguments"]["micro_batch"] == 2
    assert read_model("model").head["best"][0]["micro_batch"] == 2


def command(*words):
    return [sys.executable, "-m", "geoml_cli", *map(str, words)]


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_goes_on_to_the_same_bytes(tiles, signum):
    words = ["train", "tiles/", *SMALL, "--epochs", 8, "--patience", 0]
    assert run([*map(str, words), "-o", "whole/"]) == 0
    process = subprocess.Popen(command(*words, "-o", "killed/"), stderr=subprocess.DEVNULL)
    state = tiles / ".killed.part/checkpoints/0/state.json"
    deadline = time.monotonic() + 60
    while not state.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signum)
    assert process.wait() == (-9 if signum == signal.SIGKILL else 143)
    assert not (tiles / "killed").exists() and state.exists()
    assert run([*map(str, words), "-o", "killed/"]) == 0
    assert made.content(tiles / "whole") == made.content(tiles / "killed")
    assert not (tiles / ".killed.part").exists()


def test_a_deadline_saves_and_says_later(tiles, capsys):
    assert train("--epochs", 500, "--deadline", "0s") == 75
    assert "deadline" in capsys.readouterr().err and not (tiles / "model").exists()


def test_folds_make_an_ensemble(tiles):
    cut = [
        "--labels",
        "labels.gpkg",
        "--label-column",
        "class",
        "--size",
        "32",
        "--split",
        "blocks:4",
        "--folds",
        "3",
    ]
    assert run(["tile", "scene.tif", *cut, "--buffer", "2", "-o", "tiles/"]) == 0
    assert train("--epochs", 1) == 0
    model = read_model("model")
    first, second, _ = model.weights()
    assert model.members == 3 and any((first[k] != second[k]).any() for k in first)


@pytest.mark.parametrize(
    "options, status, words",
    [
        (["--encoder", "unit"], 2, ["unit", "unet"]),
        (["--encoder", "unet:widht=3"], 2, ["widht", "width"]),
        (["--encoder", "unet:width=wide"], 2, ["width", "int", "wide"]),
        (["--objective", "cross-entropy+lovas"], 2, ["lovas"]),
        (["--device", "cuda:7"], 1, ["cuda:7"]),
        (["--device", "gpu"], 1, ["gpu", "cuda"]),
        (["--lr", "1e30", "--epochs", "3"], 1, ["loss", "step", "scene-", "--lr"]),
        (["--task", "regress"], 1, ["class holds classes", "regress learns values"]),
        (["--task", "classify"], 1, ["one label a pixel", "one a tile"]),
        (["--layer", "roads"], 1, ["roads", "class"]),
        (["--sensor", "radar"], 1, ["radar", "image"]),
        (["--objective", "mse"], 2, ["mse", "values", "classes"]),
        (["--codes", "moon"], 2, ["moon", "season"]),
        (["--epochs", "3", "--steps", "4"], 2, ["not both"]),
        (["--checkpoint-every", "soon"], 2, ["--checkpoint-every", "soon"]),
        (["--encoder-weights", "none.pth"], 1, ["none.pth", "no checkpoint"]),
        (["--tune", "some"], 2, ["some", "last:N"]),
    ],
)
def test_bad_arguments_are_one_line(tiles, capsys, options, status, words):
    assert train(*options) == status
    line = capsys.readouterr().err.splitlines()[-1]
    assert all(word in line for word in words), line
    assert not (tiles / "model").exists()


def test_one_class_only(tiles, capsys):
    import geopandas

    table = geopandas.read_file("labels.gpkg")
    table[table["class"] == "water"].to_file("water.gpkg")
    assert (
        run(
            [
                "tile",
                "scene.tif",
                "--labels",
                "water.gpkg",
                "--label-column",
                "class",
                "-o",
                "tiles/",
            ]
        )
        == 0
    )
    assert train() == 1
    assert "one class only (water)" in capsys.readouterr().err


def test_damaged_tiles_are_said_before_training(tiles, capsys):
    path = tiles / "tiles/images-image-00000.npy"
    path.write_bytes(path.read_bytes()[:-100])
    assert train() == 1
    said = capsys.readouterr().err
    assert "images-image-00000.npy" in said and len(said.splitlines()) == 1


def test_no_tiles_at_all(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["train", "nowhere/", "-o", "m/"]) == 1
    assert "nowhere/" in capsys.readouterr().err


OWN = '''"""One convolution."""
from torch import nn


class Encoder(nn.Module):
    def __init__(self, bands, width):
        super().__init__()
        self.channels, self.strides, self.conv = [width], [1], nn.Conv2d(bands, width, 3, padding=1)

    def forward(self, x):
        return [self.conv(x)]


def build(in_channels, *, width: int = 4):
    """Build it."""
    return Encoder(in_channels, width)
'''


def test_a_part_of_ones_own_travels_in_the_model_and_runs_only_when_trusted(tiles, capsys):
    (tiles / "mine.py").write_text(OWN)
    words = [
        "train",
        "tiles/",
        "--encoder",
        "./mine.py:width=6",
        "--epochs",
        "1",
        "--device",
        "cpu",
        "-o",
        "model/",
    ]
    assert run(words) == 0
    model = read_model("model")
    assert model.head["encoder"] == "parts/mine.py:width=6" and model.head["halo"] == 1
    stamp = (tiles / "model/model.json").read_bytes()
    (tiles / "elsewhere").mkdir()
    (tiles / "mine.py").rename(tiles / "elsewhere/mine.py")
    again = [w.replace("./mine.py", "elsewhere/mine.py") for w in words]
    assert (
        run(again) == 0 and (tiles / "model/model.json").read_bytes() == stamp
    )  # the same code: up to date
    capsys.readouterr()
    mapped = ["predict", "scene.tif", "--model", "model", "--device", "cpu", "-o", "maps/"]
    assert run(mapped) == 1
    assert "--trust-code" in capsys.readouterr().err
    assert run([*mapped, "--trust-code"]) == 0
    (tiles / "elsewhere/mine.py").write_text(OWN + "\n# changed\n")
    assert run(again) == 0 and (tiles / "model/model.json").read_bytes() != stamp
