"""Low-rank additions to linear layers, and to convolutions where asked, beside frozen weights.

Source: Hu et al. 2021 (LoRA), through peft: W x + alpha / rank * B A x, with B zero at the start.
"""

from torch import nn

from geoml_cli.errors import GeomlError, UsageMistake

PLAIN: tuple[type[nn.Module], ...] = (nn.Linear, nn.Conv2d)
KINDS = {"linear": PLAIN[:1], "conv": PLAIN[1:], "all": PLAIN}


def apply(
    encoder: nn.Module,
    *,
    rank: int = 8,
    alpha: int = 16,
    dropout: float = 0.0,
    targets: str = "linear",
) -> nn.Module:
    """Freeze an encoder and give its layers additions of a rank, in place.

    `targets`: `linear`, the linear layers, those of attention among them; `conv`, convolutions;
    `all`, both; or parts of layers' names joined by |, as query|value. Left out are grouped
    convolutions, and what torch's own attention reads without calling it.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise GeomlError("adapter lora: needs peft; pip install 'geoml-cli[adapters]'") from None
    if rank < 1 or alpha <= 0 or not 0 <= dropout < 1:
        raise UsageMistake(f"lora: rank={rank},alpha={alpha},dropout={dropout}; rank is 1 or more, alpha above 0, dropout 0 to below 1")  # fmt: skip
    names = chosen(encoder, targets)
    encoder.requires_grad_(False)
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=names, bias="none"
    )
    inject_adapter_in_model(config, encoder)
    for one in encoder.modules():
        if isinstance(one, nn.TransformerEncoderLayer):
            # in eval its fused form reads the weights without calling the layers: no additions
            one.activation_relu_or_gelu = 0
    return encoder


def chosen(encoder: nn.Module, targets: str) -> list[str]:
    """Full names of the layers that get additions; raises where there are none."""
    kind = KINDS.get(targets, PLAIN)
    words = [] if targets in KINDS else targets.split("|")
    within = tuple(
        f"{name}."
        for name, one in encoder.named_modules()
        if isinstance(one, nn.MultiheadAttention)
    )
    names = [
        name
        for name, one in encoder.named_modules()
        if isinstance(one, kind)
        and not name.startswith(within)
        and getattr(one, "groups", 1) == 1
        and (not words or any(word in name for word in words))
    ]
    if not names:
        have = sorted({type(one).__name__ for one in encoder.modules() if isinstance(one, PLAIN)})
        raise GeomlError(f"lora: targets={targets} fits no layer of the encoder, which has {' and '.join(have) or 'none'} layers; try targets=all")  # fmt: skip
    return names
