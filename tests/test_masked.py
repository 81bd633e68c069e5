"""Prithvi's masked autoencoder against fixtures from its authors' modules."""

import json
from pathlib import Path

import pytest
import torch

from geoml_cli import registry
from geoml_cli.core.base import load_base
from geoml_cli.core.batch import Batch
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


SMALL = "prithvi:width=64,layers=4,heads=4,patch=8,image=32"
NAMES = [[n, None] for n in ("blue", "green", "red", "nir08", "swir16", "swir22")]


def encoder_of(frames, named=NAMES, more=""):
    torch.manual_seed(0)
    return registry.make("encoders", SMALL + more, len(named), frames, named).eval()


def batch_of(x, **more):
    return Batch(x, torch.ones(*x.shape[:2], *x.shape[3:], dtype=torch.bool), **more)


@torch.no_grad()
def test_both_checkpoint_layouts_load_and_say_the_same(tmp_path):
    found = fixture("prithvi_eo1_mae")
    state, want = found["state_dict"], found["outputs"]["features_last"]
    spec = "prithvi:width=64,layers=3,heads=4,patch=8,image=32"
    x = found["inputs"]["x"].transpose(1, 2)
    for prefix in ("", "encoder.", "encoder._timm_module."):
        renamed = {
            (k if "decoder" in k or k == "mask_token" else f"{prefix}{k}"): v
            for k, v in state.items()
        }
        renamed["pos_embed" if not prefix else f"{prefix}pos_embed"] = torch.zeros(1, 589, 64)
        encoder = registry.make("encoders", spec, 6, 3, ())
        load_base(encoder, spec, renamed, "checkpoint")
        maps = encoder.eval()(x, batch_of(x))
        tokens = maps[-1].unflatten(1, (3, 64)).permute(0, 1, 3, 4, 2).reshape(2, 48, 64)
        torch.testing.assert_close(tokens, want[:, 1:], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(
            encoder.summary(x, batch_of(x)), want[:, 0], atol=1e-5, rtol=1e-4
        )


@torch.no_grad()
def test_a_subset_of_bands_is_the_full_model_with_the_others_zero():
    full = encoder_of(2)
    x = torch.randn(2, 2, 6, 32, 32)
    some = [4, 1, 3]
    few = encoder_of(2, [NAMES[i] for i in some] + [["lwir11", None]])
    load_base(few, SMALL, dict(full.state_dict()), "checkpoint")
    few.patch_embed.proj.weight[:, 3] = 0  # the one that the checkpoint does not know
    zeroed = torch.zeros_like(x)
    zeroed[:, :, some] = x[:, :, some]
    asked = torch.cat([x[:, :, some], torch.randn(2, 2, 1, 32, 32)], dim=2)
    for a, b in zip(few(asked, batch_of(asked)), full(zeroed, batch_of(zeroed)), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_layouts_hold_the_same_tokens():
    x = torch.randn(1, 3, 6, 32, 32)
    each = {
        name: encoder_of(3, more=f",layout={name}")(x, batch_of(x))[-1]
        for name in ("stack", "interleave", "mean")
    }
    stacked = each["stack"].unflatten(1, (3, 64))
    assert torch.equal(each["interleave"].unflatten(1, (64, 3)), stacked.transpose(1, 2))
    torch.testing.assert_close(each["mean"], stacked.mean(1))


@torch.no_grad()
def test_dates_and_places_count_where_they_are_known():
    encoder = encoder_of(2, more=",codes=time-location")
    x = torch.randn(3, 2, 6, 32, 32)
    nan = float("nan")
    lonlat = torch.tensor([[8.5, 47.3], [8.5, 47.3], [nan, nan]])
    day = torch.tensor([[18_000.0, 18_100.0], [nan, 18_100.0], [nan, nan]])
    some = encoder(x, batch_of(x, lonlat=lonlat, day=day))[-1]
    none = encoder(x, batch_of(x))[-1]
    assert torch.equal(some[2], none[2]) and not torch.allclose(some[0], none[0])
    from datetime import date, timedelta

    calendar = registry.load("encoders", "prithvi").calendar
    for days in (0, 364, 365, 18_262, 18_627):
        when = date(1970, 1, 1) + timedelta(days)
        want = [when.year, when.timetuple().tm_yday - 1]
        assert calendar(torch.tensor([days + 0.7]), 0)[0].tolist() == want


@torch.no_grad()
def test_the_neck_of_the_first_fine_tuned_models_is_the_authors():
    found = fixture("prithvi_v1_seg")
    config, want = found["config"], found["outputs"]
    spec = (
        "prithvi:width=48,layers=2,heads=4,patch=16,image=32,layout=interleave,neck=upscale"
        f",upscaled={config['neck']['output_embed_dim']}"
    )
    encoder = registry.make("encoders", spec, 6, 3, ())
    load_base(encoder, spec, found["state_dict"], "checkpoint")
    x = found["inputs"]["x"].transpose(1, 2)
    encoder.eval()
    tokens, _ = encoder.embed(encoder.laid(x), None)
    close = {"atol": 1e-5, "rtol": 1e-4}
    torch.testing.assert_close(encoder.through(tokens)[0], want["tokens"], **close)
    [said] = encoder(x, batch_of(x))
    torch.testing.assert_close(said, want["neck"], **close)


@torch.no_grad()
def test_the_pyramid_and_the_decoder_upon_it_are_the_authors():
    from geoml_cli.core.layers.necks import Pyramid
    from geoml_cli.core.layers.upernet import UPerDecoder

    found = fixture("prithvi_vit_decoders")
    state, given, want = found["state_dict"], found["inputs"], found["outputs"]
    close = {"atol": 1e-5, "rtol": 1e-4}
    maps = [given[f"tokens{i}"][:, 1:].transpose(1, 2).unflatten(2, (4, 4)) for i in range(4)]
    neck = Pyramid(32, 16).eval()
    mine = {k.removeprefix("neck."): v for k, v in state.items() if k.startswith("neck.")}
    neck.load_state_dict(mine)
    scaled = neck(maps)
    for i in range(4):
        torch.testing.assert_close(scaled[i], want[f"p{i}"], **close)
    for name, levels in (("upernet", scaled), ("upernet_scaled", None)):
        part = {k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")}
        if levels is None:  # its own pyramid, inside
            own = Pyramid(32, 16).eval()
            own.load_state_dict(
                {
                    k: part.pop(k)
                    for k in list(part)
                    if k.startswith("fpn1") or k.startswith("fpn2.")
                }
            )
            levels = own(maps)
        decoder = UPerDecoder([8, 16, 32, 32], 8, "batch", True, corners=True).eval()
        decoder.load_state_dict(part)
        torch.testing.assert_close(decoder(levels), want[name], **close)
