"""LESS ViT against fixtures from its authors' modules, and against the same maths written out."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from geoml_cli import registry
from geoml_cli.core.base import load_base
from geoml_cli.core.batch import Batch
from geoml_cli.core.layers.less import Decoder, Encoder, Spectrum, cut, joined
from geoml_cli.core.layers.low_rank import LowRankBlock
from geoml_cli.core.layers.spectral import ground_codes, ladder, near
from geoml_cli.core.network import build
from geoml_cli.errors import UsageMistake

PARITY = Path(__file__).parents[2] / "shared/parity"
CLOSE = {"atol": 1e-5, "rtol": 1e-4}
SMALL = "less-vit:width=24,layers=4,heads=2,patch=8,rank=2"
NAMED = [["blue", 490.0], ["green", 560.0], ["red", 665.0], ["vv", None], ["vh", None]]


def fixture(name):
    path = PARITY / f"{name}.pt"
    if not path.is_file():
        pytest.skip(f"{path}: no such fixture here")
    return torch.load(path, weights_only=True)


def sizes(config, of=""):
    """Positional and named arguments of a part, of an authors' configuration."""
    return (config[f"{of}embed_dim"], config[f"{of}depth"], config[f"{of}num_heads"]), {
        "patch": config["patch_size"],
        "share": config[f"{of}channel_embed_dims_per_head"],
        "rank": config["rank"],
        "radius_m": config["attention_radius"] * config["use_perception_field_mask"],
        "ratio": config["mlp_ratio"],
        "start": config["init_values"],
    }


def seen(optical, radar=(), gsd_m=10.0):
    waves = (*optical, *radar)
    return Spectrum(waves, (False,) * len(optical) + (True,) * len(radar), gsd_m)


@torch.no_grad()
def test_every_output_of_a_block_is_the_authors():
    found = fixture("less_block")
    config, given, want = found["config"], found["inputs"], found["outputs"]
    (width, _, heads), more = sizes(config)
    block = LowRankBlock(
        width, heads, more["share"], more["rank"], ratio=more["ratio"], start=more["start"]
    ).eval()
    block.load_state_dict(found["state_dict"])
    x, mask = given["x"], given["spatial_mask"]
    channels, positions = block.low_dim_pool(block.norm1(x))
    torch.testing.assert_close(channels, want["x_c"], **CLOSE)
    torch.testing.assert_close(positions, want["x_s"], **CLOSE)
    said = block.attn(block.channel_norm(channels), block.spatial_norm(positions))
    torch.testing.assert_close(said, want["attn"], **CLOSE)
    torch.testing.assert_close(block(x), want["y"], **CLOSE)
    torch.testing.assert_close(block(x, mask), want["y_masked"], **CLOSE)
    assert torch.equal(near((4, 4), 8 * 10, config["attention_radius"]), mask)


@torch.no_grad()
def test_every_output_of_an_encoder_is_the_authors():
    found = fixture("less_encoder")
    given, want = found["inputs"], found["outputs"]
    dims, more = sizes(found["config"])
    encoder = Encoder(*dims, **more).eval()
    encoder.load_state_dict(found["state_dict"])
    optical, radar = given["optical_wv"][0].tolist(), given["radar_wv"][0].tolist()
    alone = encoder(given["optical"], seen(optical))[-1]
    torch.testing.assert_close(alone, want["tokens_optical"], **CLOSE)
    torch.testing.assert_close(alone[:, 0, 0], want["cls_optical"], **CLOSE)
    coarse = encoder(given["optical"], seen(optical, gsd_m=30))[-1]
    torch.testing.assert_close(coarse, want["tokens_optical_30m"], **CLOSE)
    both = torch.cat([given["optical"], given["radar"]], dim=1)
    said = encoder(both, seen(optical, radar))[-1]
    torch.testing.assert_close(said, want["tokens_both"], **CLOSE)


