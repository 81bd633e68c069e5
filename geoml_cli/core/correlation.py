"""Shift between two images by their cross spectrum: windowed, masked, to a hundredth of a pixel.

The peak is found to a pixel by an inverse transform, and then climbed by Newton's method on the
spectrum itself, which is what endless upsampling would give (Guizar-Sicairos et al. 2008 upsample
by a matrix product). Frequencies count by a power of their magnitude, between plain correlation
(1) and phase correlation (0), and less the finer they are: the finest are aliased in any image
that a sensor has sampled.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

TAPS = 8  # to either side, of the filter that moves an image by part of a pixel
HANN_2D = (35 / 18) ** 2  # frequencies next to each other tell the same: n sum w^4 / (sum w^2)^2
LEAST_SHARE = 0.1  # of a window that must be seen
FAR_PX = 2.0  # that a peak may be from where the whole pixels had it
# surfaces of unrelated real images have tails heavier than Gaussian, the more so the smaller the window: heights
# count by c * (side / 256) ^ p, so that of pairs that show nothing in common 1 in 100 is taken for sure (measured)
HEAVY, HEAVY_EDGES = (0.8, 0.13), (0.72, 0.55)
SURE_CUT, SURE_LOW = 0.25, 2.0  # of the surface that tells chance: cycles a pixel; periods a window


@dataclass(frozen=True)
class How:
    """Parameters: `cut` in cycles a pixel, `power` of magnitudes, `rounds` of moving again where there are holes."""

    reach: float = 32.0  # px along x and y, the furthest that is looked
    cut: float = 0.17
    power: float = 0.5
    rounds: int = 3
    close: float = 0.02  # px: what is left to move that needs no further round


@dataclass(frozen=True)
class Found:
    """Shifts (N, 2) of x, y px, covariances (N, 2, 2) px squared, how sure (N,) 0 to 1, and correlation (N,)."""

    shift: np.ndarray
    covariance: np.ndarray
    confidence: np.ndarray
    agreement: np.ndarray


def hann(count: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """A Hann window (count,) that is nowhere 0."""
    at = (torch.arange(count, device=device) + 0.5) / count
    return 0.5 - 0.5 * torch.cos(2 * math.pi * at)


def correlate(a: torch.Tensor, b: torch.Tensor, valid: torch.Tensor, how: How = How()) -> Found:
    """Find where images b (N, H, W) lie on a, real or complex; `valid` (2, N, H, W) is of a and of b.

    A shift x, y says that what a shows at (col, row), b shows at (col + x, row + y).
    """
    whole = bool(valid.all())
    a, b = filled(a, valid[0], whole), filled(b, valid[1], whole)
    high, wide = a.shape[-2:]
    frame = hann(high, a.device)[:, None] * hann(wide, a.device)
    rows, cols = _frequencies(a)
    far = rows[:, None] ** 2 + cols**2
    weight = torch.exp(-far / how.cut**2)
    weight[0, 0] = 0
    fine = torch.exp(-far / SURE_CUT**2) * (far >= (SURE_LOW / min(high, wide)) ** 2)
    cross = _spectrum(b, frame) * _spectrum(a, frame).conj()
    coarse = _peak(_surface(_weighed(cross, weight, how.power), a), how)
    sure = _chance(_surface(_weighed(cross, fine, 0.0), a), coarse, how, a.is_complex())
    found = [
        _refine(a[i], b[i], None if whole else valid[:, i], coarse[i], weight, how)
        for i in range(len(a))
    ]
    shift = np.stack([one[0] for one in found])
    covariance = np.stack([one[1] for one in found])
    agreement = np.array([one[2] for one in found])
    seen = np.array([one[3] for one in found])
    return Found(shift, covariance, np.where(seen, sure, 0.0), agreement)


def filled(image: torch.Tensor, valid: torch.Tensor, whole: bool) -> torch.Tensor:
    """The images (N, H, W) less their means; holes are closed smoothly by what lies round them."""
    if whole:
        return image - image.mean((-2, -1), keepdim=True)
    if image.is_complex():
        return torch.complex(filled(image.real, valid, whole), filled(image.imag, valid, whole))
    share = valid.to(image.dtype)
    total = share.sum((-2, -1), keepdim=True).clamp_min(1)
    image = torch.where(valid, image, image.new_zeros(()))
    values = torch.where(valid, image - image.sum((-2, -1), keepdim=True) / total, 0.0)
    out, known, size = values, share, image.shape[-2:]
    while not bool((known > 0).all()) and max(values.shape[-2:]) > 1:
        values, share = (
            functional.avg_pool2d(one[:, None], 2, 2, ceil_mode=True, count_include_pad=False)[:, 0]
            for one in (values, share)
        )
        near = torch.where(share > 0, values / share.clamp_min(1e-9), 0.0)
        near = functional.interpolate(near[:, None], size, mode="bilinear")[:, 0]
        seen = functional.interpolate((share > 0).to(image.dtype)[:, None], size)[:, 0]
        out = torch.where((known == 0) & (seen > 0), near, out)
        known = torch.maximum(known, seen)
    return out


def _frequencies(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of rows and of columns, cycles a pixel; half the columns where the image is real."""
    high, wide = image.shape[-2:]
    across = torch.fft.fftfreq if image.is_complex() else torch.fft.rfftfreq
    return torch.fft.fftfreq(high, device=image.device), across(wide, device=image.device)


