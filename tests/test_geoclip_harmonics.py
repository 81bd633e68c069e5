"""The location encoder that joins GeoCLIP's vectors and harmonics, and what a frozen one costs."""

import json
import math
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from torch import nn

from geoml_cli import registry
from geoml_cli.cli import run
from geoml_cli.core import tune
from geoml_cli.core.batch import Batch
from geoml_cli.core.location import Location

TINY = "geoclip-harmonics:degrees=4"


def places(count=40, seed=0):
    rng = np.random.default_rng(seed)
    xy = np.column_stack([rng.uniform(-180, 180, count), rng.uniform(-80, 80, count)])
    return torch.from_numpy(xy).float()


def alone(encoder):
    return Location(encoder, [], [], "alone", 0.0)


def asked(location, lonlat):
    """Vectors (N, D) that a network is given."""
    image = torch.zeros(len(lonlat), 1, 1, 1, 1)
    batch = Batch(image, torch.ones(len(lonlat), 1, 1, 1, dtype=torch.bool), lonlat=lonlat)
    return location([], batch)[0][..., 0, 0]


def test_it_is_both_side_by_side():
    torch.manual_seed(0)
    both, lonlat = registry.make("location_encoders", TINY).eval(), places()
    with torch.no_grad():
        found, clip = both(lonlat), both.held(lonlat)
        ylm = registry.make("location_encoders", "spherical-harmonics:degrees=4")(lonlat)
    assert found.shape == (40, both.out_channels) == (40, 512 + 16)
    want = (clip - clip.mean(1, keepdim=True)) / clip.std(1, keepdim=True, correction=0)
    torch.testing.assert_close(
        found[:, :512], want, atol=2e-2, rtol=1e-3
    )  # eps shows: they are small
    torch.testing.assert_close(found[:, 512:], ylm * math.sqrt(4 * math.pi), atol=1e-5, rtol=1e-5)


def test_harmonics_are_hidden_from_a_share_in_training_alone_also_where_all_is_frozen():
    torch.manual_seed(0)
    encoder = registry.make("location_encoders", f"{TINY},hidden=0.25")
    encoder.requires_grad_(False)
    network, lonlat = nn.ModuleList([alone(encoder), nn.Linear(2, 2)]), places(2000)
    network[0].know(lonlat)
    tune.train_mode(network)
    assert not encoder.held.training and encoder.hide.training
    given = asked(network[0], lonlat)
    share = (given[:, 512:] == 0).all(1).float().mean().item()
    assert abs(share - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 2000)
    assert not (given[:, :512] == 0).all(1).any()
    network.eval()
    assert not (asked(network[0], lonlat)[:, 512:] == 0).all(1).any()


def test_places_that_are_known_are_encoded_once_and_others_as_ever():
    class Counted(nn.Module):
        out_channels, exact = 3, True

        def __init__(self):
            super().__init__()
            self.asked = 0

        def forward(self, lonlat):
            self.asked += len(lonlat)
            return torch.stack([lonlat[:, 0], lonlat[:, 1], lonlat.sum(1)], 1)

    location, lonlat = alone(Counted()), places()
    plain = asked(location, lonlat)
    location.encoder.asked = 0
    holed = torch.cat([lonlat, torch.full((1, 2), torch.nan)])
    location.know(holed)
    for _ in range(3):
        assert torch.equal(asked(location, lonlat.flip(0)), plain.flip(0))
    assert location.encoder.asked == len(lonlat)
    assert torch.equal(asked(location, holed)[:-1], plain)  # one has no place: all as ever
    assert torch.equal(
        asked(location, places(5, seed=1)), asked(alone(Counted()), places(5, seed=1))
    )


def test_what_is_known_is_said_without_dropout():
    torch.manual_seed(0)
    encoder = registry.make("location_encoders", "satclip:degrees=4,dropout=0.5")
    encoder.requires_grad_(False).train()
    location, lonlat = alone(encoder), places()
    location.know(lonlat)
    known = asked(location, lonlat)
    location.forget()
    encoder.eval()
    torch.testing.assert_close(known, asked(location, lonlat), atol=1e-5, rtol=1e-5)


def test_a_checkpoint_of_geoclip_alone_is_taken_too():
    part = registry.load("location_encoders", "geoclip-harmonics")
    inner = registry.make("location_encoders", "geoclip").state_dict()
    named = part.rename({f"location_encoder.{k}": v for k, v in inner.items()} | {"logit_scale": 1})
    assert named.keys() == part.build(degrees=2).state_dict().keys()
    assert part.rename(named).keys() == named.keys()


@pytest.fixture
def release(tmp_path, monkeypatch):
    """A small GeoCLIP in a folder as it is published, and a table of places."""
    from safetensors.torch import save_file

    monkeypatch.chdir(tmp_path)
    torch.manual_seed(1)
    inner = registry.make("location_encoders", "geoclip")
    Path("published").mkdir()
    state = {f"location_encoder.{k}": v for k, v in inner.state_dict().items()}
    save_file(state, "published/model.safetensors")
    about = {"model_type": "geoclip-location-encoder", "format_version": 1}
    Path("published/config.json").write_text(json.dumps(about))
    lonlat = places(200).numpy()
    table = pandas.DataFrame({"lon": lonlat[:, 0], "lat": lonlat[:, 1]})
    table.assign(t=30 - abs(lonlat[:, 1]) / 2).to_csv("t.csv", index=False)
    return inner


def test_it_starts_from_geoclips_weights_and_keeps_them(release, capfd):
    words = ["train", "t.csv", "--target", "t", "--location-weights", "published", "--epochs", "3"]
    more = ["--tune", "head", "--device", "cpu", "--location-encoder"]
    assert run([*words, *more, TINY, "--head", "mlp:dropout=0.3", "-o", "model/"]) == 0
    from safetensors.torch import load_file

    stored = load_file("model/weights.safetensors")
    inside = "0.sensors.0.location.encoder.held."
    kept = {k.removeprefix(inside): v for k, v in stored.items() if k.startswith(inside)}
    assert kept.keys() == release.state_dict().keys()
    assert all(torch.equal(v, kept[k]) for k, v in release.state_dict().items())
    assert run(["predict", "t.csv", "--model", "model/", "-o", "said.parquet"]) == 0
    capfd.readouterr()
    assert run([*words, *more, "wrap", "-o", "other/"]) == 2
    assert "holds geoclip" in capfd.readouterr().err
