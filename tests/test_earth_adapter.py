"""Earth-Adapter against a fixture from its authors' module, and its additions beside three transformers."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from geoml_cli import registry
from geoml_cli.adapters.earth_adapter import Mixture, layers_of, split
from geoml_cli.core import tune
from geoml_cli.core.batch import Batch
from geoml_cli.core.layers.pad import Fitted
from geoml_cli.core.network import build
from geoml_cli.errors import GeomlError, UsageMistake

PARITY = Path(__file__).parents[2] / "shared/parity"
ENCODERS = {
    "vit": "vit:width=24,layers=4,heads=2,patch=8,image=32",
    "prithvi": "prithvi:width=32,layers=4,heads=2,patch=8,image=32",
    "less-vit": "less-vit:width=24,layers=4,heads=2,patch=8,rank=2,wavelengths=490-560-665",
}


def mixture(state, layer, config):
    """One layer of the authors', with its keys as ours."""
    waves = layer in config["fft_layer"]
    fit = Fitted(1)
    fit(torch.zeros(1, 1, config["grid"], config["grid"]))
    part = Mixture(config["width"], config["dim"], 0.1, config["cutoff_ratio"], waves, fit)
    mine = {"scale": state["scale"][layer]}
    for i in range(3 if waves else 1):
        inside = f"mlp_list{i + 1}.{layer}."
        mine |= {f"mlps.{i}.{k.removeprefix(inside)}": v for k, v in state.items() if k.startswith(inside)}  # fmt: skip
    if waves:
        mine |= {f"router.{k}": state[f"router.{layer}.{k}"] for k in ("weight", "bias")}
    part.load_state_dict(mine)
    return part.eval()


@torch.no_grad()
def test_every_output_is_the_authors():
    path = PARITY / "earth_adapter.pt"
    if not path.is_file():
        pytest.skip(f"{path}: no such fixture here")
    found = torch.load(path, weights_only=True)
    config, want = found["config"], found["outputs"]
    given = np.random.default_rng(config["input_seed"]).standard_normal(
        config["input_shape"], dtype=np.float32
    )
    x, (_, step, jump) = torch.from_numpy(given), config["stride"]
    close = {"atol": 1e-5, "rtol": 1e-4}
    side = config["grid"]
    maps = x[:, 1:].unflatten(1, (side, side))
    for cutoff, names in ((config["cutoff_ratio"], ("low", "high")), (0.2, ("low_cut02",))):
        for got, name in zip(split(maps, cutoff), names, strict=False):
            got = got.permute(0, 3, 1, 2)[:, ::64]
            torch.testing.assert_close(got, want[name], **close)
    for layer in (3, 22):
        said = mixture(found["state_dict"], layer, config)(x)
        torch.testing.assert_close(said[:, ::step, ::jump], want[f"y_layer{layer}"], **close)
        assert torch.equal(said[:, 0], x[:, 0])


