"""Augmentations: labels go with pixels, values stay physical, and only the generator decides."""

import math
from dataclasses import fields, replace

import pytest
import torch
from torch import nn

from geoml_cli import registry
from geoml_cli.core.augment import a_pixel, chain, moved, turn, turn_back
from geoml_cli.core.batch import Batch
from geoml_cli.core.tta import averaged
from geoml_cli.errors import GeomlError, UsageMistake

B, T, C, H, W = 4, 2, 3, 12, 12
EVERY = [
    "dihedral",
    "crop:p=1",
    "scale:p=1",
    "band-drop:p=1",
    "band-drop:p=1,what=date",
    "haze:p=1",
    "clouds:p=1,unlabel=true",
    "noise:p=1",
    "mix:p=1",
]
GEOMETRY = ["dihedral", "crop:p=1", "scale:p=1", "mix:p=1"]
VALUES = ["band-drop:p=1", "haze:p=1", "clouds:p=1", "noise:p=1"]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def made(h=H, w=W, per="pixel", kind="classes", others=1, holes=0.2, dates=T):
    """A batch of random values 1000 +- 100, holes in it that are NaN."""
    g = generator(7)

    def sensor():
        images = 1000 + 100 * torch.randn(B, dates, C, h, w, generator=g)
        valid = torch.rand(B, dates, h, w, generator=g) >= holes
        images = torch.where(valid[:, :, None], images, torch.nan)
        waves = torch.tensor([490.0, 665.0, 842.0])
        return Batch(images, valid, wavelength_nm=waves, std=torch.full((C,), 100.0))

    shape = (B, h, w) if per == "pixel" else (B,)
    if kind == "classes":
        target = torch.randint(5, shape, generator=g)
    else:
        target = torch.rand(B, 2, *shape[1:], generator=g)
    weight = (torch.rand(target.shape, generator=g) < 0.7).float()
    rest = tuple(sensor() for _ in range(others))
    return replace(sensor(), others=rest, target=target, weight=weight, total=50.0)


def tensors(batch):
    own = {f.name: getattr(batch, f.name) for f in fields(batch)}
    found = {k: v for k, v in own.items() if isinstance(v, torch.Tensor)}
    for i, one in enumerate(batch.others):
        found |= {f"{i}.{k}": v for k, v in tensors(one).items()}
    return found


def same(a, b):
    """Whether two batches are alike to the last bit, NaN and all."""
    x, y = tensors(a), tensors(b)
    return x.keys() == y.keys() and all(torch.equal(x[k].nan_to_num(-9.0), y[k].nan_to_num(-9.0)) for k in x)  # fmt: skip


def copy(batch):
    own = {k: v.clone() for k, v in vars(batch).items() if isinstance(v, torch.Tensor)}
    return replace(batch, **own, others=tuple(copy(one) for one in batch.others))


