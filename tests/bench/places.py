"""Places: harmonics against sphericart, SatCLIP's network, a search of GeoCLIP's gallery against its product alone.

CPU seconds of this process, in turn; `make bench NAMES=places`. Places are uniform on the sphere, seed 0.
"""

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from sphericart import SphericalHarmonics

from geoml_cli import registry
from geoml_cli.core import device as devices
from geoml_cli.core import harmonics as module
from geoml_cli.core.harmonics import harmonics
from geoml_cli.core.neighbours import top, unit

COUNT, DEGREES, ROUNDS = 100_000, 40, 3
QUOTED = (31, 104)  # CPU seconds of the authors' generated polynomials, 100,000 places, L = 40


def main() -> None:
    """Print CPU seconds side by side."""
    torch.set_num_threads(1)
    devices.pick("cpu")  # as every command does: memory is kept, so no run pays for fresh pages
    draw = np.random.default_rng(0).random((COUNT, 2))
    lon, z = 360 * draw[:, 0] - 180, 2 * draw[:, 1] - 1
    lonlat = torch.from_numpy(np.stack([lon, np.rad2deg(np.arcsin(z))], 1))
    xyz = np.stack([np.sqrt(1 - z * z) * f(np.deg2rad(lon)) for f in (np.cos, np.sin)] + [z], 1)
    theirs = SphericalHarmonics(DEGREES - 1)
    works: dict[str, Callable[[], object]] = {
        "sphericart, float64, from xyz": lambda: theirs.compute(xyz),
        "ours, float64, from lon lat": lambda: harmonics(lonlat, DEGREES),
        "ours, float64, satclip's scale": lambda: harmonics(lonlat, DEGREES, "satclip"),
        "ours, float32": lambda: harmonics(lonlat, DEGREES, dtype=torch.float32),
        "our recurrence, float64": lambda: _recurrence(lonlat),
    }
    seconds = _in_turn(works)
    for name, found in seconds.items():
        low, high = QUOTED[0] / found, QUOTED[1] / found
        print(f"{COUNT} places, L={DEGREES}: {name}: {found:.2f} CPU s; authors' code (quoted) / it: {low:.0f}-{high:.0f}")  # fmt: skip
    network = registry.make("location_encoders", "satclip").eval()

    def embed() -> None:
        with torch.inference_mode():
            network(lonlat)

    one = _in_turn({"": embed})[""]
    print(f"SatCLIP-L40, float32: {one:.2f} CPU s; {60 * 2 * COUNT / one / 1e6:.1f} M places a minute on two such cores")  # fmt: skip
    rng = np.random.default_rng(1)
    base, asked = (unit(rng.standard_normal((n, 512)).astype(np.float32)) for n in (COUNT, 1000))
    one, other = torch.from_numpy(asked), torch.from_numpy(base)
    found = _in_turn({"product": lambda: one @ other.T, "search": lambda: top(base, asked, 5)})
    print(f"1000 x {COUNT} x 512, top 5: {found['search']:.2f} CPU s, the product alone {found['product']:.2f}: {found['search'] / found['product']:.2f}")  # fmt: skip


def _recurrence(lonlat: torch.Tensor) -> None:
    held, module.COMPILED = module.COMPILED, 0
    try:
        harmonics(lonlat, DEGREES)
    finally:
        module.COMPILED = held


def _in_turn(works: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median CPU seconds of each, in turn; each runs twice and the second time counts.

    Pages that the run before gave back cost the next one less, so each follows itself.
    """
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, work in works.items():
            work()
            began = time.process_time()
            work()
            times[name].append(time.process_time() - began)
    return {name: statistics.median(each) for name, each in times.items()}


if __name__ == "__main__":
    main()
