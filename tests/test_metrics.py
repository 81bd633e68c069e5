"""Every metric adds up; segmentation's numbers are scikit-learn's and torchmetrics'; intervals cover."""

import inspect
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from sklearn import metrics as sk

from geoml_cli import registry
from geoml_cli.core.scoring import Tally, bootstrap, confusion, merge

SEG = registry.load("metrics", "segmentation")
EVERY = [registry.load("metrics", name) for name in registry.names("metrics")]


@st.composite
def samples(draw, most=5):
    classes = draw(st.integers(2, most))
    n = draw(st.integers(0, 60))
    ids = st.integers(0, classes - 1)
    truth = np.array(draw(st.lists(ids, min_size=n, max_size=n)), int)
    guess = np.array(draw(st.lists(ids, min_size=n, max_size=n)), int)
    valid = np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)), bool)
    return truth, guess, valid, classes


def same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)


@pytest.mark.parametrize("part", EVERY, ids=lambda part: part.__name__.rsplit(".")[-1])
@given(given=samples(), cut=st.floats(0, 1), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_stats_add_up_whatever_the_cut_and_order(part, given, cut, seed):
    truth, guess, valid, classes = given
    whole = part.stats(truth, guess, valid, classes)
    at = int(cut * len(truth))
    pieces = [
        part.stats(truth[s], guess[s], valid[s], classes) for s in (slice(at), slice(at, None))
    ]
    same(whole, merge(*pieces))
    order = np.random.default_rng(seed).permutation(len(truth))
    same(whole, part.stats(truth[order], guess[order], valid[order], classes))


@pytest.mark.parametrize("part", EVERY, ids=lambda part: part.__name__.rsplit(".")[-1])
@given(given=samples())
@settings(max_examples=60, deadline=None)
def test_what_is_not_valid_does_not_matter_and_scores_have_their_shapes(part, given):
    truth, guess, valid, classes = given
    found = part.stats(truth, guess, valid, classes)
    junk = np.where(valid, truth, 255), np.where(valid, guess, 255)
    square = tuple(v.reshape(1, -1, 1) for v in (*junk, valid))
    same(found, part.stats(*square, classes))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a ratio of nothing is NaN, quietly
        scores = part.score(found)
    for value in scores.values():
        assert np.shape(value) in ((), (classes,))
    assert any(np.ndim(v) == 0 for v in scores.values())


@pytest.mark.parametrize("part", EVERY, ids=lambda part: part.__name__.rsplit(".")[-1])
def test_options_of_a_metric_are_keywords(part):
    first, *others = inspect.signature(part.score).parameters.values()
    assert first.name == "stats"
    assert all(p.kind == p.KEYWORD_ONLY for p in others)


@given(given=samples())
@settings(max_examples=80, deadline=None)
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
