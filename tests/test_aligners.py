"""Aligners: exact shifts of images that are moved by their spectrum, with nodata, noise and other contrast."""

import numpy as np
import pytest
import torch

from geoml_cli import registry
from geoml_cli.core.alignment import applied
from geoml_cli.core.bending import bent
from geoml_cli.core.ties import Ties, agreed, fit
from geoml_cli.errors import UsageMistake
from geoml_cli.geo.resample import sample

ALIGNERS = registry.names("aligners")


def land(side: int, seed: int, power: float = 1.5) -> np.ndarray:
    """A periodic image (side, side) whose spectrum falls as land's does, without its finest part."""
    rng = np.random.default_rng(seed)
    far = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None])
    far[0, 0] = 1
    spectrum = np.fft.fft2(rng.normal(size=(side, side))) / far**power
    spectrum[far > 0.35] = 0
    image = np.fft.ifft2(spectrum).real
    return image / image.std()


def moved(image: np.ndarray, dx: float, dy: float) -> np.ndarray:
    """The image moved by dx, dy px, exactly: what was at x, y is at x + dx, y + dy."""
    rows, cols = np.fft.fftfreq(len(image))[:, None], np.fft.fftfreq(len(image))[None]
    return np.fft.ifft2(np.fft.fft2(image) * np.exp(-2j * np.pi * (cols * dx + rows * dy))).real


def pair(dx: float, dy: float, seed: int = 1, side: int = 256) -> list[torch.Tensor]:
    """Two images of the middle of a land, and a mask that hides nothing."""
    whole = land(side + 64, seed)
    cut = np.s_[32:-32, 32:-32]
    images = [torch.tensor(one[cut], dtype=torch.float32) for one in (whole, moved(whole, dx, dy))]
    return [*images, torch.ones(2, side, side, dtype=torch.bool)]


def bitten(a: torch.Tensor, b: torch.Tensor, valid: torch.Tensor) -> list[torch.Tensor]:
    """The same with nodata of another value in each."""
    valid = valid.clone()
    valid[0, 40:110, 90:170] = False
    valid[1, 180:, :130] = False
    return [torch.where(valid[0], a, -9999.0), torch.where(valid[1], b, 7777.0), valid]


@pytest.mark.parametrize("name", ALIGNERS)
def test_an_aligner_recovers_a_known_shift(name):
    found = registry.make("aligners", name, *bitten(*pair(3.0, -5.0)))
    assert found.matrix @ [128, 128, 1] == pytest.approx([131, 123, 1], abs=0.3)
    assert found.covariance.shape == (2, 2)
    assert found.confidence > 0.95


@pytest.mark.parametrize("name", ALIGNERS)
def test_an_aligner_is_not_sure_of_unrelated_images(name):
    a, _, valid = pair(0, 0, seed=1)
    b = pair(0, 0, seed=2)[0]
    assert registry.make("aligners", name, a, b, valid).confidence < 0.9


@pytest.mark.parametrize("shift", [(0.25, -0.5), (2.37, 1.61), (-7.8, 0.1)])
def test_phase_finds_parts_of_a_pixel(shift):
    found = registry.make("aligners", "phase", *pair(*shift))
    assert found.shift == pytest.approx(shift, abs=0.01)
    found = registry.make("aligners", "phase", *bitten(*pair(*shift)))
    assert found.shift == pytest.approx(shift, abs=0.01)


def test_errors_of_phase_are_as_large_as_its_covariance_says():
    """Standardised errors over independent noise have a mean square near 1."""
    standard = []
    for seed in range(40):
        a, b, valid = pair(0.3, -0.2, seed=seed, side=96)
        noise = torch.randn(2, 96, 96, generator=torch.Generator().manual_seed(seed)) * 0.5
        found = registry.make("aligners", "phase", a + noise[0], b + noise[1], valid)
        off = np.array(found.shift) - [0.3, -0.2]
        standard.append(off @ np.linalg.inv(found.covariance) @ off / 2)
    assert 0.5 < np.mean(standard) < 2


def test_gradients_do_not_mind_which_side_is_brighter():
    a, b, valid = pair(4.0, 2.0)
    b = torch.where(b > 0, -b, 0.3 * b)  # valleys stay valleys, hills become valleys
    found = registry.make("aligners", "phase:of=gradient", a, b, valid)
    assert found.shift == pytest.approx((4, 2), abs=0.15)
    assert found.confidence > 0.95
    assert registry.make("aligners", "phase", a, b, valid).confidence < found.confidence


def test_mutual_information_finds_what_any_table_of_values_hides():
    a, b, valid = pair(4.0, -3.0)
    b = torch.cos(3 * b)
    a, b, valid = bitten(a, b, valid)
    found = registry.make("aligners", "phase:of=mutual,smooth=0.5", a, b, valid)
    assert found.shift == pytest.approx((4, -3), abs=0.5)
    assert found.confidence > 0.95


@pytest.mark.parametrize("spec", ["phase:of=colour", "ecc:model=field", "features:model=field"])
def test_an_option_that_means_nothing_is_a_mistake(spec):
    with pytest.raises(UsageMistake, match="is "):
        registry.make("aligners", spec, *pair(0, 0))


MATRICES = {
    "similarity": [[1.01, -0.012, 3.0], [0.012, 1.01, -4.0], [0, 0, 1]],
    "affine": [[1.008, 0.01, 2.0], [-0.006, 0.995, 3.0], [0, 0, 1]],
    "projective": [[1.01, 0.004, 1.0], [-0.006, 0.995, 2.0], [2e-5, -1e-5, 1]],
}


