"""Heads: any encoder's maps in, outputs out; equal to the authors' where there is a fixture."""

import math
from pathlib import Path

import pytest
import torch
from procedural import fill
from torch.nn.functional import interpolate

from geoml_cli import registry
from geoml_cli.core.layers.block import BatchNorm
from geoml_cli.core.layers.fpn import Rise
from geoml_cli.errors import UsageMistake

PARITY = Path(__file__).parents[2] / "shared/parity"
HEADS = [  # those that want tokens are tried with encoders that give such; identity has nothing to learn
    name
    for name in registry.names("heads")
    if registry.constant("heads", name, "MAPS") != "tokens" and name != "identity"
]
NARROW = {  # options that keep a head small
    "cloud-profile": ["narrow=64"],
    "deeplabv3plus": [
        "width=8",
        "width=8,norm=group",
        "width=8,pool=false,rates=2-3",
        "width=8,skip_stride=1",
    ],
    "farseg": ["width=8,decoded=4", "width=8,decoded=4,norm=group"],
    "fcn": ["width=8", "width=8,skips=0,depth=2", "width=8,norm=group,skips=9,depth=0"],
    "fpn": ["width=8,decoded=4", "width=8,decoded=4,norm=group"],
    "linear": ["dropout=0.1"],
    "mlp": ["width=8", "width=8,depth=0"],
    "regression": ["width=8", "width=8,norm=group", "width=8,pool=false,doublings=1"],
    "unet": ["dropout=0.1", "full=true", "norm=group"],
    "upernet": ["width=8", "width=8,norm=group", "width=8,pool=false"],
}
SPECS = [f"{name}:{more}" for name in HEADS for more in NARROW.get(name, [""])]
PYRAMIDS = [[1, 2, 4, 8], [4, 8, 16, 32], [2, 4, 8, 16, 32], [8, 16], [16], [1]]


def maps_of(strides, size=(32, 64), batch=1, seed=0):
    """Maps as an encoder of these strides gives them: ceil of the size over the stride."""
    rng = torch.Generator().manual_seed(seed)
    shapes = [(math.ceil(size[0] / s), math.ceil(size[1] / s)) for s in strides]
    return [torch.randn(batch, 6 + 2 * i, *hw, generator=rng) for i, hw in enumerate(shapes)]


def make(spec, maps, strides, outputs=3):
    torch.manual_seed(0)
    return registry.make("heads", spec.rstrip(":"), [m.shape[1] for m in maps], strides, outputs)


def fixture(name):
    path = PARITY / f"{name}.pt"
    if not path.exists():
        pytest.skip(f"no {path}")
    return torch.load(path, weights_only=True)


def close(found, want):
    torch.testing.assert_close(found, want, atol=1e-5, rtol=1e-4)


def under(state, prefix):
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


@pytest.mark.parametrize("size", [(32, 64), (33, 47), (8, 8)], ids=str)
@pytest.mark.parametrize("spec", SPECS)
def test_every_head_trains_on_one_sample_of_any_pyramid(spec, size):
    for strides in PYRAMIDS:
        maps = maps_of(strides, size)
        head = make(spec, maps, strides).train()
        out = head(maps)
        assert out.shape[:2] == (1, 3) and out.ndim == 4 and out.isfinite().all()
        out.square().sum().backward()
        for name, value in head.named_parameters():
            assert value.grad is not None and value.grad.isfinite().all(), (strides, name)
        assert any(value.grad.abs().sum() > 0 for value in head.parameters())


@pytest.mark.parametrize("spec", SPECS)
def test_no_sample_sees_another_and_a_state_goes_round(spec):
    strides = [4, 8, 16, 32]
    maps = maps_of(strides, (64, 96), batch=3)
    head = make(spec, maps, strides)
    head.train()(maps)  # norms have seen something
    head.eval()
    out = head(maps)
    alone = head([m[1:2] for m in maps])
    torch.testing.assert_close(alone, out[1:2], atol=1e-5, rtol=1e-4)
    again = make(spec, maps, strides)
    with torch.no_grad():
        for value in again.parameters():
            value.add_(1.0)
    again.load_state_dict(head.state_dict())
    assert torch.equal(again.eval()(maps), out)


