"""Numbers that say where and when, for networks to take as channels: `--codes place,season`."""

from collections.abc import Sequence

import numpy as np

from geoml_cli.errors import UsageMistake
from geoml_cli.geo import codes

WIDTH = {"place": 4, "season": 2}  # numbers of each code


def check_codes(names: Sequence[str]) -> int:
    """Numbers that some codes make; an unknown one is a mistake."""
    for name in names:
        if name not in WIDTH:
            raise UsageMistake(f"--codes {name}: one of {', '.join(WIDTH)}")
    return sum(WIDTH[name] for name in names)


def codes_of(names: Sequence[str], lonlat: np.ndarray, day: np.ndarray) -> np.ndarray:
    """Codes (n, T, K) float32 of tiles' middles (n, 2) degrees and days (n, T); 0.5 where unknown."""
    found = []
    for name in names:
        if name == "place":
            one = np.stack(codes.place(lonlat[:, 1], lonlat[:, 0]), axis=-1)[:, None]
            found.append(np.broadcast_to(one, (*day.shape, one.shape[-1])))
        else:
            found.append(np.stack(codes.season(day), axis=-1))
    return np.nan_to_num(np.concatenate(found, axis=-1), nan=0.5).astype(np.float32)


def codes_of_pixels(
    names: Sequence[str], lonlat: tuple[np.ndarray, np.ndarray], day: np.ndarray
) -> np.ndarray:
    """Codes (T, K, H, W) float32 of pixels' longitudes and latitudes (H, W) and days (T,): no window shows in them."""
    lon, lat = (one.ravel() for one in lonlat)
    places = np.stack([lon, lat], axis=1)
    flat = codes_of(names, places, np.broadcast_to(day, (len(places), len(day))))  # (H W, T, K)
    return np.moveaxis(flat, 0, -1).reshape(*flat.shape[1:], *lonlat[0].shape)
