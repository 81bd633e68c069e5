"""PSNR, SSIM, RMSE and MAE of images that were filled, all together and of each band.

Sources: Wang et al. 2004 (IEEE TIP 13(4), SSIM, equation 13, Gaussian window of 11 px and sigma 1.5, K1 0.01, K2 0.03).
"""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import correlate1d

from geoml_cli.errors import GeomlError

OF = "images"  # stats are of (n, bands, H, W)
K1, K2, SIGMA, RADIUS = 0.01, 0.03, 1.5, 5


def stats(
    truth: np.ndarray,
    guess: np.ndarray,
    valid: np.ndarray,
    bands: int,
    peak: float | Sequence[float] | np.ndarray = 1.0,
    known: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Add up what is scored of images (n, bands, H, W), where `valid`; float64 (bands,), but n int64.

    `peak` is the range of the values, of each band. Structure is compared in windows about each scored pixel, of
    the pixels where the truth is `known` (where it is not NaN, if nothing is said).
    """
    if np.ndim(truth) != 4 or np.shape(truth)[1] != bands:
        raise GeomlError("metric reconstruction: wants images, not classes or single values")
    seen = np.asarray(valid, bool)
    known = np.isfinite(truth) if known is None else np.asarray(known, bool)
    t, g = (np.where(known, one, 0).astype(np.float64) for one in (truth, guess))
    scale = np.broadcast_to(np.asarray(peak, np.float64), (bands,))[:, None, None]
    error = np.where(seen, g - t, 0)
    alike = np.where(seen, similarity(t / scale, g / scale, known), 0)
    return {
        "n": seen.sum(axis=(0, 2, 3), dtype=np.int64),
        "square": (error**2).sum(axis=(0, 2, 3)),
        "absolute": np.abs(error).sum(axis=(0, 2, 3)),
        "relative": ((error / scale) ** 2).sum(axis=(0, 2, 3)),
        "alike": alike.sum(axis=(0, 2, 3)),
    }


def similarity(t: np.ndarray, g: np.ndarray, known: np.ndarray) -> np.ndarray:
    """SSIM about each pixel (..., H, W) of images whose values span 1, over what is known of them."""
    weight = _blurred(known.astype(np.float64))

    def mean(x: np.ndarray) -> np.ndarray:
        return _blurred(x * known) / np.maximum(weight, 1e-12)

    a, b = mean(t), mean(g)
    var_a, var_b, both = mean(t * t) - a * a, mean(g * g) - b * b, mean(t * g) - a * b
    c1, c2 = K1**2, K2**2
    found: np.ndarray = ((2 * a * b + c1) * (2 * both + c2)) / (
        (a * a + b * b + c1) * (var_a + var_b + c2)
    )
    return found


def _blurred(x: np.ndarray) -> np.ndarray:
    """Gaussian-weighted sums over 11 x 11 px; nothing lies beyond the rim."""
    at = np.arange(-RADIUS, RADIUS + 1)
    kernel = np.exp(-0.5 * (at / SIGMA) ** 2)
    kernel /= kernel.sum()
    for axis in (-2, -1):
        x = correlate1d(x, kernel, axis=axis, mode="constant")
    return x


def score(stats: dict[str, np.ndarray]) -> dict[str, float | np.ndarray]:
    """Score sums: `psnr` in dB of the range, `ssim`, `rmse`, `mae` of all bands together; `psnr_each` and so on of each."""
    each = {key: np.asarray(value, np.float64) for key, value in stats.items()}
    whole = {key: value.sum() for key, value in each.items()}
    return {**_scores(whole), **{f"{k}_each": v for k, v in _scores(each).items()}}


def _scores(sums: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    n = np.where(sums["n"] > 0, sums["n"], np.nan)
    with np.errstate(divide="ignore"):  # nothing is wrong at all: infinite
        psnr = -10 * np.log10(sums["relative"] / n)
    return {
        "psnr": psnr,
        "ssim": sums["alike"] / n,
        "rmse": np.sqrt(sums["square"] / n),
        "mae": sums["absolute"] / n,
    }
