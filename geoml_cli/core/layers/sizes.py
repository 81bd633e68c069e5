"""Sizes of encoders by name, and lists of numbers in an option: `depths=2-2-6-2`."""

from collections.abc import Mapping
from typing import TypeVar

from geoml_cli.errors import GeomlError, UsageMistake

Size = TypeVar("Size")


def size_called(name: str, sizes: Mapping[str, Size]) -> Size:
    """A size by its name."""
    if name not in sizes:
        raise UsageMistake(f"size={name}: one of {', '.join(sizes)}")
    return sizes[name]


def numbers(text: str, option: str) -> tuple[int, ...]:
    """Read `2-2-6-2`."""
    try:
        return tuple(int(one) for one in text.split("-"))
    except ValueError:
        raise UsageMistake(f"{option}={text}: whole numbers joined by -, as 2-2-6-2") from None


def missing(encoder: str) -> GeomlError:
    """What to say where transformers is not installed."""
    return GeomlError(f"encoder {encoder}: needs transformers; pip install 'geoml-cli[backbones]'")
