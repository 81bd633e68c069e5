"""predict against the bare forward pass over the same windows in memory, and against the usual loop."""

import contextlib
import io
import shutil
import tempfile
from pathlib import Path

import numpy as np
import rasterio
import torch
from rasterio.windows import Window

from bench import made
from bench.pairs import compare
from geoml_cli.core.device import pick
from geoml_cli.core.lattice import mirror
from geoml_cli.stages.models import open_model
from geoml_cli.stages.predict import How, Run, run
from geoml_cli.stages.stream import GroupReader, course_of
from geoml_cli.stages.targets import Wish, targets_of

NETS = {  # encoder, head, px of the raster
    "U-Net": ("unet:width=16,depth=3", None, 4096),
    "ViT-B": ("vit:size=base", "fcn", 1024),
}
PAIRS = 3


def main(device: str = "auto", precision: str = "32") -> None:
    """Print the ratios; opening the model, reading, writing and the COG are in ours alone."""
    for name, (encoder, head, side) in NETS.items():
        with tempfile.TemporaryDirectory() as folder:
            _ratios(name, Path(folder), encoder, head, side, device, precision)


def _ratios(
    name: str, folder: Path, encoder: str, head: str | None, side: int, device: str, precision: str
) -> None:
    with _silent():
        scene = made.raster(folder / "scene.tif", side)
        size = 224 if head else 64
        model = made.model(folder, encoder, head=head, size=size)
    opened, where = open_model(str(model)), pick(device, precision)
    [target], _ = targets_of(Wish([str(scene)]), opened)
    batch = Run(opened, How(), [target], device).batch(target, where.torch.type)
    course = course_of(target)
    reader = GroupReader(target, course, opened.head["sensors"])
    batches = [reader.read(group).batch for group in course.groups(batch)]
    reader.close()
    [network] = opened.load()
    network.eval().to(where.torch)
    laid = target.lattice
    print(
        f"{name}: {side} px in {len(laid)} windows of {laid.rows.size} px, {batch} at a time,"
        f" {laid.computed:.2f} pixels computed for each"
    )

    def ours() -> None:
        shutil.rmtree(folder / "maps", ignore_errors=True)
        with _silent():
            run([str(scene)], str(folder / "maps"), model=str(model), device=device, precision=precision)  # fmt: skip

    @torch.inference_mode()
    def bare() -> None:
        for one in batches:
            assert one is not None
            with where.autocast():
                network(one.to(where.torch))
        if where.torch.type == "cuda":
            torch.cuda.synchronize()

    @torch.inference_mode()
    def loop() -> None:
        """Read a window, predict, write its middle; one after the other."""
        with rasterio.open(scene) as source:
            profile = source.profile | {"count": 1, "dtype": "uint8", "nodata": 255, "tiled": True}
            profile |= {"compress": "deflate", "blockxsize": 512, "blockysize": 512}
            [loaded] = open_model(str(model)).load()
            loaded.eval().to(where.torch)
            with rasterio.open(folder / "loop.tif", "w", **profile) as out:
                for i in range(len(laid)):
                    window, block = laid.window(i), laid.blocks[i]
                    rows = mirror(window.row, window.height, side)
                    cols = mirror(window.col, window.width, side)
                    box = Window(cols.min(), rows.min(), np.ptp(cols) + 1, np.ptp(rows) + 1)
                    data = source.read(window=box).astype(np.float32)
                    data = data[:, rows - rows.min()][:, :, cols - cols.min()]
                    image = torch.from_numpy(data)[None, None].to(where.torch)
                    valid = torch.ones(1, 1, *data.shape[1:], dtype=torch.bool, device=where.torch)
                    with where.autocast():
                        said = loaded(type(batches[0])(image, valid)).float().softmax(1)
                    ids = said.argmax(1)[0].byte().cpu().numpy()
                    top, left = block.row - window.row, block.col - window.col
                    inner = ids[top : top + block.height, left : left + block.width]
                    place = Window(block.col, block.row, block.width, block.height)
                    out.write(inner, 1, window=place)

    compare(f"predict / bare forward pass, {name}", ours, bare, pairs=PAIRS)
    compare(f"predict / read-predict-write loop, {name}", ours, loop, pairs=PAIRS)


@contextlib.contextmanager
def _silent():  # type: ignore[no-untyped-def]
    with contextlib.redirect_stdout(io.StringIO()):
        yield


if __name__ == "__main__":
    main()
