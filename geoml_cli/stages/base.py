"""The checkpoint that a model's encoders start from, and stand on where only what changed is stored."""

from pathlib import Path

from geoml_cli.errors import GeomlError
from geoml_cli.formats.model import NAME, WEIGHTS


def checkpoint_of(path: str) -> Path:
    """The file that `--encoder-weights` names: a checkpoint, or the weights of a model folder."""
    place = Path(path)
    if place.name == NAME:
        place = place.parent
    if place.is_dir():
        place = place / WEIGHTS
    if not place.is_file():
        raise GeomlError(f"{path}: no checkpoint, and no model folder")
    return place
