"""What of a network is trained, at which rates, and which of its tensors that changed.

A network has `sensors`, each with an `encoder`, and whatever else it has counts as its head.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from geoml_cli.core.depth import depth_of

State = dict[str, torch.Tensor]


def choose(network: nn.Module, tune: str) -> None:
    """Freeze what is not to be trained; nothing that its maker froze is freed."""
    last = depth_of(tune)
    if last is None:
        return
    for encoder in encoders(network):
        blocks = blocks_of(encoder)
        trained = {id(p) for block in blocks[max(len(blocks) - last, 0) :] for p in _own(block)}
        if last >= len(blocks):
            trained = {id(p) for p in encoder.parameters()}
        for p in encoder.parameters():
            if id(p) not in trained:
                p.requires_grad_(False)


def encoders(network: nn.Module) -> list[nn.Module]:
    """The encoder of every sensor."""
    return [sensor.encoder for sensor in network.sensors]  # type: ignore[union-attr]


def blocks_of(encoder: nn.Module) -> list[nn.Module]:
    """Parts of an encoder from input to output: its own `by_depth()`, or its children.

    Of children those with parameters; a list of modules counts as what it holds.
    """
    if hasattr(encoder, "by_depth"):
        return list(encoder.by_depth())  # type: ignore[operator]
    found: list[nn.Module] = []
    for child in encoder.children():
        found.extend(child if isinstance(child, nn.ModuleList) else [child])
    return [one for one in found if _own(one)]


def _own(block: nn.Module) -> list[nn.Parameter]:
    return list(block.parameters())


def train_mode(network: nn.Module) -> None:
    """Put a network into training, but leave what is frozen as it is in use.

    A module of which no parameter is trained stays in eval mode: its dropout is off, and its
    batch norm keeps the statistics that it has. What is made for training `while_frozen` goes on.
    """
    network.train()
    _rest(network)


def _rest(module: nn.Module) -> None:
    own = _own(module)
    if own and not any(p.requires_grad for p in own):
        module.eval()
        for one in module.modules():
            if getattr(one, "while_frozen", False):
                one.train()
        return
    for child in module.children():
        _rest(child)


def groups(
    network: nn.Module, lr: float, weight_decay: float, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """Groups of what is trained, for an optimizer: each with its rate and weight decay.

    The i-th of an encoder's n blocks has lr * layer_decay ** (n - i), all else lr; what an encoder
    has outside its blocks goes with the first. Biases, norms and other vectors do not decay.
    """
    scale: dict[int, float] = {}
    for encoder in encoders(network):
        blocks = blocks_of(encoder)
        scale |= {id(p): layer_decay ** len(blocks) for p in encoder.parameters()}
        for i, block in enumerate(blocks):
            scale |= {id(p): layer_decay ** (len(blocks) - i) for p in _own(block)}
    found: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for p in network.parameters():
        if p.requires_grad:
            found.setdefault((scale.get(id(p), 1.0), p.ndim > 1), []).append(p)
    return [
        {"params": params, "lr": lr * share, "weight_decay": weight_decay if decays else 0.0}
        for (share, decays), params in found.items()
    ]


def changed(network: nn.Module, base: Mapping[str, torch.Tensor]) -> State:
    """Tensors of a network's state that `base` does not tell: trained, moved, or not in it."""
    trained = {
        name for name, p in network.named_parameters(remove_duplicate=False) if p.requires_grad
    }
    return {
        name: value
        for name, value in network.state_dict().items()
        if name in trained or name not in base or not _same(value, base[name])
    }


def _same(value: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors are alike to the last bit, but for the device."""
    other = other.to(value.device)
    if value.shape != other.shape or value.dtype != other.dtype:
        return False
    return bool(((value == other) | ((value != value) & (other != other))).all())


def restore(base: Mapping[str, torch.Tensor], changed: Mapping[str, torch.Tensor]) -> State:
    """The whole state again, of what it was and what `changed` gave."""
    return {**base, **changed}