def under(matrix: np.ndarray, side: int = 320) -> list[torch.Tensor]:
    """A land and what an image sees of it that shows the place p at matrix p."""
    whole = land(side + 128, 5)
    rows, cols = np.mgrid[:side, :side].astype(float)
    u, v = applied(np.linalg.inv(matrix), cols, rows)
    seen = np.ones(whole.shape, bool)
    image, _ = sample(whole[None], seen, u + 64, v + 64, "cubic")
    pair = [torch.tensor(one, dtype=torch.float32) for one in (whole[64:-64, 64:-64], image[0])]
    return [*pair, torch.ones(2, side, side, dtype=torch.bool)]


@pytest.mark.parametrize("model", MATRICES)
@pytest.mark.parametrize("spec", ["local", "features", "ecc"])
def test_transforms_are_recovered_all_over_the_image(spec, model):
    if (spec, model) == ("ecc", "similarity"):
        pytest.skip("ecc has no similarity")
    matrix = np.array(MATRICES[model])
    found = registry.make("aligners", f"{spec}:model={model}", *under(matrix))
    x, y = (one.ravel() for one in np.meshgrid(np.linspace(20, 300, 5), np.linspace(20, 300, 5)))
    off = np.hypot(*np.subtract(found.places(x, y), applied(matrix, x, y)))
    assert np.sqrt((off**2).mean()) < 0.12
    assert found.confidence > 0.95


def test_a_field_follows_the_ground_and_leaves_out_what_contradicts():
    side = 400
    whole = land(side, 3)
    rows, cols = np.mgrid[:side, :side].astype(float)
    bend = lambda x, y: (1.5 * np.sin(x / 90), 1.2 * np.cos(y / 80))  # noqa: E731
    x, y = cols.copy(), rows.copy()
    for _ in range(20):  # the place whose ground is shown here
        dx, dy = bend(x, y)
        x, y = cols - dx, rows - dy
    image, _ = sample(whole[None], np.ones(whole.shape, bool), x, y, "cubic")
    image[0, 150:230, 200:280] = land(80, 9)  # other ground
    valid = torch.ones(2, side, side, dtype=torch.bool)
    pair = [torch.tensor(one, dtype=torch.float32) for one in (whole, image[0])]
    found = registry.make("aligners", "local", *pair, valid)
    inner = np.s_[32:-32, 32:-32]
    u, v = found.places(cols[inner], rows[inner])
    dx, dy = bend(cols[inner], rows[inner])
    off = np.hypot(u - cols[inner] - dx, v - rows[inner] - dy)
    assert np.sqrt((off**2).mean()) < 0.12
    assert np.median(off) < 0.04
    at = found.ties.at
    fake = (np.abs(at[:, 0] - 240) < 25) & (np.abs(at[:, 1] - 190) < 25)
    assert fake.any()
    assert not found.ties.keep[fake].any()
    assert found.ties.keep[~fake].mean() > 0.9


@pytest.mark.parametrize("model", ["shift", *MATRICES])
def test_ties_agree_on_a_transform_whatever_a_third_of_them_says(model):
    rng = np.random.default_rng(0)
    matrix = np.array(MATRICES.get(model, [[1, 0, 2.5], [0, 1, -1.5], [0, 0, 1]]))
    at = rng.uniform(0, 500, (90, 2))
    to = np.stack(applied(matrix, *at.T), 1) + rng.normal(0, 0.1, (90, 2))
    to[:30] += rng.uniform(-20, 20, (30, 2))
    cov = np.tile(np.eye(2) * 0.01, (90, 1, 1))
    found = fit(Ties.of(at, to - at, cov, np.ones(90)), model, np.array([250.0, 250.0]), 32)
    assert found.confidence > 0.999
    assert found.keep[30:].all()
    assert found.keep[:30].sum() <= 2
    off = np.array(applied(found.matrix, 250.0, 250.0)) - applied(matrix, 250.0, 250.0)
    assert off @ np.linalg.inv(found.covariance) @ off < 14  # 99.9 % of two degrees of freedom


def test_ties_that_agree_by_chance_are_no_evidence():
    assert agreed(50, 3, 1, 32, 1.0) < 0.5
    assert agreed(50, 8, 1, 32, 1.0) > 0.999
    assert agreed(50, 1, 1, 32, 1.0) == 0


def test_splines_give_back_a_plane_and_smooth_noise():
    rng = np.random.default_rng(1)
    at = rng.uniform(0, 400, (300, 2))
    plane = np.stack([0.01 * at[:, 0] - 1, 0.5 - 0.005 * at[:, 1]], 1)
    field, pull, told = bent(
        at, plane + rng.normal(0, 0.2, (300, 2)), np.full(300, 0.2), (400, 400), 40
    )
    x, y = rng.uniform(20, 380, (2, 100))
    dx, dy = field.at(x, y)
    assert np.sqrt(((dx - 0.01 * x + 1) ** 2 + (dy - 0.5 + 0.005 * y) ** 2).mean()) < 0.08
    assert pull.min() >= 0
    assert told == pytest.approx(0.2 * 2**0.5, rel=0.15)


def test_samples_between_pixels_are_exact_for_cubics_and_blind_to_what_is_invalid():
    rows, cols = np.mgrid[:12, :12].astype(float)
    image = (0.5 * cols**2 - cols + rows)[None]
    u, v = np.array([3.25, 7.5]), np.array([4.75, 6.0])
    valid = np.ones((12, 12), bool)
    got, seen = sample(image, valid, u, v, "cubic")
    assert got[0] == pytest.approx(0.5 * u**2 - u + v)
    assert seen.all()
    image[0, 5, 3], valid[5, 3] = 1e9, False
    got, seen = sample(
        image, valid, np.array([3.4, 4.4, 3.1]), np.array([4.4, 5.0, 5.2]), "bilinear"
    )
    assert np.abs(got[0, :2]).max() < 50
    assert seen.tolist() == [True, True, False]
