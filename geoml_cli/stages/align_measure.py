"""Where one image lies on another: a look at the whole, coarse, then windows at full size."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from geoml_cli import registry
from geoml_cli.core.alignment import Estimate, applied
from geoml_cli.core.bending import Bend
from geoml_cli.core.tying import agreed_on, lay, reader, tie
from geoml_cli.errors import UsageMistake
from geoml_cli.geo.grid import Window, apply
from geoml_cli.stages.align_sides import Ground, Sight

WHOLE_PX = 1024  # side, at most, of what is looked at in one piece
MOST_TIES, MOST_FIELD = 400, 10_000
MODELS = ("shift", "similarity", "affine", "projective", "field")


@dataclass(frozen=True)
class How:
    """What was asked for."""

    aligner: str = "phase"
    transform: str = "shift"
    reach: float = 32.0  # px
    confidence: float = 0.95


@dataclass(frozen=True)
class Motion:
    """Where the ground of a place is shown by a moving image: both in the reference's CRS."""

    ground: Ground
    estimate: Estimate

    def places(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the moving image, as it is placed now, shows what is at x, y."""
        col, row = apply(~self.ground.reference.transform, np.asarray(x), np.asarray(y))
        u, v = self.estimate.places(col - 0.5, row - 0.5)
        return apply(self.ground.moving.transform, u + 0.5, v + 0.5)

    def undone(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where what the moving image shows at x, y truly is."""
        fx, fy = np.asarray(x, float).copy(), np.asarray(y, float).copy()
        for _ in range(20):
            u, v = self.places(fx, fy)
            fx, fy = fx + (x - u), fy + (y - v)
        return fx, fy

    def steps(self) -> np.ndarray:
        """How far (n, 2) x, y px images are apart at the corners and in the middle, as they are placed now."""
        grid = self.ground.reference
        cols = np.array([0.5, 0, 1, 0, 1]) * (grid.width - 1)
        rows = np.array([0.5, 0, 0, 1, 1]) * (grid.height - 1)
        x, y = grid.xy(rows, cols)
        u, v = self.places(x, y)
        t = grid.transform
        return np.stack([(u - x) / t.a, (v - y) / t.e], 1)


def spec_of(aligner: str, how: How, reach: float, **wanted: Any) -> str:
    """The aligner with options that it has and that were not given."""
    name, given = registry.parse("aligners", aligner)
    known = registry.options("aligners", name)
    wanted = {"reach": reach, **wanted}
    more = {k: v for k, v in wanted.items() if k in known and k not in given and v is not None}
    tail = ",".join(f"{k}={v}" for k, v in {**given, **more}.items() if v is not None)
    return f"{name}:{tail}" if tail else name


def measure(
    reference: Sight,
    moving: Sight,
    ground: Ground,
    how: How,
    device: torch.device,
    check: Callable[[], None] = lambda: None,
) -> Motion:
    """Find the moving image on the reference."""
    height, width = ground.shape
    factor = -(-max(height, width) // WHOLE_PX)
    images = [sight.small(factor, check) for sight in (reference, moving)]
    pair = [torch.from_numpy(image).to(device) for image, _ in images]
    seen = torch.from_numpy(np.stack([valid for _, valid in images])).to(device)
    name, given = registry.parse("aligners", how.aligner)
    native = how.transform if how.transform in _models(name) else None
    reach = max(how.reach / factor + 1, 3.0)
    inner = {k: v for k, v in given.items() if k in ("of",)}
    coarse_by = how.aligner if name != "local" else _plain("phase", inner)
    if not (seen[0].any() and seen[1].any()):
        return Motion(ground, Estimate(np.eye(3), np.eye(2) * how.reach**2, 0.0))
    model = native if name != "local" else None
    first = registry.make("aligners", spec_of(coarse_by, how, reach, model=model), *pair, seen)
    start = enlarged(first, factor)
    by = _plain("phase", inner) if name in ("local", "features") else how.aligner
    window, step = _windows(how, name, given, (height, width))
    corners = lay(height, width, window, step)
    near = min(how.reach, max(window / 4, 4.0)) if start.confidence >= how.confidence else how.reach
    near = min(near, window / 4)
    spec = spec_of(by, how, near, model="shift" if "model" in _options(by) else None)
    images_read = reader(images[0][0], images[1][0], [valid for _, valid in images])
    read = images_read if factor == 1 else _read(reference, moving)
    ties = tie(read, corners, window, spec, start.matrix, device, check)
    share = min(1.0, (step / window) ** 2)
    agreed = agreed_on(ties, how.transform, ground.shape, near, share, step)
    enough = native is not None and factor == 1 and name != "local"
    if enough and (start.confidence >= how.confidence or agreed is None):
        return Motion(ground, replace(start, ties=ties.judged(start.matrix, ties.keep)))
    if agreed is None:
        return Motion(ground, replace(start, confidence=0.0))
    # windows that agree are evidence of their own, and so is the look at the whole
    apart = np.hypot(*np.subtract(_middle(agreed, ground), _middle(start, ground)))
    sure = agreed.confidence
    if apart < max(2.0 * factor, 2.0):
        sure = 1 - (1 - sure) * (1 - start.confidence)
    return Motion(ground, replace(agreed, confidence=sure))


def _middle(estimate: Estimate, ground: Ground) -> tuple[float, float]:
    x, y = (ground.shape[1] - 1) / 2, (ground.shape[0] - 1) / 2
    u, v = applied(estimate.matrix, np.array(x), np.array(y))
    return float(u), float(v)


def _options(spec: str) -> dict[str, Any]:
    return registry.options("aligners", registry.parse("aligners", spec)[0])


def _plain(name: str, given: dict[str, Any]) -> str:
    tail = ",".join(f"{k}={v}" for k, v in given.items())
    return f"{name}:{tail}" if tail else name


def _models(name: str) -> tuple[str, ...]:
    """Transforms that an aligner finds by itself in one look."""
    if "model" not in registry.options("aligners", name):
        return ("shift",)
    part: Any = registry.load("aligners", name)
    return tuple(getattr(part, "MODELS", ("shift",)))


def _windows(how: How, name: str, given: dict[str, Any], shape: tuple[int, int]) -> tuple[int, int]:
    """Side and step of the windows of ties, px."""
    field = how.transform == "field"
    side = 64 if field else 128
    side = 256 if given.get("of", "values") != "values" else side
    side = min(int(given.get("window", side)), *shape)
    area, most = shape[0] * shape[1], MOST_FIELD if field else MOST_TIES
    step = int(given.get("step", 40 if field else side // 2))
    return side, max(8, step, int((area / most) ** 0.5))


def enlarged(found: Estimate, factor: int) -> Estimate:
    """An estimate of shrunk images, in full pixels."""
    if factor == 1:
        return found
    c = (factor - 1) / 2
    up = np.array([[factor, 0, c], [0, factor, c], [0, 0, 1]], float)
    matrix = up @ found.matrix @ np.linalg.inv(up)
    bend = found.bend
    if bend is not None:
        first = (bend.first[0] * factor + c, bend.first[1] * factor + c)
        bend = Bend(first, bend.step * factor, bend.knots * factor)
    return Estimate(
        matrix / matrix[2, 2],
        found.covariance * factor**2,
        found.confidence,
        None,
        bend,
        found.more,
    )


def _read(reference: Sight, moving: Sight) -> Any:
    def read(row: int, col: int, side: int, dx: int, dy: int) -> tuple[np.ndarray, ...]:
        a, seen_a = reference.read(Window(row, col, side, side))
        b, seen_b = moving.read(Window(row + dy, col + dx, side, side))
        return a, b, seen_a, seen_b

    return read


def check_asked(how: How) -> None:
    """Refuse what no aligner does, before anything is read."""
    name, given = registry.parse("aligners", how.aligner)
    if "reach" in given or "model" in given:
        raise UsageMistake(f"--aligner {how.aligner}: say it by --max-shift and --transform")
