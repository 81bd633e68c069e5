"""Anonymous memory of predict at 4096 and 16384 px: flat in the size of the raster."""

import contextlib
import io
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import made

RUNS = 3


def peak_anonymous_mb(words: list[str]) -> float:
    """Largest RssAnon of a command, sampled every 20 ms, MB (Linux)."""
    process = subprocess.Popen(
        [sys.executable, "-m", "geoml_cli", *words], stdout=subprocess.DEVNULL
    )
    status, peak = Path(f"/proc/{process.pid}/status"), 0.0
    while process.poll() is None:
        with contextlib.suppress(OSError, StopIteration):
            line = next(x for x in status.read_text().splitlines() if x.startswith("RssAnon"))
            peak = max(peak, int(line.split()[1]) / 1000)
        time.sleep(0.02)
    assert process.returncode == 0
    return peak


def main() -> None:
    """Print both peaks, medians of several runs, and their ratio."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with contextlib.redirect_stdout(io.StringIO()):
            model = made.model(folder, "unet:width=4,depth=1")
        peaks: dict[int, float] = {}
        for side in (4096, 16384):
            scene = made.raster(folder / f"{side}.tif", side)
            words = ["predict", str(scene), "--model", str(model), "-o"]
            peaks[side] = statistics.median(
                peak_anonymous_mb([*words, str(folder / f"maps-{side}-{k}")]) for k in range(RUNS)
            )
    print(
        f"anonymous memory of predict, 16384 px / 4096 px: {peaks[16384] / peaks[4096]:.2f}"
        f"  ({peaks[16384]:.0f} MB against {peaks[4096]:.0f} MB)"
    )


if __name__ == "__main__":
    main()
