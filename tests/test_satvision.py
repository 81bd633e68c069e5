"""SatVision-TOA against fixtures from its authors' modules, Planck's law, and a checkpoint as DeepSpeed writes it."""

import json
from argparse import Namespace
from pathlib import Path

import geopandas
import made
import numpy as np
import pytest
import rasterio
import torch
from safetensors.torch import save_file
from scipy.interpolate import interp1d

from geoml_cli import registry
from geoml_cli.cli import run
from geoml_cli.core.base import load_base, read_state
from geoml_cli.core.batch import Batch
from geoml_cli.core.network import build, own_scales
from geoml_cli.errors import GeomlError, UsageMistake
from geoml_cli.geo import radiometry

PARITY = Path(__file__).parents[2] / "shared/parity"
CLOSE = {"atol": 1e-5, "rtol": 1e-4}
pytest.importorskip("transformers", reason="the extra `backbones` is not installed")


def fixture(name):
    path = PARITY / f"{name}.pt"
    if not path.is_file():
        pytest.skip(f"{path}: no such fixture here")
    return torch.load(path, weights_only=True)


def spec_of(config, more=""):
    depths, heads = ("-".join(map(str, config[k])) for k in ("depths", "num_heads"))
    return (
        f"satvision:width={config['embed_dim']},depths={depths},heads={heads},patch={config['patch_size']},"
        f"window={config['window_size']},image={config['img_size']},norms={config['extra_norm_period']}{more}"
    )


def filled(given):
    """Masks (B, h, w) of patches of 4 px on the pixels (B, H, W)."""
    return given["mask"].bool().repeat_interleave(4, 1).repeat_interleave(4, 2)


@torch.no_grad()
def test_filling_in_what_is_hidden_is_the_authors():
    found = fixture("satvision_mim")
    config, given, want = found["config"], found["inputs"], found["outputs"]
    encoder = registry.make("encoders", spec_of(config), config["in_chans"])
    load_base(encoder, spec_of(config), found["state_dict"], "checkpoint")
    encoder.eval()
    maps = encoder(given["x"], filled(given))
    torch.testing.assert_close(maps[-1], want["z"], **CLOSE)
    head = registry.make("heads", "pixel-shuffle", encoder.channels, encoder.strides, 14)
    head.load_state_dict(registry.load("heads", "pixel-shuffle").rename(found["state_dict"]))
    torch.testing.assert_close(head(maps), want["rec"], **CLOSE)


@torch.no_grad()
def test_the_loss_of_the_objective_is_the_authors(monkeypatch):
    found = fixture("satvision_mim")
    config, given, want = found["config"], found["inputs"], found["outputs"]
    spec = {"encoder": spec_of(config), "head": "pixel-shuffle", "outputs": 14, "per": "pixel"}
    network = build(spec | {"sensors": [{"bands": 14, "frames": 1}]}).eval()
    load_base(network.sensors[0].encoder, spec["encoder"], found["state_dict"], "checkpoint")
    rename = registry.load("heads", "pixel-shuffle").rename
    network.head.load_state_dict(rename(found["state_dict"]))
    x = given["x"]
    valid = torch.ones(len(x), 1, 64, 64, dtype=torch.bool)
    batch = Batch(x[:, None], valid, target=x, weight=torch.ones_like(x), total=float(x.numel()))
    share = given["mask"].float().flatten(1)
    assert (share.sum(1) == share.sum(1)[0]).all()
    objective = registry.make("objectives", f"simmim:square=4,ratio={share.mean().item():.6f}")
    monkeypatch.setattr(torch, "rand", lambda b, n: share)  # hides the highest
    torch.testing.assert_close(objective(network, batch, 0)["loss"], want["loss"], **CLOSE)


def test_squares_are_hidden_in_the_share_asked_rounded_up():
    objective = registry.make("objectives", "simmim")
    x = torch.randn(3, 2, 4, 40, 40)
    batch = Batch(x, torch.ones(3, 2, 40, 40, dtype=torch.bool))
    hide = objective.hide(None, batch, lambda n: torch.rand(3, n)).hide
    assert hide.shape == (3, 2, 1, 40, 40) and torch.equal(hide[:, 0], hide[:, 1])
    cells = hide[:, 0, 0].unflatten(1, (5, 8)).unflatten(3, (5, 8)).float().mean((2, 4))
    assert cells.sum((1, 2)).tolist() == [15] * 3 and set(cells.unique().tolist()) == {0, 1}
    odd = registry.make("objectives", "simmim:ratio=0.5,square=16")
    assert odd.hide(None, batch, lambda n: torch.rand(3, n)).hide[0, 0].float().mean() > 0.4
    with pytest.raises(UsageMistake, match="share"):
        registry.make("objectives", "simmim:ratio=1.0")


