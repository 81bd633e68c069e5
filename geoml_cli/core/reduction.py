"""Fewer dimensions: principal components, or a random projection."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from geoml_cli.errors import GeomlError, UsageMistake

KINDS = ("pca", "random")


@dataclass(frozen=True)
class Reduction:
    """z = (x - mean) @ components.T; mean (D,), components (K, D), float32."""

    kind: str
    mean: np.ndarray
    components: np.ndarray
    explained: float | None = None  # share of the variance that PCA keeps

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Reduce rows (n, D) to (n, K) float32."""
        return (x.astype(np.float32) - self.mean) @ self.components.T


def parse_reduction(text: str) -> tuple[str, int]:
    """Read `pca:64` or `random:64`."""
    kind, _, count = text.partition(":")
    if kind not in KINDS or not count.isdigit() or int(count) < 1:
        raise UsageMistake(f"--reduce {text}: write pca:N or random:N, N dimensions")
    return kind, int(count)


def fit(kind: str, count: int, blocks: Iterable[np.ndarray], seed: int) -> Reduction:
    """Fit on rows (n, D) that come in blocks; memory is D x D, whatever their number.

    PCA is exact, from the covariance, in float64; each component's largest entry is positive. A random
    projection has entries N(0, 1 / K), which keeps distances (Johnson, Lindenstrauss 1984).
    """
    mean: Any = 0.0
    spread: Any = 0.0
    seen = 0
    for rows in blocks:  # Chan, Golub, LeVeque 1979: sums of squares about a mean, joined
        if not len(rows):
            continue
        here = rows.astype(np.float64)
        middle, n = here.mean(axis=0), len(here)
        off = middle - mean
        here -= middle
        spread = spread + here.T @ here + np.outer(off, off) * (seen * n / (seen + n))
        mean = mean + off * (n / (seen + n))
        seen += n
    width = len(mean) if seen else 0
    if count > width:
        raise GeomlError(f"--reduce {kind}:{count}: the embeddings have {width} dimensions")
    if kind == "random":
        rng = np.random.Generator(np.random.PCG64(seed))
        drawn = rng.standard_normal((count, width)) / np.sqrt(count)
        return Reduction(kind, np.zeros(width, np.float32), drawn.astype(np.float32))
    if seen <= count:
        raise GeomlError(f"--reduce pca:{count}: fitted on {seen} rows; it takes more than {count}")
    values, vectors = np.linalg.eigh(spread)
    top = vectors[:, ::-1][:, :count].T
    signs = np.sign(np.take_along_axis(top, np.abs(top).argmax(1)[:, None], 1))
    kept = float(values[::-1][:count].sum() / max(values.sum(), 1e-300))
    return Reduction(kind, mean.astype(np.float32), (top * signs).astype(np.float32), kept)


def to_plain(one: Reduction) -> dict[str, Any]:
    """As plain JSON values."""
    import base64

    return {
        "kind": one.kind,
        "width": one.components.shape[1],
        "kept": one.components.shape[0],
        "explained": one.explained,
        "mean": base64.b64encode(one.mean.astype("<f4").tobytes()).decode(),
        "components": base64.b64encode(one.components.astype("<f4").tobytes()).decode(),
    }


def from_plain(plain: dict[str, Any]) -> Reduction:
    """Read what `to_plain` gave."""
    import base64

    mean = np.frombuffer(base64.b64decode(plain["mean"]), "<f4")
    flat = np.frombuffer(base64.b64decode(plain["components"]), "<f4")
    return Reduction(
        plain["kind"], mean, flat.reshape(plain["kept"], plain["width"]), plain["explained"]
    )
