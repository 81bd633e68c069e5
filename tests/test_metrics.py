"""Every metric adds up; the numbers are scikit-learn's and torchmetrics'; intervals cover."""

import inspect
import warnings
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, pearsonr
from sklearn import metrics as sk

from geoml_cli import registry
from geoml_cli.core.scoring import Tally, bootstrap, confusion, merge
from geoml_cli.errors import GeomlError

SEG = registry.load("metrics", "segmentation")
REG, MULTI = (registry.load("metrics", name) for name in ("regression", "multilabel"))
FAR, AREA, RANK = (
    registry.load("metrics", name) for name in ("great-circle", "recall-area", "ranking")
)
EVERY = [
    registry.load("metrics", name)
    for name in registry.names("metrics")
    if registry.constant("metrics", name, "OF") is None  # others are of more than single samples
]


@st.composite
def samples(draw, most=5):
    classes = draw(st.integers(2, most))
    n = draw(st.integers(0, 60))
    ids = st.integers(0, classes - 1)
    truth = np.array(draw(st.lists(ids, min_size=n, max_size=n)), int)
    guess = np.array(draw(st.lists(ids, min_size=n, max_size=n)), int)
    valid = np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)), bool)
    return truth, guess, valid, classes


@st.composite
def pairs(draw, part):
    """Samples of what a metric takes: class ids (n,), or values or 0 and 1 (n, K)."""
    if part is SEG:
        return draw(samples())
    truth, guess, valid, classes = draw(samples())
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    shape = (len(truth), classes)
    if part is FAR:
        places = rng.uniform((-180, -90), (180, 90), (2, len(truth), 2))
        return *places, valid, 5
    if part is AREA:
        cells = rng.integers(1, 50, (len(truth), classes, 2)) / 8
        return truth - rng.integers(0, 2, len(truth)) * 9, cells, np.ones(shape, bool), classes
    if part is RANK:
        return rng.integers(0, 2, shape), rng.random(shape), rng.random(shape) > 0.3, classes
    if part is MULTI:
        return *rng.integers(0, 2, (2, *shape)), rng.random(shape) > 0.3, classes
    # eighths: their sums are exact in any order
    return *rng.integers(-9999, 9999, (2, *shape)) / 8, rng.random(shape) > 0.3, classes


def same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def by_name(part):
    return part.__name__.rsplit(".")[-1]


