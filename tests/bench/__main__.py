"""Run every bench, one after the other: python -m bench [NAME...]."""

import platform
import sys
from importlib import import_module
from pathlib import Path

NAMES = sorted(
    f.stem
    for f in Path(__file__).parent.glob("[a-z]*.py")
    if f.stem
    not in (
        "made",
        "pairs",
        "ranges",
        "fetch_peers",
        "sets",
        "floors",
        "table",
        "probes",
        "pretraining",
    )
)

if __name__ == "__main__":
    print(f"{platform.machine()}, Python {platform.python_version()}", flush=True)
    for name in sys.argv[1:] or NAMES:
        import_module(f"bench.{name}").main()
