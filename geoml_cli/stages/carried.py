"""Parts given as files: carried in the model folder as `parts/NAME.py`, run again only when trusted."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geoml_cli.errors import GeomlError
from geoml_cli.formats.digest import digest_file
from geoml_cli.formats.model import Model
from geoml_cli.formats.stamp import Input, member_path

FOLDER = "parts"


def files_of(specs: Sequence[str]) -> list[Path]:
    """The files among part names such as `unet:width=32` or `./mine.py:width=3`."""
    names = [one.partition(":")[0] for spec in specs for one in spec.split("+")]
    return [Path(name) for name in dict.fromkeys(names) if name.endswith(".py")]


def spelled(spec: str) -> str:
    """How a model names its parts: a file by its place in the model folder."""
    out = []
    for one in spec.split("+"):
        name, colon, options = one.partition(":")
        name = f"{FOLDER}/{Path(name).name}" if name.endswith(".py") else name
        out.append(f"{name}{colon}{options}")
    return "+".join(out)


def part_inputs(specs: Sequence[str]) -> list[Input]:
    """Part files as inputs: their content decides the bytes, their path does not."""
    return [Input(str(path), "part", digest_file(path)) for path in files_of(specs)]


def carry(specs: Sequence[str], folder: Path) -> None:
    """Copy part files into a model folder."""
    for path in files_of(specs):
        (folder / FOLDER).mkdir(exist_ok=True)
        target = folder / FOLDER / path.name
        if target.exists() and target.read_bytes() != path.read_bytes():
            raise GeomlError(f"{path}: two parts of the same file name; rename one")
        shutil.copyfile(path, target)


def network_spec(model: Model, trust_code: bool) -> dict[str, Any]:
    """What `core.network.build` needs; a part of the model's own is refused unless trusted."""
    spec = dict(model.head["network"])
    for room in ("encoder", "head", "adapter", "location_encoder"):
        name, colon, options = (spec.get(room) or "").partition(":")
        if not name.endswith(".py"):
            continue
        path = member_path(model.folder, name)
        if not trust_code:
            raise GeomlError(
                f"{path}: the model runs code of its own; read it, then give --trust-code"
            )
        spec[room] = f"{path}{colon}{options}"
    return spec
