"""Every shell block of the README and of the examples runs as it is written."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "examples").rglob("*.md"))]


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```", page.read_text(), flags=re.M | re.S)


def test_the_readme_has_the_two_commands_and_the_makefile_has_their_targets():
    text, rules = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    for target in ("demo", "test"):
        assert f"    make {target} " in text and f"\n{target}:" in rules
    assert "make test" in (ROOT / ".ci/run").read_text()


def test_the_readmes_shell_blocks_run_one_after_the_other(tmp_path):
    here = tmp_path / "landcover"
    shutil.copytree(
        ROOT / "examples/landcover",
        here,
        ignore=shutil.ignore_patterns("scenes", "tiles", "model", "map*", "*.json", ".*"),
    )
    shutil.rmtree(here / "data")
    shutil.copytree(ROOT / "examples/landcover/data", here / "data")
    found = [block for page in PAGES for block in blocks(page)]
    assert len(found) >= 3
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for block in found:
        got = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=here,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert got.returncode == 0, block + got.stderr
    for made in ("scores.json", "report.html", "map.png", "maps/olinda.tif"):
        assert (here / made).stat().st_size > 1000


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert "://" in target or (page.parent / target).exists(), target
