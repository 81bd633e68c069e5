"""Transform that most matched keypoints agree on: SIFT and RANSAC, for turned or scaled images."""

from typing import Any

import numpy as np
import torch

from geoml_cli.core.alignment import Estimate
from geoml_cli.core.correlation import filled
from geoml_cli.core.opencv import opencv
from geoml_cli.core.ties import MODELS, Ties, fit
from geoml_cli.errors import UsageMistake

POINT_PX = 0.3  # what a keypoint is off by


def estimate(
    reference: torch.Tensor,
    moving: torch.Tensor,
    valid: torch.Tensor,
    *,
    model: str = "similarity",
    points: int = 4000,
    ratio: float = 0.8,
    contrast: float = 0.01,
) -> Estimate:
    """Find the transform of a moving image (H, W); `valid` (2, H, W) is of the reference and of the moving image.

    `ratio`: a match is kept if it is that much nearer than the second best (Lowe 2004).
    """
    if model not in MODELS:
        raise UsageMistake(f"features:model={model}: model is {', '.join(MODELS)}")
    cv2 = opencv("features")
    sift = cv2.SIFT_create(nfeatures=points, contrastThreshold=contrast)
    found = [
        sift.detectAndCompute(_bytes(image, seen), _eroded(cv2, seen))
        for image, seen in ((reference, valid[0]), (moving, valid[1]))
    ]
    height, width = reference.shape
    none = Estimate(np.eye(3), np.eye(2) * max(height, width) ** 2, 0.0)
    if any(words is None or len(words) < 4 for _, words in found):
        return none
    pairs = cv2.BFMatcher(cv2.NORM_L2).knnMatch(found[0][1], found[1][1], 2)
    good = [m for m, *rest in pairs if not rest or m.distance < ratio * rest[0].distance]
    if len(good) < MODELS[model] + 2:
        return none
    at = np.array([found[0][0][m.queryIdx].pt for m in good])
    to = np.array([found[1][0][m.trainIdx].pt for m in good])
    once = np.unique(np.round(np.c_[at, to], 1), axis=0, return_index=True)[1]
    at, to = at[np.sort(once)], to[np.sort(once)]
    count = len(at)
    ties = Ties.of(at, to - at, np.tile(np.eye(2) * POINT_PX**2, (count, 1, 1)), np.ones(count))
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    best = fit(ties, model, centre, max(height, width) / 2)
    if best is None:
        return none
    more = {"matches": count, "agreeing": int(best.keep.sum())}
    ties = ties.judged(best.matrix, best.keep)
    return Estimate(best.matrix, best.covariance, best.confidence, ties, more=more)


def _bytes(image: torch.Tensor, seen: torch.Tensor) -> np.ndarray:
    """Grey levels between the 1st and the 99th percentile."""
    flat = filled(image[None], seen[None], False)[0]
    some = flat[seen].cpu().numpy()
    low, high = (
        np.percentile(some[:: max(1, len(some) // 100_000)], (1, 99)) if len(some) else (0, 1)
    )
    level = (flat.cpu().numpy() - low) / max(high - low, 1e-12)
    return (np.clip(level, 0, 1) * 255).astype(np.uint8)


def _eroded(cv2: Any, seen: torch.Tensor) -> np.ndarray:
    """Where keypoints may be: not at the rim of what is not seen."""
    mask = seen.cpu().numpy().astype(np.uint8)
    return cv2.erode(mask, np.ones((15, 15), np.uint8))