def painted(h=24, w=24, per="pixel"):
    """Every image shows its own label, in large squares; the other sensor shows it times ten."""
    ids = torch.arange(B * 9).reshape(B, 3, 3) % 7 + 1
    label = ids.repeat_interleave(h // 3, 1).repeat_interleave(w // 3, 2)
    image = label[:, None, None].float().expand(B, T, C, h, w)
    every = torch.ones(B, T, h, w, dtype=torch.bool)
    return Batch(
        image.clone(),
        every,
        others=(Batch(10 * image, every),),
        target=label,
        weight=torch.ones(B, h, w),
        total=1.0,
    )


@pytest.mark.parametrize("spec", GEOMETRY)
def test_labels_and_all_sensors_go_with_the_pixels(spec):
    batch = painted()
    new = chain(spec)(batch, generator(3))
    first, other, label = new.images[:, 0, 0], new.others[0].images[:, 1, 2], new.target
    # beside an edge between squares bilinear values lie between the labels
    edge = torch.zeros(B, 24, 24, dtype=torch.bool)
    for dim in (1, 2):
        for by in (1, -1):
            edge |= label.roll(by, dim) != label
    seen = new.valid[:, 0] & ~edge
    assert seen.float().mean() > 0.4
    assert torch.allclose(first[seen], label[seen].float(), atol=1e-4)
    assert torch.allclose(other[seen], 10 * label[seen].float(), atol=1e-3)
    assert (new.target != batch.target).float().mean() > 0.05
    assert torch.equal(new.valid, new.others[0].valid)


@pytest.mark.parametrize("spec", EVERY)
@pytest.mark.parametrize("shape", [(12, 12), (10, 14)], ids=["square", "not"])
@pytest.mark.parametrize(("per", "kind"), [("pixel", "classes"), ("pixel", "values"), ("tile", "values")])  # fmt: skip
def test_shapes_types_and_what_was_given_are_kept(spec, shape, per, kind):
    batch = made(*shape, per=per, kind=kind)
    before = copy(batch)
    new = chain(spec)(batch, generator())
    assert same(batch, before)
    assert {k: (v.shape, v.dtype) for k, v in tensors(new).items()} == {
        k: (v.shape, v.dtype) for k, v in tensors(batch).items()
    }
    assert new.total == batch.total


@pytest.mark.parametrize("spec", EVERY)
def test_the_generator_alone_decides(spec):
    batch, run = made(), chain(spec)
    torch.manual_seed(1)
    one = run(batch, generator(5))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert same(one, run(batch, generator(5)))
    assert torch.equal(state, torch.get_rng_state())
    assert not same(one, run(batch, generator(6)))


@pytest.mark.parametrize("spec", EVERY)
def test_no_sample_is_changed_where_p_is_0(spec):
    name, _, options = spec.partition(":")
    rest = [o for o in options.split(",") if o and not o.startswith("p=")]
    run = chain(f"{name}:{','.join([*rest, 'p=0'])}")
    batch = made(holes=0)
    assert same(run(batch, generator()), batch)


@pytest.mark.parametrize("spec", EVERY)
def test_holes_stay_in_their_place(spec):
    """NaN under invalid pixels reaches no valid one."""
    new = chain(spec)(made(), generator())
    for one in (new, *new.others):
        seen = one.valid[:, :, None].expand_as(one.images)
        assert one.images[seen].isfinite().all()
        assert 0 < seen.float().mean() < 1


@pytest.mark.parametrize("spec", VALUES)
def test_values_change_without_moving_masks_or_labels(spec):
    batch = made(holes=0)
    new = chain(spec)(batch, generator(2))
    for one, old in zip((new, *new.others), (batch, *batch.others), strict=True):
        assert torch.equal(one.valid, old.valid) and not torch.equal(one.images, old.images)
    assert torch.equal(new.target, batch.target) and torch.equal(new.weight, batch.weight)


def test_the_eight_symmetries_are_eight_and_undone():
    x = torch.arange(16).reshape(1, 4, 4)
    assert len({tuple(turn(x, k).flatten().tolist()) for k in range(8)}) == 8
    assert all((turn_back(turn(x, k), k) == x).all() for k in range(8))


def test_all_eight_are_drawn_for_squares_and_four_for_rectangles():
    for shape, many in (((6, 6), 8), ((4, 6), 4)):
        image = torch.arange(shape[0] * shape[1]).reshape(1, 1, 1, *shape).float()
        batch = Batch(image.repeat(200, 1, 1, 1, 1), torch.ones(200, 1, *shape, dtype=torch.bool))
        new = chain("dihedral")(batch, generator())
        assert len({tuple(x.flatten().tolist()) for x in new.images}) == many


def test_a_crop_shows_a_plane_enlarged():
    """Of the plane v = row + 100 col, bilinear resizing is exact: its slopes tell the share."""
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    images = (y + 100 * x).expand(B, 1, 1, 32, 32)
    batch = Batch(images, torch.ones(B, 1, 32, 32, dtype=torch.bool))
    new = chain("crop:p=1,smallest=0.25")(batch, generator(1))
    inner = new.images[:, 0, 0, 3:-3, 3:-3]
    down, right = inner.diff(dim=1), inner.diff(dim=2)
    share = (inner[:, -1, 0] - inner[:, 0, 0]) / (inner.shape[1] - 1)
    assert ((share >= 0.25) & (share <= 1)).all() and share.unique().numel() == B
    assert torch.allclose(down, share[:, None, None].expand_as(down), atol=2e-3)
    assert torch.allclose(right, 100 * share[:, None, None].expand_as(right), atol=1e-2)
    assert new.valid.all()


def test_a_smaller_scale_bares_invalid_ground_without_labels():
    batch = painted()
    new = chain("scale:p=1,low=0.5,high=0.5")(batch, generator(1))
    assert new.valid[:, 0].sum((1, 2)).tolist() == [144] * B  # half of each side of 24
    assert torch.equal(new.valid[:, 0], new.weight > 0)
    shown = [new.target[i][new.valid[i, 0]].reshape(12, 12) for i in range(B)]
    for i in range(B):  # every second pixel, from either of the two
        rows = batch.target[i, 0::2, 0::2], batch.target[i, 1::2, 1::2]
        assert any(torch.equal(shown[i], row) for row in rows)


def test_scaling_by_1_changes_nothing():
    batch = made(holes=0)
    assert same(chain("scale:p=1,low=1,high=1+crop:p=1,smallest=1")(batch, generator()), batch)


def test_a_dropped_band_is_its_mean():
    batch = made()
    new = chain("band-drop:p=1")(batch, generator())
    for one, old in zip((new, *new.others), (batch, *batch.others), strict=True):
        for i in range(B):
            changed = []
            for c in range(C):
                for t in range(T):
                    seen = old.valid[i, t]
                    a, b = one.images[i, t, c][seen], old.images[i, t, c][seen]
                    if not torch.equal(a, b):
                        changed.append(c)
                        assert torch.allclose(a, b.double().mean().float().expand_as(a), rtol=1e-5)
            assert len(changed) == T and len(set(changed)) == 1


def test_a_dropped_date_is_invalid_and_one_is_left():
    batch = made(dates=3, others=0)
    new = chain("band-drop:p=1,what=date,most=9")(batch, generator())
    left = new.valid.flatten(2).any(2)
    assert (left.sum(1) >= 1).all() and (left.sum(1) < 3).all()
    for i, t in left.nonzero().tolist():
        assert torch.equal(new.valid[i, t], batch.valid[i, t])
    alone = batch.valid.clone()
    alone[:, 1:] = False  # only the first date has pixels: it is never taken
    for seed in range(5):
        new = chain("band-drop:p=1,what=date")(replace(batch, valid=alone), generator(seed))
        assert new.valid.flatten(1).any(1).all()


def test_haze_falls_with_wavelength():
    batch = made(holes=0)
    new = chain("haze:p=1,strength=2,exponent=4")(batch, generator())
    added = (new.images - batch.images) / 100  # standard deviations
    for c, nm in enumerate((490, 665, 842)):
        ratio = added[:, :, c].sum() / added[:, :, 0].sum()
        assert ratio.item() == pytest.approx((490 / nm) ** 4, rel=1e-3)
    assert added.min() >= -1e-4 and 0.5 < added.max() <= 2
    steps = added.diff(dim=-1).abs().amax()
    assert steps < added.amax() / 3  # smooth


def test_haze_and_clouds_leave_radar_and_unknown_bands_alone():
    batch = made(holes=0)
    radar = replace(batch.others[0], wavelength_nm=torch.full((C,), 5.5e7))
    part = torch.tensor([490.0, math.nan, 842.0])
    batch = replace(batch, wavelength_nm=part, others=(radar,))
    for spec in ("haze:p=1", "clouds:p=1"):
        new = chain(spec)(batch, generator())
        assert torch.equal(new.others[0].images, radar.images)
        assert torch.equal(new.images[:, :, 1], batch.images[:, :, 1])
        assert not torch.equal(new.images[:, :, 0], batch.images[:, :, 0])
    blind = replace(batch, wavelength_nm=None, others=(replace(radar, wavelength_nm=None),))
    new = chain("haze:p=1")(blind, generator())
    added = new.images - blind.images
    assert torch.allclose(added[:, :, 0], added[:, :, 2], atol=1e-3) and added.amax() > 10
    assert torch.equal(new.others[0].images, radar.images)


def flat(h=64, dates=1, waves=(490.0, 665.0, 11000.0)):
    images = torch.full((B, dates, C, h, h), 500.0)
    every = torch.ones(B, dates, h, h, dtype=torch.bool)
    return Batch(
        images,
        every,
        wavelength_nm=torch.tensor(waves),
        std=torch.tensor([10.0, 20.0, 5.0]),
        target=torch.ones(B, h, h, dtype=torch.long),
        weight=torch.ones(B, h, h),
        total=1.0,
    )


def test_clouds_are_bright_cold_and_of_the_cover_asked_for():
    batch = flat()
    new = chain("clouds:p=1,cover=0.4,brightness=3,shadow=1,unlabel=true")(batch, generator(4))
    blue, thermal = new.images[:, 0, 0], new.images[:, 0, 2]
    assert blue.max() == 530 and blue.min() == pytest.approx(490)  # 3 and 1 deviations
    assert thermal.min() == 485 and thermal.max() == 500  # cold, and without shadows
    lost = new.weight == 0
    assert (blue[lost] > 514 - 10).all()  # beneath more than half a cloud
    share = lost.float().mean((1, 2))
    assert (share <= 0.4).all() and share.max() > 0.1
    assert (new.valid == batch.valid).all() and torch.equal(new.target, batch.target)


def test_labels_stay_where_another_date_or_sensor_sees_the_ground():
    spec, seed = "clouds:p=1,cover=0.9,unlabel=true", 2
    one = chain(spec)(flat(), generator(seed))
    assert (one.weight == 0).any()
    seen_twice = replace(flat(), others=(replace(flat(), target=None, weight=None, wavelength_nm=torch.full((C,), 5e7)),))  # fmt: skip
    assert (chain(spec)(seen_twice, generator(seed)).weight == 1).all()
    two = chain(spec)(flat(dates=2), generator(seed))
    assert (two.weight == 0).float().mean() < (one.weight == 0).float().mean()
    kept = chain(spec.replace("true", "false"))(flat(), generator(seed))
    assert (kept.weight == 1).all() and not torch.equal(kept.images, flat().images)


def test_noise_is_white_and_of_the_size_asked_for():
    images = torch.full((200, 1, C, 16, 16), 300.0)
    batch = Batch(images, torch.ones(200, 1, 16, 16, dtype=torch.bool), std=torch.tensor([1.0, 10.0, 100.0]))  # fmt: skip
    new = chain("noise:p=1,sigma=0.2,gain=0,offset=0")(batch, generator())
    for c, std in enumerate((1, 10, 100)):
        found = (new.images - 300)[:, 0, c].flatten(1).std(1) / std  # evenly 0..0.2
        assert found.mean().item() == pytest.approx(0.1, abs=0.01) and found.max() < 0.22
    shifted = chain("noise:p=1,sigma=0,gain=0,offset=0.5")(batch, generator())
    off = (shifted.images - 300) / batch.std[:, None, None]
    assert off.flatten(3).std(-1).max() < 1e-3 and 0.45 < off.abs().max() <= 0.5001


def test_a_gain_turns_about_the_mean_of_what_is_valid():
    batch = made(others=0)
    new = chain("noise:p=1,sigma=0,gain=0.2,offset=0")(batch, generator())
    for i in range(B):
        seen = batch.valid[i, 0]
        a, b = (x.images[i, 0, 0][seen].double() for x in (new, batch))
        assert a.mean().item() == pytest.approx(b.mean().item(), abs=0.01)
        ratio = (a.std() / b.std()).item()
        assert 0.8 <= ratio <= 1.2 and abs(ratio - 1) > 1e-3


def test_cutmix_pastes_a_rectangle_with_its_labels():
    ids = torch.arange(1, 9)
    images = ids.float().view(8, 1, 1, 1, 1).expand(8, 1, C, 20, 20)
    label = ids.view(8, 1, 1).expand(8, 20, 20)
    batch = Batch(images, torch.ones(8, 1, 20, 20, dtype=torch.bool), target=label, weight=label.float(), total=1.0)  # fmt: skip
    new = chain("mix:p=1,most=0.5")(batch, generator(1))
    assert torch.equal(new.images[:, 0, 0].long(), new.target)
    assert torch.equal(new.weight.long(), new.target)
    pasted = 0
    for i in range(8):
        alien = new.target[i] != ids[i]
        if alien.any():
            pasted += 1
            rows, cols = alien.any(1).nonzero(), alien.any(0).nonzero()
            block = alien[rows.min() : rows.max() + 1, cols.min() : cols.max() + 1]
            assert block.all() and new.target[i][alien].unique().numel() == 1
            assert alien.float().mean() <= 0.5 + 0.05
    assert pasted >= 5


def test_mixup_keeps_labels_in_step_with_images():
    """Where a value is the mean of its image, it stays so; what is not labelled stays out."""
    values = torch.tensor([[1.0], [5.0], [9.0], [20.0]])
    images = values.view(4, 1, 1, 1, 1).expand(4, 1, 1, 6, 6)
    weight = torch.tensor([[1.0], [2.0], [1.0], [0.0]])
    target = torch.where(weight > 0, values, torch.nan)
    batch = Batch(images, torch.ones(4, 1, 6, 6, dtype=torch.bool), target=target, weight=weight, total=4.0)  # fmt: skip
    mixed = 0
    for seed in range(6):
        new = chain("mix:p=1,most=0.5")(batch, generator(seed))
        learnt = new.weight[:, 0] > 0
        assert torch.allclose(new.images.mean((1, 2, 3, 4))[learnt], new.target[learnt, 0])
        assert new.target[learnt].isfinite().all() and not learnt[3]
        mixed += int((new.target[learnt, 0] != values[learnt, 0]).sum())
    assert mixed > 3


def test_one_class_a_tile_is_not_mixed():
    with pytest.raises(GeomlError, match="one class a tile"):
        chain("mix")(made(per="tile"), generator())


def test_a_tile_s_label_stays_under_geometry():
    for kind in ("classes", "values"):
        batch = made(per="tile", kind=kind)
        new = chain("dihedral+crop:p=1+scale:p=1")(batch, generator())
        assert torch.equal(new.target, batch.target) and torch.equal(new.weight, batch.weight)
        assert not a_pixel(batch) and not torch.equal(new.valid, batch.valid)


def test_augmentations_are_chained_in_order():
    batch = made()
    one, g = chain("dihedral+haze:p=1")(batch, generator(4)), generator(4)
    two = chain("haze:p=1")(chain("dihedral")(batch, g), g)
    assert same(one, two) and chain("none")(batch, generator()) is batch


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("dihedrall", "did you mean dihedral"),
        ("dihedral+fog", "no augmentation called fog"),
        ("haze:q=1", "has no option 'q'"),
        ("haze:p=1.5", "p is a share"),
        ("crop:smallest=0", "smallest is a share"),
        ("scale:low=2,high=1", "low..high"),
        ("band-drop:what=row", "what is band or date"),
        ("mix:most=2", "most is a share"),
    ],
)
def test_mistakes_are_said(spec, says):
    with pytest.raises(UsageMistake, match=says.replace("..", r"\.\.")):
        chain(spec)(made(), generator())