@torch.no_grad()
def test_turned_positions_are_the_authors():
    found = fixture("less_encoder_rope_head")
    given, want, config = found["inputs"], found["outputs"], found["config"]
    dims, more = sizes(config)
    encoder = Encoder(*dims, **more, rope=config["rope_embed_base"]).eval()
    own, state = encoder.state_dict(), found["state_dict"]
    for key in ("pos_chan_embed.periods_hw", "pos_chan_embed.periods_c"):
        torch.testing.assert_close(own[key], state[key])
    encoder.load_state_dict(state)
    said = encoder(given["optical"], seen(given["optical_wv_unit"][0].tolist()))[-1]
    torch.testing.assert_close(said, want["tokens_optical"], **CLOSE)
    torch.testing.assert_close(said[:, 0, 0], want["cls_optical"], **CLOSE)


def autoencoder(found):
    """Network of an authors' autoencoder, its batch, and noise that hides what they hid."""
    config, given = found["config"], found["inputs"]
    waves = given["optical_wv"][0].tolist()
    names = [[None, nm] for nm in waves] + [["vv", None], ["vh", None]]
    radius = config["attention_radius"] * config["use_perception_field_mask"]
    spec = {
        "encoder": (
            f"less-vit:width={config['embed_dim']},layers={config['depth']},heads={config['num_heads']},"
            f"patch={config['patch_size']},rank={config['rank']},radius_m={radius},"
            f"share={config['channel_embed_dims_per_head']}"
        ),
        "head": (
            f"hyper-mae:width={config['decoder_embed_dim']},layers={config['decoder_depth']},rank={config['rank']},"
            f"heads={config['decoder_num_heads']},share={config['decoder_channel_embed_dims_per_head']}"
        ),
        "sensors": [{"bands": len(names), "frames": 1, "names": names}],
        "outputs": len(names), "per": "pixel",
    }  # fmt: skip
    network = build(spec).eval()
    load_base(network.sensors[0].encoder, spec["encoder"], dict(found["state_dict"]), "checkpoint")
    rename = registry.load("heads", "hyper-mae").rename
    network.head.load_state_dict(rename(found["state_dict"]))
    x = torch.cat([given["optical"], given["radar"]], dim=1)[:, None]
    valid = torch.ones(len(x), 1, *x.shape[3:], dtype=torch.bool)
    target = x[:, 0]
    batch = Batch(
        x, valid, target=target, weight=torch.ones_like(target), total=float(target.numel())
    )
    drawn = torch.cat([given["channel_noise"], given["pos_noise"].expand(len(x), -1)], dim=1)
    return network, batch, drawn


@torch.no_grad()
def test_masked_autoencoding_is_the_authors(monkeypatch):
    found = fixture("less_hypermae")
    config, want = found["config"], found["outputs"]
    network, batch, drawn = autoencoder(found)
    objective = registry.make("objectives", f"hyper-mae:channels={config['channel_mask_ratio']},positions={config['mask_ratio']},normed=true")  # fmt: skip
    monkeypatch.setattr(torch, "rand", lambda b, n: drawn)
    torch.testing.assert_close(objective(network, batch, 0)["loss"], want["loss"], **CLOSE)
    hid = objective.hide(network, batch, lambda count: drawn)
    masks = cut(hid.hide[:, 0].float(), 8).mean(-1)  # (B, C, N)
    assert torch.equal(masks.amin(2), want["channel_mask"])
    assert torch.equal(masks.amin(1), want["pos_mask"])
    torch.testing.assert_close(cut(network(hid), 8), want["recon"], **CLOSE)


