"""Aligners: each recovers a known shift, with nodata in both images."""

import numpy as np
import pytest
import torch

from geoml_cli import registry

ALIGNERS = registry.names("aligners")


def smooth_noise(side: int, seed: int, power: float = 1.5) -> np.ndarray:
    """A periodic image (side, side) whose spectrum falls as land's does."""
    rng = np.random.default_rng(seed)
    rows, cols = np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None]
    far = np.hypot(rows, cols)
    far[0, 0] = 1
    spectrum = np.fft.fft2(rng.normal(size=(side, side))) / far**power
    spectrum[far > 0.35] = 0
    image = np.fft.ifft2(spectrum).real
    return image / image.std()


def moved(image: np.ndarray, dx: float, dy: float) -> np.ndarray:
    """The image moved by dx, dy px, exactly: what was at x, y is at x + dx, y + dy."""
    rows, cols = np.fft.fftfreq(len(image))[:, None], np.fft.fftfreq(len(image))[None]
    return np.fft.ifft2(np.fft.fft2(image) * np.exp(-2j * np.pi * (cols * dx + rows * dy))).real


@pytest.mark.parametrize("name", ALIGNERS)
def test_an_aligner_recovers_a_known_shift(name):
    whole = smooth_noise(320, 1)
    dx, dy = 3.0, -5.0
    pair = [
        torch.tensor(one[32:-32, 32:-32], dtype=torch.float32)
        for one in (whole, moved(whole, dx, dy))
    ]
    valid = torch.ones(2, 256, 256, dtype=torch.bool)
    valid[0, 40:70, 90:150] = False
    valid[1, 200:, :30] = False
    for one, seen in zip(pair, valid, strict=True):
        one[~seen] = -9999.0
    found = registry.make("aligners", name, *pair, valid)
    assert found.matrix @ [128, 128, 1] == pytest.approx([131, 123, 1], abs=0.3)
    assert found.covariance.shape == (2, 2)
    assert 0 <= found.confidence <= 1