@torch.no_grad()
def test_features_of_every_stage_are_the_authors():
    found = fixture("satvision_mim")
    config, given, want = found["config"], found["inputs"], found["outputs"]
    spec = spec_of(config, ",normed=false")
    encoder = registry.make("encoders", spec, config["in_chans"]).eval()
    load_base(encoder, spec, found["state_dict"], "checkpoint")
    merged = []
    for stage in encoder.model.encoder.layers[:-1]:
        stage.downsample.register_forward_hook(lambda m, i, out: merged.append(out))
    last = encoder(given["x"])[-1]
    torch.testing.assert_close(last, want["feat3"], **CLOSE)
    for i, tokens in enumerate(merged):
        got = tokens.transpose(1, 2).unflatten(2, want[f"feat{i}"].shape[-2:])
        torch.testing.assert_close(got, want[f"feat{i}"], **CLOSE)
    normed = registry.make("encoders", spec_of(config), config["in_chans"]).eval()
    load_base(normed, spec_of(config), found["state_dict"], "checkpoint")
    torch.testing.assert_close(normed(given["x"])[-1].mean((2, 3)), want["pooled"], **CLOSE)


@torch.no_grad()
def test_without_extra_norms_it_is_the_authors_downstream_encoder():
    found = fixture("satvision_swinv2_plain")
    config, given, want = found["config"], found["inputs"], found["outputs"]
    spec = spec_of(config, ",normed=false")
    encoder = registry.make("encoders", spec, config["in_chans"]).eval()
    load_base(encoder, spec, found["state_dict"], "checkpoint")
    torch.testing.assert_close(encoder(given["x"])[-1], want["feat3"], **CLOSE)
    assert not any("norm3" in k for k in encoder.state_dict())


@torch.no_grad()
def test_a_pretrained_state_loads_without_its_extra_norms_too():
    found = fixture("satvision_mim")
    config, given, want = found["config"], found["inputs"], found["outputs"]
    spec = spec_of(config | {"extra_norm_period": 0}, ",normed=false")
    encoder = registry.make("encoders", spec, config["in_chans"]).eval()
    load_base(encoder, spec, found["state_dict"], "checkpoint")
    assert not torch.allclose(encoder(given["x"])[-1], want["feat3"], **CLOSE)


@torch.no_grad()
def test_microsoft_s_key_names_are_known_to_swinv2():
    found = fixture("satvision_swinv2_plain")
    spec = "swinv2:width=8,depths=2-2-3-2,heads=2-2-4-4,window=4,drop_path=0"
    encoder = registry.make("encoders", spec, 14).eval()
    load_base(encoder, spec, found["state_dict"], "checkpoint")
    maps = encoder(found["inputs"]["x"])
    plain = registry.make("encoders", spec_of(found["config"], ",normed=false"), 14).eval()
    load_base(plain, "satvision", found["state_dict"], "checkpoint")
    torch.testing.assert_close(maps[0], encoder.norms[0](plain(found["inputs"]["x"])[0].permute(0, 2, 3, 1)).permute(0, 3, 1, 2))  # fmt: skip


@pytest.mark.parametrize("size", ["giant", "huge"])
def test_there_are_as_many_parameters_as_published(size):
    path = PARITY / "param_counts.json"
    if not path.is_file():
        pytest.skip(f"{path}: not here")
    want = json.loads(path.read_text())[f"satvision_toa_{size}_mim"]["params"]
    with torch.device("meta"):
        encoder = registry.make("encoders", f"satvision:size={size}", 14)
        head = registry.make("heads", "pixel-shuffle", encoder.channels, encoder.strides, 14)
    own = sum(c * 2 for c in encoder.channels[:-1])  # norms of the finer maps are not the authors'
    counts = [sum(p.numel() for p in one.parameters()) for one in (encoder, head)]
    assert sum(counts) - own == want
    extra = [i for i, b in enumerate(encoder.model.encoder.layers[2].blocks) if hasattr(b, "norm3")]
    assert extra == list(range(5, {"giant": 42, "huge": 18}[size], 6))


SMALL = "satvision:width=8,depths=1-1-1-1,heads=1-1-2-2,window=4,image=64,norms=1"


