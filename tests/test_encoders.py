"""Encoders: declared channels and strides at any size, published key names, authors' features."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

from geoml_cli import registry
from geoml_cli.core.batch import Batch
from geoml_cli.core.network import build
from geoml_cli.errors import UsageMistake

PARITY = Path(__file__).parents[2] / "shared/parity"
SMALL = {  # options that keep a test quick
    "unet": "unet:width=4,depth=2",
    "resnet": "resnet:depth=18",
    "convnext": "convnext:depths=1-1-1-1,widths=8-16-24-32",
    "swin": "swin:width=8,depths=1-2-1-1,heads=1-2-2-4,window=4",
    "swinv2": "swinv2:width=8,depths=1-2-1-1,heads=1-2-2-4,window=4",
    "satvision": "satvision:width=8,depths=1-2-1-1,heads=1-2-2-4,window=4,image=32,norms=2",
    "vit": "vit:width=24,layers=4,heads=2,patch=8,image=32",
    "pixel": "pixel:width=8",
    "tempcnn": "tempcnn:width=4,dense=8",
    "prithvi": "prithvi:width=32,layers=4,heads=2,patch=8,image=32",
    "less-vit": "less-vit:width=24,layers=4,heads=2,patch=8,rank=2,wavelengths=490-560-665",
    "band-stats": "band-stats:patch=8",
    "spectral-indices": "spectral-indices:bands=green-red-nir,patch=8",
    "identity": "identity",
}


def made(spec, bands=3, frames=2):
    torch.manual_seed(0)
    name = spec.partition(":")[0]
    native = registry.constant("encoders", name, "time") == "native"
    return registry.make("encoders", spec, bands, *([frames] if native else [])).eval()


def maps(encoder, x):
    if x.ndim == 4:
        return encoder(x)
    return encoder(x, Batch(x, torch.ones(*x.shape[:2], *x.shape[3:], dtype=torch.bool)))


def image(spec, h, w, b=2):
    native = registry.constant("encoders", spec.partition(":")[0], "time") == "native"
    shape = (b, 2, 3, h, w) if native else (b, 3, h, w)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def test_every_encoder_is_tried():
    assert set(SMALL) == set(registry.names("encoders"))


@pytest.mark.parametrize("size", [(64, 64), (33, 47), (8, 8), (1, 1)])
@pytest.mark.parametrize("spec", SMALL.values(), ids=SMALL)
def test_maps_are_of_the_channels_and_strides_declared_at_any_size(spec, size):
    encoder = made(spec)
    with torch.no_grad():
        found = maps(encoder, image(spec, *size))
    assert [m.shape[1] for m in found] == list(encoder.channels)
    assert [m.shape[-2:] for m in found] == [
        tuple(math.ceil(n / s) for n in size) for s in encoder.strides
    ]


@pytest.mark.parametrize("spec", SMALL.values(), ids=SMALL)
def test_a_batch_of_one_is_its_row_and_state_comes_back(spec):
    encoder, x = made(spec), image(spec, 32, 32)
    with torch.no_grad():
        both, alone = maps(encoder, x), maps(encoder, x[1:])
        assert all(torch.allclose(a[1:], b, atol=1e-4) for a, b in zip(both, alone, strict=True))
        torch.manual_seed(5)
        again = made(spec)
        for p in again.parameters():
            p.add_(1)
        again.load_state_dict(load(save(encoder.state_dict())))
        assert all(torch.equal(a, b) for a, b in zip(maps(again, x), both, strict=True))


@pytest.mark.parametrize("spec", SMALL.values(), ids=SMALL)
def test_blocks_hold_every_parameter_once(spec):
    from geoml_cli.core.tune import blocks_of

    encoder = made(spec)
    held = [id(p) for block in blocks_of(encoder) for p in block.parameters()]
    assert sorted(held) == sorted(id(p) for p in encoder.parameters())


@pytest.mark.parametrize(
    "head",
    [
        "unet",
        "fpn",
        "farseg",
        "deeplabv3plus",
        "upernet",
        "fcn",
        "linear",
        "mlp",
        "regression",
        "pixel-shuffle",
        "cloud-profile:narrow=64",
    ],
)
@pytest.mark.parametrize("spec", SMALL.values(), ids=SMALL)
def test_any_encoder_takes_any_head(spec, head):
    torch.manual_seed(0)
    plain = {"encoder": spec, "head": head, "sensors": [{"bands": 3, "frames": 2}], "outputs": 5}
    network = build(plain | {"per": "pixel"}).train()
    x = torch.randn(1, 2, 3, 24, 40)
    batch = Batch(x, torch.ones(1, 2, 24, 40, dtype=torch.bool))
    out = network(batch)
    assert out.shape == (1, 5, 24, 40)
    out.square().mean().backward()
    tile = build(plain | {"per": "tile"}).eval()
    assert tile(batch).shape == (1, 5)


@pytest.mark.parametrize(
    "depth, count", [(18, 11_176_512), (34, 21_284_672), (50, 23_508_032), (101, 42_500_160)]
)
def test_residual_networks_have_as_many_parameters_as_published(depth, count):
    with torch.device("meta"):
        encoder = made(f"resnet:depth={depth}")
    assert sum(p.numel() for p in encoder.parameters()) == count


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_a_residual_network_is_its_convolutions(norm):
    """One block, worked out with functions from its own tensors."""
    from torch.nn.functional import batch_norm, conv2d, group_norm, max_pool2d, relu

    encoder, x = made(f"resnet:depth=18,norm={norm}"), image("resnet", 32, 32)
    state = encoder.state_dict()

    def normed(y, name):
        if norm == "batch":
            return batch_norm(
                y,
                *(state[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias")),
            )
        groups = encoder.layer1[0].bn1.num_groups
        return group_norm(y, groups, state[f"{name}.weight"], state[f"{name}.bias"])

    y = max_pool2d(
        relu(normed(conv2d(x, state["conv1.weight"], stride=2, padding=3), "bn1")), 3, 2, 1
    )
    for i in range(2):
        inner = relu(
            normed(conv2d(y, state[f"layer1.{i}.conv1.weight"], padding=1), f"layer1.{i}.bn1")
        )
        y = relu(
            y
            + normed(conv2d(inner, state[f"layer1.{i}.conv2.weight"], padding=1), f"layer1.{i}.bn2")
        )
    with torch.no_grad():
        assert torch.allclose(encoder(x)[0], y, atol=1e-5)


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_dilation_holds_the_resolution_and_keeps_the_names(stride):
    plain, held = made("resnet:depth=50"), made(f"resnet:depth=50,stride={stride}")
    assert max(held.strides) == stride
    assert {k: v.shape for k, v in plain.state_dict().items()} == {
        k: v.shape for k, v in held.state_dict().items()
    }
    assert maps(held, image("resnet", 64, 64))[-1].shape[-1] == 64 // stride


def test_a_small_stem_keeps_the_resolution():
    assert made("resnet:stem=small").strides == [1, 2, 4, 8]


def test_prefixes_and_classifiers_of_checkpoints_are_dropped():
    part, encoder = registry.load("encoders", "resnet"), made("resnet")
    own = encoder.state_dict()
    theirs = {f"module.encoder.{k}": v for k, v in own.items()} | {"fc.weight": torch.zeros(1)}
    assert part.rename(theirs).keys() == own.keys()


def timm_vit(width, layers, patch, bands, image):
    """Names and shapes of timm's ViT, by rule."""
    count = (image // patch) ** 2 + 1
    found = {
        "cls_token": (1, 1, width), "pos_embed": (1, count, width), "norm.weight": (width,), "norm.bias": (width,),
        "patch_embed.proj.weight": (width, bands, patch, patch), "patch_embed.proj.bias": (width,),
        "head.weight": (9, width), "head.bias": (9,),
    }  # fmt: skip
    for i in range(layers):
        for name, out, into in [
            ("attn.qkv", 3, 1),
            ("attn.proj", 1, 1),
            ("mlp.fc1", 4, 1),
            ("mlp.fc2", 1, 4),
        ]:
            found[f"blocks.{i}.{name}.weight"] = (out * width, into * width)
            found[f"blocks.{i}.{name}.bias"] = (out * width,)
        for name in ("norm1", "norm2"):
            found[f"blocks.{i}.{name}.weight"] = found[f"blocks.{i}.{name}.bias"] = (width,)
    return found


def timm_convnext(depths, widths, bands):
    """Names and shapes of timm's ConvNeXt, by rule."""
    found = {
        "stem.0.weight": (widths[0], bands, 4, 4), "stem.0.bias": (widths[0],),
        "stem.1.weight": (widths[0],), "stem.1.bias": (widths[0],), "head.fc.weight": (9, widths[-1]),
    }  # fmt: skip
    for s, (depth, w) in enumerate(zip(depths, widths, strict=True)):
        if s:
            before = widths[s - 1]
            found |= {
                f"stages.{s}.downsample.0.weight": (before,), f"stages.{s}.downsample.0.bias": (before,),
                f"stages.{s}.downsample.1.weight": (w, before, 2, 2), f"stages.{s}.downsample.1.bias": (w,),
            }  # fmt: skip
        for b in range(depth):
            at = f"stages.{s}.blocks.{b}"
            found |= {
                f"{at}.gamma": (w,), f"{at}.conv_dw.weight": (w, 1, 7, 7), f"{at}.conv_dw.bias": (w,),
                f"{at}.norm.weight": (w,), f"{at}.norm.bias": (w,), f"{at}.mlp.fc1.weight": (4 * w, w),
                f"{at}.mlp.fc1.bias": (4 * w,), f"{at}.mlp.fc2.weight": (w, 4 * w), f"{at}.mlp.fc2.bias": (w,),
            }  # fmt: skip
    return found


@pytest.mark.parametrize(
    "spec, theirs",
    [
        (SMALL["vit"], timm_vit(24, 4, 8, 3, 32)),
        (SMALL["convnext"], timm_convnext((1, 1, 1, 1), (8, 16, 24, 32), 3)),
    ],
    ids=["vit", "convnext"],
)
def test_the_names_of_timm_are_known(spec, theirs):
    encoder = made(spec)
    state = {k: torch.zeros(shape) for k, shape in theirs.items()}
    renamed = registry.load("encoders", spec.partition(":")[0]).rename(state)
    assert {k: v.shape for k, v in renamed.items()} == {
        k: v.shape for k, v in encoder.state_dict().items()
    }


@pytest.mark.parametrize(
    "spec, count",
    [
        ("vit:size=base", 85_798_656),
        ("swin:size=tiny", 27_519_354),
        ("convnext:size=tiny", 27_820_128),
    ],
)
def test_transformers_have_as_many_parameters_as_published(spec, count):
    """Without classifiers; the maps' norms are more: of Swin three (C, 2C, 4C) and the published one,
    of ConvNeXt as many."""
    with torch.device("meta"):
        encoder = made(spec)
    own = sum(p.numel() for p in encoder.parameters())
    if not spec.startswith("vit"):
        own -= 2 * sum(encoder.channels[:-1])
    assert own == count


def test_features_of_swin_equal_the_authors_from_their_names():
    path = PARITY / "prithvi_swin_agb.pt"
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    one = torch.load(path, weights_only=True)
    c = one["config"]
    joined = {
        k: "-".join(map(str, c[v])) for k, v in (("depths", "depths"), ("heads", "num_heads"))
    }
    encoder = made(
        f"swin:width={c['embed_dim']},depths={joined['depths']},heads={joined['heads']},window={c['window_size']}",
        bands=c["in_chans"],
    )
    state = registry.load("encoders", "swin").rename(one["state_dict"])
    own = encoder.state_dict()
    assert own.keys() == state.keys()
    encoder.load_state_dict(state)
    with torch.no_grad():
        found = encoder(one["inputs"]["x"])
    for i, m in enumerate(found):
        assert torch.allclose(m, one["outputs"][f"f{i}"], rtol=1e-4, atol=1e-5), i


def test_biomass_of_the_whole_network_equals_the_authors():
    """Encoder, decoder and head from one state of the authors' names."""
    path = PARITY / "prithvi_swin_agb.pt"
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    one = torch.load(path, weights_only=True)
    c = one["config"]
    deep, wide = ("-".join(map(str, c[key])) for key in ("depths", "num_heads"))
    encoder = f"swin:width={c['embed_dim']},depths={deep},heads={wide},window={c['window_size']}"
    head = f"regression:width={c['decoder_channels']},positive=true"
    plain = {"sensors": [{"bands": c["in_chans"], "frames": 1}], "outputs": 1, "per": "pixel"}
    network = build(plain | {"encoder": encoder, "head": head}).eval()
    for room, part in (("encoders", network.sensors[0].encoder), ("heads", network.head)):
        name = (encoder if room == "encoders" else head).partition(":")[0]
        part.load_state_dict(registry.load(room, name).rename(one["state_dict"]))
    x, target = one["inputs"]["x"], one["inputs"]["target"][:, None]
    weight = (target != -1).float()
    batch = Batch(
        x[:, None], torch.ones(len(x), 1, *x.shape[2:], dtype=torch.bool), target=target, weight=weight,
        total=float(weight.sum()),
    )  # fmt: skip
    with torch.no_grad():
        assert torch.allclose(network(batch), one["outputs"]["agb"], rtol=1e-4, atol=1e-5)
        loss = registry.make("objectives", "rmse")(network, batch, 0)["loss"]
    assert torch.allclose(loss, one["outputs"]["rmse_ignore"], rtol=1e-4)


def test_dates_without_data_are_told_to_the_series():
    encoder = made("tempcnn:width=4,dense=8")
    x, valid = torch.zeros(1, 2, 3, 4, 4), torch.ones(1, 2, 4, 4, dtype=torch.bool)
    gone = valid.clone()
    gone[:, 1] = False
    with torch.no_grad():
        [seen], [half] = encoder(x, Batch(x, valid)), encoder(x, Batch(x, gone))
    assert not torch.allclose(seen, half)


@pytest.mark.parametrize(
    "spec",
    ["resnet:depth=19", "resnet:stem=none", "resnet:stride=4", "vit:size=huge", "swin:depths=2-x"],
)
def test_options_out_of_range_are_mistakes_of_usage(spec):
    with pytest.raises(UsageMistake):
        made(spec)
