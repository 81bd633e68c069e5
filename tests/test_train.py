"""`geoml train` and the core: the loop, its objectives, its resume; weights equal to the bit."""

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
import torch
from safetensors.torch import load_file

from geoml_cli import registry
from geoml_cli.cli import run
from geoml_cli.core import network as networks
from geoml_cli.core.augment import dihedral, turn, turn_back
from geoml_cli.core.batch import Batch
from geoml_cli.core.device import pick
from geoml_cli.core.loop import Recipe, fit, rate
from geoml_cli.core.receptive import reach
from geoml_cli.formats.model import read_model
from geoml_cli.formats.tileset import read_tileset
from geoml_cli.stages.feed import Feed, Part, class_weights, parts_of

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


def batch(b=2, c=3, size=16, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    target = torch.from_numpy(rng.integers(0, classes, (b, size, size)))
    weight = torch.from_numpy(rng.choice([0.0, 1.0, 2.5], (b, size, size))).float()
    images = torch.from_numpy(rng.normal(size=(b, 1, c, size, size))).float()
    valid = torch.from_numpy(rng.random((b, 1, size, size)) > 0.1)
    return Batch(images, valid, target=target, weight=weight, total=float(weight.sum()))


class Fixed(torch.nn.Module):
    """A 'model' whose outputs are its parameters."""

    def __init__(self, shape, seed=0):
        super().__init__()
        self.logits = torch.nn.Parameter(
            torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        )

    def forward(self, batch):
        return self.logits


def test_cross_entropy_is_the_weighted_mean_of_log_loss():
    one, model = batch(), Fixed((2, 4, 16, 16))
    loss = registry.make("objectives", "cross-entropy")(model, one, 0)["loss"]
    p = model.logits.detach().double().softmax(1).numpy()
    b, h, w = np.indices(one.target.shape)
    each = -np.log(p[b, one.target.numpy(), h, w]) * one.weight.numpy()
    assert loss.item() == pytest.approx(each.sum() / one.weight.numpy().sum(), rel=1e-6)


def test_dice_against_its_formula_per_class():
    one, model = batch(), Fixed((2, 4, 16, 16))
    loss = registry.make("objectives", "dice")(model, one, 0)["loss"].item()
    p = model.logits.detach().double().softmax(1).numpy()
    seen = one.weight.numpy() > 0
    scores = []
    for c in range(4):
        pc, tc = p[:, c][seen], (one.target.numpy() == c)[seen]
        scores.append(2 * (pc * tc).sum() / ((pc**2).sum() + tc.sum()))
    assert loss == pytest.approx(1 - np.mean(scores), rel=1e-5)


@pytest.mark.parametrize(
    "spec", registry.names("objectives") + ["cross-entropy+dice", "cross-entropy:smoothing=0.1"]
)
def test_every_objective_ignores_what_weighs_nothing_and_has_gradients(spec):
    objective, model, one = networks.objective(spec), Fixed((2, 4, 16, 16)), batch()
    loss = objective(model, one, 0)["loss"]
    loss.backward()
    assert loss.isfinite() and (model.logits.grad.movedim(1, -1)[one.weight == 0] == 0).all()
    other = torch.where(one.weight > 0, one.target, 3 - one.target)
    changed = Batch(one.images, one.valid, target=other, weight=one.weight, total=one.total)
    assert objective(model, changed, 0)["loss"].item() == pytest.approx(loss.item())


def test_cross_entropy_of_parts_adds_up_to_the_whole():
    one, model = batch(4), Fixed((4, 4, 16, 16))
    objective = registry.make("objectives", "cross-entropy")
    whole = objective(model, one, 0)["loss"].item()
    halves = 0.0
    for s in (slice(0, 1), slice(1, 4)):
        part = Batch(
            one.images[s], one.valid[s], target=one.target[s], weight=one.weight[s], total=one.total
        )
        halves += objective(lambda _, s=s: model.logits[s], part, 0)["loss"].item()
    assert halves == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize("encoder", registry.names("encoders"))
@pytest.mark.parametrize("head", registry.names("heads"))
def test_any_encoder_takes_any_head(encoder, head):
    spec = {"encoder": encoder, "head": head, "bands": 3, "frames": 1, "outputs": 5}
    torch.manual_seed(0)
    network = networks.build(spec).eval()
    one = batch(size=32)
    maps = network.encoder(one.images[:, 0])
    assert [m.shape[1] for m in maps] == list(network.encoder.channels)
    assert [32 // m.shape[2] for m in maps] == list(network.encoder.strides)
    out = network(one)
    assert out.shape == (2, 5, 32, 32)
    again = networks.build(spec).eval()
    again.load_state_dict(network.state_dict())
    assert (again(one) == out).all()


def test_normalisation_is_inside_and_invalid_pixels_do_not_bleed():
    network = networks.build(
        {"encoder": "unet:width=4,depth=1", "head": "unet", "bands": 3, "frames": 1, "outputs": 2}
    ).eval()
    one = batch(size=32)
    plain = network(one)
    network.mean.fill_(7.0), network.std.fill_(3.0)
    moved = Batch(one.images * 3 + 7, one.valid)
    assert torch.allclose(network(moved), plain, atol=1e-5)
    wild = Batch(torch.where(one.valid[:, :, None], moved.images, torch.nan), one.valid)
    assert torch.allclose(network(wild), plain, atol=1e-5)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_receptive_field_is_what_a_perturbation_reaches(depth):
    torch.manual_seed(0)
    network = networks.build(
        {
            "encoder": f"unet:width=3,depth={depth}",
            "head": "unet",
            "bands": 2,
            "frames": 1,
            "outputs": 2,
        }
    )
    halo = reach(network, 1)
    network = network.double().eval()
    size, worst = 8 * 2 * halo // 4 // 8 * 8 + 64, 0
    base = torch.randn(
        1, 1, 2, size, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    valid = torch.ones(1, 1, size, 16, dtype=torch.bool)
    with torch.no_grad():
        plain = network(Batch(base, valid))
        for phase in range(network.stride):
            line = size // 2 // 8 * 8 + phase
            for amount in (100.0, -100.0):
                moved = base.clone()
                moved[..., line, :] += amount
                rows = (network(Batch(moved, valid)) != plain).any(1)[0].any(1).nonzero().flatten()
                worst = max(worst, int((rows - line).abs().max()))
    # structure bounds what numbers show; zero-weight edges of bilinear steps may hide a line or two
    assert halo - 4 <= worst <= halo


def test_a_network_that_sees_everything_has_no_receptive_field(tmp_path):
    (tmp_path / "all_seeing.py").write_text(
        '"""Mean of the whole image added."""\nfrom torch import nn\n\n'
        "class Encoder(nn.Module):\n    channels, strides = [2], [1]\n"
        "    def forward(self, x):\n        return [x + x.mean((2, 3), keepdim=True)]\n\n"
        "def build(in_channels, *, width: int = 1):\n    return Encoder()\n"
    )
    (tmp_path / "plain.py").write_text(
        '"""As it is."""\nfrom torch import nn\n\ndef build(channels, outputs):\n'
        "    class Head(nn.Module):\n        def forward(self, maps):\n            return maps[0]\n    return Head()\n"
    )
    spec = {
        "encoder": str(tmp_path / "all_seeing.py"),
        "head": str(tmp_path / "plain.py"),
        "bands": 2,
        "frames": 1,
        "outputs": 2,
    }
    assert reach(networks.build(spec), 1) is None


def test_the_eight_symmetries_are_eight_and_undone():
    x = torch.arange(16).reshape(1, 4, 4)
    seen = {tuple(turn(x, k).flatten().tolist()) for k in range(8)}
    assert len(seen) == 8
    assert all((turn_back(turn(x, k), k) == x).all() for k in range(8))


def test_augmentation_moves_labels_with_pixels():
    one = batch(8)
    marked = Batch(
        one.target[:, None, None].float(),
        one.valid,
        target=one.target,
        weight=one.weight,
        total=1.0,
    )
    turned = dihedral(marked, torch.Generator().manual_seed(3))
    assert (turned.images[:, 0, 0].long() == turned.target).all()
    assert not (turned.target == one.target).all()


def test_learning_rate_rises_then_falls_to_zero():
    rates = [rate(s, 100, 0.1) for s in range(100)]
    assert rates[0] == 0.1 and max(rates) == rates[9] == 1.0 and rates[-1] < 1e-3
    assert rates[55] == pytest.approx(0.5, abs=0.01)


def test_class_weights_have_mean_one_over_pixels():
    counts = np.array([900, 90, 10, 0])
    for how, ratio in [("none", 1), ("sqrt", 10**0.5), ("balanced", 10)]:
        weights = class_weights(counts, how)
        assert (weights * counts).sum() == pytest.approx(1000)
        assert weights[1] / weights[0] == pytest.approx(ratio) and weights[3] == 0


def test_fit_finds_the_least_squares_solution(tmp_path):
    """A linear 'network' and squared loss: the loop must land on the closed form."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(1, 1, 3, 16, 16)), np.array([1.0, -2.0, 0.5])
    y = torch.from_numpy(np.einsum("btchw,c->bhw", x, w)).float()
    one = Batch(
        torch.from_numpy(x).float(),
        torch.ones(1, 1, 16, 16, dtype=torch.bool),
        target=torch.zeros(1, 16, 16).long(),
        weight=torch.ones(1, 16, 16),
        total=256.0,
    )

    class Linear(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.w = torch.nn.Parameter(torch.zeros(3))

        def forward(self, batch):
            return torch.einsum("btchw,c->bhw", batch.images, self.w)

    class Squares(torch.nn.Module):
        def forward(self, model, batch, step):
            return {"loss": ((model(batch) - y) ** 2).mean()}

    model = Linear()
    recipe = Recipe(epochs=400, lr=0.05, weight_decay=0.0, augment="none", clip=1e9)
    fit(
        model,
        Squares(),
        lambda _: iter([[one]]),
        1,
        None,
        recipe,
        pick("cpu"),
        tmp_path,
        lambda _: None,
        lambda: None,
    )
    assert model.w.detach().numpy() == pytest.approx(w, abs=1e-3)


def test_training_pixels_stay_away_from_held_ground(tiles):
    found = read_tileset("tiles")
    [part] = parts_of(found)
    feed = Feed(found, part)
    for rows in (feed.rows,):
        near, folds = found.take("near", rows), found.take("folds", rows)
        labels = feed._train_labels(rows)
        assert (folds[labels != 255] == 0).all() and ((near[labels != 255] & 0b110) == 0).all()
    assert (found.take("folds", feed.val_rows)[feed._val_labels(feed.val_rows) != 255] == 1).all()
    assert feed.counts.sum() == (feed._train_labels(feed.rows) != 255).sum() > 0


def test_statistics_of_training_pixels(tiles):
    found = read_tileset("tiles")
    feed = Feed(found, Part(0, None, None))
    mean, std = feed.norm()
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


def test_the_micro_batch_is_recorded_and_is_the_batch_by_default(tiles):
    assert train("--epochs", 1, "--micro-batch", 4) == 0
    stamp = tiles / "model/model.json"
    before = stamp.stat().st_mtime_ns
    assert train("--epochs", 1) == 0 and stamp.stat().st_mtime_ns == before
    assert train("--epochs", 1, "--micro-batch", 2) == 0
    assert read_model("model").head["geoml"]["arguments"]["micro_batch"] == 2


def command(*words):
    return [sys.executable, "-m", "geoml_cli", *map(str, words)]


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_goes_on_to_the_same_bytes(tiles, signum):
    words = ["train", "tiles/", *SMALL, "--epochs", 40, "--patience", 0]
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
        (["--objective", "cross-entropy+lovasz"], 2, ["lovasz"]),
        (["--device", "cuda:7"], 1, ["cuda:7"]),
        (["--device", "gpu"], 1, ["gpu", "cuda"]),
        (["--lr", "1e30", "--epochs", "3"], 1, ["loss", "--lr"]),
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