@pytest.mark.parametrize("part", EVERY, ids=by_name)
@given(data=st.data(), cut=st.floats(0, 1), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_stats_add_up_whatever_the_cut_and_order(part, data, cut, seed):
    truth, guess, valid, classes = data.draw(pairs(part))
    whole = part.stats(truth, guess, valid, classes)
    at = int(cut * len(truth))
    pieces = [
        part.stats(truth[s], guess[s], valid[s], classes) for s in (slice(at), slice(at, None))
    ]
    same(whole, merge(*pieces))
    order = np.random.default_rng(seed).permutation(len(truth))
    same(whole, part.stats(truth[order], guess[order], valid[order], classes))


@pytest.mark.parametrize("part", EVERY, ids=by_name)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_what_is_not_valid_does_not_matter_and_scores_have_their_shapes(part, data):
    truth, guess, valid, classes = data.draw(pairs(part))
    found = part.stats(truth, guess, valid, classes)
    if part is AREA:
        junk = truth, np.where(valid[..., None], guess, 255)
    else:
        seen = valid[:, None] if part is FAR else valid
        junk = 255 if part in (SEG, MULTI, FAR) else np.nan
        junk = np.where(seen, truth, junk), np.where(seen, guess, junk)
    if part is SEG:
        junk, valid = [v.reshape(1, -1, 1) for v in junk], valid.reshape(1, -1, 1)
    same(found, part.stats(*junk, valid, classes))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a ratio of nothing is NaN, quietly
        scores = part.score(found)
    for value in scores.values():
        assert np.shape(value) in ((), (len(AREA.AREAS_KM2) if part is AREA else classes,))
    assert any(np.ndim(v) == 0 for v in scores.values())


@pytest.mark.parametrize("part", [REG, MULTI, FAR, AREA, RANK], ids=by_name)
def test_class_ids_are_refused_in_words(part):
    ids = np.zeros(9, int)
    with pytest.raises(GeomlError, match="wants"):
        part.stats(ids, ids, ids == 0, 3)


@pytest.mark.parametrize("part", EVERY, ids=by_name)
def test_options_of_a_metric_are_keywords(part):
    first, *others = inspect.signature(part.score).parameters.values()
    assert first.name == "stats"
    assert all(p.kind == p.KEYWORD_ONLY for p in others)


@given(given=samples())
@settings(max_examples=30, deadline=None)
def test_segmentation_gives_the_numbers_of_scikit_learn(given):
    truth, guess, valid, classes = given
    t, g, labels = truth[valid], guess[valid], list(range(classes))
    scores = SEG.score(SEG.stats(truth, guess, valid, classes))
    if not len(t):
        assert all(np.isnan(v).all() for v in scores.values())
        return
    np.testing.assert_array_equal(
        SEG.stats(truth, guess, valid, classes)["confusion"],
        sk.confusion_matrix(t, g, labels=labels),
    )
    assert scores["accuracy"] == pytest.approx(sk.accuracy_score(t, g))
    present = sorted(set(t) | set(g))
    miou = sk.jaccard_score(t, g, labels=present, average="macro", zero_division=0)
    assert scores["miou"] == pytest.approx(miou)
    if len(present) > 1:
        assert scores["kappa"] == pytest.approx(sk.cohen_kappa_score(t, g, labels=labels))
    else:
        assert np.isnan(scores["kappa"])  # no chance to agree by chance: 0 / 0
    how = dict(labels=labels, average=None, zero_division=np.nan)
    np.testing.assert_allclose(scores["precision"], sk.precision_score(t, g, **how))
    np.testing.assert_allclose(scores["recall"], sk.recall_score(t, g, **how))
    np.testing.assert_allclose(scores["f1"], sk.f1_score(t, g, **how))
    iou = [
        sk.jaccard_score(t == c, g == c, zero_division=0) if c in present else np.nan
        for c in labels
    ]
    np.testing.assert_allclose(scores["iou"], iou)


def test_segmentation_gives_the_numbers_of_torchmetrics():
    torchmetrics = pytest.importorskip("torchmetrics.classification")
    import torch

    rng = np.random.default_rng(3)
    truth, guess = rng.integers(0, 6, (2, 4, 32, 32))
    scores = SEG.score(SEG.stats(truth, guess, np.ones(truth.shape, bool), 6))
    t, g = torch.from_numpy(truth), torch.from_numpy(guess)
    for key, kind in (
        ("iou", "JaccardIndex"),
        ("f1", "F1Score"),
        ("recall", "Recall"),
        ("precision", "Precision"),
    ):
        theirs = getattr(torchmetrics, f"Multiclass{kind}")(6, average="none")(g, t)
        np.testing.assert_allclose(scores[key], theirs.numpy(), rtol=1e-5)
    assert scores["kappa"] == pytest.approx(
        torchmetrics.MulticlassCohenKappa(6)(g, t).item(), abs=1e-6
    )
    assert scores["miou"] == pytest.approx(
        torchmetrics.MulticlassJaccardIndex(6)(g, t).item(), abs=1e-6
    )


def test_ids_beyond_the_classes_are_our_mistake_and_raise():
    with pytest.raises(ValueError, match="0..2"):
        confusion(np.array([3]), np.array([0]), np.array([True]), 3)


@given(given=samples(), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_blocks_of_a_tally_sum_to_the_whole(given, seed):
    truth, guess, valid, classes = given
    truth, guess = truth[valid], guess[valid]
    if not len(truth):
        return
    block = np.random.default_rng(seed).integers(0, 7, len(truth))
    tally = Tally(SEG.stats, classes)
    for part in np.array_split(np.arange(len(truth)), 3):
        tally.add(block[part], truth[part], guess[part])
    stacked = tally.stacked()["confusion"]
    assert len(stacked) == len(set(block.tolist()))
    every = np.ones(len(truth), bool)
    np.testing.assert_array_equal(stacked.sum(axis=0), confusion(truth, guess, every, classes))
    for number, rows in zip(sorted(set(block.tolist())), stacked, strict=True):
        mine = block == number
        np.testing.assert_array_equal(
            rows, confusion(truth[mine], guess[mine], every[mine], classes)
        )


def share(stats):
    """Accuracy alone, of counts (2,): right, all."""
    return {"accuracy": float(stats["right"][0] / stats["right"][1])}


def blocks_of(right, each=1):
    right = np.asarray(right, int)
    return {"right": np.stack([right * each, np.full(len(right), each)], axis=1)}


@pytest.mark.parametrize(("m", "hits"), [(50, 40), (200, 120), (30, 27)])
def test_with_one_sample_a_block_the_interval_is_the_binomial_one(m, hits):
    low, high = bootstrap(blocks_of(np.arange(m) < hits), share, 6000, 1)["accuracy"]
    # redraws of m Bernoulli blocks are Binomial(m, hits / m): one step of the sum is 1 / m
    assert float(low) == pytest.approx(binom.ppf(0.025, m, hits / m) / m, abs=1.01 / m)
    assert float(high) == pytest.approx(binom.ppf(0.975, m, hits / m) / m, abs=1.01 / m)


def test_copies_within_a_block_do_not_narrow_the_interval():
    right = np.arange(20) < 14
    alone = bootstrap(blocks_of(right), share, 500, 5)["accuracy"]
    many = bootstrap(blocks_of(right, each=1000), share, 500, 5)["accuracy"]
    np.testing.assert_array_equal(alone, many)
    assert float(alone[1] - alone[0]) > 0.3  # 20 000 samples on their own would give 0.013


def test_intervals_cover_the_truth_as_often_as_the_closed_form_says():
    m, p, trials = 60, 0.8, 400
    ks = np.arange(m + 1)
    covers = (binom.ppf(0.025, m, ks / m) / m <= p) & (p <= binom.ppf(0.975, m, ks / m) / m)
    expected = float((binom.pmf(ks, m, p) * covers).sum())
    rng = np.random.default_rng(0)
    hit = 0
    for trial in range(trials):
        low, high = bootstrap(blocks_of(rng.random(m) < p), share, 200, trial)["accuracy"]
        hit += low - 1e-9 <= p <= high + 1e-9
    spread = np.sqrt(expected * (1 - expected) / trials)
    assert abs(hit / trials - expected) < 4 * spread + 0.02  # 200 redraws blur the ends
    assert 0.88 < hit / trials < 0.99


def test_bootstrap_depends_on_the_seed_alone_and_needs_two_blocks():
    stats = blocks_of(np.arange(30) < 20)
    assert bootstrap(stats, share, 99, 4) == bootstrap(stats, share, 99, 4)
    ends = {tuple(map(float, bootstrap(stats, share, 99, seed)["accuracy"])) for seed in range(6)}
    assert len(ends) > 1
    for few, draws in ((blocks_of([1]), 100), (stats, 0)):
        assert all(np.isnan(v) for v in bootstrap(few, share, draws, 0)["accuracy"])


def test_a_class_that_few_blocks_hold_is_judged_by_the_draws_that_hold_it():
    tally = Tally(SEG.stats, 2)
    tally.add(np.arange(40), (np.arange(40) == 0).astype(int), (np.arange(40) == 0).astype(int))
    low, high = bootstrap(tally.stacked(), SEG.score, 200, 0)["recall"]
    np.testing.assert_array_equal((low, high), np.ones((2, 2)))


def theirs(t, g):
    """Scores of pairs (n,) by scikit-learn and scipy."""
    return {
        "rmse": sk.root_mean_squared_error(t, g),
        "mae": sk.mean_absolute_error(t, g),
        "bias": np.mean(g - t),
        "r2": sk.r2_score(t, g),
        "r": pearsonr(t, g).statistic,
    }


@pytest.mark.parametrize("level, spread", [(0, 1), (300, 120), (1e4, 1), (1e4, 0.02), (-5e6, 1)])
def test_regression_gives_the_numbers_of_scikit_learn(level, spread):
    rng = np.random.default_rng(4)
    truth = level + spread * rng.normal(size=(500, 3))
    guess = truth + spread * rng.normal(0.2, 0.5, size=(500, 3)) * [1, 2, 0.1]
    valid = rng.random((500, 3)) > [0.1, 0.5, 0.0]
    bits = np.array_split(np.arange(500), 7)
    found = REG.stats(truth[bits[0]], guess[bits[0]], valid[bits[0]], 3)
    for rows in bits[1:]:
        found = merge(found, REG.stats(truth[rows], guess[rows], valid[rows], 3))
    scores = REG.score(found)
    for key, want in theirs(truth[valid], guess[valid]).items():
        assert scores[key] == pytest.approx(want, rel=1e-8), key
    for k in range(3):
        mine = valid[:, k]
        for key, want in theirs(truth[mine, k], guess[mine, k]).items():
            assert scores[f"{key}_each"][k] == pytest.approx(want, rel=1e-8), key


def test_sums_of_large_values_keep_the_digits_that_plain_sums_lose():
    rng = np.random.default_rng(1)
    truth, guess = 2.0**23 + rng.integers(0, 9, (2, 400, 1)) / 8 + 0.25
    t, g = ([Fraction(v) for v in one[:, 0].tolist()] for one in (truth, guess))
    mean = sum(t) / 400
    exact = 1 - sum((a - b) ** 2 for a, b in zip(t, g, strict=True)) / sum(
        (a - mean) ** 2 for a in t
    )
    found = REG.score(REG.stats(truth, guess, np.ones((400, 1), bool), 1))["r2"]
    assert found == pytest.approx(float(exact), rel=1e-8)
    plain = 1 - ((truth - guess) ** 2).sum() / ((truth**2).sum() - truth.sum() ** 2 / 400)
    assert abs(plain - float(exact)) > 1e3 * abs(found - float(exact))


def test_regression_of_nothing_or_of_one_value_is_undefined_where_it_is():
    none = np.zeros((0, 2))
    scores = REG.score(REG.stats(none, none, none > 0, 2))
    assert all(np.isnan(v).all() for v in scores.values())
    for value in (0.1, 7.3, 123456.7, -1e-6, 2e9 + 0.3):
        rng = np.random.default_rng(0)
        truth, guess = np.full((5000, 1), value), value + rng.normal(0, 0.1, (5000, 1))
        found = [
            REG.stats(t, g, t == t, 1)
            for t, g in zip(
                np.split(truth, [7, 40, 1001]), np.split(guess, [7, 40, 1001]), strict=True
            )
        ]
        scores = REG.score(merge(merge(found[0], found[3]), merge(found[2], found[1])))
        assert np.isnan([scores["r2"], scores["r"]]).all(), value
        assert scores["rmse"] == pytest.approx(0.1, rel=0.05)
    flat, guess = np.full((5, 1), 7.3), np.arange(5.0)[:, None]
    scores = REG.score(REG.stats(flat, guess, guess < 9, 1))
    assert np.isnan(scores["r2"]) and np.isnan(scores["r"])
    assert scores["mae"] == pytest.approx(5.3) and scores["bias"] == pytest.approx(-5.3)


@pytest.mark.parametrize("seed", range(4))
def test_multilabel_gives_the_numbers_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    truth = (rng.random((90, 5)) < [0.5, 0.1, 0.9, 0.3, 0]).astype(int)
    guess = np.where(rng.random((90, 5)) < 0.15, 1 - truth, truth)
    guess[:, 4] = 0  # neither present nor called so
    every = np.ones(truth.shape, bool)
    scores = MULTI.score(MULTI.stats(truth, guess, every, 5))
    nan = {"zero_division": np.nan}
    assert scores["f1_micro"] == pytest.approx(sk.f1_score(truth, guess, average="micro"))
    assert scores["f1_macro"] == pytest.approx(sk.f1_score(truth, guess, average="macro", **nan))
    assert scores["exact"] == pytest.approx(sk.accuracy_score(truth, guess))
    for key, find in (("precision", sk.precision_score), ("recall", sk.recall_score)):
        np.testing.assert_allclose(scores[key], find(truth, guess, average=None, **nan))
    np.testing.assert_allclose(scores["f1"], sk.f1_score(truth, guess, average=None, **nan))
    want = [sk.accuracy_score(truth[:, k], guess[:, k]) for k in range(5)]
    np.testing.assert_allclose(scores["accuracy"], want)


def test_multilabel_counts_what_is_known_alone():
    rng = np.random.default_rng(0)
    truth, guess = rng.integers(0, 2, (2, 200, 3))
    valid = rng.random((200, 3)) > 0.5
    scores = MULTI.score(MULTI.stats(truth, guess, valid, 3))
    for k in range(3):
        mine = valid[:, k]
        assert scores["f1"][k] == pytest.approx(sk.f1_score(truth[mine, k], guess[mine, k]))
    assert scores["f1_micro"] == pytest.approx(sk.f1_score(truth[valid], guess[valid]))
    right = [(t == g)[v].all() for t, g, v in zip(truth, guess, valid, strict=True) if v.any()]
    assert scores["exact"] == pytest.approx(np.mean(right))


def test_every_metric_has_intervals_over_blocks():
    rng = np.random.default_rng(2)
    for part, lie in ((REG, 0.5), (MULTI, 0.2)):
        blocks = []
        for _ in range(12):
            truth = rng.normal(size=(40, 2)) if part is REG else rng.integers(0, 2, (40, 2))
            wrong = (
                rng.normal(0, lie, truth.shape) if part is REG else rng.random(truth.shape) < lie
            )
            guess = truth + wrong if part is REG else truth ^ wrong
            blocks.append(part.stats(truth, guess, np.ones(truth.shape, bool), 2))
        stacked = {key: np.stack([one[key] for one in blocks]) for key in blocks[0]}
        spans = bootstrap(stacked, part.score, 200, 0)
        whole = part.score({key: rows.sum(axis=0) for key, rows in stacked.items()})
        for key, (low, high) in spans.items():
            assert (low <= whole[key]).all() and (whole[key] <= high).all(), key
            assert (high - low < 0.3).all(), key