@torch.no_grad()
def test_samples_of_which_unlike_much_is_missing_are_themselves_alone():
    torch.manual_seed(3)
    named = [["blue", 490.0], ["green", 560.0], ["red", 665.0], ["vv", None]]
    spec = {
        "encoder": SMALL + ",radius_m=150",
        "head": "hyper-mae:width=16,layers=2,heads=2,rank=2",
    }
    spec |= {"sensors": [{"bands": 4, "frames": 2, "names": named}], "outputs": 8, "per": "pixel"}
    network = build(spec).eval()
    for p in network.parameters():
        p.add_(0.1 * torch.randn_like(p))
    x, valid = torch.randn(3, 2, 4, 24, 32), torch.rand(3, 2, 24, 32) > 0.02
    valid[0, 0, :, :20] = False
    valid[1, 1] = False  # a date that shows nothing
    hide = torch.zeros_like(x, dtype=torch.bool)
    hide[2, :, 1:3] = True  # bands
    hide[0, 1, 3] = True
    said = network(Batch(x, valid, hide=hide))
    wild = torch.where(valid[:, :, None] & ~hide, x, 1e6)
    assert torch.equal(network(Batch(wild, valid, hide=hide)), said)
    for i in range(3):
        alone = network(Batch(x, valid, hide=hide).part(i, i + 1))[0]
        torch.testing.assert_close(alone, said[i], atol=1e-4, rtol=1e-3)
    assert said.shape == (3, 8, 24, 32) and said.isfinite().all()


@pytest.mark.parametrize("encoder, head", [
    (SMALL + ",wavelengths=490-560-vv", "hyper-mae:width=16,layers=1,heads=2,rank=1"),
    ("unet:width=4,depth=2", "unet"),
])  # fmt: skip
def test_hidden_bands_and_patches_are_learnt(encoder, head):
    torch.manual_seed(0)
    network = build({"encoder": encoder, "head": head, "outputs": 6, "per": "pixel", "sensors": [{"bands": 3, "frames": 2}]})  # fmt: skip
    objective = registry.make("objectives", "hyper-mae:channels=0.4,positions=0.5,patch=8")
    x = (
        torch.rand(4, 2, 1, 32, 32).expand(-1, -1, 3, -1, -1)
        * torch.tensor([1.0, -1, 2])[:, None, None]
    )
    valid = torch.rand(4, 2, 32, 32) > 0.1
    target = torch.where(valid[:, :, None], x, torch.nan).flatten(1, 2)
    weight = target.isfinite().float()
    batch = Batch(x, valid, target=target, weight=weight, total=float(weight.sum()))
    hid = objective.hide(network, batch, lambda n: torch.rand(4, n))
    assert hid.hide.all((3, 4)).sum((1, 2)).tolist() == [2] * 4  # one band of three, of both dates
    assert torch.equal(hid.hide[:, 0], hid.hide[:, 1])
    optimizer, losses = torch.optim.AdamW(network.parameters(), 0.01), []
    for step in range(12):
        optimizer.zero_grad()
        loss = objective(network, batch, step)["loss"]
        loss.backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])


@pytest.mark.parametrize("rank", [1, 8])
@pytest.mark.parametrize("size, share", [("S", 2), ("B", 2), ("B", 4)])
def test_there_are_as_many_parameters_as_counted(size, share, rank):
    path = PARITY / "param_counts.json"
    if not path.is_file():
        pytest.skip(f"{path}: not here")
    want = json.loads(path.read_text())[f"less_vit_{size}_r{rank}_c{share}"]
    dims = {"S": (384, 12, 6), "B": (768, 12, 12)}[size]
    with torch.device("meta"):
        encoder = Encoder(*dims, share=share, rank=rank)
        decoder = Decoder(dims[0], 512, 4, share=share, rank=rank)
    counts = [sum(p.numel() for p in one.parameters()) for one in (encoder, decoder)]
    assert counts[0] == want["encoder"] and sum(counts) == want["mae_decoder4"]


