"""Our transformer over space and time against the plain one of transformers, of the same size, on one date."""

import torch

from bench.pairs import compare
from geoml_cli.core.device import pick
from geoml_cli.core.layers.masked import Encoder

SIZES = {"ViT-B": (768, 12, 12), "ViT-L": (1024, 24, 16)}
BATCH, SIDE, PAIRS = 8, 224, 9


def main(device: str = "auto", precision: str = "auto") -> None:
    """Print the ratios of images a second: forward passes to the last normed tokens, no gradients."""
    from transformers import ViTConfig, ViTModel

    where = pick(device, precision)
    for name, (width, depth, heads) in SIZES.items():
        ours = Encoder(3, 1, SIDE, (1, 16, 16), width, depth, heads).eval().to(where.torch)
        config = ViTConfig(
            hidden_size=width,
            num_hidden_layers=depth,
            num_attention_heads=heads,
            intermediate_size=4 * width,
        )
        theirs = ViTModel(config, add_pooling_layer=False).eval().to(where.torch)
        images = torch.randn(BATCH, 3, SIDE, SIDE, device=where.torch)

        def passed(run, x) -> None:  # type: ignore[no-untyped-def]
            with torch.inference_mode(), where.autocast():
                run(x)
            if where.torch.type == "cuda":
                torch.cuda.synchronize()

        compare(
            f"transformers' {name} / ours, {BATCH} images of {SIDE} px",
            lambda t=theirs, x=images: passed(t, x),  # type: ignore[misc]
            lambda o=ours, x=images: passed(o, x[:, :, None]),  # type: ignore[misc]
            pairs=PAIRS,
        )


if __name__ == "__main__":
    main()
