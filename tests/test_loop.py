"""The training loop: closed forms, resumed to the bit, and what it does when things go wrong."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from geoml_cli.core.batch import Batch
from geoml_cli.core.device import pick
from geoml_cli.core.loop import Loop, Recipe, optimizer_of
from geoml_cli.core.schedule import SCHEDULES, rate
from geoml_cli.errors import GeomlError, TryLater
from geoml_cli.stages.feed import class_weights

RNG = np.random.default_rng(0)
TRUE = np.array([1.0, -2.0, 0.5])
X = RNG.normal(size=(24, 1, 3, 4, 4))
Y = np.einsum("btchw,c->bhw", X, TRUE) + RNG.normal(0, 0.1, (24, 4, 4))
KEEP = {"augment": "none", "clip": 0.0}


class Linear(torch.nn.Module):
    """Weights of three bands, and a layer that is random while training."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(3))
        self.drop = torch.nn.Dropout(dropout)

    def forward(self, batch):
        return torch.einsum("btchw,c->bhw", self.drop(batch.images), self.w)[:, None]


class Squares(torch.nn.Module):
    """Squared error over the whole batch; counts its calls in a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, model, batch, step):
        self.calls += 1
        return {"loss": ((model(batch) - batch.target) ** 2).sum() / batch.total}


def whole(rows):
    rows = np.asarray(rows)
    target = torch.from_numpy(Y[rows][:, None]).float()
    return Batch(
        torch.from_numpy(X[rows]).float(),
        torch.ones(len(rows), 1, 4, 4, dtype=torch.bool),
        target=target,
        weight=torch.ones_like(target),
        total=float(target.numel()),
        rows=tuple(rows.tolist()),
    )


def batches(epoch, start, size=8):
    order = np.random.default_rng(epoch).permutation(len(X))
    for i in range(start * size, len(X), size):
        yield whole(order[i : i + size])


def loop(folder, model=None, optimizer="adamw", lr=0.05, objective=None, decay=0.0, **recipe):
    model = model or Linear()
    groups = [{"params": list(model.parameters()), "lr": lr, "weight_decay": decay}]
    return Loop(
        model,
        objective or Squares(),
        optimizer_of(optimizer, groups),
        Recipe(**{"epochs": 3} | KEEP | recipe),
        pick("cpu"),
        folder,
        name=lambda rows: ",".join(f"t{r}" for r in rows),
    )


def fit(made, score=None, feed=batches, rows=None, check=lambda: None):
    rows = [] if rows is None else rows
    progress = made.fit(feed, 3, score, rows.append, check)
    return progress, rows


def test_learning_rates_rise_and_fall_as_their_formulas_say():
    rates = [rate(s, 100, 0.1) for s in range(100)]
    assert rates[0] == 0.1 and max(rates) == rates[9] == 1.0 and rates[-1] < 1e-3
    assert rates[55] == pytest.approx(0.5, abs=0.01)
    assert [rate(s, 10, 0, "constant") for s in range(10)] == [1.0] * 10
    assert rate(50, 100, 0, "poly") == pytest.approx(0.5**0.9)
    model = torch.nn.Linear(1, 1)
    theirs = torch.optim.SGD(model.parameters(), lr=1.0)
    cycle = torch.optim.lr_scheduler.OneCycleLR(theirs, 1.0, total_steps=100, cycle_momentum=False)
    for step in range(100):
        want = theirs.param_groups[0]["lr"]
        assert rate(step, 100, 0.1, "one-cycle") == pytest.approx(want, abs=1e-6), step
        theirs.step(), cycle.step()
    assert all(rate(99, 100, 0.1, name) <= 1 for name in SCHEDULES)


def test_class_weights_have_mean_one_over_pixels():
    counts = np.array([900, 90, 10, 0])
    for how, ratio in [("none", 1), ("sqrt", 10**0.5), ("balanced", 10)]:
        weights = class_weights(counts, how)
        assert (weights * counts).sum() == pytest.approx(1000)
        assert weights[1] / weights[0] == pytest.approx(ratio) and weights[3] == 0


@pytest.mark.parametrize(
    "optimizer, lr", [("adamw", 0.05), pytest.param("sgd", 0.05, marks=pytest.mark.slow)]
)
def test_it_finds_the_least_squares_solution(tmp_path, optimizer, lr):
    made = loop(tmp_path, optimizer=optimizer, lr=lr, epochs=200)
    progress, rows = fit(made)
    flat = X.transpose(0, 1, 3, 4, 2).reshape(-1, 3)
    want = np.linalg.lstsq(flat, Y.reshape(-1), rcond=None)[0]
    assert made.state.model.w.detach().numpy() == pytest.approx(want, abs=2e-3)
    assert progress.step == 600 and rows[-1]["epoch"] == 200 and len(rows) == 200


def test_a_step_of_sgd_is_the_gradient_worked_out_by_hand(tmp_path):
    made = loop(tmp_path, optimizer="sgd", lr=0.1, epochs=1, schedule="constant", warmup=0.0)
    rows = np.arange(24)
    made.fit(lambda *_: iter([whole(rows)]), 1, None, lambda row: None, lambda: None)
    flat = X.transpose(0, 1, 3, 4, 2).reshape(-1, 3)
    gradient = -2 * flat.T @ Y.reshape(-1) / len(flat)
    # Nesterov's first step: the gradient and 0.9 of it again
    want = -0.1 * 1.9 * gradient
    assert made.state.model.w.detach().numpy() == pytest.approx(want, rel=1e-5)


def test_gradients_are_clipped_to_a_norm(tmp_path):
    made = loop(
        tmp_path, optimizer="sgd", lr=1.0, epochs=1, schedule="constant", warmup=0.0, clip=0.01
    )
    made.fit(lambda *_: iter([whole(range(24))]), 1, None, lambda row: None, lambda: None)
    assert made.state.model.w.norm().item() == pytest.approx(0.019, rel=1e-4)


@pytest.mark.parametrize("micro", [1, 3, 5])
def test_parts_of_a_batch_add_up_to_the_whole(tmp_path, micro):
    plain, parts = loop(tmp_path / "a"), loop(tmp_path / "b", micro=micro)
    fit(plain), fit(parts)
    assert torch.allclose(plain.state.model.w, parts.state.model.w, atol=1e-5)
    assert parts.state.objective.calls > plain.state.objective.calls


def test_the_average_follows_its_formula(tmp_path):
    seen = []

    class Watched(Squares):
        def forward(self, model, batch, step):
            seen.append(model.w.detach().clone())
            return super().forward(model, batch, step)

    made = loop(tmp_path, ema=0.9, keep="last", objective=Watched())
    fit(made)
    raw = load_file(next(tmp_path.glob("step-*.safetensors")))
    weights, mean = [*seen[1:], raw["model.w"]], seen[0]
    for step, w in enumerate(weights):
        keep = min(0.9, (1 + step) / (10 + step))
        mean = keep * mean + (1 - keep) * w
    assert made.state.model.w.detach().numpy() == pytest.approx(mean.numpy(), rel=1e-4)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("stop_at", [1, 4, 5])
def test_a_run_stopped_within_an_epoch_goes_on_to_the_same_bits(tmp_path, optimizer, stop_at):
    more = {"optimizer": optimizer, "ema": 0.9, "epochs": 4}

    def score(model):
        return {"watch": -float((model.w.detach() - 1).norm())}

    left = loop(tmp_path / "a", Linear(0.5), **more)
    _, rows = fit(left, score)
    calls = iter(range(100))

    def check():
        if next(calls) == stop_at:
            raise TryLater("deadline")

    with pytest.raises(TryLater):
        fit(loop(tmp_path / "b", Linear(0.5), **more), score, check=check)
    again = []
    right = loop(tmp_path / "b", Linear(0.5), **more)
    assert right.progress.step == stop_at
    fit(right, score, rows=again)
    assert (left.state.model.w == right.state.model.w).all()
    assert left.state.objective.calls == right.state.objective.calls == 12
    assert json.dumps(rows) == json.dumps(again)


def test_the_best_weights_are_kept_or_the_last(tmp_path):
    scores = iter([0.3, 0.9, 0.1] * 2)
    kept = []

    def score(model):
        kept.append(model.w.detach().clone())
        return {"watch": next(scores)}

    best = loop(tmp_path / "a")
    progress, _ = fit(best, score)
    assert progress.best_epoch == 2 and (best.state.model.w == kept[1]).all()
    last = loop(tmp_path / "b", keep="last")
    fit(last, score)
    assert (last.state.model.w == kept[5]).all()


@pytest.mark.parametrize(("keep", "kept"), [("best", 2), ("last", -1)])
def test_it_stops_when_the_score_has_not_risen_for_long(tmp_path, keep, kept):
    scores = iter([0.1, 0.5, 0.4, 0.3, 0.2, 0.1])
    one = loop(tmp_path, epochs=6, patience=2, keep=keep)
    progress, rows = fit(one, lambda _: {"watch": next(scores)})
    assert progress.epoch == len(rows) == 4 and progress.best_epoch == 2
    assert progress.kept == kept and bool(one.state.best) == (keep == "best")


def test_scores_are_asked_for_every_so_often_and_at_the_end(tmp_path):
    _, rows = fit(loop(tmp_path, epochs=5, score_every=2), lambda _: {"watch": 0.0})
    assert ["watch" in row for row in rows] == [False, True, False, True, True]


def test_a_loss_that_is_no_number_names_its_tiles_and_leaves_the_checkpoint(tmp_path):
    def feed(epoch, start):
        for batch in batches(epoch, start):
            if epoch == 1 and 7 in batch.rows:
                batch.target[batch.rows.index(7)] = torch.nan
            yield batch

    made = loop(tmp_path)
    with pytest.raises(GeomlError, match=r"loss is nan at step [456] \(epoch 2\), tiles .*t7\b"):
        fit(made, feed=feed)
    saved = load_file(next(tmp_path.glob("step-*.safetensors")))
    assert saved["model.w"].isfinite().all()


class Narrow(Squares):
    """Room for so many samples only."""

    def __init__(self, room):
        super().__init__()
        self.room = room

    def forward(self, model, batch, step):
        if len(batch.images) > self.room:
            raise RuntimeError(
                "DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte"
            )
        return super().forward(model, batch, step)


def test_out_of_memory_halves_what_is_taken_at_a_time(tmp_path, caplog):
    plain, narrow = loop(tmp_path / "a"), loop(tmp_path / "b", objective=Narrow(3))
    fit(plain)
    with caplog.at_level("WARNING", logger="geoml"):
        progress, _ = fit(narrow)
    assert progress.micro == 2 and [r.args for r in caplog.records] == [(4,), (2,)]
    assert torch.allclose(plain.state.model.w, narrow.state.model.w, atol=1e-5)
    with pytest.raises(GeomlError, match="out of memory with 1 tile"):
        fit(loop(tmp_path / "c", objective=Narrow(0)))


def test_other_errors_of_the_network_are_not_taken_for_memory(tmp_path):
    class Broken(Squares):
        def forward(self, model, batch, step):
            raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes"):
        fit(loop(tmp_path, objective=Broken()))