@torch.no_grad()
def test_the_attention_is_a_sum_of_kronecker_products():
    """Each rank's attention over the whole grid, written out as one (C N)^2 matrix."""
    torch.manual_seed(0)
    attention = LowRankBlock(24, 2, 2, 3).attn
    channels, positions = torch.randn(1, 4, 4), torch.randn(1, 5, 12)
    want = torch.zeros(20, 2, 2, 6)
    for h in range(2):
        for r in range(3):
            weights, values = [], []
            for branch, x in ((attention.channel_branch, channels), (attention.spatial_branch, positions)):  # fmt: skip
                width = branch.v.out_features // 2
                q, k = branch.qk(x[0]).view(-1, 2, 2, 3, width)[:, :, h, r].unbind(1)
                weights.append((q @ k.T / width**0.5).softmax(1))
                values.append(branch.v(x[0]).view(-1, 2, width)[:, h])
            over = torch.kron(weights[0], weights[1])  # (C N, C N)
            value = torch.einsum("ca,nb->cnab", *values).reshape(20, 2, 6)
            want[:, h] += torch.einsum("xy,yab->xab", over, value)
    want = attention.proj(want.reshape(1, 4, 5, 24))
    torch.testing.assert_close(attention(channels, positions), want, **CLOSE)


def test_rates_are_powers_to_a_few_units_in_the_last_place():
    for count in (6, 24, 192, 384):
        np.testing.assert_allclose(ladder(count), 1e4 ** (-np.arange(count) / count), rtol=3e-7)


def test_codes_of_the_ground_are_in_metres():
    a, b = ground_codes((3, 7), 10.0, 16), ground_codes((7, 13), 5.0, 16)
    assert torch.equal(a[0], torch.zeros(16))
    a, b = a[1:].view(3, 7, 16), b[1:].view(7, 13, 16)
    assert torch.equal(a, b[:5:2, ::2])  # every other one of half the size
    assert torch.equal(a[:, 2, :8], a[:, 2, :8].flip(0)) and not torch.equal(a[0, 2], a[1, 2])


def encoder_of(more="", named=NAMED, frames=1):
    torch.manual_seed(0)
    return registry.make("encoders", SMALL + more, len(named), frames, named).eval()


def batch_of(x, **more):
    return Batch(x, torch.ones(*x.shape[:2], *x.shape[3:], dtype=torch.bool), **more)