@pytest.mark.parametrize(
    ("spec", "stride"),
    [
        ("farseg:width=8,decoded=4", 1),
        ("regression:width=8", 1),
        ("unet:full=true", 1),
        ("unet", 4),
        ("fpn:width=8,decoded=4", 4),
        ("upernet:width=8", 4),
        ("deeplabv3plus:width=8", 4),
        ("deeplabv3plus:width=8,skip_stride=8", 8),
        ("fcn:width=8", 8),
        ("fcn:width=8,skips=0", 32),
        ("pixel-shuffle", 1),
        ("linear", 32),
        ("mlp:width=8", 32),
        ("regression:width=8,doublings=1", 2),
    ],
)
def test_outputs_have_the_resolution_that_is_promised(spec, stride):
    strides = [4, 8, 16, 32]
    maps = maps_of(strides, (64, 96))
    assert make(spec, maps, strides).eval()(maps).shape[-2:] == (64 // stride, 96 // stride)


def test_an_answer_that_the_encoder_gives_is_left_as_it_is():
    maps = maps_of([4, 8])
    head = registry.make("heads", "identity", [6, 8], [4, 8], 8)
    assert head(maps) is maps[-1] and not list(head.parameters())
    with pytest.raises(UsageMistake, match="gives 8 channels where 3 are wanted"):
        registry.make("heads", "identity", [6, 8], [4, 8], 3)


@pytest.mark.parametrize("spec", ["linear", "mlp:depth=0"])
def test_a_linear_head_of_a_mean_is_the_mean_of_its_outputs(spec):
    maps = maps_of([4, 8], batch=2)
    head = make(spec, maps, [4, 8]).eval()
    pooled = head([maps[0], maps[1].mean((2, 3), keepdim=True)])
    torch.testing.assert_close(pooled[..., 0, 0], head(maps).mean((2, 3)))
    assert registry.constant("heads", spec.partition(":")[0], "MAPS") == "last"


def reached(head, maps, level, row, col):
    """Share of the outputs that one pixel of a map reaches, by NaN, in float64."""
    head = head.double().eval()
    maps = [m.double() for m in maps]
    maps[level][..., row, col] = torch.nan
    return torch.isnan(head(maps)).any(1).double().mean().item()


@pytest.mark.parametrize(
    ("spec", "everywhere"),
    [
        ("deeplabv3plus:width=4,rates=2-3", True),
        ("deeplabv3plus:width=4,rates=2-3,pool=false", False),
        ("upernet:width=4", True),
        ("upernet:width=4,pool=false", False),
        ("regression:width=4", True),
        ("regression:width=4,pool=false", False),
        ("farseg:width=4,decoded=4", True),
        ("fpn:width=4,decoded=4", False),
        ("fpn:width=4,decoded=4,norm=group", True),
        ("unet", False),
        ("fcn:width=4", False),
        ("mlp:width=4", False),
    ],
)
def test_pooled_branches_and_nothing_else_see_the_whole_map(spec, everywhere):
    maps = maps_of([1, 2], (64, 64))
    share = reached(make(spec, maps, [1, 2]), maps, 1, 16, 16)
    assert share == 1 if everywhere else share < 0.5


@torch.no_grad()
@pytest.mark.parametrize(
    "spec",
    [
        "deeplabv3plus:width=4,rates=2-3,pool=false",
        "upernet:width=4,pool=false",
        "regression:width=4,pool=false",
        "fpn:width=4,decoded=4",
        "unet",
        "fcn:width=4",
        "linear",
    ],
)
def test_a_window_on_the_lattice_of_strides_gives_what_the_whole_gives(spec):
    strides, from_, away = [1, 2, 4], 16, 32
    maps = maps_of(strides, (128, 128))
    head = make(spec, maps, strides).eval()
    window = [m[..., from_ // s :, from_ // s :] for m, s in zip(maps, strides, strict=True)]
    whole, part = head(maps), head(window)
    stride = 128 // whole.shape[-1]
    a, b = (from_ + away) // stride, away // stride
    torch.testing.assert_close(part[..., b:, b:], whole[..., a:, a:], atol=1e-5, rtol=1e-4)


def test_batch_norm_of_one_value_is_the_one_of_evaluation_and_else_the_plain_one():
    torch.manual_seed(0)
    mine, plain = BatchNorm(4), torch.nn.BatchNorm2d(4)
    many = torch.randn(2, 4, 5, 5) * 3 + 1
    assert torch.equal(mine(many), plain(many))
    assert torch.equal(mine.running_var, plain.running_var) and mine.num_batches_tracked == 1
    one = torch.randn(1, 4, 1, 1, requires_grad=True)
    with pytest.raises(ValueError):
        plain(one)
    out = mine(one)
    assert torch.equal(out, plain.eval()(one)) and torch.equal(
        mine.running_mean, plain.running_mean
    )
    out.sum().backward()
    assert torch.allclose(one.grad.flatten(), (mine.running_var + mine.eps).rsqrt())


def test_levels_rise_as_powers_of_two_and_constants_stay_in_place():
    torch.manual_seed(0)
    rise = Rise(4, 4, [4, 8, 16, 32], "batch", corners=False).eval()
    assert [len(one) for one in rise.blocks] == [1, 1, 2, 3]
    maps = maps_of([4, 8, 16, 32], (132, 188))  # 33 x 47 at the finest
    maps = [m[:, :4] for m in maps]
    assert rise(maps).shape[-2:] == (33, 47)
    # one by one and by hand, at the finest and one below
    want = rise.blocks[0](maps[0]) + interpolate(
        rise.blocks[1](maps[1]), size=(33, 47), mode="bilinear", align_corners=False
    )
    rest = [torch.zeros_like(m) for m in maps]
    nothing = rise(rest)
    part = rise([maps[0], maps[1], rest[2], rest[3]])
    empty = rise.blocks[0](rest[0]) + interpolate(rise.blocks[1](rest[1]), size=(33, 47))
    torch.testing.assert_close(part - nothing, want - empty, atol=1e-5, rtol=1e-4)


def test_dilations_follow_the_stride_or_are_told():
    def dilations(spec, strides):
        head = make(spec, maps_of(strides, (8, 8)), strides)
        return [one[0].dilation[0] for one in head.aspp.convs]

    assert dilations("deeplabv3plus", [4, 8, 16]) == [1, 6, 12, 18]
    assert dilations("deeplabv3plus", [4, 8]) == [1, 12, 24, 36]
    assert dilations("deeplabv3plus", [8, 16, 32]) == [1, 3, 6, 9]
    assert dilations("deeplabv3plus:rates=2-5", [8, 16]) == [1, 2, 5]


@pytest.mark.parametrize(
    "spec",
    ["deeplabv3plus:rates=6-x", "deeplabv3plus:rates=0-2", "upernet:norm=layer", "fpn:norm=none"],
)
def test_wrong_options_are_refused_in_one_line(spec):
    with pytest.raises(UsageMistake, match="rates=|norm="):
        make(spec, maps_of([4, 8]), [4, 8])


def test_positive_values_are_never_below_zero():
    strides = [2, 4]
    maps = maps_of(strides)
    signed = make("regression:width=8", maps, strides).eval()(maps)
    found = make("regression:width=8,positive=true", maps, strides).eval()(maps)
    assert (signed < 0).any() and torch.equal(found, signed.clamp(min=0))


def test_farseg_equals_the_authors_from_their_state():
    given = fixture("farseg_head")
    config, want = given["config"], given["outputs"]
    maps = [given["inputs"][f"c{i}"] for i in range(2, 6)]
    spec = f"farseg:width={config['fpn_out']},decoded={config['decoder_out']}"
    head = make(spec, maps, [4, 8, 16, 32], config["classes"])
    rename = registry.load("heads", "farseg").rename
    theirs = {f"module.{k}": v for k, v in given["state_dict"].items()}
    theirs |= {
        "module.en.resnet.conv1.weight": torch.zeros(1),
        "module.buffer_step": torch.zeros(1),
    }
    head.load_state_dict(rename(theirs))
    head.eval()
    pyramid = head.fpn(maps)
    related = head.sr(maps[-1].mean((2, 3), keepdim=True), pyramid)
    for i in range(4):
        close(pyramid[i], want[f"p{i + 2}"])
        close(related[i], want[f"r{i + 2}"])
    close(head.decoder(related) / 4, want["decoded"])
    close(head(maps), want["logits"])


def test_procedural_weights_are_those_of_the_fixtures():
    small, large = fixture("farseg_head")["state_dict"], fixture("farseg_r50")
    for key, value in fill({k: v.shape for k, v in small.items()}, seed=7, scale=0.15).items():
        torch.testing.assert_close(value, small[key])
    shown = large["state_dict"]["cls_pred_conv.weight"]
    drawn = fill({"cls_pred_conv.weight": shown.shape}, seed=8, scale=0.1, gain=1.3)
    torch.testing.assert_close(drawn["cls_pred_conv.weight"], shown)


@torch.no_grad()
def test_farseg_with_resnet_50_equals_the_authors():
    given = fixture("farseg_r50")
    if "resnet" not in registry.names("encoders"):
        pytest.skip("no encoder resnet")
    config, x = given["config"], given["inputs"]["x"]
    state = fill(config["keys"], config["param_seed"], config["param_scale"], config["param_gain"])
    encoder = registry.make("encoders", "resnet:depth=50", 3)
    encoder.load_state_dict(under(state, "en.resnet."))
    strides, channels = encoder.strides, encoder.channels
    head = registry.make("heads", "farseg", channels, strides, config["num_classes"])
    head.load_state_dict(registry.load("heads", "farseg").rename(state))
    assert len(state) == len(encoder.state_dict()) + len(head.state_dict()) + 1  # buffer_step
    maps = encoder.eval()(x)
    close(maps[-1].mean((2, 3)), given["outputs"]["c5_mean"])
    found, want = head.eval()(maps).softmax(1), given["outputs"]["probs"]
    exact = head.double()(encoder.double()(x.double())).softmax(1)
    # logits reach 21: float32 itself, the authors' too, is up to 1.1e-4 from float64 here
    assert (want - exact).abs().max() < 2e-4 and (found - want).abs().max() < 2e-4
    assert torch.isclose(found, want, atol=1e-5, rtol=1e-4).double().mean() > 0.995


@torch.no_grad()
def test_biomass_decoder_and_head_equal_the_authors_from_their_state():
    given = fixture("prithvi_swin_agb")
    config, want = given["config"], given["outputs"]
    maps = [want[f"f{i}"] for i in range(4)]
    assert config["learned_upscale_layers"] == 2  # what stride 4 needs
    head = make(
        f"regression:width={config['decoder_channels']},positive=true", maps, [4, 8, 16, 32], 1
    )
    head.load_state_dict(registry.load("heads", "regression").rename(given["state_dict"]))
    head.eval()
    close(head.decoder(maps), want["decoded"])
    close(head(maps), want["agb"])
    assert (want["agb"] > 0).any()


@pytest.mark.parametrize("head", ["mlp", "linear"])
def test_a_map_of_one_pixel_is_answered_as_in_a_larger_map(head):
    torch.manual_seed(0)
    part = registry.make("heads", head, [24], [1], 5).double().eval()
    x = torch.randn(7, 24, 1, 1, dtype=torch.float64, requires_grad=True)
    one = part([x])
    many = part([x.expand(-1, -1, 2, 3)])
    assert one.shape == (7, 5, 1, 1)
    torch.testing.assert_close(one.expand_as(many), many, atol=1e-12, rtol=0)
    a, b = (torch.autograd.grad(out[:, :, 0, 0].square().sum(), [x, *part.parameters()]) for out in (one, many))  # fmt: skip
    for found, told in zip(a, b, strict=True):
        torch.testing.assert_close(found, told, atol=1e-12, rtol=1e-10)
