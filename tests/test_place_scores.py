"""Scores of places, ranked cells, presence and residuals: fixtures, closed forms, scikit-learn."""

import json
from pathlib import Path

import numpy as np
import pandas
import pytest
from pyproj import Geod
from sklearn.metrics import roc_auc_score

from geoml_cli import registry
from geoml_cli.cli import run
from geoml_cli.geo.places import RADIUS_KM, cell_km2, great_circle_km

FIXTURE = Path(__file__).parents[2] / "shared/parity/geoloc.json"


@pytest.fixture
def known():
    if not FIXTURE.is_file():
        pytest.skip(f"{FIXTURE} is not there")
    return json.loads(FIXTURE.read_text())


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def scores(*words):
    assert run(["evaluate", *words, "--bootstrap", "50", "-o", "scores.json"]) == 0
    return json.loads(Path("scores.json").read_text())


def test_distances_and_shares_are_those_of_the_fixture(known, here):
    one = known["gcd"]
    for name in ("pred", "true"):
        pandas.DataFrame(one[name], columns=["lat", "lon"]).to_csv(f"{name}.csv", index=False)
    km = great_circle_km(np.array(one["pred"])[:, ::-1], np.array(one["true"])[:, ::-1])
    np.testing.assert_allclose(km, one["haversine_km_R6371.0088"], rtol=1e-12)
    found = scores("pred.csv", "--truth", "true.csv", "--metric", "great-circle")["metrics"]
    for most, share in one["acc"].items():
        assert found[f"within_{most}km"]["value"] == share
    assert found["mean_km"]["value"] == pytest.approx(km.mean(), abs=1e-6)
    assert found["median_km"]["value"] == pytest.approx(np.median(km), rel=7e-4)


def test_recall_against_area_is_that_of_the_fixture(known, here):
    one = known["rva"]
    part = registry.load("metrics", "recall-area")
    for rank in ("score", "density"):
        cost = part.area_needed(np.array(one["score"]), np.array(one["area_km2"]), rank)
        assert cost[one["true_cell"]].tolist() == one[f"area_needed_rank_by_{rank}"]
    cells = {"cell": range(6), "score": one["score"], "area_km2": one["area_km2"]}
    pandas.DataFrame(cells).to_csv("cells.csv", index=False)
    asked = {"cell": one["true_cell"], "lon": range(6), "lat": range(6)}
    pandas.DataFrame(asked).to_csv("asked.csv", index=False)
    areas = ",".join(f"{a:g}" for a in one["thresholds_km2"])
    words = ("cells.csv", "--truth", "asked.csv", "--metric", "recall-area", "--areas", areas)
    found = scores(*words)["classes"]
    for rank in ("score", "density"):
        told = [found[f"{a:g} km2"][f"recall_by_{rank}"]["value"] for a in one["thresholds_km2"]]
        assert told == one[f"recall_rank_by_{rank}"]


def test_of_equal_cells_recall_is_the_share_of_the_area():
    part, rng = registry.load("metrics", "recall-area"), np.random.default_rng(0)
    cells = np.tile([[0.5, 2.0]], (4000, 50, 1))
    truth = rng.integers(0, 50, 4000)
    found = part.stats(truth, cells, np.ones((4000, 50), bool), 5, areas_km2=(10, 50, 100))
    assert part.score(found)["recall_by_score"] == pytest.approx([0.1, 0.5, 1.0], abs=0.03)


def test_great_circles_are_geodesics_of_a_sphere_and_cells_cover_it():
    rng = np.random.default_rng(1)
    a, b = rng.uniform((-180, -90), (180, 90), (2, 500, 2))
    want = Geod(a=RADIUS_KM * 1000, f=0).inv(*a.T, *b.T)[2] / 1000
    np.testing.assert_allclose(great_circle_km(a, b), want, rtol=1e-9, atol=1e-6)
    west, south = (
        one.ravel() for one in np.meshgrid(np.arange(-180, 180, 20), np.arange(-90, 90, 15))
    )
    assert cell_km2(west, south, west + 20, south + 15).sum() == pytest.approx(510.0658e6, rel=1e-6)


def test_ranking_is_scikit_learns_auc():
    rng, part = np.random.default_rng(2), registry.load("metrics", "ranking")
    truth = rng.integers(0, 2, (3000, 4))
    guess = 1 / (1 + np.exp(-(truth - 3 + rng.normal(0, 1.5, truth.shape))))
    found = part.score(part.stats(truth, guess, np.ones(truth.shape, bool), 4))
    want = roc_auc_score(truth, guess, average=None)
    np.testing.assert_allclose(found["auc"], want, atol=1e-3)
    assert found["auc_mean"] == pytest.approx(want.mean(), abs=1e-3)


def answers(count=300, error=0.5):
    rng = np.random.default_rng(3)
    lon, lat = rng.uniform(-60, 60, count), rng.uniform(-60, 60, count)
    truth = pandas.DataFrame({"lon": lon, "lat": lat, "t": 20 - lat / 3})
    drift = np.sin(np.radians(3 * lon)) * 2 + rng.normal(0, error, count)
    return truth, truth.assign(t=truth["t"] + drift)


def test_values_are_scored_with_morans_i_of_what_is_left_over(here):
    truth, said = answers()
    truth.to_csv("truth.csv", index=False)
    said.to_csv("said.csv", index=False)
    found = scores("said.csv", "--truth", "truth.csv", "--label-column", "t")["metrics"]
    left = (said["t"] - truth["t"]).to_numpy()
    assert found["rmse"]["value"] == pytest.approx(np.sqrt((left**2).mean()))
    at = truth[["lon", "lat"]].to_numpy()
    z = left - left.mean()
    near = [np.argsort(great_circle_km(one, at), kind="stable")[1:9] for one in at]
    want = sum(z[i] * z[k].mean() for i, k in enumerate(near)) / (z**2).sum()
    assert found["residual_morans_i"]["value"] == pytest.approx(want, abs=1e-5) and want > 0.5


def test_trained_ground_and_other_tables_are_refused_or_left_out(here, capsys):
    truth, said = answers(60)
    truth.to_csv("truth.csv", index=False)
    said.assign(ground=["train"] * 20 + ["test"] * 40).to_csv("said.csv", index=False)
    words = ("said.csv", "--truth", "truth.csv", "--label-column", "t")
    told = scores(*words)["scored"]
    assert told["n"] == 40 and told["left_out"] == {"trained": 20, "unanswered": 0}
    assert scores(*words, "--include-trained")["scored"]["n"] == 60
    assert run(["evaluate", *words, "--strict"]) == 1
    assert "trained on" in capsys.readouterr().err
    said.assign(lon=said["lon"] + 1).to_csv("moved.csv", index=False)
    assert run(["evaluate", "moved.csv", *words[1:]]) == 1
    assert "are they of the same table?" in capsys.readouterr().err
