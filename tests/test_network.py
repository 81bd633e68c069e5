"""Networks: any encoder with any head, dates and sensors joined, normalisation inside, the field measured."""

import numpy as np
import pytest
import torch

from geoml_cli.core import network as networks
from geoml_cli.core.batch import Batch
from geoml_cli.core.receptive import reach


def spec(encoder="unet:width=4,depth=2", head="unet", bands=3, frames=1, sensors=1, **more):
    each = [{"bands": bands, "frames": frames} for _ in range(sensors)]
    usual = {
        "outputs": 5,
        "per": "pixel",
        "fuse": "middle",
        "time": "stack",
        "codes": 0,
        "values": 0,
    }
    return {"encoder": encoder, "head": head, "adapter": None, "sensors": each} | usual | more


def batch(b=2, c=3, size=16, classes=4, seed=0, frames=1, others=0):
    rng = np.random.default_rng(seed)
    target = torch.from_numpy(rng.integers(0, classes, (b, size, size)))
    weight = torch.from_numpy(rng.choice([0.0, 1.0, 2.5], (b, size, size))).float()
    images = torch.from_numpy(rng.normal(size=(b, frames, c, size, size))).float()
    valid = torch.from_numpy(rng.random((b, frames, size, size)) > 0.1)
    day = torch.from_numpy(np.sort(rng.uniform(0, 365, (b, frames)), axis=1)).float()
    more = tuple(batch(b, c, size, classes, seed + 1 + i, frames) for i in range(others))
    return Batch(
        images, valid, day=day, others=more, target=target, weight=weight, total=float(weight.sum())
    )


class Fixed(torch.nn.Module):
    """A 'model' whose outputs are its parameters."""

    def __init__(self, shape, seed=0):
        super().__init__()
        self.logits = torch.nn.Parameter(
            torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        )

    def forward(self, batch):
        return self.logits


def test_normalisation_is_inside_and_invalid_pixels_do_not_bleed():
    network = networks.build(spec("unet:width=4,depth=1", outputs=2)).eval()
    one = batch(size=32)
    plain = network(one)
    network.sensors[0].mean.fill_(7.0), network.sensors[0].std.fill_(3.0)
    moved = Batch(one.images * 3 + 7, one.valid)
    assert torch.allclose(network(moved), plain, atol=1e-5)
    wild = Batch(torch.where(one.valid[:, :, None], moved.images, torch.nan), one.valid)
    assert torch.allclose(network(wild), plain, atol=1e-5)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_receptive_field_is_what_a_perturbation_reaches(depth):
    torch.manual_seed(0)
    network = networks.build(spec(f"unet:width=3,depth={depth}", bands=2, outputs=2))
    halo = reach(network)
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


def test_of_deep_networks_the_receptive_field_is_at_most_a_stride_too_large(monkeypatch):
    from geoml_cli.core import receptive

    network = networks.build(spec("unet:width=2,depth=4", bands=1, outputs=1))
    quick = reach(network)
    monkeypatch.setattr(receptive, "FEW", 99)
    exact = reach(network)
    assert exact <= quick <= exact + network.stride - 1


def test_a_network_that_sees_everything_has_no_receptive_field(tmp_path):
    (tmp_path / "all_seeing.py").write_text(
        '"""Mean of the whole image added."""\nfrom torch import nn\n\n'
        "class Encoder(nn.Module):\n    channels, strides = [2], [1]\n"
        "    def forward(self, x):\n        return [x + x.mean((2, 3), keepdim=True)]\n\n"
        "def build(in_channels, *, width: int = 1):\n    return Encoder()\n"
    )
    (tmp_path / "plain.py").write_text(
        '"""As it is."""\nfrom torch import nn\n\ndef build(channels, strides, outputs):\n'
        "    class Head(nn.Module):\n        def forward(self, maps):\n            return maps[0]\n    return Head()\n"
    )
    own = str(tmp_path / "all_seeing.py"), str(tmp_path / "plain.py")
    assert reach(networks.build(spec(*own, bands=2, outputs=2))) is None


def test_dates_are_stacked_in_order_as_further_bands():
    torch.manual_seed(0)
    network = networks.build(spec(frames=3)).eval()
    one = batch(frames=3, size=32)
    x = torch.where(one.valid[:, :, None], one.images, 0.0).flatten(1, 2)
    assert torch.equal(network(one), network.head(network.sensors[0].encoder(x)))