@torch.no_grad()
def test_a_checkpoint_of_deepspeed_is_read_and_hostile_ones_are_not(tmp_path):
    encoder = registry.make("encoders", SMALL, 14)
    with torch.no_grad():
        for p in encoder.parameters():
            p.normal_()
    inner = {}
    for key, value in encoder.state_dict().items():  # in the authors' names, bfloat16
        for new, old in (
            ("model.embeddings.patch_embeddings.projection", "patch_embed.proj"),
            ("model.embeddings.norm", "patch_embed.norm"), ("model.embeddings.mask_token", "mask_token"),
            ("model.encoder.layers", "layers"), ("attention.self.continuous_position_bias_mlp", "attn.cpb_mlp"),
            ("attention.self.logit_scale", "attn.logit_scale"), ("attention.output.dense", "attn.proj"),
            ("attention.self.query.bias", "attn.q_bias"), ("attention.self.value.bias", "attn.v_bias"),
            ("layernorm_before", "norm1"), ("layernorm_after", "norm2"), ("intermediate.dense", "mlp.fc1"),
            ("norms.3", "norm"),
        ):  # fmt: skip
            key = key.replace(new, old)
        key = key.replace(".output.dense", ".mlp.fc2")
        if ".attention.self." in key:
            stem, _, name = key.partition("attention.self.")
            inner.setdefault(f"encoder.{stem}attn.qkv.weight", {})[name[0]] = value
        elif not key.startswith("norms."):
            inner[f"encoder.{key}"] = value
    inner = {k: torch.cat([v[n] for n in "qkv"]) if isinstance(v, dict) else v for k, v in inner.items()}  # fmt: skip
    inner = {k: v.bfloat16() for k, v in inner.items()}
    inner["decoder.0.weight"] = torch.zeros(4, 4).bfloat16()
    path = tmp_path / "mp_rank_00_model_states.pt"
    around = {"module": inner, "buffer_names": {"a", "b"}, "dp_world_size": 8, "optimizer": None}
    torch.save(around, path)
    known = read_state(str(path)).keys()
    again = registry.make("encoders", SMALL, 14)
    load_base(again, SMALL, read_state(str(path)), str(path))
    for key, value in again.state_dict().items():
        if not key.startswith("norms.") or key.startswith("norms.3"):
            assert torch.equal(value, encoder.state_dict()[key].bfloat16().float()), key
    torch.save(around | {"args": Namespace(lr=0.1, out=Path("runs"))}, path)  # as many trainers do
    assert read_state(str(path)).keys() == known
    torch.save(around | {"more": print}, path)
    with pytest.raises(GeomlError, match="it asks for print, which is not run"):
        read_state(str(path))


def test_the_scales_of_modis_and_abi_are_the_authors():
    found = fixture("satvision_scaling")
    raw, want = found["inputs"]["raw"].numpy().astype(np.float64), found["outputs"]
    for name in ("modis", "abi"):
        low, span = own_scales(f"satvision:scaling={name},percent=true", 14)
        np.testing.assert_allclose((raw - low) / span, want[name].numpy(), atol=1e-5, rtol=1e-4)
    warm = [5, 7, 8, 9, 10, 11, 12, 13]
    cold = [i for i in range(14) if i not in warm]
    share = radiometry.reflectance(raw[..., cold])
    np.testing.assert_allclose(100 * share, want["abi_vis"].numpy(), rtol=1e-5)
    kelvin = radiometry.abi_brightness_k(raw[..., warm] / 100)
    np.testing.assert_allclose(kelvin, want["abi_ir"].numpy(), rtol=1e-5)


@pytest.mark.parametrize("band", radiometry.MODIS)
def test_brightness_is_planck_s_law_turned_round(band):
    from scipy.constants import c, h, k

    per_cm, slope, intercept = radiometry.MODIS[band]
    kelvin, metres = np.array([200.0, 250.0, 320.0]), 0.01 / per_cm
    true = kelvin * slope + intercept
    radiance = 2e-6 * h * c**2 / metres**5 / (np.exp(h * c / (metres * k * true)) - 1)
    np.testing.assert_allclose(radiometry.modis_brightness_k(radiance, band), kelvin, rtol=2e-5)


@torch.no_grad()
def test_the_network_standardises_by_the_encoder_s_scales():
    low, span = own_scales("satvision:scaling=modis", 14)
    assert low[0] == 0 and span[0] == 1 and low[5] == 223.1222 and len(low) == len(span) == 14
    assert own_scales("satvision", 14) is None and own_scales("unet", 3) is None
    for spec, bands in (("satvision:scaling=modis", 13), ("satvision:scaling=viirs", 14)):
        with pytest.raises(UsageMistake, match="modis, abi"):
            registry.make("encoders", spec, bands)


