"""CPU time of start-up as a multiple of `python -c "import typer"`: 15 runs in turn."""

import resource
import subprocess
import sys

GEOML = [sys.executable, "-m", "geoml_cli"]
FLOOR = [sys.executable, "-c", "import typer"]
ASKED = [  # (command line, what it may cost)
    (["--help"], 1.5),
    (["tile", "--help"], 1.5),
    (["tiel"], 3.0),
    (["tile", "--siez", "3"], 3.0),
    (["list", "encoders"], None),
]


def cpu_s(call: list[str]) -> float:
    """User and system time of a process and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(call, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(runs: int = 15) -> None:
    """Print one line a command line: least milliseconds of several runs in turn, ratio, limit."""
    calls = [FLOOR, *([*GEOML, *words] for words, _ in ASKED)]
    floor, *spent = (
        min(times) for times in zip(*(map(cpu_s, calls) for _ in range(runs)), strict=True)
    )
    print(f"{'import typer':24} {1e3 * floor:6.1f} ms  1.00")
    for (words, limit), cost in zip(ASKED, spent, strict=True):
        bound = f"  (at most {limit})" if limit else ""
        print(f"{'geoml ' + ' '.join(words):24} {1e3 * cost:6.1f} ms  {cost / floor:.2f}{bound}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
