"""Reading to find out whether it can be read: what goes wrong becomes a line."""

from collections.abc import Callable, Iterator

from geoml_cli.errors import GeomlError
from geoml_cli.formats.raster import Reader, described
from geoml_cli.geo.windows import blocks
from geoml_cli.stages.any_raster import looked_at

BLOCK = 1024


def complaints(work: Callable[[], object]) -> Iterator[str]:
    """What a piece of work says is wrong; nothing where it succeeds."""
    try:
        work()
    except GeomlError as error:
        yield str(error)


def read_raster(path: str) -> None:
    """Read every block of a raster; what does not read is raised."""
    with looked_at(path) as dataset:
        try:
            raster = described(dataset, path)
        except GeomlError:  # one that no command takes: its bands are read as they are
            for i in range(1, dataset.count + 1):
                for _, window in dataset.block_windows(i):
                    dataset.read(i, window=window)
            return
    with Reader(raster) as reader:
        for window in blocks(raster.grid.height, raster.grid.width, (BLOCK, BLOCK)):
            reader.read(window)
