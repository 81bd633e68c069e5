"""Location encoders: their contract, what they are continuous at, closed forms, authors' outputs."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from scipy.special import sph_harm_y

from geoml_cli import registry
from geoml_cli.core.harmonics import harmonics
from geoml_cli.errors import GeomlError

PARITY = Path(__file__).parents[2] / "shared/parity"
ROOM = "location_encoders"
SMALL = {  # options that keep a test quick
    "satclip": "satclip:degrees=6,hidden=16,out=8",
    "geoclip": "geoclip:sigma=1",
}
SPECS = {name: SMALL.get(name, name) for name in registry.names(ROOM)}
NETWORKED = [name for name in SPECS if "network" in registry.options(ROOM, name)]


ROUNDING = {"geoclip-harmonics": 2e-4}  # its norm enlarges the little that random weights say


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
        assert torch.allclose(encoder(lonlat[7:9]), found[7:9], atol=ROUNDING.get(spec, 1e-5))
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


def shared(name):
    if not (PARITY / name).is_file():
        pytest.skip(f"{PARITY / name} is not here")
    if name.endswith(".npz"):
        return np.load(PARITY / name)
    return torch.load(PARITY / name, weights_only=True)


def exact(lonlat, degrees):
    """Real harmonics of scipy, which knows no recurrence of ours."""
    lon, lat = np.deg2rad(lonlat).T
    out = np.empty((len(lon), degrees**2))
    for n in range(degrees):
        for m in range(n + 1):
            y = sph_harm_y(n, m, np.pi / 2 - lat, lon) * (-1) ** m
            out[:, n * n + n + m] = y.real * (math.sqrt(2) if m else 1)
            if m:
                out[:, n * n + n - m] = y.imag * math.sqrt(2)
    return out


HARD = [(0, 90), (77, -90), (10, 90 - 1e-7), (-180, 12), (180, 12), (33, 0), (90, 89.9), (0, -1e-9)]


@pytest.mark.parametrize("degrees", [1, 2, 40, 64, 100])
def test_harmonics_are_exact_at_every_degree_and_at_the_poles(degrees):
    lonlat = torch.cat([places(60), torch.tensor(HARD, dtype=torch.float64)])
    want = exact(lonlat.numpy(), degrees)
    assert np.abs(harmonics(lonlat, degrees).numpy() - want).max() < 1e-12
    single = lonlat.float()
    found = harmonics(single, degrees)
    assert found.dtype == torch.float32
    assert np.abs(found.numpy() - exact(single.double().numpy(), degrees)).max() < 1e-5
    grown = harmonics(lonlat.clone().requires_grad_(), degrees)  # in the way that is differentiated
    assert np.abs(grown.detach().numpy() - want).max() < 1e-12


def test_harmonics_are_those_of_many_digits():
    """A few, summed in 60 digits by mpmath from the definition."""
    mpmath = pytest.importorskip("mpmath")
    mpmath.mp.dps = 60
    for n, m, lon, lat in [(99, 0, 3.0, 89.0), (99, 50, 40.0, 30.0), (80, 79, -100.0, -5.0)]:
        x = mpmath.sin(mpmath.radians(lat))
        p = mpmath.legenp(n, m, x, type=2) * (-1) ** m
        norm = mpmath.sqrt(
            (2 * n + 1) / (4 * mpmath.pi) * mpmath.factorial(n - m) / mpmath.factorial(n + m)
        )
        want = norm * p * (mpmath.sqrt(2) * mpmath.cos(mpmath.radians(m * lon)) if m else 1)
        found = harmonics(torch.tensor([[lon, lat]], dtype=torch.float64), n + 1)
        assert abs(found[0, n * n + n + m].item() - float(want)) < 1e-12


def test_harmonics_are_orthonormal():
    """By a quadrature that is exact for products up to twice the degree."""
    degrees = 12
    x, weight = np.polynomial.legendre.leggauss(degrees)
    lon = np.arange(2 * degrees) * 180 / degrees - 180
    grid = np.stack(np.meshgrid(lon, np.rad2deg(np.arcsin(x)), indexing="ij"), -1).reshape(-1, 2)
    y = harmonics(torch.from_numpy(grid), degrees).numpy()
    gram = y.T @ (y * np.tile(weight, len(lon))[:, None]) * np.pi / degrees
    assert np.abs(gram - np.eye(degrees**2)).max() < 1e-12


@pytest.mark.parametrize("degrees", [5, 70])
def test_variants_are_signs_and_a_scale(degrees):
    lonlat = places(9)
    n = np.floor(np.sqrt(np.arange(degrees**2))).astype(int)
    m = np.arange(degrees**2) - n * n - n
    plain = harmonics(lonlat, degrees).numpy()
    fixed = plain * (-1.0) ** n
    want = {"fixed": fixed, "closed-form": fixed * (-1.0) ** m}
    want["satclip"] = fixed * np.where(m == 0, np.pi, 1)
    for variant, expected in want.items():
        assert np.abs(harmonics(lonlat, degrees, variant).numpy() - expected).max() < 1e-11


@pytest.mark.parametrize(
    ("variant", "name"),
    [("fixed", "analytic_locenc"), ("satclip", "analytic_satclip"), ("closed-form", "closed_form")],
)
def test_harmonics_are_the_authors(variant, name):
    """At L = 40 their polynomials are wrong by up to 0.6: there the closed form alone is held to."""
    known = shared("sh_basis.npz")
    lonlat = torch.from_numpy(known["lonlat"])
    for degrees, near in [(5, 1e-10), (10, 1e-10), (20, 1e-7), (40, 1e-7)]:
        if degrees < 40 or variant == "closed-form":
            found = harmonics(lonlat, degrees, variant).numpy()
            assert np.abs(found - known[f"{name}_L{degrees}"]).max() < near


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("direct", "direct"), ("wrap", "wrap"), ("cartesian", "cartesian3d"), ("grid", "grid"),
        ("theory", "theory"), ("spherec", "spherec"), ("spherec:plus=true", "spherecplus"),
        ("spherem", "spherem"), ("spherem:plus=true", "spheremplus"),
    ],
)  # fmt: skip
def test_waves_are_the_authors(spec, name):
    known = shared("sh_basis.npz")
    found = made(spec)(torch.from_numpy(known["lonlat"]))
    assert np.abs(found.numpy() - known[f"pe_{name}"]).max() < 1e-12


THEIRS = {
    "satclip_L10_h512": "satclip:degrees=10",
    "satclip_L20_h64": "satclip:degrees=20,hidden=64",
    "closedform_L10_h64": "spherical-harmonics:variant=closed-form,network=siren,hidden=64,out=16",
    "siren_wrap": "wrap:network=siren,hidden=64,layers=3,out=8",
    "fcnet_sh": "spherical-harmonics:variant=satclip,network=fcnet,hidden=64,out=8",
    "fcnet_grid": "grid:network=fcnet,hidden=32,out=8",
    "linear_sh": "spherical-harmonics:variant=satclip,network=linear,out=8",
    "mlp_sh": "spherical-harmonics:variant=satclip,network=mlp,hidden=32,layers=3,out=8",
}


@pytest.mark.parametrize("name", THEIRS)
def test_networks_are_the_authors(name):
    known = shared("siren.pt")
    encoder = made(THEIRS[name]).double()
    encoder.load_state_dict(known[name]["state_dict"])
    found = encoder(known["lonlat"]).detach()
    near = 1e-6 if "L20" in name else 1e-9  # their basis at L = 20 is off by 1e-8
    assert (found - known[name]["output"]).abs().max() < near
    assert (encoder.float()(known["lonlat"]) - known[name]["output"]).abs().max() < 1e-4


def test_equal_earth_is_that_of_proj():
    from pyproj import Proj

    lonlat = places(50)
    want = np.stack(Proj("+proj=eqearth +R=1")(*lonlat.numpy().T), 1)
    part = registry.load(ROOM, "geoclip")
    assert np.abs(part.equal_earth(lonlat).numpy() / part.SCALE * part.TURN - want).max() < 1e-9


def test_dropout_falls_before_the_sine_and_in_training_alone():
    net = made("satclip:degrees=4,hidden=8,out=2")
    with torch.no_grad():
        assert torch.equal(net(places()), net(places()))
        torch.manual_seed(1)
        x = net.basis(places(3), torch.float32)
        mask = torch.nn.functional.dropout(torch.ones(3, 8), 0.5)
        torch.manual_seed(1)
        net.train().nnet.last_layer = torch.nn.Identity()
        net.nnet.layers = net.nnet.layers[:1]
        want = torch.sin(30 * mask * net.nnet.layers[0](x))
        assert torch.allclose(net(places(3)), want, atol=1e-5)