@pytest.mark.parametrize("size", [(32, 32), (7, 12), (4, 5), (1, 1)])
@pytest.mark.parametrize("cutoff", [0.0, 0.3, 0.5, 1.0])
def test_low_frequencies_are_those_of_a_fourier_transform(size, cutoff):
    x = torch.randn(2, *size, 3, dtype=torch.float64)
    low, high = split(x, cutoff)
    spectrum = np.fft.fftshift(np.fft.fft2(x.numpy(), axes=(1, 2)), axes=(1, 2))
    reach = int(min(size) * cutoff // 2)
    kept = np.zeros(size)
    middle = [n // 2 for n in size]
    rows, cols = (slice(max(c - reach, 0), c + reach) for c in middle)
    kept[rows, cols] = 1
    back = np.fft.ifftshift(spectrum * kept[None, :, :, None], axes=(1, 2))
    want = np.fft.ifft2(back, axes=(1, 2)).real
    np.testing.assert_allclose(low.numpy(), want, atol=1e-6)
    torch.testing.assert_close(low + high, x)


def encoder_of(name, frames=1):
    torch.manual_seed(0)
    native = registry.constant("encoders", name, "time") == "native"
    return registry.make("encoders", ENCODERS[name], 3, *([frames] if native else [])).eval()


def said(encoder, x, what="__call__"):
    run = getattr(encoder, what)
    if registry.constant("encoders", type(encoder).__module__.rpartition(".")[2].replace("_", "-"), "time") != "native":  # fmt: skip
        return run(x[:, 0])
    return run(x, Batch(x, torch.ones(*x.shape[:2], *x.shape[3:], dtype=torch.bool)))


@pytest.mark.parametrize("name", ENCODERS)
def test_only_what_is_added_is_trained_and_stored(name):
    spec = {"encoder": ENCODERS[name], "head": "linear", "outputs": 2, "per": "pixel"}
    spec |= {"sensors": [{"bands": 3, "frames": 1}]}
    torch.manual_seed(0)
    base = {k: v.clone() for k, v in build(spec).state_dict().items()}
    network = build(spec | {"adapter": "earth-adapter:dim=4,layers=last:2"})
    inside = "sensors.0.encoder."
    network.load_state_dict(network.state_dict() | {k: v for k, v in base.items() if inside in k})
    optimizer = torch.optim.AdamW(tune.groups(network, 0.01, 0.1, 0.5))
    tune.train_mode(network)
    x = torch.randn(2, 1, 3, 24, 32)
    batch = Batch(x, torch.ones(2, 1, 24, 32, dtype=torch.bool))
    for _ in range(2):
        optimizer.zero_grad()
        network(batch).square().mean().backward()
        optimizer.step()
    own = network.state_dict()
    assert all(torch.equal(own[k], v) for k, v in base.items() if k.startswith(inside))
    kept = {k for k in tune.changed(network, base) if k.startswith(inside)}
    added = {k for k in own if ".earth_adapter." in k}
    assert kept == added
    counts = [len([k for k in added if f".{i}.earth_adapter." in k]) for i in range(4)]
    assert counts == [5, 5, 15, 15]
    assert len({g["lr"] for g in optimizer.param_groups}) == 5  # additions go with their block


@pytest.mark.parametrize("name", ENCODERS)
@torch.no_grad()
def test_additions_of_scale_zero_change_nothing_and_others_do(name):
    plain, x = encoder_of(name, frames=2), torch.randn(2, 2, 3, 24, 40)
    frames = 2 if name != "vit" else 1
    x = x[:, :frames]
    for scale, same in ((0.0, True), (0.5, False)):
        encoder = encoder_of(name, frames=2)
        encoder = registry.make("adapters", f"earth-adapter:dim=4,layers=all,cutoff=0.8,scale={scale}", encoder)  # fmt: skip
        for what in ("__call__", "summary"):
            a, b = said(plain, x, what), said(encoder.eval(), x, what)
            a, b = (one[-1] if isinstance(one, list) else one for one in (a, b))
            assert torch.allclose(a, b, atol=1e-5) == same
        again = copy.deepcopy(encoder)
        assert torch.equal(said(again, x)[-1], said(encoder, x)[-1])
        assert again.fit is not encoder.fit and again.fit.grid == (3, 5)


def test_layers_by_words_and_by_numbers():
    assert [list(layers_of(t, 12)) for t in ("last:3", "first:2", "0-2", "none")] == [
        [9, 10, 11], [0, 1], [0, 1, 2], [],
    ]  # fmt: skip
    assert list(layers_of("all", 3)) == [0, 1, 2] == list(layers_of("last:9", 3))
    for wrong in ("3", "4-2", "0-12", "last:x", ""):
        with pytest.raises(UsageMistake, match="layers 0 to 11"):
            layers_of(wrong, 12)


def test_what_it_does_not_fit_is_said_in_one_line():
    with pytest.raises(GeomlError, match="no transformer of patches"):
        registry.make("adapters", "earth-adapter", registry.make("encoders", "unet:width=4", 3))
    for wrong in ("dim=0", "cutoff=1.5"):
        with pytest.raises(UsageMistake, match="dim is 1 or more"):
            registry.make("adapters", f"earth-adapter:{wrong}", encoder_of("vit"))
