"""Objectives: closed forms, the authors' numbers, and what holds for every one with every kind of target."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage, special, stats
from sklearn import metrics as sk

from geoml_cli import registry
from geoml_cli.core import network as networks
from geoml_cli.core import targets
from geoml_cli.core.batch import Batch
from geoml_cli.errors import GeomlError, UsageMistake

PARITY = Path(__file__).parents[2] / "shared/parity"
TARGETS = {
    name: registry.constant("objectives", name, "TARGETS") for name in registry.names("objectives")
}
NAMES = [  # test_reconstruct has those of images, test_places those that ask about other places
    name
    for name, kinds in TARGETS.items()
    if kinds != ("images",) and not registry.constant("objectives", name, "ASKS")
]
JOINED = ["cross-entropy+dice", "focal:gamma=1+lovasz", "huber:delta=0.5+l1", "dice+cromss"]
TUNED = [
    *("cross-entropy:smoothing=0.2", "focal:gamma=0.5,alpha=0.25", "tversky:exponent=0.75"),
    *("farseg:fn=poly,steps=20", "farseg:norm=false,steps=0", "cromss:epochs=5"),
]
SUMS = {"cross-entropy", "focal", "mse", "l1", "huber", "gaussian-nll"}  # of which parts add up


def takes(spec, kind):
    return all(kind in TARGETS[one.partition(":")[0]] for one in spec.split("+"))


def width(spec):
    return max(
        registry.constant("objectives", one.partition(":")[0], "OUTPUTS") or 1
        for one in spec.split("+")
    )


KINDS = {"classes": 4, "binary": 1, "present": 3, "values": 2}  # outputs (of one a value)
CASES = [
    (spec, kind, per)
    for spec in [*NAMES, *TUNED, *JOINED]
    for kind in KINDS
    for per in ("pixel", "tile")
    if takes(spec, "classes" if kind == "binary" else kind)
]


def batch(kind, per="pixel", b=4, size=6, seed=0):
    """A batch with some labels that weigh nothing; wild where they may be."""
    rng = np.random.default_rng(seed)
    k, s = KINDS[kind], (size, size) if per == "pixel" else ()
    shape = (b, *s) if kind in ("classes", "binary") else (b, k, *s)
    if kind in ("classes", "binary"):
        target = torch.from_numpy(rng.integers(0, max(k, 2), shape))
    elif kind == "present":
        target = torch.from_numpy(rng.integers(0, 2, shape)).float()
    else:
        target = torch.from_numpy(rng.normal(size=shape)).float()
    weight = torch.from_numpy(rng.choice([0.0, 1.0, 2.5], shape, p=[0.3, 0.4, 0.3])).float()
    weight.view(-1)[:2] = torch.tensor([0.0, 1.0])
    images = torch.zeros(b, 1, 1, size, size)
    valid = torch.ones(b, 1, size, size, dtype=torch.bool)
    other = Batch(images, valid)
    total = float(weight.sum())
    return Batch(images, valid, others=(other,), target=target, weight=weight, total=total)


class Fixed(torch.nn.Module):
    """A 'model' of two sensors whose outputs are its parameters."""

    def __init__(self, spec, kind, per="pixel", b=4, size=6, seed=1):
        super().__init__()
        k = KINDS[kind] * width(spec)
        shape = (b, k, size, size) if per == "pixel" else (b, k)
        make = torch.Generator().manual_seed(seed)
        self.a = torch.nn.Parameter(torch.randn(shape, generator=make))
        self.b = torch.nn.Parameter(torch.randn(shape, generator=make))

    def forward(self, batch, each=False):
        return [self.a, self.b] if each else (self.a + self.b) / 2

    @classmethod
    def of(cls, outputs, other=None):
        made = cls("mse", "values", "tile", 1)
        made.a = torch.nn.Parameter(outputs.clone())
        made.b = torch.nn.Parameter((outputs if other is None else other).clone())
        return made


def loss_of(spec, one, model, step=3):
    made = spec if isinstance(spec, torch.nn.Module) else networks.objective(spec)
    return made(model, one, step)["loss"]


def gradients(spec, one, model):
    model.zero_grad()
    loss = loss_of(spec, one, model)
    loss.backward()
    return loss.item(), [g.grad for g in (model.a, model.b)]


def where_nothing_weighs(one, outputs):
    """Mask of outputs whose label weighs nothing."""
    nothing = one.weight == 0
    if nothing.ndim < outputs.ndim:
        return nothing[:, None].expand_as(outputs)
    return nothing.repeat(1, outputs.shape[1] // nothing.shape[1], *[1] * (nothing.ndim - 2))


@pytest.mark.parametrize("spec, kind, per", CASES)
def test_what_weighs_nothing_is_not_looked_at(spec, kind, per):
    one, model = batch(kind, per), Fixed(spec, kind, per)
    loss, before = gradients(spec, one, model)
    blank = where_nothing_weighs(one, model.a)
    assert all((g[blank] == 0).all() for g in before)
    assert np.isfinite(loss) and all(g.isfinite().all() for g in before)
    assert any((g != 0).any() for g in before)
    wild = [255, -1] if not one.target.is_floating_point() else [np.nan, np.inf, 1e30]
    for value in wild:
        moved = replace(one, target=torch.where(one.weight > 0, one.target, value))
        again, after = gradients(spec, moved, model)
        assert again == loss
        assert all(torch.equal(g, h) for g, h in zip(before, after, strict=True))


@pytest.mark.parametrize("spec, kind, per", CASES)
def test_nothing_labelled_in_a_part_costs_nothing(spec, kind, per):
    one, model = batch(kind, per), Fixed(spec, kind, per)
    for total in (0.0, one.total):
        bare = replace(one, weight=torch.zeros_like(one.weight), total=total)
        loss, found = gradients(spec, bare, model)
        assert loss == 0 and all((g == 0).all() for g in found)


def right(one, kind, outputs):
    """Outputs that say the truth, no surer than smoothed labels are; a log variance stays."""
    if kind == "classes":
        return 2 * torch.nn.functional.one_hot(one.target, outputs.shape[1]).movedim(-1, 1).float()
    if kind == "binary":
        return 2 * one.target[:, None].float() - 1
    if kind == "present":
        return 2 * one.target - 1
    return torch.cat([one.target, outputs[:, one.target.shape[1] :]], dim=1)


@pytest.mark.parametrize("spec, kind, per", CASES)
def test_losses_fall_towards_the_truth(spec, kind, per):
    one, model = batch(kind, per, b=64 if per == "tile" else 4), Fixed(spec, kind, per, b=64)
    starts = [v[: len(one.target)].detach() for v in (model.a, model.b)]
    losses = []
    for share in (0.0, 0.3, 0.6, 0.9):
        at = [start.lerp(right(one, kind, start), share) for start in starts]
        losses.append(loss_of(spec, one, Fixed.of(*at)).item())
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0] - 0.05


@pytest.mark.parametrize("spec, kind, per", CASES)
def test_parts_weigh_as_much_as_they_hold(spec, kind, per):
    """Sums add up; of other losses each part counts by its share of the weight."""
    one, model = batch(kind, per), Fixed(spec, kind, per)
    whole, pieces = loss_of(spec, one, model).item(), []
    for start, stop in ((0, 1), (1, 4)):
        part = one.part(start, stop)
        there = Fixed.of(model.a[start:stop].detach(), model.b[start:stop].detach())
        found = loss_of(spec, part, there).item()
        alone = replace(part, total=float(part.weight.sum()))
        share = alone.total / one.total
        assert found == pytest.approx(share * loss_of(spec, alone, there).item(), rel=1e-5)
        pieces.append(found)
    if {word.partition(":")[0] for word in spec.split("+")} <= SUMS:
        assert sum(pieces) == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize("spec, kind, per", [c for c in CASES if c[2] == "pixel"])
def test_low_precision_outputs_are_raised_first(spec, kind, per):
    one, model = batch(kind), Fixed(spec, kind)
    with torch.no_grad():
        model.a.copy_(model.a.bfloat16()), model.b.copy_(model.b.bfloat16())
    half = Fixed.of(model.a.detach().bfloat16(), model.b.detach().bfloat16())
    if "+" not in spec and "cromss" not in spec:  # the mean of the two would be rounded otherwise
        with torch.no_grad():
            model.b.copy_(model.a), half.b.copy_(half.a)
        plain = loss_of(spec, one, model).item()
        assert loss_of(spec, one, half).item() == pytest.approx(plain, rel=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        raised = loss_of(spec, one, half)
    assert raised.dtype == torch.float32
    assert raised.item() == pytest.approx(loss_of(spec, one, half).item(), rel=1e-6)


def test_every_objective_says_what_it_takes_and_is_met_above():
    assert all(
        set(kinds) <= {"classes", "present", "values", "images"} and kinds
        for kinds in TARGETS.values()
    )
    assert {spec for spec, _, _ in CASES} == {*NAMES, *TUNED, *JOINED}
    assert width("gaussian-nll") == 2 and width("mse") == 1


# closed forms: the labels of a batch as flat numpy arrays


def flat(kind, seed=0):
    """Batch, outputs, and of its labels: logits (n, K), truth (n,) or (n, K), weight alike."""
    one = batch(kind, seed=seed)
    outputs = Fixed("mse", kind, seed=seed + 5).a.detach()
    if kind in ("classes", "binary"):
        seen = (one.weight > 0).numpy()
        x = outputs.movedim(1, -1).numpy()[seen].astype(float)
        return one, outputs, x, one.target.numpy()[seen], one.weight.numpy()[seen]
    rows = [
        v.movedim(1, -1).reshape(-1, v.shape[1]).numpy() for v in (outputs, one.target, one.weight)
    ]
    return one, outputs, *rows


def value(spec, one, outputs, step=0):
    return loss_of(spec, one, Fixed.of(outputs), step).item()


def test_cross_entropy_is_scikit_learns():
    one, outputs, x, t, w = flat("classes")
    p = special.softmax(x, axis=1)
    want = sk.log_loss(t, p, sample_weight=w, labels=range(4))
    assert value("cross-entropy", one, outputs) == pytest.approx(want, rel=1e-5)
    soft = 0.9 * np.eye(4)[t] + 0.1 / 4
    want = np.average(-(soft * np.log(p)).sum(1), weights=w)
    assert value("cross-entropy:smoothing=0.1", one, outputs) == pytest.approx(want, rel=1e-5)


def test_one_output_of_two_classes_is_the_logit_of_the_second():
    one, outputs, x, t, w = flat("binary")
    want = sk.log_loss(t, special.expit(x[:, 0]), sample_weight=w)
    assert value("cross-entropy", one, outputs) == pytest.approx(want, rel=1e-5)
    two = torch.cat([torch.zeros_like(outputs), outputs], dim=1)
    for spec in ("cross-entropy:smoothing=0.3", "focal:alpha=0.2", "farseg", "cromss"):
        assert value(spec, one, outputs) == pytest.approx(value(spec, one, two), rel=1e-5)


def test_cross_entropy_of_what_is_present():
    one, outputs, x, t, w = flat("present")
    seen = w > 0
    want = sk.log_loss(t[seen], special.expit(x[seen].astype(float)), sample_weight=w[seen])
    assert value("cross-entropy", one, outputs) == pytest.approx(want, rel=1e-5)
    p, soft = special.expit(x[seen].astype(float)), 0.8 * t[seen] + 0.1
    each = -(soft * np.log(p) + (1 - soft) * np.log(1 - p))
    found = value("cross-entropy:smoothing=0.2", one, outputs)
    assert found == pytest.approx(np.average(each, weights=w[seen]), rel=1e-5)


@pytest.mark.parametrize("gamma, alpha", [(0, None), (2, None), (0.5, 0.25), (3, 0.9)])
@pytest.mark.parametrize("kind", ["classes", "binary", "present"])
def test_focal_loss_is_its_formula(kind, gamma, alpha):
    one, outputs, x, t, w = flat(kind)
    if kind == "classes":
        p = special.softmax(x, axis=1)[np.arange(len(t)), t]
    else:
        p = special.expit(np.where(t, 1, -1) * (x[:, 0] if kind == "binary" else x).astype(float))
    balance = 1.0 if alpha is None else np.where(t > 0, alpha, 1 - alpha)
    seen = w > 0
    want = np.average((-balance * (1 - p) ** gamma * np.log(p))[seen], weights=w[seen])
    spec = f"focal:gamma={gamma}" + ("" if alpha is None else f",alpha={alpha}")
    assert value(spec, one, outputs) == pytest.approx(want, rel=1e-5)
    if gamma == 0 and alpha is None:
        assert value("cross-entropy", one, outputs) == pytest.approx(want, rel=1e-5)


def soft_counts(kind):
    """Probabilities and truth (n, K) of labelled pixels, 0 where not, and the batch."""
    one, outputs, x, t, w = flat(kind)
    if kind == "classes":
        return one, outputs, special.softmax(x, axis=1), np.eye(4)[t]
    if kind == "binary":
        return one, outputs, special.expit(x), t[:, None]
    return one, outputs, special.expit(x.astype(float)) * (w > 0), t * (w > 0)


@pytest.mark.parametrize(
    "spec", ["cross-entropy", "focal:gamma=0.5", "farseg", "tversky:exponent=0.5"]
)
@pytest.mark.parametrize("kind", ["classes", "binary", "present"])
def test_slopes_are_finite_where_an_answer_is_as_sure_as_can_be(spec, kind):
    one = batch(kind)
    sure = 200 * right(one, kind, Fixed(spec, kind).a.detach())
    for outputs in (sure, -sure):
        loss, found = gradients(spec, one, Fixed.of(outputs))
        assert np.isfinite(loss) and all(g.isfinite().all() for g in found)


@pytest.mark.parametrize("kind", ["classes", "binary", "present"])
def test_dice_and_tversky_are_their_formulas(kind):
    one, outputs, p, t = soft_counts(kind)
    dice = (1 - 2 * (p * t).sum(0) / ((p**2).sum(0) + (t**2).sum(0))).mean()
    assert value("dice", one, outputs) == pytest.approx(dice, rel=1e-5)
    tp, fp, fn = (p * t).sum(0), (p * (1 - t)).sum(0), ((1 - p) * t).sum(0)
    for a, b, e in ((0.5, 0.5, 1.0), (0.3, 0.7, 1.0), (0.2, 0.9, 0.75)):
        want = ((1 - tp / (tp + a * fp + b * fn)) ** e).mean()
        found = value(f"tversky:alpha={a},beta={b},exponent={e}", one, outputs)
        assert found == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("kind", ["classes", "binary", "present"])
def test_of_hard_answers_dice_is_f1_and_lovasz_is_iou(kind):
    one, _, _, t, w = flat(kind)
    rng = np.random.default_rng(9)
    seen = w > 0
    if kind == "classes":
        guess = torch.from_numpy(rng.integers(0, 3, one.target.shape))
        outputs = 200.0 * torch.nn.functional.one_hot(guess, 4).movedim(-1, 1)
        pairs = [(t == k, guess.numpy()[one.weight.numpy() > 0] == k) for k in range(4)]
    else:
        shape = (*one.target.shape[:1], KINDS[kind], 6, 6)
        guess = torch.from_numpy(rng.integers(0, 2, shape)).float()
        outputs = 200.0 * (2 * guess - 1)
        rows = guess.movedim(1, -1).reshape(-1, KINDS[kind]).numpy()
        if kind == "binary":
            pairs = [(t == 1, guess[:, 0].numpy()[one.weight.numpy() > 0] == 1)]
        else:
            pairs = [(t[seen[:, k], k] == 1, rows[seen[:, k], k] == 1) for k in range(KINDS[kind])]
    f1 = np.mean([sk.f1_score(a, b) for a, b in pairs])
    assert value("dice", one, outputs) == pytest.approx(1 - f1, abs=1e-5)
    assert value("tversky:alpha=0.5,beta=0.5", one, outputs) == pytest.approx(1 - f1, abs=1e-5)
    iou = np.mean([sk.jaccard_score(a, b) for a, b in pairs])
    assert value("tversky:alpha=1,beta=1", one, outputs) == pytest.approx(1 - iou, abs=1e-5)
    if kind == "classes":
        assert value("lovasz", one, outputs) == pytest.approx(1 - iou, abs=1e-5)
    else:  # sure by 1 and right: 0; wrong: 2 of the hinge, so twice the loss
        assert value("lovasz", one, outputs / 200) == pytest.approx(2 * (1 - iou), abs=1e-5)


def choquet(errors, truth):
    """Lovasz extension by its definition: the integral over levels of the loss of the set above."""
    levels = np.unique(np.concatenate([[0.0], errors]))
    total = 0.0
    for low, high in zip(levels[:-1], levels[1:], strict=True):
        wrong = errors >= high
        either = truth.sum() + (wrong & (truth == 0)).sum()
        total += (high - low) * (wrong.sum() / either if either else 0.0)
    return total


def test_lovasz_is_the_integral_over_levels():
    one, outputs, x, t, _ = flat("classes")
    p = special.softmax(x, axis=1)
    want = np.mean([choquet(np.abs((t == k) - p[:, k]), (t == k) * 1) for k in range(4)])
    assert value("lovasz", one, outputs) == pytest.approx(want, rel=1e-5)
    one, outputs, x, t, _ = flat("binary")
    want = choquet(np.maximum(1 - x[:, 0] * (2 * t - 1), 0), t)
    assert value("lovasz", one, outputs) == pytest.approx(want, rel=1e-5)
    one, outputs, x, t, w = flat("present")
    hinge = np.maximum(1 - x * (2 * t - 1), 0)
    seen = w > 0
    want = np.mean([choquet(hinge[seen[:, k], k], t[seen[:, k], k]) for k in range(3)])
    assert value("lovasz", one, outputs) == pytest.approx(want, rel=1e-5)


def test_a_class_that_the_batch_lacks_is_left_out():
    one = batch("classes")
    one = replace(one, target=one.target.clamp(max=2))
    outputs = Fixed("mse", "classes").a.detach()
    for spec in ("dice", "tversky", "lovasz"):
        t, p = one.target.numpy(), outputs.softmax(1).numpy()
        seen = one.weight.numpy() > 0
        each = []
        for k in range(3):
            truth, chance = (t == k)[seen] * 1.0, p[:, k][seen].astype(float)
            tp, fp, fn = (
                (truth * chance).sum(),
                ((1 - truth) * chance).sum(),
                (truth * (1 - chance)).sum(),
            )
            each.append(
                {
                    "dice": 1 - 2 * tp / ((chance**2).sum() + truth.sum()),
                    "tversky": 1 - tp / (tp + 0.3 * fp + 0.7 * fn),
                    "lovasz": choquet(np.abs(truth - chance), truth),
                }[spec]
            )
        assert value(spec, one, outputs) == pytest.approx(np.mean(each), rel=1e-5), spec


def test_errors_of_values_are_scikit_learns():
    one, outputs, x, t, w = flat("values")
    seen = w > 0
    t, x, w = (v[seen].astype(float) for v in (t, x, w))
    want = {
        "mse": sk.mean_squared_error(t, x, sample_weight=w),
        "l1": sk.mean_absolute_error(t, x, sample_weight=w),
        "rmse": sk.root_mean_squared_error(t, x, sample_weight=w),
    }
    for delta in (0.3, 1.0, 2.5):
        want[f"huber:delta={delta}"] = np.average(special.huber(delta, t - x), weights=w)
    for spec, number in want.items():
        assert value(spec, one, outputs) == pytest.approx(number, rel=1e-5), spec


def test_a_perfect_fit_has_a_finite_slope():
    one = batch("values")
    for spec in ("rmse", "l1", "huber", "mse"):
        loss, (grad, _) = gradients(spec, one, Fixed.of(one.target))
        assert loss < 1e-5 and (grad == 0).all(), spec


def test_likelihood_is_that_of_the_normal_distribution():
    one, mean, x, t, w = flat("values")
    logs = torch.randn(mean.shape, generator=torch.Generator().manual_seed(3))
    s = np.exp(logs.movedim(1, -1).reshape(-1, 2).numpy().astype(float) / 2)
    each = -stats.norm.logpdf(t, x, s) - np.log(2 * np.pi) / 2
    outputs = torch.cat([mean, logs], dim=1)
    assert value("gaussian-nll", one, outputs) == pytest.approx(
        np.average(each, weights=w), rel=1e-5
    )
    far = torch.cat([mean, torch.full_like(mean, -1e4)], dim=1)
    loss, found = gradients("gaussian-nll", one, Fixed.of(far))
    assert np.isfinite(loss) and all(g.isfinite().all() for g in found)


def test_likelihood_finds_mean_and_variance():
    rng = np.random.default_rng(0)
    target = torch.from_numpy(rng.normal(2, 0.5, (1, 1, 40, 40))).float()
    images, valid = torch.zeros(1, 1, 1, 40, 40), torch.ones(1, 1, 40, 40, dtype=torch.bool)
    one = Batch(images, valid, target=target, weight=torch.ones_like(target), total=1600.0)
    guess = torch.nn.Parameter(torch.zeros(1, 2, 1, 1))
    made, walk = registry.make("objectives", "gaussian-nll"), torch.optim.Adam([guess], 0.05)
    for _ in range(400):
        walk.zero_grad()
        made(lambda _: guess.expand(1, 2, 40, 40), one, 0)["loss"].backward()
        walk.step()
    found = guess.detach().flatten().tolist()
    want = [target.mean().item(), target.var(correction=0).log().item()]
    assert found == pytest.approx(want, abs=1e-2)


# FarSeg


def fixture(name):
    path = PARITY / f"{name}.pt"
    if not path.is_file():
        pytest.skip(f"no {path}: the authors' numbers are not beside this checkout")
    return torch.load(path, weights_only=True)


def pixels(target, ignore=255):
    """A batch of labels (B, H, W) alone."""
    b, h, w = target.shape
    weight = (target != ignore).float()
    images, valid = torch.zeros(b, 1, 1, h, w), torch.ones(b, 1, h, w, dtype=torch.bool)
    return Batch(images, valid, target=target, weight=weight, total=float(weight.sum()))


def test_farseg_gives_the_numbers_of_the_authors():
    saved = fixture("farseg_head")
    one, logits = pixels(saved["inputs"]["y_true"]), saved["outputs"]["logits"]
    for key, want in saved["outputs"].items():
        kind, _, rest = key.partition("_")
        if kind == "anneal":
            fn, step = rest.split("_")
            found = value(f"farseg:fn={fn},steps=10000", one, logits, int(step))
        elif kind == "focal":
            norm = "true" if rest == "norm" else "false"
            found = value(f"farseg:norm={norm},steps=0", one, logits)
        else:
            continue
        assert found == pytest.approx(want.item(), rel=1e-4, abs=1e-5), key


@pytest.mark.parametrize("fn", ["cosine", "poly", "linear"])
@pytest.mark.parametrize("step", [0, 30, 75, 100, 400])
def test_farseg_gradients_are_those_of_its_weights(fn, step):
    """The loss is as large as cross-entropy at every step: only gradients tell the variants apart."""
    one, outputs, x, t, w = flat("classes")
    _, (grad, other) = gradients_at(f"farseg:fn={fn},steps=100", one, outputs, step)
    p = special.softmax(x, axis=1)
    hit = p[np.arange(len(t)), t]
    focus = (1 - hit) ** 2
    norm = -(w * np.log(hit)).sum() / -(w * focus * np.log(hit)).sum()
    at = min(step / 100, 1)
    plain = {"cosine": (1 + np.cos(np.pi * at)) / 2, "poly": (1 - at) ** 0.9, "linear": 1 - at}[fn]
    scale = focus * norm + plain * (1 - focus * norm)
    want = (w * scale)[:, None] * (p - np.eye(4)[t]) / (w.sum() + 4)
    found = (grad + other).movedim(1, -1).numpy()[one.weight.numpy() > 0]
    assert found == pytest.approx(want, abs=1e-6)


def gradients_at(spec, one, outputs, step):
    model = Fixed.of(outputs)
    loss = loss_of(spec, one, model, step)
    loss.backward()
    return loss.item(), (model.a.grad, model.b.grad)


def test_farseg_anneals_over_half_of_a_short_run():
    made = registry.make("objectives", "farseg")
    assert made.steps == 10_000
    for run, steps in ((600, 300), (20_000, 10_000), (90_000, 10_000), (1, 0)):
        made.plan(run, 10)
        assert made.steps == steps
    fixed = registry.make("objectives", "farseg:steps=7")
    fixed.plan(600, 10)
    assert fixed.steps == 7
    with pytest.raises(UsageMistake, match="cosine"):
        registry.make("objectives", "farseg:fn=cubic")


# CromSS

CROMSS = registry.load("objectives", "cromss")


@pytest.mark.parametrize("epoch", [0, 20, 80, 120])
def test_cromss_chooses_and_counts_as_the_authors_do(epoch):
    saved = fixture("cromss_selection")
    given, want = saved["inputs"], saved["outputs"]
    made, y = CROMSS.build(), given["y"]
    made.plan(steps=200 * 7, steps_an_epoch=7)
    logits = [given["logits1"], given["logits2"]]
    labels, said = made.masks(logits, y, torch.ones_like(y, dtype=torch.bool), epoch * 7 + 6)
    close = {"atol": 1e-5, "rtol": 1e-4}
    for i in (0, 1):
        assert torch.allclose(labels[i], want[f"seg_mask{i + 1}_e{epoch}"], **close)
        assert torch.allclose(said[i], want[f"con_mask{i + 1}_e{epoch}"], **close)
    loss = made.loss(logits, want["smoothed"], labels, said)
    assert torch.allclose(loss, want[f"loss_e{epoch}"], **close)


def test_cromss_confidences_and_smoothing_are_the_authors():
    saved = fixture("cromss_selection")
    given, want = saved["inputs"], saved["outputs"]
    p, y = [given[f"logits{i}"].softmax(1) for i in (1, 2)], given["y"]
    own = [one.gather(1, y[:, None])[:, 0] for one in p]
    sure = [CROMSS.certainty(one) for one in p]
    assert torch.allclose(CROMSS.refined(*own), want["label_conf1"], atol=1e-5)
    assert torch.allclose(CROMSS.refined(*sure), want["pred_conf1"], atol=1e-5)
    truth = torch.nn.functional.one_hot(y, 5).movedim(-1, 1).float()
    soft = CROMSS.build().smoothed(truth, given["smooth_prior"])
    assert torch.allclose(soft, want["smoothed"], atol=1e-5)
    near = CROMSS.spatial_prior(truth)[0]
    assert torch.allclose(near, want["spatial_prior"].float(), atol=1e-5)


@pytest.mark.parametrize("shape", [(16, 16), (5, 40), (1, 9)])
def test_the_prior_is_scipys_gaussian_of_the_labels_over_that_of_all(shape):
    rng = np.random.default_rng(0)
    ids, seen = rng.integers(0, 3, shape), rng.random(shape) > 0.6
    truth = np.stack([(ids == k) & seen for k in range(3)]).astype(float)
    near = np.stack([ndimage.gaussian_filter(one, 3.0, truncate=4.0) for one in truth])
    found = CROMSS.spatial_prior(torch.from_numpy(truth[None]).float())[0].numpy()
    assert found == pytest.approx(near / near.sum(0), abs=1e-5)
    nowhere = CROMSS.spatial_prior(torch.zeros(1, 4, *shape))
    assert (nowhere == 0.25).all() and (CROMSS.spatial_prior(torch.eye(4)) == 0.25).all()


def test_cromss_believes_a_share_of_each_class_and_grows_stricter():
    rng = np.random.default_rng(0)
    target = torch.from_numpy(rng.integers(0, 3, (2, 20, 20)))
    seen = torch.from_numpy(rng.random((2, 20, 20)) > 0.2)
    sure = torch.from_numpy(rng.random((2, 20, 20))).float()
    mask = CROMSS.label_mask(sure, target, seen, 0.3)
    for k in range(3):
        mine = seen & (target == k)
        assert (mask[mine] == 1).sum() == int(0.3 * int(mine.sum()))
    assert (mask[~seen] == 0).all()
    assert (CROMSS.label_mask(sure * 0, target, seen, 0.5) == seen.float()).all()
    made = CROMSS.build(epochs=80)
    made.plan(steps=200, steps_an_epoch=10)  # 20 epochs only
    strict = [made.strictness(step) for step in range(0, 260, 10)]
    assert strict[0] == pytest.approx(np.exp(-5)) and strict[10] == pytest.approx(np.exp(-1.25))
    assert strict == sorted(strict) and strict[20:] == [1.0] * 6


def test_cromss_learns_nothing_from_pixels_without_labels_and_needs_two_sensors():
    one, model = batch("classes"), Fixed("mse", "classes")
    spec = "cromss:prior=0,uniform=0"
    whole = loss_of(spec, one, model).item()
    seen = one.weight > 0
    rows = [m.detach().movedim(1, -1)[seen] for m in (model.a, model.b)]  # the same labels as tiles
    tiles = Batch(
        torch.zeros(len(rows[0]), 1, 1, 1, 1),
        torch.ones(len(rows[0]), 1, 1, 1, dtype=torch.bool),
        target=one.target[seen],
        weight=one.weight[seen],
        total=one.total,
    )
    assert loss_of(spec, tiles, Fixed.of(*rows)).item() == pytest.approx(whole, rel=1e-5)
    alone = registry.make("objectives", "cromss")
    with pytest.raises(GeomlError, match="two sensors"):
        alone(lambda batch, each: [model.a], one, 0)


def test_rmse_is_the_authors_where_labels_are_few():
    saved = fixture("prithvi_swin_agb")
    target, found = saved["inputs"]["target"], saved["outputs"]["agb"][:, 0]
    one = pixels(target, ignore=-1)
    one = replace(one, target=one.target[:, None].float(), weight=one.weight[:, None])
    want = saved["outputs"]["rmse_ignore"].item()
    assert value("rmse", one, found[:, None]) == pytest.approx(want, rel=1e-4)


def test_cromss_weighs_labels_by_their_class():
    """The whole loss again in numpy, where half of each class is kept and nothing is smoothed."""
    one, model = batch("classes"), Fixed("mse", "classes")
    seen = one.weight.numpy() > 0
    t, w = one.target.numpy()[seen], one.weight.numpy()[seen].astype(float)
    x = [m.detach().movedim(1, -1).numpy()[seen].astype(float) for m in (model.a, model.b)]
    p, y = [special.softmax(v, axis=1) for v in x], np.eye(4)[t]
    sure = [1 - stats.entropy(q, axis=1) / np.log(4) for q in p]
    own = [q[np.arange(len(t)), t] for q in p]
    want = 0.0
    for i in (0, 1):
        believed = own[i] * (1 + own[1 - i]) / 2
        mask = np.empty(len(t))
        for k in range(4):
            best = np.sort(believed[t == k])[::-1]
            mask[t == k] = np.minimum(believed[t == k] / best[len(best) // 2 - 1], 1)
        mask = (mask * w)[:, None]
        said = sure[1 - i] * (1 + sure[i]) / 2
        want -= (mask * y * np.log(p[i])).sum() / mask.sum()
        overlap, extent = (mask * p[i] * y).sum(0), (mask * (p[i] + y)).sum(0)
        want += (1 - 2 * overlap / extent).mean()
        want -= (said[:, None] * p[1 - i] * np.log(p[i])).sum() / said.sum()
    made = CROMSS.build(prior=0.0, uniform=0.0)
    assert loss_of(made, one, model, step=80).item() == pytest.approx(want, rel=1e-5)


def test_what_one_sensor_says_teaches_the_other_and_not_itself():
    model = Fixed("mse", "classes")
    none, every = torch.zeros(4, 6, 6), torch.ones(4, 6, 6)
    soft = torch.full_like(model.a, 0.25)
    CROMSS.build().loss([model.a, model.b], soft, [none, none], [none, every]).backward()
    want = (model.a.softmax(1) - model.b.softmax(1)) / every.numel()
    assert torch.allclose(model.a.grad, want, atol=1e-7) and (model.b.grad == 0).all()


def test_joined_objectives_add_up_and_ask_the_model_once():
    one, model = batch("classes"), Fixed("mse", "classes")
    calls = []

    def asked(batch, **how):
        calls.append(how)
        return model(batch, **how)

    parts = ["cross-entropy:smoothing=0.1", "dice", "lovasz"]
    found = networks.objective("+".join(parts))(asked, one, 3)["loss"].item()
    assert found == pytest.approx(sum(loss_of(p, one, model).item() for p in parts), rel=1e-6)
    assert calls == [{}]
    joined = networks.objective("farseg+cromss")
    joined.plan(600, 30)
    assert joined.parts[0].steps == 300 and joined.parts[1].ramp == 20


def test_probabilities_are_read_as_their_kind():
    for kind in ("classes", "binary", "present"):
        one, outputs = batch(kind), Fixed("mse", kind).a.detach()
        p, t = targets.chances(outputs, one)
        want = outputs.softmax(1) if kind == "classes" else outputs.sigmoid()
        seen = ~where_nothing_weighs(one, outputs)
        assert torch.equal(p, want * seen) and ((t == 0) | (t == 1)).all()
        assert (t[~seen] == 0).all()
        if kind == "classes":
            assert torch.equal(t.sum(1), (one.weight > 0).float())
