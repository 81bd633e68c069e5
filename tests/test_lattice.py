"""Where windows lie: blocks cover the map once, and what is put together is what one pass gives."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geoml_cli.core import lattice
from geoml_cli.core import network as networks
from geoml_cli.core.aim import Aim
from geoml_cli.core.batch import Batch
from geoml_cli.core.device import pick
from geoml_cli.core.infer import Answers, Mapper
from geoml_cli.core.lattice import Lattice, mirror
from geoml_cli.core.receptive import reach
from geoml_cli.geo.grid import Window
from geoml_cli.stages.strips import Strips

CPU = pick("cpu")
NAMES = ("a", "b", "c")
NETS = {
    "unet": ("unet:width=8,depth=3", "unet"),
    "convnext": ("convnext:depths=1-1-1-1,widths=8-16-32-64", "fcn"),
}


def network(encoder, head, seed=0):
    torch.manual_seed(seed)
    sensors = [{"bands": 2, "frames": 1}]
    spec = {"encoder": encoder, "head": head, "sensors": sensors, "outputs": 3, "per": "pixel"}
    built = networks.build(spec).eval()
    for module in built.modules():  # random statistics: else norms would hide differences
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return built


def tiled(net, image, laid, batch, halo_rim="reflect"):
    """Spread (C, H, W) of an image (C, H, W), window by window."""
    mapper = Mapper([net], Answers(Aim("classes", "pixel", (), NAMES)), CPU, "none")
    out = np.full((3, *laid.shape), np.nan, np.float32)
    for start in range(0, len(laid), batch):
        some = range(start, min(start + batch, len(laid)))
        windows = [cut(image, laid.window(i)) for i in some]
        images = torch.from_numpy(np.stack(windows))[:, None]
        one = Batch(images, torch.ones(len(some), 1, *images.shape[-2:], dtype=torch.bool))
        for i, said in zip(some, mapper.ask(one, [laid.place(i) for i in some], laid), strict=True):
            block = laid.blocks[i]
            out[(slice(None), *block.slices)] = said[:, : block.height, : block.width].numpy()
    return out


def cut(image, window, symmetric=False):
    rows = mirror(window.row, window.height, image.shape[1], symmetric)
    cols = mirror(window.col, window.width, image.shape[2], symmetric)
    return image[:, rows][:, :, cols]


@pytest.mark.parametrize("kind", NETS)
def test_tiled_logits_are_those_of_the_whole_image(kind):
    net = network(*NETS[kind])
    halo = reach(net)
    assert halo is not None
    image = np.random.default_rng(0).normal(size=(2, 130, 170)).astype(np.float32)
    far = -(-halo // net.stride) * net.stride
    down, across = (-n % net.stride for n in image.shape[1:])
    whole = cut(image, Window(-far, -far, 130 + down + 2 * far, 170 + across + 2 * far))
    batch = Batch(
        torch.from_numpy(whole)[None, None], torch.ones(1, 1, *whole.shape[1:], dtype=torch.bool)
    )
    with torch.inference_mode():
        logits = net(batch)[0, :, far : far + 130, far : far + 170]
    want = logits.softmax(0).numpy()
    top = np.sort(want, axis=0)
    clear = top[-1] - top[-2] > 2e-5
    for window in (32, 64, 100):
        for size in (1, 3):
            laid = lattice.lay(
                (130, 170), 1, halo=halo, stride=net.stride, blend=None, window=window
            )
            got = tiled(net, image, laid, size)
            assert np.abs(got - want).max() <= 1e-5
            assert (got.argmax(0) == want.argmax(0))[clear].all()


def axes():
    lengths, ratios = st.integers(1, 400), st.sampled_from([1, 1.0, 0.1, 1 / 3, 0.37, 2, 3.3, 10])
    halos = st.tuples(lengths, ratios, st.integers(0, 40), st.sampled_from([1, 4, 32]))
    exact = st.builds(
        lambda a, window: lattice.finite(*a, window), halos, st.sampled_from([None, 16, 50, 300])
    )
    faded = st.builds(lattice.fading, lengths, ratios, st.just(64), st.sampled_from([2, 7, 16, 32]))
    return st.one_of(exact, faded)


@settings(max_examples=300, deadline=None)
@given(axes())
def test_what_windows_count_for_adds_up_to_one(axis):
    """Each pixel of the map is in one block; fading windows and weights within a window add up to 1."""
    assert axis.edges[0] == 0 and sorted(axis.edges) == list(axis.edges)
    total = np.zeros(axis.length)
    for k in range(axis.count):
        how = axis.taken(k)
        start, stop = axis.edges[k], axis.stop(k)
        if isinstance(how, slice):
            assert 0 <= how.start and how.stop <= axis.size and how.stop - how.start == stop - start
            # the network's pixel of the same number
            assert axis.firsts[k] + how.start == start
        else:
            assert how.shape == (stop - start, axis.size) and (how >= 0).all()
            assert np.allclose(how.sum(axis=1), 1, atol=1e-5)
        weight = np.ones(stop - start)
        lead = axis.lead(k)
        weight[: len(lead)] = lead
        if k + 1 < axis.count:
            after = axis.lead(k + 1)
            weight[axis.edges[k + 1] - start :] = 1 - after
        total[start:stop] += weight
    assert np.allclose(total, 1, atol=1e-6)


@pytest.mark.parametrize("ratio", [0.1, 1 / 3, 0.5])
def test_a_finer_map_interpolates(ratio):
    """Values linear in the network's pixels are linear in the map's, rims aside, whatever the blocks."""
    for window in (16, 40):
        axis = lattice.finite(300, ratio, 4, 4, window)
        got = np.concatenate(
            [
                axis.taken(k) @ np.arange(axis.firsts[k], axis.firsts[k] + axis.size, dtype=float)
                for k in range(axis.count)
            ]
        )
        assert np.allclose(got, (np.arange(300) + 0.5) * ratio - 0.5, atol=1e-4)


@pytest.mark.parametrize("ratio", [2, 5, 2.5])
def test_a_coarser_map_averages(ratio):
    values = np.random.default_rng(1).normal(size=1000)
    axis = lattice.finite(int(400 / ratio), ratio, 3, 4, 64)
    got = np.concatenate(
        [axis.taken(k) @ cut(values[None, None], Window(0, axis.firsts[k], 1, axis.size))[0, 0] for k in range(axis.count)]
    )  # fmt: skip
    fine = np.repeat(values[:400], 2).reshape(-1, int(2 * ratio)).mean(axis=1)
    assert np.allclose(got, fine[: len(got)], atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 200),
    st.integers(1, 200),
    st.sampled_from([1, 0.5, 1.7]),
    st.sampled_from([5, 16, 32]),
    st.integers(1, 9),
)
def test_strips_blend_as_a_weighted_sum_does(
    tmp_path_factory, height, width, ratio, overlap, batch
):
    """Window by window, with rows that are forgotten, against all windows added up at once."""
    rows, cols = (lattice.fading(n, ratio, 64, overlap) for n in (height, width))
    laid = Lattice(rows, cols)
    rng = np.random.default_rng(0)
    said = []
    for i in range(len(laid)):
        place = laid.reach(i)
        said.append(rng.normal(size=(2, place.height, place.width)).astype(np.float32))
    want = np.zeros((2, height, width))
    for i, one in enumerate(said):
        r, c = laid.place(i)

        weighed = one * rows.weights(r)[:, None] * cols.weights(c)
        want[(slice(None), *laid.reach(i).slices)] += weighed
    strips = Strips(tmp_path_factory.mktemp("strips") / "s", laid, 2)
    got = np.zeros_like(want)
    for i, one in enumerate(said):
        got[(slice(None), *laid.blocks[i].slices)] = strips.joined(i, one.copy())
    assert np.allclose(got, want, atol=1e-5)


def test_the_raised_cosine_is_the_tapered_window():
    """Windows of 256 px, 52 px of overlap: scipy's tukey window of alpha 0.4."""
    from scipy.signal.windows import tukey

    axis = lattice.fading(1000, 1, 256, 52)
    assert axis.firsts[:3] == (-51, 153, 357) and axis.size == 256
    want = tukey(256, 0.4)
    assert np.allclose(axis.lead(1), want[:51], atol=1e-6)
    assert np.allclose(1 - axis.lead(2), want[204:255], atol=1e-6)


def test_few_pixels_are_computed_twice():
    for halo, stride in ((12, 4), (44, 16), (124, 16)):
        for side in (1024, 4096, 10980)[halo > 50 :]:  # the rim's halo is computed too
            laid = lattice.lay((side, side), 1, halo=halo, stride=stride, blend=None)
            assert laid.computed <= 1.3, (halo, side, laid.computed)
    for side in (4096, 10980):
        laid = lattice.lay(
            (side, side), 1, halo=None, stride=16, blend=(224, round(224 * lattice.FADE))
        )
        assert laid.computed <= 1.3


@pytest.mark.parametrize("length", [1, 2, 5])
def test_mirror_is_numpys(length):
    line = np.arange(length)
    for mode, twice in (("reflect", False), ("symmetric", True)):
        want = np.pad(line, (7, 9), mode=mode) if length > 1 or twice else np.zeros(17)
        assert (line[mirror(-7, length + 16, length, twice)] == want).all()
