"""Prithvi's masked autoencoder against fixtures from its authors' modules."""

import json
from pathlib import Path

import pytest
import torch

from geoml_cli.core.layers.masked import (
    Decoder,
    Encoder,
    images_of,
    patches_of,
    shuffled,
)

PARITY = Path(__file__).parents[2] / "shared/parity"


def fixture(name):
    path = PARITY / f"{name}.pt"
    if not path.is_file():
        pytest.skip(f"{path}: no such fixture here")
    return torch.load(path, weights_only=True)


def autoencoder(config, state):
    side, patch = config["img_size"], tuple(config["patch_size"])
    codes = config["coords_encoding"]
    encoder = Encoder(
        config["in_chans"], config["num_frames"], side, patch, config["embed_dim"],
        config["depth"], config["num_heads"], config["mlp_ratio"], codes,
    )  # fmt: skip
    decoder = Decoder(
        config["in_chans"], encoder.grid, patch, config["embed_dim"], config["decoder_embed_dim"],
        config["decoder_depth"], config["decoder_num_heads"], config["mlp_ratio"], codes,
    )  # fmt: skip
    own = {f"encoder.{k}": v for k, v in encoder.state_dict().items()}
    own |= {f"decoder.{k}": v for k, v in decoder.state_dict().items()}
    bare = not any(k.startswith("encoder.") for k in state)
    names = {k.partition(".")[2]: k for k in own} if bare else {k: k for k in own}
    assert {names[k] for k in state} == set(own)  # the authors' names, all of them
    for key in ("pos_embed", "decoder_pos_embed"):  # computed, not loaded
        theirs = next(v for k, v in state.items() if k.rpartition(".")[2] == key)
        ours = next(v for k, v in own.items() if k.rpartition(".")[2] == key)
        assert torch.allclose(ours, theirs, atol=1e-6)
    for k, v in state.items():
        part, _, name = names[k].partition(".")
        target = dict((encoder if part == "encoder" else decoder).named_parameters())
        if name in target:
            target[name].data.copy_(v)
    return encoder.eval(), decoder.eval()


@pytest.mark.parametrize("name", ["prithvi_eo1_mae", "prithvi_eo2_tl_mae"])
@torch.no_grad()
def test_every_output_is_the_authors(name):
    found = fixture(name)
    config, given, want = found["config"], found["inputs"], found["outputs"]
    encoder, decoder = autoencoder(config, found["state_dict"])
    close = {"atol": 1e-5, "rtol": 1e-4}
    known = None
    if "temporal_coords" in given:
        known = (given["temporal_coords"], given["location_coords"])
    keep, restore, mask = shuffled(given["noise"], config["mask_ratio"])
    assert torch.equal(restore, want["ids_restore"]) and torch.equal(mask, want["mask_tokens"])
    latent, grid = encoder(given["x"], known, keep)
    torch.testing.assert_close(latent, want["latent"], **close)
    said = decoder(latent, grid, restore, known)
    torch.testing.assert_close(said, want["pred_tokens"], **close)
    patch = tuple(config["patch_size"])
    torch.testing.assert_close(images_of(said, grid, patch), want["pred_image"], **close)
    error = ((said - patches_of(given["x"], patch)) ** 2).mean(2)
    torch.testing.assert_close((error * mask).sum() / mask.sum(), want["loss"], **close)
    tokens, _ = encoder.embed(given["x"], known)
    each = encoder.through(tokens, each=True)
    torch.testing.assert_close(each[0], want["features_0"], **close)
    torch.testing.assert_close(each[-1], want["features_last"], **close)
    tokens, _ = encoder.embed(given["x2"], known)
    torch.testing.assert_close(encoder.through(tokens)[0], want["features_x2"], **close)


def test_patches_are_put_back():
    x = torch.randn(2, 3, 4, 8, 6)
    assert torch.equal(images_of(patches_of(x, (2, 4, 2)), (2, 2, 3), (2, 4, 2)), x)


SIZES = {
    "prithvi_eo1_100": (768, 12, 12, 16, 3, ()),
    "prithvi_eo2_tiny_tl": (192, 12, 3, 16, 1, ("time", "location")),
    "prithvi_eo2_100_tl": (768, 12, 12, 16, 4, ("time", "location")),
    "prithvi_eo2_300": (1024, 24, 16, 16, 4, ()),
    "prithvi_eo2_600_tl": (1280, 32, 16, 14, 4, ("time", "location")),
}


@pytest.mark.parametrize("name", SIZES)
def test_there_are_as_many_parameters_as_published(name):
    path = PARITY / "param_counts.json"
    if not path.is_file():
        pytest.skip(f"{path}: not here")
    want = json.loads(path.read_text())[name]
    width, depth, heads, side, frames, codes = SIZES[name]
    with torch.device("meta"):
        encoder = Encoder(6, frames, 224, (1, side, side), width, depth, heads, 4.0, codes)
        decoder = Decoder(6, encoder.grid, (1, side, side), width, codes=codes)
    counts = [sum(p.numel() for p in one.parameters()) for one in (encoder, decoder)]
    assert counts[0] == want["encoder"] and sum(counts) == want["mae"]
    assert list(encoder.pos_embed.shape) == want["pos_embed"]
    entries = len(encoder.state_dict()) + len(decoder.state_dict())
    assert entries == want["state_entries"]
