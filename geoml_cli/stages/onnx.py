"""ONNX files as models: `NAME.onnx` with a card beside it, or `pkg:PACKAGE/NAME.onnx`."""

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any

from geoml_cli.errors import GeomlError
from geoml_cli.formats.card import contract_of, known_card, read_card
from geoml_cli.formats.jsonfile import sha256_of
from geoml_cli.formats.model import Model
from geoml_cli.formats.package import PKG, read_packed
from geoml_cli.formats.stamp import Input
from geoml_cli.stages.models import Opened


def open_onnx(name: str) -> Opened:
    """Open a graph and its card; nothing of a package is imported."""
    from geoml_cli.core.onnx import OnnxNetwork, session_of

    path, graph, plain, where = _from_package(name) if name.startswith(PKG) else _from_file(name)
    card = read_card(plain, where)
    session = session_of(graph, name)
    window, count = _check(session, card, name, where)
    binary = count == 1 and len(card["classes"]) == 2
    digest = sha256_of([hashlib.sha256(graph).hexdigest(), card])
    head = contract_of(card, window, binary) | {"geoml": {"fingerprint": digest}}
    keys = ("mean", "std", "scale", "outputs", "layout", "stride")
    how = {key: card[key] for key in keys} | {"outputs_count": count}
    return Opened(
        name,
        Model(Path(path).parent, head),
        [Input(path, "model", digest)],
        partial(_load, OnnxNetwork, graph, name, how),
    )


def _load(kind: Any, graph: bytes, name: str, how: dict[str, Any]) -> list[Any]:
    return [kind(graph, name, how)]


def _from_file(name: str) -> tuple[str, bytes, Any, str]:
    """Path, graph, card and the card's name."""
    file, card = Path(name), Path(name).with_suffix(".json")
    if not file.is_file():
        raise GeomlError(f"{name}: no such file")
    if not card.is_file():
        raise GeomlError(
            f'{card}: no such file; it is to say what goes in and comes out: {{"bands": [...], "classes": [...]}}'
        )
    return name, file.read_bytes(), _json(card.read_bytes(), str(card)), str(card)


def _from_package(name: str) -> tuple[str, bytes, Any, str]:
    """The same of a file in an installed distribution, or in a wheel that lies somewhere."""
    found = read_packed(name, (".onnx",))
    known = known_card(found.package, found.inside.rpartition("/")[2])
    if known is not None:
        return found.path, found.data, known, f"{found.package} of geoml's own tables"
    if found.beside is None:
        raise GeomlError(f"{name}: has no card, a JSON of the same name with bands and classes")
    return found.path, found.data, _json(found.beside, f"the card of {name}"), f"the card of {name}"


def _json(text: bytes, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise GeomlError(f"{where}: no JSON ({error}); mend it") from None


def _check(session: Any, card: dict[str, Any], name: str, where: str) -> tuple[int | None, int]:
    """The side of the window that a graph is fixed to, or None, and its output channels."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or len(outputs[0].shape) != 4:
        raise GeomlError(f"{name}: must take one image (B, C, H, W) and give one map (B, K, H, W)")
    last = card["layout"] == "NHWC"
    put = (0, 3, 1, 2) if last else (0, 1, 2, 3)
    _, bands, *size = (inputs[0].shape[i] for i in put)
    if isinstance(bands, int) and bands != len(card["bands"]):
        raise GeomlError(f"{where}: names {len(card['bands'])} bands, the graph takes {bands}")
    made = outputs[0].shape[put[1]]
    names = card["classes"] or card["values"]
    count = made if isinstance(made, int) else len(names)
    if count != len(names) and not (count == 1 and len(card["classes"]) == 2):
        what = "classes" if card["classes"] else "values"
        raise GeomlError(f"{where}: names {len(names)} {what}, the graph gives {count} channels")
    fixed = [n for n in size if isinstance(n, int)]
    if fixed and len(set(fixed)) > 1:
        raise GeomlError(
            f"{name}: takes windows of {fixed[0]} x {fixed[1]} px; only square ones are mapped"
        )
    if fixed and card["window"] not in (None, fixed[0]):
        raise GeomlError(
            f"{where}: says windows of {card['window']} px, the graph takes {fixed[0]} only"
        )
    if fixed and card["halo"] is not None:
        raise GeomlError(
            f"{where}: says a halo, but the graph takes windows of {fixed[0]} px only; leave it out"
        )
    return (fixed[0] if fixed else None), count
