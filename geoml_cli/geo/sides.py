"""The kinds of split, read back from plain values."""

from typing import Any

from geoml_cli.errors import GeomlError
from geoml_cli.geo.cells import Cells, Scattered
from geoml_cli.geo.listed import Listed
from geoml_cli.geo.regions import Regions
from geoml_cli.geo.splits import Lattice, Split

KINDS: dict[str, Any] = {
    "blocks": Lattice,
    "cells": Cells,
    "regions": Regions,
    "random": Scattered,
    "listed": Listed,
}


def read_split(plain: dict[str, Any] | None) -> Split | None:
    """What `to_dict` of a split gave; None for none."""
    if plain is None:
        return None
    if plain.get("kind") not in KINDS:
        raise GeomlError(
            f"a split of kind {plain.get('kind')!r}: this geoml knows {', '.join(KINDS)}; update geoml"
        )
    split: Split = KINDS[plain["kind"]].from_dict(plain)
    return split