def test_every_augmentation_takes_p_and_comes_in_these_tests():
    names = registry.names("augmentations")
    assert set(names) == {spec.partition(":")[0] for spec in EVERY}
    assert all(registry.options("augmentations", name)["p"].kind == "float" for name in names)


class Local(nn.Module):
    """A network that looks at a pixel's right neighbour: it knows left from right."""

    def forward(self, batch):
        return batch.images[:, 0].roll(-1, -1)


@pytest.mark.parametrize("kind", ["none", "flips", "dihedral"])
@pytest.mark.parametrize("shape", [(8, 8), (6, 10)], ids=["square", "not"])
def test_what_is_symmetric_is_not_changed_by_averaging(kind, shape):
    batch = made(*shape, holes=0)

    def pixelwise(one):
        assert one.target is None
        return one.images.mean(1).sigmoid() + one.others[0].images.mean(1)

    def tiles(one):
        return one.images.mean((1, 3, 4))

    assert torch.allclose(averaged(pixelwise, batch, kind), pixelwise(replace(batch, target=None)))
    assert torch.allclose(averaged(tiles, batch, kind), tiles(batch))


@pytest.mark.parametrize(("kind", "ks"), [("flips", (0, 2, 4, 6)), ("dihedral", range(8))])
@pytest.mark.parametrize("shape", [(8, 8), (6, 10)], ids=["square", "not"])
def test_averages_turn_with_the_image(kind, ks, shape):
    """Averaged over a group, any network is equivariant under it; before, this one is not."""
    batch = replace(made(*shape, holes=0), target=None, weight=None)
    network, plain = Local(), averaged(Local(), batch, kind)
    for k in ks:
        turned = moved(batch, lambda x, k=k: turn(x, k))
        assert torch.allclose(averaged(network, turned, kind), turn(plain, k), atol=1e-3)
    flipped = moved(batch, lambda x: turn(x, 4))
    assert not torch.allclose(network(flipped), turn(network(batch), 4))
    x = batch.images[:, 0]
    four = [x.roll(1, -1), x.roll(-1, -1)] * 2 if kind == "flips" else [x.roll(s, d) for s in (1, -1) for d in (-1, -2)]  # fmt: skip
    assert torch.allclose(plain, sum(four) / 4, atol=1e-3)


def test_an_unknown_average_is_said():
    with pytest.raises(UsageMistake, match="'spin': one of none, flips, dihedral"):
        averaged(Local(), made(), "spin")


@pytest.mark.gpu
@pytest.mark.parametrize("spec", EVERY)
def test_on_an_accelerator_as_on_the_cpu(spec):
    batch, device = made(), torch.device("cuda")
    here, there = (chain(spec)(one, generator()) for one in (batch, batch.to(device)))
    for name, value in tensors(there).items():
        assert value.device.type == "cuda", name
        assert torch.allclose(value.cpu().nan_to_num(0).float(), tensors(here)[name].nan_to_num(0).float(), atol=1e-2), name  # fmt: skip
