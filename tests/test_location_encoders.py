"""Location encoders: their contract, what they are continuous at, closed forms, authors' outputs."""

import pytest
import torch
from safetensors.torch import load, save

from geoml_cli import registry
from geoml_cli.errors import GeomlError

ROOM = "location_encoders"
SMALL = {  # options that keep a test quick
    "satclip": "satclip:degrees=6,hidden=16,out=8",
    "geoclip": "geoclip:sigma=1",
}
SPECS = {name: SMALL.get(name, name) for name in registry.names(ROOM)}
NETWORKED = [name for name in SPECS if "network" in registry.options(ROOM, name)]


def made(spec):
    torch.manual_seed(0)
    return registry.make(ROOM, spec).eval()


def places(count=40, dtype=torch.float64, seed=3):
    """Uniform on the sphere."""
    draw = torch.rand(count, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    lon, lat = 360 * draw[:, 0] - 180, torch.rad2deg(torch.asin(2 * draw[:, 1] - 1))
    return torch.stack([lon, lat], 1).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_places_become_as_many_columns_as_declared(spec, dtype):
    encoder, lonlat = made(spec), places(dtype=dtype)
    found = encoder(lonlat)
    assert found.shape == (40, encoder.out_channels) and found.is_floating_point()
    assert torch.isfinite(found).all()
    if not list(encoder.parameters()):
        assert found.dtype == dtype
    with torch.no_grad():
        assert torch.allclose(encoder(lonlat[7:9]), found[7:9], atol=1e-5)
        assert encoder(lonlat[:0]).shape == (0, encoder.out_channels)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_state_comes_back(spec):
    encoder, lonlat = made(spec), places()
    torch.manual_seed(5)
    again = registry.make(ROOM, spec).eval()
    again.load_state_dict(load(save(encoder.state_dict())))
    assert torch.equal(again(lonlat), encoder(lonlat))


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_parts_are_put_together_as_if_whole(spec, monkeypatch):
    encoder, lonlat = made(spec), places(300)
    with torch.no_grad():
        whole = encoder(lonlat)
        monkeypatch.setattr("geoml_cli.core.places.MEGABYTES", 0)
        monkeypatch.setattr("geoml_cli.core.places.ROWS", 64)
        assert torch.allclose(encoder(lonlat), whole, atol=1e-6)


def gap(encoder, here, there):
    with torch.no_grad():
        ends = encoder(torch.tensor([here, there], dtype=torch.float64)).double()
    return (ends[0] - ends[1]).abs().max().item()


@pytest.mark.parametrize("name", SPECS)
def test_what_is_said_of_the_dateline_and_the_poles_is_so(name):
    encoder = made(SPECS[name])
    near = gap(encoder, (10, 20), (10, 20 + 1e-7))
    dateline = max(gap(encoder, (-180, lat), (180, lat)) for lat in (-60, 0, 35))
    poles = max(
        gap(encoder, (a, lat), (b, lat)) for a, b in [(0, 90), (-170, 33)] for lat in (-90, 90)
    )
    smooth = 1e-4 if list(encoder.parameters()) else 1e-9
    assert near < 1e-4
    assert (dateline < smooth) is registry.constant(ROOM, name, "DATELINE")
    assert (poles < smooth) is registry.constant(ROOM, name, "POLES")


@pytest.mark.parametrize("name", ["grid", "spherec", "spherem"])
def test_whole_turns_close_at_the_dateline(name):
    encoder = made(f"{name}:turns=true")
    assert gap(encoder, (-180, 20), (180, 20)) < 1e-9 < 1e-3 < gap(encoder, (-90, 20), (90, 20))


@pytest.mark.parametrize("kind", ["linear", "mlp", "fcnet", "siren"])
@pytest.mark.parametrize("name", NETWORKED)
def test_any_network_sits_on_any_basis_and_learns(name, kind):
    encoder = made(f"{name}:network={kind},hidden=8,layers=1,out=3,dropout=0.5").train()
    found = encoder(places())
    assert found.shape == (40, 3) and encoder.out_channels == 3 and found.dtype == torch.float32
    found.square().mean().backward()
    assert all(p.grad is not None for p in encoder.parameters())
    encoder.eval()
    assert torch.equal(encoder(places()), encoder(places()))


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_a_place_can_be_differentiated(spec):
    encoder = made(spec).double()
    lonlat = places(3).requires_grad_()
    assert torch.autograd.gradcheck(encoder, lonlat, eps=1e-6, atol=1e-4, fast_mode=True)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_whatever_is_no_place_is_refused(spec):
    encoder = made(spec)
    for bad, says in [
        ((33.9, 151.2), "swapped. The order is lon, lat"),
        ((500000.0, 4000000.0), "projected"),
        ((float("nan"), 3.0), "is no place"),
    ]:
        with pytest.raises(GeomlError, match=says):
            encoder(torch.tensor([[0.0, 0.0], bad]))


def test_longitudes_of_0_to_360_are_turned():
    encoder = made("cartesian")
    both = encoder(torch.tensor([[270.0, 10.0], [-90.0, 10.0]], dtype=torch.float64))
    assert torch.allclose(both[0], both[1], atol=1e-15)