@torch.no_grad()
def test_hidden_pixels_do_not_count_and_others_do():
    torch.manual_seed(0)
    spec = {"encoder": SMALL, "head": "pixel-shuffle", "outputs": 28, "per": "pixel"}
    network = build(spec | {"sensors": [{"bands": 14, "frames": 2}]}).eval()
    for p in network.parameters():
        p.add_(0.05 * torch.randn_like(p))
    x = torch.randn(1, 2, 14, 64, 64)
    hide = torch.zeros(1, 2, 1, 64, 64, dtype=torch.bool)
    hide[..., :32, :16] = True
    valid = torch.ones(1, 2, 64, 64, dtype=torch.bool)
    said = network(Batch(x, valid, hide=hide))
    other = torch.where(hide, 9.0, x)
    assert torch.equal(network(Batch(other, valid, hide=hide)), said)
    zeros = network(Batch(torch.where(hide, 0.0, x), valid))  # not the same as a value of 0
    assert said.shape == (1, 28, 64, 64) and not torch.allclose(zeros, said, atol=1e-3)


def test_what_embed_shows_an_encoder_of_own_scales_is_not_what_the_data_say(tmp_path, monkeypatch):
    """By hand: the encoder of these weights on (x - low) / span; and other scenes beside it change nothing."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    low, span = (np.array(one)[:, None, None] for one in own_scales("satvision:scaling=modis", 14))
    for name, level in (("a", 0.3), ("b", 0.8)):
        data = low + span * (level + 0.1 * rng.random((14, 64, 64)))
        made.write(Path(f"{name}.tif"), data.astype(np.float32), names=[f"b{i}" for i in range(14)])
    spec = SMALL + ",scaling=modis"
    encoder = registry.make("encoders", spec, 14).eval()
    save_file(dict(encoder.state_dict()), "w.safetensors")
    words = ["--encoder", spec, "--encoder-weights", "w.safetensors", "--window", "64", "--device", "cpu"]  # fmt: skip
    assert run(["embed", "a.tif", *words, "-o", "one.parquet"]) == 0
    assert run(["embed", "a.tif", "b.tif", *words, "-o", "two.parquet"]) == 0
    one, two = (
        np.stack(geopandas.read_parquet(f"{n}.parquet")["embedding"]) for n in ("one", "two")
    )
    with rasterio.open("a.tif") as file:
        x = torch.from_numpy((file.read() - low) / span).float()[None]
    with torch.no_grad():
        told = encoder(x)[-1].mean((2, 3)).numpy()
    np.testing.assert_allclose(one, told, atol=1e-4)
    np.testing.assert_allclose(two[:1], told, atol=1e-4)
    assert np.abs(two[1] - two[0]).max() > 0.01


@torch.no_grad()
def test_the_cloud_head_is_what_the_paper_says():
    with torch.device("meta"):
        head = registry.make("heads", "cloud-profile", [8, 4096], [16, 32], 1)
    kinds = [m for m in head.decoder if isinstance(m, torch.nn.ConvTranspose2d)]
    widths = [4096, 2048, 512, 256, 128, 64]
    assert [m.out_channels for m in kinds] == widths[1:]
    count = sum(9 * a * b + b for a, b in zip(widths, [*widths[1:], 1], strict=True))
    assert sum(p.numel() for p in head.parameters()) == count
    torch.manual_seed(0)
    small = registry.make("heads", "cloud-profile:narrow=64", [8], [32], 2).double().eval()
    x = torch.randn(2, 8, 4, 4, dtype=torch.float64)
    said = small([torch.zeros(2, 3, 8, 8), x])
    # by hand: zeros between the pixels, then a convolution with the turned kernel
    for layer in small.decoder:
        if isinstance(layer, torch.nn.ConvTranspose2d):
            wide = torch.zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3], dtype=x.dtype)
            wide[..., ::2, ::2] = x
            kernel = layer.weight.flip(2, 3).transpose(0, 1)
            x = torch.nn.functional.conv2d(wide, kernel, layer.bias, padding=1).clamp(min=0)
    assert x.shape[-2:] == (128, 128)
    x = torch.nn.functional.conv2d(x, small.head[0].weight, small.head[0].bias, padding=1).numpy()
    # bilinear, pixel centres: heights and places apart
    for axis, size in ((2, 91), (3, 40)):
        at = np.clip((np.arange(size) + 0.5) * 128 / size - 0.5, 0, 127)
        x = interp1d(np.arange(128), x, axis=axis)(at)
    assert said.shape == (2, 2, 91, 40)
    np.testing.assert_allclose(said.numpy(), x, atol=1e-9)
