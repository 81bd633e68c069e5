"""Every shell block of the README and of the examples runs as it is written."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from geoml_cli.cli import run

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "examples").rglob("*.md"))]


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```", page.read_text(), flags=re.M | re.S)


def test_the_readme_has_the_two_commands_and_the_makefile_has_their_targets():
    text, rules = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    for target in ("demo", "test"):
        assert f"    make {target} " in text and f"\n{target}:" in rules
    assert "make test" in (ROOT / ".ci/run").read_text()


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The example that the README walks through, as it is in a fresh checkout."""
    place = tmp_path / "landcover"
    made = ("scenes", "tiles", "model", "map*", "*.json", ".*")
    shutil.copytree(ROOT / "examples/landcover", place, ignore=shutil.ignore_patterns(*made))
    shutil.rmtree(place / "data")
    shutil.copytree(ROOT / "examples/landcover/data", place / "data")
    monkeypatch.chdir(place)
    return place


def in_bash(text: str) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    line = ["bash", "-euo", "pipefail", "-c", text]
    got = subprocess.run(line, env={**os.environ, "PATH": path}, capture_output=True, text=True)
    assert got.returncode == 0, text + got.stderr


def all_blocks() -> list[str]:
    found = [block for page in PAGES for block in blocks(page)]
    assert len(found) >= 3
    return found


def check(place: Path) -> None:
    for made in ("scores.json", "report.html", "map.png", "maps/olinda.tif"):
        assert (place / made).stat().st_size > 1000


def test_the_readmes_commands_run_one_after_the_other(here, capfd):
    """In this process where a line is one command, as loading torch for each takes longer than what they do; and
    the first model is not trained to its end.
    """
    for block in all_blocks():
        for line in block.replace("\\\n", " ").replace("--epochs 20", "--epochs 6").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["geoml"] and not set(words) & {"|", ">", "&&", "<"}:
                assert run(words[1:]) == 0, line + capfd.readouterr().err
            else:
                in_bash(line)
    check(here)


@pytest.mark.slow
def test_the_readmes_shell_blocks_run_as_they_are(here):
    for block in all_blocks():
        in_bash(block)
    check(here)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert "://" in target or (page.parent / target).exists(), target