@pytest.mark.parametrize("more", ["", ",positions=turned,width=48", ",radius_m=90"])
@torch.no_grad()
def test_the_order_of_bands_does_not_matter_and_that_of_pixels_does(more):
    encoder, x = encoder_of(more), torch.randn(2, 1, 5, 32, 24)
    order = [3, 0, 4, 2, 1]
    again = encoder_of(more, [NAMED[i] for i in order])
    again.load_state_dict(encoder.state_dict())
    other = x[:, :, order]
    for a, b in zip(encoder(x, batch_of(x)), again(other, batch_of(other)), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    tokens = Encoder.forward(encoder, x[:, 0], encoder.spectrum(5, batch_of(x)))[-1]
    turned = Encoder.forward(again, other[:, 0], again.spectrum(5, batch_of(other)))[-1]
    at = [0, *(1 + i for i in order)]
    torch.testing.assert_close(tokens[:, at], turned, atol=1e-5, rtol=1e-4)
    plain = encoder(x[:, :, order], batch_of(x))[-1]  # the same bands taken for others
    assert not torch.allclose(plain, encoder(x, batch_of(x))[-1], atol=1e-2)
    flipped = encoder(x.flip(4), batch_of(x))[-1]
    assert not torch.allclose(flipped.flip(3), encoder(x, batch_of(x))[-1], atol=1e-3)


@torch.no_grad()
def test_any_bands_are_taken_where_the_batch_tells_their_wavelengths():
    encoder = encoder_of(named=NAMED[:3])
    for count in (1, 2, 40):
        x = torch.randn(1, 1, count, 16, 16)
        told = torch.linspace(450, 2300, count)
        batch = batch_of(x, wavelength_nm=told)
        assert encoder(x, batch)[-1].shape == (1, 24, 2, 2)
        named = encoder_of(named=[[None, nm] for nm in told.tolist()])
        assert torch.equal(named(x, batch_of(x))[-1], encoder(x, batch)[-1])
    with pytest.raises(UsageMistake, match="40 bands"):
        encoder(x, batch_of(x))


@torch.no_grad()
def test_the_size_of_pixels_and_a_radius_count():
    encoder, x = encoder_of(), torch.randn(1, 1, 5, 32, 32)
    a, b = (encoder(x, batch_of(x, gsd_m=g))[-1] for g in (10.0, 30.0))
    assert not torch.allclose(a, b, atol=1e-3)
    assert torch.equal(a, encoder(x, batch_of(x))[-1])  # of 10 m where it is not known
    looks = near((2, 3), 80.0, 100.0)
    assert looks[0].all() and looks[:, 0].all() and looks[1:, 1:].sum() == 6 + 2 * 7


@torch.no_grad()
def test_dates_are_averaged_by_what_is_valid():
    encoder, x = encoder_of(frames=2), torch.randn(2, 2, 5, 16, 16)
    one = [encoder(x[:, t : t + 1], batch_of(x[:, t : t + 1]))[-1] for t in range(2)]
    torch.testing.assert_close(encoder(x, batch_of(x))[-1], (one[0] + one[1]) / 2)
    valid = torch.ones(2, 2, 16, 16, dtype=torch.bool)
    valid[:, 1] = False
    torch.testing.assert_close(encoder(x, Batch(x, valid))[-1], one[0], atol=3e-3, rtol=0)


@torch.no_grad()
def test_readouts_for_labels_a_tile():
    x = torch.randn(2, 1, 5, 16, 24)
    said = encoder_of(",readout=class")
    maps = said(x, batch_of(x))[-1]
    assert torch.equal(maps, said.summary(x, batch_of(x))[:, :, None, None].expand(-1, -1, 2, 3))
    mixed = encoder_of(",readout=channels,best=2")
    tokens = Encoder.forward(mixed, x[:, 0], mixed.spectrum(5, batch_of(x)))[-1][:, 1:, 0]
    score = tokens @ mixed.gate.weight[0] + mixed.gate.bias
    for row in range(2):
        first, second = score[row].argsort(descending=True)[:2]
        share = torch.sigmoid(score[row, first] - score[row, second])
        want = share * tokens[row, first] + (1 - share) * tokens[row, second]
        got = mixed(x, batch_of(x))[-1][row, :, 0, 0]
        torch.testing.assert_close(got, want, **CLOSE)


@torch.no_grad()
def test_a_published_state_loads_for_optical_bands_alone():
    found = fixture("less_hypermae")
    spec = "less-vit:width=48,layers=2,heads=3,patch=8,rank=2,radius_m=160"
    encoder = registry.make("encoders", spec, 2, 1, [["green", 560.0], ["nir", 833.0]])
    load_base(encoder, spec, found["state_dict"], "checkpoint")
    want = found["state_dict"]["encoder.blocks.1.attn.spatial_branch.qk.weight"]
    assert torch.equal(encoder.blocks[1].attn.spatial_branch.qk.weight, want)


def test_what_cannot_be_is_said_in_one_line():
    for spec, named, word in [
        (SMALL, [["blue", 490.0], [None, None]], "no wavelength of band 2"),
        (SMALL, NAMED[:1], "2 bands, and wavelengths of 1"),
        (SMALL + ",wavelengths=490-x", (), "nanometres"),
        (SMALL + ",positions=turned", NAMED[:2], "multiple of 4"),
        (SMALL + ",readout=best", NAMED[:2], "patches, class, channels"),
        ("less-vit:width=25,heads=2", NAMED[:2], "no multiple of heads x share"),
    ]:
        with pytest.raises(UsageMistake, match=word):
            registry.make("encoders", spec, 2, 1, named)


def test_patches_are_put_back():
    x = torch.randn(2, 3, 8, 12)
    assert torch.equal(joined(cut(x, 4), (2, 3), 4), x)
