"""Tiles as batches that a network takes, without labels."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from geoml_cli.core.batch import Batch
from geoml_cli.formats.tileset import Tiles
from geoml_cli.stages.codes import codes_of
from geoml_cli.stages.gather import Images, centres


class TileBatches:
    """Reads tiles of some sensors; threads may share it."""

    def __init__(self, tiles: Tiles, sensors: Sequence[str], codes: Sequence[str] = ()) -> None:
        self.images = [Images(tiles, name) for name in sensors]
        self.codes, self.places = codes, centres(tiles)
        self._days = [one.days() for one in self.images]

    def read(self, rows: np.ndarray) -> Batch:
        """Tiles at some positions of the index."""
        each = []
        for one, when in zip(self.images, self._days, strict=True):
            told = codes_of(self.codes, self.places[rows], when[rows]) if self.codes else None
            waves = [band.get("wavelength_nm") for band in one.head["bands"]]
            each.append(
                Batch(
                    images=torch.from_numpy(one.values(rows)),
                    valid=torch.from_numpy(one.valid(rows)),
                    lonlat=torch.from_numpy(self.places[rows]),
                    day=torch.from_numpy(when[rows]),
                    wavelength_nm=torch.tensor([np.nan if w is None else w for w in waves]),
                    gsd_m=one.head["gsd_m"],
                    codes=None if told is None else torch.from_numpy(told),
                )
            )
        return replace(each[0], others=tuple(each[1:]))