def _spectrum(image: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
    mean = (image * window).sum((-2, -1), keepdim=True) / window.sum((-2, -1), keepdim=True)
    image = (image - mean) * window
    return torch.fft.fft2(image) if image.is_complex() else torch.fft.rfft2(image)


def _surface(cross: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    if image.is_complex():
        return torch.fft.ifft2(cross).real
    return torch.fft.irfft2(cross, s=image.shape[-2:])


def _weighed(cross: torch.Tensor, weight: torch.Tensor, power: float) -> torch.Tensor:
    """The cross spectrum with a weight a frequency, its magnitudes to a power."""
    size = cross.abs()
    scale = size.mean((-2, -1), keepdim=True).clamp_min(1e-30)
    size = size / scale + 1e-12
    return cross * (weight * (size.rsqrt() if power == 0.5 else size ** (power - 1)) / scale)


def _near(surface: torch.Tensor, reach: float) -> tuple[torch.Tensor, int, int]:
    """The middle of a surface (N, 2 rows + 1, 2 cols + 1), and rows and cols to either side."""
    rows, cols = (min(int(reach), (n - 1) // 2) for n in surface.shape[-2:])
    rolled = torch.roll(surface, (rows, cols), (-2, -1))
    return rolled[:, : 2 * rows + 1, : 2 * cols + 1], rows, cols


def _peak(surface: torch.Tensor, how: How) -> np.ndarray:
    """Whole shifts (N, 2) x, y of the highest peaks within reach."""
    near, rows, cols = _near(surface, how.reach)
    best = near.reshape(len(near), -1).argmax(1).cpu().numpy()
    row, col = np.divmod(best, 2 * cols + 1)
    return np.stack([col - cols, row - rows], 1)


def _chance(surface: torch.Tensor, peaks: np.ndarray, how: How, edges: bool) -> np.ndarray:
    """How sure (N,) it is that peaks are none of chance.

    The values of the whitened surface of unrelated images are nearly Gaussian; the highest of n
    stays below z deviations with probability (1 - Q(z)) ^ n. What lies near the peak is left out
    of the deviation.
    """
    near, rows, cols = _near(surface, max(how.reach, 24))
    near = near.double().cpu()
    scale = HEAVY_EDGES if edges else HEAVY
    heavy = scale[0] * min(1.0, min(surface.shape[-2:]) / 256) ** scale[1]
    out = np.zeros(len(near))
    for i, (x, y) in enumerate(peaks):
        row, col = int(y) + rows, int(x) + cols
        around = near[i, max(0, row - 2) : row + 3, max(0, col - 2) : col + 3]
        rest = torch.ones_like(near[i], dtype=torch.bool)
        rest[max(0, row - 5) : row + 6, max(0, col - 5) : col + 6] = False
        noise = float(near[i][rest].pow(2).mean().sqrt()) if bool(rest.any()) else 0.0
        z = heavy * float(around.max()) / noise if noise > 0 else 0.0
        places = min((2 * int(how.reach) + 1) ** 2, near[i].numel())
        out[i] = math.exp(places * math.log1p(-min(0.5 * math.erfc(z / math.sqrt(2)), 0.5)))
    return out


def _refine(
    a: torch.Tensor,
    b: torch.Tensor,
    valid: torch.Tensor | None,
    coarse: np.ndarray,
    weight: torch.Tensor,
    how: How,
) -> tuple[np.ndarray, np.ndarray, float, bool]:
    """Shift (2,), its covariance, agreement, and whether there is one, from a whole shift."""
    x, y = int(coarse[0]), int(coarse[1])
    b = torch.roll(b, (-y, -x), (-2, -1))
    window = _overlap(a.shape[-2], y, a.device)[:, None] * _overlap(a.shape[-1], x, a.device)
    nothing = (coarse.astype(float), np.eye(2) * how.reach**2, 0.0, False)
    if valid is not None:
        both = valid[0] & torch.roll(valid[1], (-y, -x), (-2, -1))
        if float(both[window > 0].float().mean()) < LEAST_SHARE:
            return nothing
        window = window * _feathered(both)
    spectrum, rest, turned = _spectrum(a, window), np.zeros(2), b
    covariance = np.eye(2)
    # a residual of half a pixel pulls a window of its own little; one with holes, more
    for i in range(1 if valid is None else how.rounds):
        turned = nudged(b, rest) if i else b
        cross = _weighed(_spectrum(turned, window) * spectrum.conj(), weight, how.power)
        climbed = _climb(cross, *_frequencies(a))
        if climbed is None or np.abs(rest + climbed[0]).max() > FAR_PX:
            return nothing
        rest, covariance = rest + climbed[0], climbed[1]
        if np.abs(climbed[0]).max() < how.close:
            break
    return coarse + rest, covariance, _agreement(a, turned, window), True


def _overlap(count: int, shift: int, device: torch.device) -> torch.Tensor:
    """A Hann window over the part of an axis that is in both images once one is rolled back."""
    first, last = max(0, -shift), min(count, count - shift)
    out = torch.zeros(count, device=device)
    out[first:last] = hann(last - first, device)
    return out


def _feathered(seen: torch.Tensor) -> torch.Tensor:
    """A soft weight (H, W): 0 at what is not seen, 1 some pixels off."""
    bad = functional.max_pool2d((~seen).float()[None], 7, 1, 3)
    padded = functional.pad(bad, (3, 3, 3, 3), "replicate")
    return (1 - functional.avg_pool2d(padded, 7, 1))[0].clamp(0, 1)


def nudged(image: torch.Tensor, shift: np.ndarray) -> torch.Tensor:
    """The image (H, W) read at x + shift[0], y + shift[1], parts of a pixel, by a windowed sinc."""
    if image.is_complex():
        return torch.complex(nudged(image.real, shift), nudged(image.imag, shift))
    out = image[None, None]
    for down, part in ((False, shift[0]), (True, shift[1])):
        at = torch.arange(-TAPS, TAPS + 1, dtype=torch.float64) - float(part)
        taps = torch.sinc(at) * torch.cos(math.pi * at / (2 * TAPS + 2 * FAR_PX)) ** 2
        taps = (taps / taps.sum()).to(image)
        pad = (0, 0, TAPS, TAPS) if down else (TAPS, TAPS, 0, 0)
        shape = (1, 1, -1, 1) if down else (1, 1, 1, -1)
        out = functional.conv2d(functional.pad(out, pad, "replicate"), taps.reshape(shape))
    return out[0, 0]


def _climb(
    cross: torch.Tensor, rows: torch.Tensor, cols: torch.Tensor
) -> tuple[np.ndarray, np.ndarray] | None:
    """Newton's method to the top of the correlation: shift (2,) and its covariance (2, 2); None if there is none.

    With C the cross spectrum, the height at d is sum Re(C exp(2 pi i f.d)). The covariance is
    that of the slopes of single frequencies, turned by the curvature.
    """
    rows, cols = 2 * math.pi * rows, 2 * math.pi * cols
    d = np.zeros(2)
    for _ in range(8):
        x = torch.polar(torch.ones_like(cols), cols * float(d[0]))
        y = torch.polar(torch.ones_like(rows), rows * float(d[1]))
        across = cross @ torch.stack([x, x * cols, x * cols**2], 1)
        sums = (torch.stack([y, y * rows, y * rows**2]) @ across).cpu().numpy().astype(complex)
        slope = -np.array([sums[0, 1].imag, sums[1, 0].imag])
        curve = np.array([[sums[0, 2].real, sums[1, 1].real], [sums[1, 1].real, sums[2, 0].real]])
        if not np.isfinite(curve).all() or np.linalg.eigvalsh(curve)[0] <= 0:
            return None
        step = np.clip(np.linalg.solve(curve, slope), -0.7, 0.7)
        d = d + step
        if np.abs(step).max() < 1e-4 or np.abs(d).max() > FAR_PX:
            break
    slopes = (cross * (y[:, None] * x)).imag
    fy, fx = slopes * rows[:, None], slopes * cols
    xx, xy, yy = (float((p * q).sum()) for p, q in ((fx, fx), (fx, fy), (fy, fy)))
    turn = np.linalg.inv(curve)
    return d, HANN_2D * turn @ np.array([[xx, xy], [xy, yy]]) @ turn


def _agreement(a: torch.Tensor, b: torch.Tensor, window: torch.Tensor) -> float:
    """Weighted correlation coefficient of two images."""
    total = window.sum()
    a, b = a - (a * window).sum() / total, b - (b * window).sum() / total
    both = ((a * a.conj()).abs() * window).sum() * ((b * b.conj()).abs() * window).sum()
    return float((a * b.conj() * window).sum().real / both.sqrt().clamp_min(1e-30))
