"""Shift of the peak of a masked, windowed phase correlation, to a hundredth of a pixel."""

import math

import numpy as np
import torch
from torch.nn import functional

from geoml_cli.core.alignment import Estimate, shifted
from geoml_cli.core.correlation import Found, How, correlate, filled
from geoml_cli.core.mutual import information, top
from geoml_cli.errors import UsageMistake

KINDS = ("values", "gradient", "mutual")
HEAVY = 0.72  # scale of a height of mutual information, as in core/correlation.py
SMOOTH_PX = {"values": 0.0, "gradient": 2.0, "mutual": 1.5}


def estimate(
    reference: torch.Tensor,
    moving: torch.Tensor,
    valid: torch.Tensor,
    *,
    of: str = "values",
    reach: float = 32.0,
    smooth: float | None = None,
    power: float = 0.5,
    cut: float = 0.17,
) -> Estimate:
    """Find the shift of a moving image (H, W); `valid` (2, H, W) is of the reference and of the moving image.

    `of` is what is compared: values, for one sensor and bands alike; gradient, directions of edges whatever
    side is the brighter, for sensors that differ; mutual, information of histograms, for radar and optics.
    `reach` px is how far is looked, `smooth` px what is blurred first (2 for gradient, 1.5 for mutual).
    `power` of magnitudes: 1 correlates plainly, 0 phases alone; `cut`, cycles a pixel, what is too fine.
    """
    options = {"of": of, "reach": reach, "smooth": smooth, "power": power, "cut": cut}
    found = measure(reference[None], moving[None], valid[:, None], **options)  # type: ignore[arg-type]
    more = {"agreement": float(found.agreement[0])}
    sure = float(found.confidence[0])
    return Estimate(shifted(*found.shift[0]), found.covariance[0], sure, more=more)


def measure(
    reference: torch.Tensor,
    moving: torch.Tensor,
    valid: torch.Tensor,
    *,
    of: str = "values",
    reach: float = 32.0,
    smooth: float | None = None,
    power: float = 0.5,
    cut: float = 0.17,
) -> Found:
    """As `estimate`, for many pairs (N, H, W) at a time; `valid` is (2, N, H, W)."""
    if of not in KINDS:
        raise UsageMistake(f"phase:of={of}: of is {', '.join(KINDS)}")
    sigma = SMOOTH_PX[of] if smooth is None else smooth
    if of == "mutual":
        return _mutual(reference, moving, valid, reach, sigma)
    if of == "gradient":
        reference, moving, valid = (*_edges(reference, moving, valid, sigma), _shrunk(valid, sigma))
    elif sigma > 0:
        whole = bool(valid.all())
        pair = (reference, valid[0]), (moving, valid[1])
        reference, moving = (blurred(filled(one, seen, whole), sigma) for one, seen in pair)
    return correlate(reference, moving, valid, How(reach=reach, power=power, cut=cut))


def blurred(image: torch.Tensor, sigma: float, order: tuple[int, int] = (0, 0)) -> torch.Tensor:
    """Gaussian blur of images (N, H, W), or its first derivative down or across."""
    half = max(1, math.ceil(3 * sigma))
    at = torch.arange(-half, half + 1, device=image.device, dtype=image.dtype)
    bell = torch.exp(-0.5 * (at / sigma) ** 2)
    bell = bell / bell.sum()
    out = image[:, None]
    for down, n in ((True, order[0]), (False, order[1])):
        taps = bell * at / sigma**2 if n else bell
        shape = (1, 1, -1, 1) if down else (1, 1, 1, -1)
        pad = (0, 0, half, half) if down else (half, half, 0, 0)
        out = functional.conv2d(functional.pad(out, pad, "replicate"), taps.reshape(shape))
    return out[:, 0]


def _edges(
    reference: torch.Tensor, moving: torch.Tensor, valid: torch.Tensor, sigma: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients as complex numbers of twice their angle: an edge is the same whichever side is brighter."""
    whole, out = bool(valid.all()), []
    for image, seen in ((reference, valid[0]), (moving, valid[1])):
        smooth = filled(image, seen, whole)
        z = torch.complex(blurred(smooth, sigma, (0, 1)), blurred(smooth, sigma, (1, 0)))
        out.append(z * z / z.abs().clamp_min(1e-9))
    return out[0], out[1]


def _shrunk(valid: torch.Tensor, sigma: float) -> torch.Tensor:
    """Without what a blur mixes with what is not seen."""
    if bool(valid.all()):
        return valid
    half = max(1, math.ceil(2 * sigma))
    bad = functional.max_pool2d((~valid).float(), 2 * half + 1, 1, half)
    return bad == 0


def _mutual(
    reference: torch.Tensor, moving: torch.Tensor, valid: torch.Tensor, reach: float, sigma: float
) -> Found:
    whole = bool(valid.all())
    a, b = (
        blurred(filled(o, v, whole), sigma) for o, v in ((reference, valid[0]), (moving, valid[1]))
    )
    shifts, spreads, sure, heights = [], [], [], []
    for i in range(len(a)):
        surface, rows, cols = information(a[i], b[i], valid[:, i], reach)
        place, spread, z = top(surface.double().cpu().numpy())
        shifts.append(place - [cols, rows])
        spreads.append(spread)
        q = 0.5 * math.erfc(HEAVY * z / math.sqrt(2))
        sure.append(math.exp((2 * rows + 1) * (2 * cols + 1) * math.log1p(-min(q, 0.5))))
        heights.append(float(surface.max()))
    return Found(np.array(shifts), np.array(spreads), np.array(sure), np.array(heights))
