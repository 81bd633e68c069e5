"""Images that are filled: the masked autoencoder against its authors', gaps of any shape, scores, the command."""

import json
from pathlib import Path

import made
import numpy as np
import pytest
import rasterio
import torch
from test_masked import batch_of, fixture

from geoml_cli import registry
from geoml_cli.cli import run
from geoml_cli.core import network as networks
from geoml_cli.core.base import load_base
from geoml_cli.core.batch import Batch
from geoml_cli.core.filling import hidden
from geoml_cli.errors import UsageMistake

SPEC = {
    "encoder": "prithvi:width=64,layers=2,heads=4,patch=8,image=32",
    "head": "mae:width=32,layers=2,heads=4",
    "sensors": [{"bands": 3, "frames": 2}],
    "outputs": 6,
    "per": "pixel",
}


def network_of(**more):
    torch.manual_seed(0)
    return networks.build(SPEC | more).eval()


def images(b=3, t=2, c=3, side=32, seed=1):
    return torch.randn(b, t, c, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", ["prithvi_eo1_mae", "prithvi_eo2_tl_mae"])
@torch.no_grad()
def test_network_and_objective_are_the_authors(name, monkeypatch):
    found = fixture(name)
    config, given, want = found["config"], found["inputs"], found["outputs"]
    side = config["patch_size"][1]
    codes = "-".join(config["coords_encoding"])
    spec = SPEC | {
        "encoder": (
            f"prithvi:width={config['embed_dim']},layers={config['depth']},heads={config['num_heads']}"
            f",patch={side},image={config['img_size']}" + (f",codes={codes}" if codes else "")
        ),
        "head": (
            f"mae:width={config['decoder_embed_dim']},layers={config['decoder_depth']}"
            f",heads={config['decoder_num_heads']}"
        ),
        "sensors": [{"bands": config["in_chans"], "frames": config["num_frames"]}],
    }
    network = networks.build(spec).eval()
    encoder = network.sensors[0].encoder
    load_base(encoder, spec["encoder"], dict(found["state_dict"]), "checkpoint")
    own = registry.load("heads", "mae").rename(dict(found["state_dict"]))
    lost = network.head.load_state_dict(own, strict=False)
    assert lost.missing_keys == ["decoders.0.decoder_pos_embed"] and not lost.unexpected_keys
    batch = batch_of(given["x"].transpose(1, 2))
    if codes:
        known = given["temporal_coords"], given["location_coords"]
        monkeypatch.setattr(encoder, "known", lambda batch: known)
    objective = networks.objective(f"mae:ratio={config['mask_ratio']}")
    hid = objective.hide(network, batch, lambda count: given["noise"])
    close = {"atol": 1e-5, "rtol": 1e-4}
    pred = network(hid).unflatten(1, (config["num_frames"], -1)).transpose(1, 2)
    torch.testing.assert_close(pred, want["pred_image"], **close)
    target = batch.images.flatten(1, 2)
    full = Batch(batch.images, batch.valid, target=target, weight=torch.ones_like(target))
    full = Batch(**{**vars(full), "total": float(target.numel())})
    monkeypatch.setattr(objective, "hide", lambda *_: Batch(**{**vars(full), "hide": hid.hide}))
    torch.testing.assert_close(objective(network, full, 0)["loss"], want["loss"], **close)


@torch.no_grad()
def test_what_is_not_seen_tells_nothing_and_a_row_is_itself_alone():
    network, x = network_of(), images()
    valid = torch.rand(3, 2, 32, 32, generator=torch.Generator().manual_seed(2)) > 0.02
    valid[0, 0, :20] = False  # samples with unlike many patches
    valid[1] = False  # and one that shows nothing at all
    valid[1, 1, 5, 5] = True
    batch = Batch(x, valid)
    said = network(batch)
    wild = torch.where(valid[:, :, None], x, 1e6)
    torch.testing.assert_close(network(Batch(wild, valid)), said)
    for i in range(3):
        torch.testing.assert_close(network(batch.part(i, i + 1))[0], said[i], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_patch_is_hidden_where_more_than_a_quarter_of_it_is_missing():
    network, x = network_of(), images(1)
    encoder = network.sensors[0].encoder
    missing = torch.zeros(1, 2, 32, 32, dtype=torch.bool)
    missing[0, 0, :4, :4] = True  # a quarter of the first patch
    assert encoder.tokens(x, Batch(x, ~missing)).latent.shape[1] == 1 + 32
    missing[0, 0, 4, 4] = True
    assert encoder.tokens(x, Batch(x, ~missing)).latent.shape[1] == 1 + 31


def test_hidden_shares_are_as_asked_and_seeded_by_the_tile():
    from geoml_cli.stages.held import drawn

    network, x = network_of(), images(4)
    objective = networks.objective("mae:ratio=0.75")
    batch = Batch(x, torch.ones(4, 2, 32, 32, dtype=torch.bool), rows=(5, 6, 7, 8))
    hid = hidden(objective.hide(network, batch, drawn(batch.rows)))
    assert hid.float().mean((1, 2, 3)).tolist() == [0.75] * 4
    again = objective.hide(network, batch.part(2, 3), drawn((7,)))
    assert torch.equal(hidden(again)[0], hid[2])
    with pytest.raises(UsageMistake, match="ratio"):
        networks.objective("mae:ratio=1.0")


@torch.no_grad()
def test_sensors_tell_what_another_did_not_see():
    sensors = [{"bands": 3, "frames": 2}, {"bands": 2, "frames": 1}]
    both = network_of(sensors=sensors, outputs=8)
    late = network_of(sensors=sensors, outputs=8, fuse="late")
    one, two = images(), images(t=1, c=2, seed=3)
    see = [torch.ones(3, t, 32, 32, dtype=torch.bool) for t in (2, 1)]
    batch = Batch(one, see[0], others=(Batch(two, see[1]),))
    other = Batch(one, see[0], others=(Batch(two + 1, see[1]),))
    assert both(batch).shape == late(batch).shape == (3, 8, 32, 32)
    assert not torch.allclose(both(batch)[:, :6], both(other)[:, :6], atol=1e-4)
    assert torch.equal(late(batch)[:, :6], late(other)[:, :6])


def test_a_decoder_wants_an_encoder_of_patches():
    with pytest.raises(UsageMistake, match="prithvi"):
        networks.build(SPEC | {"encoder": "unet:width=4,depth=2"})


def test_scores_are_the_formulas():
    part = registry.load("metrics", "reconstruction")
    rng = np.random.default_rng(0)
    truth = rng.random((2, 3, 24, 20))
    guess = truth + rng.normal(0, 0.1, truth.shape)
    valid = rng.random(truth.shape) < 0.3
    peak = np.array([1.0, 2.0, 0.5])
    scores = part.score(part.stats(truth, guess, valid, 3, peak))
    error = (guess - truth)[valid]
    relative = ((guess - truth) / peak[:, None, None])[valid]
    assert scores["rmse"] == pytest.approx(np.sqrt((error**2).mean()))
    assert scores["mae"] == pytest.approx(np.abs(error).mean())
    assert scores["psnr"] == pytest.approx(10 * np.log10(1 / (relative**2).mean()))
    at = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    window = np.outer(at, at) / at.sum() ** 2

    def ssim(a, b, top):  # in full, of one window
        a, b = (one[top[0] - 5 : top[0] + 6, top[1] - 5 : top[1] + 6] for one in (a, b))
        ma, mb = (window * a).sum(), (window * b).sum()
        va, vb = (window * (a - ma) ** 2).sum(), (window * (b - mb) ** 2).sum()
        both = (window * (a - ma) * (b - mb)).sum()
        return ((2 * ma * mb + 1e-4) * (2 * both + 9e-4)) / (
            (ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4)
        )

    for row, col in ((5, 5), (11, 9), (18, 14)):
        only = np.zeros_like(valid)
        only[1, 2, row, col] = True
        stats = part.stats(truth, guess, only, 3, peak)
        want = ssim(truth[1, 2] / 0.5, guess[1, 2] / 0.5, (row, col))
        assert part.score(stats)["ssim"] == pytest.approx(want)
    same = part.score(part.stats(truth, truth, valid, 3))
    assert same["ssim"] == pytest.approx(1) and same["psnr"] == np.inf


def test_scores_look_at_nothing_that_is_not_known():
    part = registry.load("metrics", "reconstruction")
    rng = np.random.default_rng(1)
    truth, guess = rng.random((2, 1, 2, 30, 30))
    valid = np.zeros(truth.shape, bool)
    valid[..., 4:9, 4:9] = True
    truth[..., 6:, 10:] = np.nan
    plain = part.stats(truth, guess, valid, 2)
    guess[..., 6:, 10:] = 1e9
    for key, value in part.stats(truth, guess, valid, 2).items():
        np.testing.assert_allclose(value, plain[key])


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A model that fills, and a scene with a gap, filled by it."""
    folder = tmp_path_factory.mktemp("reconstruct")
    made.scene(folder)
    with rasterio.open(folder / "scene.tif") as dataset:
        gap = dataset.read()
    gap[:, 20:40, 30:52] = 0
    made.write(folder / "gap.tif", gap, nodata=0)
    words = ["tile", f"{folder}/scene.tif", "--size", "32", "--split", "blocks:3"]
    assert run([*words, "-o", f"{folder}/tiles/"]) == 0
    words = [
        "train",
        f"{folder}/tiles/",
        "--task",
        "reconstruct",
        "--device",
        "cpu",
        "--epochs",
        "2",
    ]
    words += ["--encoder", "prithvi:width=32,layers=4,heads=4,patch=8,image=32"]
    assert run([*words, "--head", "mae:width=32,layers=1,heads=4", "-o", f"{folder}/model/"]) == 0
    words = ["predict", f"{folder}/gap.tif", "--model", f"{folder}/model/"]
    assert run([*words, "-o", f"{folder}/filled/"]) == 0
    return folder


def test_a_gap_is_filled_and_the_rest_is_as_it_was(filled):
    with rasterio.open(filled / "gap.tif") as dataset:
        before, valid = dataset.read(), dataset.dataset_mask() > 0
    with rasterio.open(filled / "filled/gap.tif") as dataset:
        after, names = dataset.read(), dataset.descriptions
        assert dataset.dtypes[0] == "float32" and np.isfinite(after).all()
    with rasterio.open(filled / "filled/gap_filled.tif") as dataset:
        told = dataset.read(1)
    assert not valid[20:40, 30:52].any() and valid.any()
    assert np.array_equal(told == 1, ~valid)
    np.testing.assert_allclose(after[:, valid], before[:, valid], rtol=1e-6)
    head = json.loads((filled / "model/model.json").read_text())
    assert head["task"] == "reconstruct" and list(names) == head["aim"]["names"]


def test_a_model_tells_how_well_it_fills_ground_that_it_never_saw(filled):
    scores = json.loads((filled / "model/scores.json").read_text())["metrics"]
    assert 0 < scores["psnr"]["value"] < 40 and -1 <= scores["ssim"]["value"] <= 1
    assert (filled / "model/reconstructions.png").stat().st_size > 2000


def test_images_need_no_labels_and_labels_no_such_objective(filled, capsys):
    words = ["train", f"{filled}/tiles/", "-o", f"{filled}/none/"]
    assert run([*words, "--task", "reconstruct", "--objective", "mse"]) == 2
    assert "images" in capsys.readouterr().err
    assert run([*words, "--task", "reconstruct", "--layer", "class"]) == 2
    assert run(words) == 1
    assert "no labels" in capsys.readouterr().err
    assert not (filled / "none").exists()


def test_an_encoder_goes_on_from_what_filling_taught_it(filled):
    words = ["tile", f"{filled}/scene.tif", "--labels", f"{filled}/labels.gpkg"]
    words += ["--label-column", "class", "--size", "32", "-o", f"{filled}/labelled/"]
    assert run(words) == 0
    words = [
        "train",
        f"{filled}/labelled/",
        "--device",
        "cpu",
        "--epochs",
        "1",
        "--head",
        "fcn:width=8",
    ]
    words += ["--encoder", "prithvi:width=32,layers=4,heads=4,patch=8,image=32"]
    words += ["--encoder-weights", f"{filled}/model/", "--tune", "head"]
    assert run([*words, "-o", f"{filled}/tuned/"]) == 0
    head = json.loads((filled / "tuned/model.json").read_text())
    assert head["started_from"]["path"].endswith("weights.safetensors")
    assert Path(filled / "tuned/weights.safetensors").stat().st_size < 200_000
