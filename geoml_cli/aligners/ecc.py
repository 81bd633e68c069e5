"""Transform of the highest correlation of values, climbed from a shift by phase (OpenCV's ECC)."""

import numpy as np
import torch

from geoml_cli import registry
from geoml_cli.core.alignment import Estimate
from geoml_cli.core.correlation import filled
from geoml_cli.core.opencv import opencv
from geoml_cli.errors import UsageMistake

MODELS = ("shift", "affine", "projective")
SPREAD = 4.0  # neighbouring pixels of real images err alike: this many count as one


def estimate(
    reference: torch.Tensor,
    moving: torch.Tensor,
    valid: torch.Tensor,
    *,
    model: str = "shift",
    reach: float = 32.0,
    blur: int = 5,
    steps: int = 100,
) -> Estimate:
    """Find the transform of a moving image (H, W); `valid` (2, H, W) is of the reference and of the moving image.

    Evangelidis and Psarakis 2008. `blur` is the side of the filter before it, odd; `steps` the most taken.
    """
    if model not in MODELS:
        raise UsageMistake(f"ecc:model={model}: model is {', '.join(MODELS)}")
    cv2 = opencv("ecc")
    start = registry.make("aligners", f"phase:reach={reach}", reference, moving, valid)
    whole = bool(valid.all())
    a, b = (
        filled(one[None], seen[None], whole)[0].cpu().numpy()
        for one, seen in ((reference, valid[0]), (moving, valid[1]))
    )
    kind = {"shift": cv2.MOTION_TRANSLATION, "affine": cv2.MOTION_AFFINE}.get(
        model, cv2.MOTION_HOMOGRAPHY
    )
    first = start.matrix.astype(np.float32)
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, steps, 1e-6)
    seen = valid[1].cpu().numpy().astype(np.uint8)
    a = _hidden(a, valid[0].cpu().numpy(), b, start.matrix)
    try:
        height, found = cv2.findTransformECC(
            a, b, first if model == "projective" else first[:2], kind, stop, seen, blur
        )
    except cv2.error:  # it does not converge
        return Estimate(start.matrix, start.covariance, 0.0, more={"agreement": 0.0})
    matrix = np.eye(3)
    matrix[: len(found)] = found
    return Estimate(
        matrix, _covariance(a, float(height)), start.confidence, more={"agreement": float(height)}
    )


def _hidden(a: np.ndarray, seen: np.ndarray, b: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The reference; where it is not seen, what the moving image shows there, so that nothing pulls."""
    if seen.all():
        return a
    dx, dy = (round(float(v)) for v in matrix[:2, 2])
    return np.where(seen, a, np.roll(b, (-dy, -dx), (0, 1))).astype(np.float32)


def _covariance(a: np.ndarray, height: float) -> np.ndarray:
    """Of a shift: the noise that a correlation of `height` speaks of, over the slopes of the image."""
    down, across = np.gradient(a)
    noise = float(a.var()) * (1 - min(height, 0.999999) ** 2) * 2
    inner = np.array(
        [[(across**2).sum(), (across * down).sum()], [(across * down).sum(), (down**2).sum()]]
    )
    return SPREAD * noise * np.linalg.pinv(inner)