def test_the_mean_over_dates_leaves_out_what_is_not_valid():
    torch.manual_seed(0)
    network = networks.build(spec(frames=3, time="mean")).eval()
    plain = batch(frames=3, size=32)
    valid = torch.ones_like(plain.valid)
    valid[:, 1] = False
    three = Batch(plain.images, valid)
    two = Batch(plain.images[:, [0, 2]], valid[:, [0, 2]])
    assert torch.allclose(network(three), network(two), atol=2e-3)
    every = Batch(plain.images[:, [2, 0, 1]], torch.ones_like(valid))
    assert torch.allclose(
        network(every), network(Batch(plain.images, torch.ones_like(valid))), atol=1e-5
    )


def test_attention_over_dates_weighs_to_one_and_never_looks_at_what_is_not_valid():
    torch.manual_seed(0)
    network = networks.build(spec(frames=4, time="attention")).eval()
    one = batch(frames=4, size=32)
    valid = torch.ones_like(one.valid)
    valid[0, 2] = False
    seen = Batch(one.images, valid, day=one.day)
    sensor = network.sensors[0]
    x = torch.where(valid[:, :, None], seen.images, 0.0).flatten(0, 1)
    coarse = sensor.encoder(x)[-1].unflatten(0, valid.shape[:2])
    weights = sensor.attention.weights(coarse, seen)
    assert torch.allclose(weights.sum(2), torch.ones(()), atol=1e-5)
    assert (weights[0, :, 2] == 0).all() and (weights[1] > 0).all()
    wild = Batch(seen.images.clone(), valid, day=one.day)
    wild.images[0, 2] = 1e6
    assert torch.equal(network(wild), network(seen))


@pytest.mark.parametrize("fuse", ["middle", "late"])
def test_sensors_are_fused_and_one_that_sees_nothing_is_left_out(fuse):
    torch.manual_seed(0)
    network = networks.build(spec(sensors=2, fuse=fuse)).eval()
    one = batch(others=1, size=32)
    both, each = network(one), network(one, each=True)
    assert len(each) == 2 and both.shape == each[0].shape == (2, 5, 32, 32)
    if fuse == "late":
        assert torch.allclose(both, (each[0] + each[1]) / 2, atol=1e-6)
    blind = one.others[0]
    blind = Batch(blind.images, torch.zeros_like(blind.valid), day=blind.day)
    from dataclasses import replace

    assert torch.allclose(network(replace(one, others=(blind,))), each[0], atol=1e-5)


def test_fusing_in_the_middle_is_one_convolution_of_all_maps():
    torch.manual_seed(0)
    network = networks.build(spec(sensors=2)).eval()
    one = batch(others=1, size=32)
    from dataclasses import replace

    full = [Batch(b.images, torch.ones_like(b.valid)) for b in (one, *one.others)]
    maps = [s(b) for s, b in zip(network.sensors, full, strict=True)]
    fused = []
    for level, (a, b) in enumerate(zip(*maps, strict=True)):
        left, right = network.mixes[0][level], network.mixes[1][level]
        weight = torch.cat([left.weight, right.weight], dim=1) / 2
        fused.append(torch.nn.functional.conv2d(torch.cat([a, b], dim=1), weight, left.bias / 2))
    assert torch.allclose(
        network(replace(full[0], others=(full[1],))), network.head(fused), atol=1e-5
    )


def test_a_linear_head_of_tiles_sees_the_mean_of_what_is_valid():
    torch.manual_seed(0)
    network = networks.build(spec(head="linear", per="tile")).eval()
    one = batch(size=32)
    assert network(one).shape == (2, 5)
    alone = torch.ones_like(one.valid)
    last = network.sensors[0](Batch(one.images, alone))[-1]
    want = network.head([last.mean((2, 3), keepdim=True)]).flatten(1)
    assert torch.allclose(network(Batch(one.images, alone)), want, atol=1e-5)


def test_codes_are_bands_of_one_value():
    network = networks.build(spec(codes=2)).eval()
    one = batch(size=32)
    from dataclasses import replace

    codes = torch.tensor([[[0.2, 0.9]], [[0.1, 0.4]]])
    x = torch.where(one.valid[:, :, None], one.images, 0.0)[:, 0]
    want = torch.cat([x, codes[:, 0, :, None, None].expand(2, 2, 32, 32)], dim=1)
    out = network(replace(one, codes=codes))
    assert torch.equal(out, network.head(network.sensors[0].encoder(want)))


def test_values_come_back_in_their_units():
    network = networks.build(spec(outputs=2, values=1))
    network.value_mean.fill_(100.0), network.value_std.fill_(20.0)
    outputs = torch.tensor([[[[0.5]], [[np.log(4.0)]]]]).float()
    assert network.physical(outputs).flatten().tolist() == pytest.approx([110, 4 * 400])
