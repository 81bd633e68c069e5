"""Weights that an encoder starts from: read, brought to its key names, loaded or refused by name."""

import argparse
import codecs
import logging
import pathlib
import re
import warnings
from io import BytesIO
from typing import Any

import numpy as np
import torch
from torch import nn

from geoml_cli import registry
from geoml_cli.errors import GeomlError

log = logging.getLogger("geoml")
State = dict[str, torch.Tensor]
WRAPS = ("state_dict", "model", "model_state_dict", "module")  # keys that checkpoints lie under
# in what PyTorch says of a pickle
REFUSED = re.compile(r"(?:GLOBAL:? (?:GLOBAL )?|got <class ')([\w.]+)")
SOME = 4  # names that a message lists


def read_state(path: str, data: bytes | None = None) -> State:
    """Tensors of a checkpoint, of `data` where it is given: safetensors, or PyTorch's own, unpickled as tensors only.

    Raises `GeomlError` for anything that holds more than tensors and plain values: it is not run.
    """
    if path.endswith(".safetensors"):
        from safetensors import SafetensorError
        from safetensors.torch import load, load_file

        try:
            return load_file(path) if data is None else load(data)
        except SafetensorError as error:
            raise GeomlError(f"{path}: no safetensors file ({error})") from None
    found = _unpickled(path, data)
    while isinstance(found, dict) and (inner := next((w for w in WRAPS if w in found), None)):
        found = found[inner]
    if not isinstance(found, dict) or not any(torch.is_tensor(v) for v in found.values()):
        raise GeomlError(f"{path}: holds no state dict")
    return {k: v for k, v in found.items() if torch.is_tensor(v)}


def plain_values() -> list[Any]:
    """What checkpoints of trainers hold beside tensors, and is no code: numbers and types of numpy, sets, options, paths."""
    # the numbers that trainers note down; older files name numpy's module otherwise
    scalar = np.float64(0).__reduce__()[0]
    kinds = [type(np.dtype(kind)) for kind in "efdbhiqBHIQ?"]
    plain = [set, argparse.Namespace, codecs.encode]
    plain += [(pathlib.PosixPath, f"{home}.PosixPath") for home in ("pathlib", "pathlib._local")]
    return [(scalar, "numpy.core.multiarray.scalar"), scalar, np.dtype, *kinds, *plain]


def read_tensor(path: str, data: bytes) -> torch.Tensor:
    """The one tensor that a checkpoint is."""
    found = _unpickled(path, data)
    if not torch.is_tensor(found):
        raise GeomlError(f"{path}: holds no tensor")
    return found


def _unpickled(path: str, data: bytes | None) -> Any:
    """Tensors and plain values, and nothing that would be run."""
    try:
        with torch.serialization.safe_globals(plain_values()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of protocols, before it is refused
            return torch.load(
                BytesIO(data) if data is not None else path, map_location="cpu", weights_only=True
            )
    except OSError:
        raise
    except Exception as error:  # unpickling says it in many ways
        refused = REFUSED.search(str(error))
        if refused is None:
            raise GeomlError(f"{path}: holds more than tensors, or is damaged") from None
        raise GeomlError(f"{path}: holds more than tensors: it asks for {refused[1]}, which is not run; if you trust it, save its tensors alone") from None  # fmt: skip


def load_base(
    encoder: nn.Module,
    spec: str,
    state: State,
    named: str,
    partial: bool | None = None,
    room: str = "encoders",
) -> None:
    """Load a checkpoint into an encoder; its part may know how others call the keys (`rename`), and how
    to fit what is there to the bands, dates and sides of this encoder (`adapt`).

    Raises `GeomlError` that lists what is missing, left over or of another shape; `partial` leaves that as it is.
    """
    part = registry.load(room, spec.partition(":")[0])
    if encoder.state_dict().keys() != state.keys() and hasattr(part, "rename"):
        state = part.rename(state)
    if hasattr(part, "adapt"):
        state = part.adapt(state, encoder)
    _load(encoder, spec, state, named, partial)


def load_head(head: nn.Module, spec: str, state: State, named: str) -> None:
    """Load a head of a whole checkpoint, by the names that its part knows (`rename`); raises as `load_base`."""
    name = spec.partition(":")[0]
    part = registry.load("heads", name)
    if not hasattr(part, "rename"):
        raise GeomlError(f"{named}: --head {name} knows no published layout of its tensors")
    state = part.rename(state)
    made = getattr(part, "MADE", ())  # what is computed, never loaded
    own = head.state_dict()
    state |= {key: own[key] for key in own if key.rpartition(".")[2] in made}
    _load(head, spec, state, named)


def _load(
    part: nn.Module, spec: str, state: State, named: str, partial: bool | None = None
) -> None:
    """Load all tensors of a part, or with `partial` those that fit, and say which did not; None: it is not to be had."""
    hint = "" if partial is None else "; --partial takes what fits"
    own = part.state_dict()
    other = [k for k, v in own.items() if k in state and state[k].shape != v.shape]
    missing = sorted(k for k in own if k not in state and not k.endswith("num_batches_tracked"))
    extra = sorted(k for k in state if k not in own)
    if not partial:
        for key in other:
            raise GeomlError(
                f"{named}: {key} is {tuple(state[key].shape)}, {spec} has {tuple(own[key].shape)};"
                f" other bands, frames or options of the encoder?{hint}"
            )
        if missing or extra:
            told = ",".join(filter(None, (_listed("misses", missing), _listed("has also", extra))))
            raise GeomlError(f"{named}: does not fit {spec}:{told}{hint}")
    fits = {k: v for k, v in state.items() if k in own and k not in other}
    if not fits:
        raise GeomlError(f"{named}: holds nothing that fits {spec}")
    if partial and (missing or extra or other):
        lost = (
            _listed("made anew", missing),
            _listed("of another shape", other),
            _listed("left out", extra),
        )
        log.warning(
            "%s: took %d of %d tensors;%s",
            *(named, len(fits), len(own), ";".join(filter(None, lost))),
        )
    part.load_state_dict(fits, strict=False)


def _listed(what: str, keys: list[str]) -> str:
    more = f" and {len(keys) - SOME} more" if len(keys) > SOME else ""
    return f" {what} {', '.join(keys[:SOME])}{more}" if keys else ""


def encoder_state(path: str, data: bytes | None = None) -> State:
    """State of an encoder in a checkpoint; of a model's weights that of its first member and sensor."""
    state, inside = read_state(path, data), "0.sensors.0.encoder."
    mine = {k.removeprefix(inside): v for k, v in state.items() if k.startswith(inside)}
    return mine or state
