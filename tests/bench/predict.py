"""predict against the bare forward pass over the same windows, already tensors in memory."""

import contextlib
import io
import shutil
import tempfile
from pathlib import Path

import torch

from bench import made
from bench.pairs import compare
from geoml_cli.core import network as networks
from geoml_cli.core.batch import Batch
from geoml_cli.core.device import pick
from geoml_cli.core.infer import tiling
from geoml_cli.formats.model import read_model
from geoml_cli.formats.raster import physical
from geoml_cli.geo.windows import blocks
from geoml_cli.stages.inputs import read_scenes
from geoml_cli.stages.predict import run
from geoml_cli.stages.stack import StackReader, stack_of
from geoml_cli.stages.stream import read_mirrored

SIDE, BATCH = 2048, 4


def main(device: str = "auto") -> None:
    """Print the ratio; opening the model, reading, writing and the COG are in ours alone."""
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()):
        folder = Path(name)
        scene, model = (
            made.raster(folder / "scene.tif", SIDE),
            made.model(folder, "unet:width=16,depth=3"),
        )
        found, where = read_model(str(model)), pick(device, "32")
        stack = stack_of(read_scenes([str(scene)])[0])
        lay = tiling((SIDE, SIDE), 512, found.head["halo"], found.head["stride"])
        with StackReader(stack) as reader:
            images = [
                torch.from_numpy(physical(read_mirrored(reader, lay.around(b))[0], stack.bands))[
                    None
                ]
                for b in blocks(SIDE, SIDE, (lay.height, lay.width))
            ]
        valid = torch.ones(BATCH, 1, *images[0].shape[-2:], dtype=torch.bool, device=where.torch)
        network = networks.build(found.head["network"])
        network.load_state_dict(found.weights()[0])
        network.eval().to(where.torch)

        def ours() -> None:
            shutil.rmtree(folder / "maps", ignore_errors=True)
            run(
                [str(scene)],
                str(folder / "maps"),
                model=str(model),
                batch=BATCH,
                device=device,
                precision="32",
            )

        @torch.inference_mode()
        def theirs() -> None:
            for i in range(0, len(images), BATCH):
                part = torch.stack(images[i : i + BATCH]).to(where.torch)
                network(Batch(part, valid[: len(part)]))
            if where.torch.type == "cuda":
                torch.cuda.synchronize()

        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            said = io.StringIO()
            with contextlib.redirect_stdout(said):
                compare("predict / bare forward pass", lambda: _silent(ours), theirs, pairs=3)
            print(said.getvalue().splitlines()[-1])
    print(out.getvalue(), end="")


def _silent(work: object) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        work()  # type: ignore[operator]


if __name__ == "__main__":
    main()
