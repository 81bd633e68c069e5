"""OpenCV, which only those need that ask for it."""

from typing import Any

from geoml_cli.errors import GeomlError


def opencv(name: str) -> Any:
    """The module, with one thread and a seed; `name` is the part that asks."""
    try:
        import cv2
    except ImportError:
        raise GeomlError(
            f"--aligner {name}: needs OpenCV; install it: pip install 'geoml-cli[align]'"
        ) from None
    cv2.setNumThreads(1)  # the same bytes on any machine
    cv2.setRNGSeed(0)
    return cv2
