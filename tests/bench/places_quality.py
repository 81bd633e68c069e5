"""What encoders of places are worth: climate, land cover and people of 20,000 places, and the weather of 3,076 stations.

python -m bench.places_quality [--only NAME]...

Each encoder with a ridge on it, two with a small network, and ours, five networks of `geoml train`, beside nearest
neighbours, trees and a Gaussian process of scikit-learn; on ground that is held out as a chequerboard of 10 degrees, as
a continent, and at random. What a probe may choose, it chooses on cells within its training ground. Needs ../shared
and the wheel of GeoCLIP.
"""

import argparse
import functools
import tempfile
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas
import torch
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
from sklearn.linear_model import Ridge, RidgeClassifier
from sklearn.metrics import r2_score
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from torch import nn

from bench.sets import DATA
from geoml_cli import registry
from geoml_cli.cli import run
from geoml_cli.stages.places_model import published_model

ENCODERS = {
    "direct": "direct",
    "wrap": "wrap",
    "cartesian": "cartesian",
    "grid": "grid",
    "theory": "theory",
    "sphereC+": "spherec:plus=true",
    "sphereM+": "spherem:plus=true",
    "DFS": "dfs",
    "RFF on the sphere": "rff:sigma=1,features=256",
    "harmonics L=10": "spherical-harmonics:degrees=10",
    "harmonics L=20": "spherical-harmonics:degrees=20",
    "harmonics L=40": "spherical-harmonics:degrees=40",
}
WITH_NETWORK = "harmonics L=20"  # of the positions, the ones that a network is tried on too
ALPHAS = (1e-2, 1.0, 1e2, 1e4)
EPOCHS, PATIENCE, BATCH, RATE = 40, 8, 256, 2e-3
OURS = (
    "--folds 5 --split blocks:1000km --location-encoder geoclip-harmonics --location-weights pkg:geoclip --tune head"
    f" --head mlp:dropout=0.3 --epochs {EPOCHS} --patience {PATIENCE} --batch {BATCH} --lr {RATE} --schedule one-cycle"
    " --weight-decay 1e-2 --ema 0 --clip 0 --class-weights none --augment none --device cpu -q"
).split()


def encoded(spec: str, lonlat: np.ndarray) -> np.ndarray:
    """Vectors (n, D) of places."""
    with torch.no_grad():
        return registry.make("location_encoders", spec).eval()(torch.from_numpy(lonlat)).float().numpy()  # fmt: skip


def geoclip(lonlat: np.ndarray) -> np.ndarray:
    """GeoCLIP's vectors, of the published wheel."""
    with torch.no_grad():
        return published_model("pkg:geoclip").build()(torch.from_numpy(lonlat)).float().numpy()


def cells(lonlat: np.ndarray) -> np.ndarray:
    """Cells of 10 degrees, numbered so that neighbours differ in parity."""
    col, row = np.floor(lonlat / 10).astype(int).T
    return (col + 18) + 37 * (row + 9)


def even(lonlat: np.ndarray) -> np.ndarray:
    """Which places lie on the even cells of the chequerboard."""
    return np.floor(lonlat / 10).astype(int).sum(1) % 2 == 0


def held_cells(lonlat: np.ndarray, train: np.ndarray, seed: int, share: float = 0.15) -> np.ndarray:
    """A share of the cells of the training ground, to choose on."""
    own = np.unique(cells(lonlat)[train])
    drawn = np.random.default_rng(seed).choice(own, int(len(own) * share), replace=False)
    return train & np.isin(cells(lonlat), drawn)


def mlp(width: int, outputs: int) -> nn.Module:
    """Two hidden layers."""
    return nn.Sequential(
        nn.Linear(width, 256), nn.GELU(), nn.Dropout(0.3), nn.Linear(256, 256), nn.GELU(), nn.Dropout(0.3),
        nn.Linear(256, outputs),
    )  # fmt: skip


def network(x: np.ndarray, y: np.ndarray, train: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Answers (n, K), chances or standardised values, of a network that is stopped on `stop`."""
    torch.manual_seed(0)
    told = scaled(x, train)
    values = y.dtype.kind == "f"
    target = torch.from_numpy(y).float() if values else torch.from_numpy(y)
    net = mlp(told.shape[1], 1 if values else int(y.max()) + 1)
    rows = torch.from_numpy(np.flatnonzero(train & ~stop))
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=1e-2)
    steps = EPOCHS * -(-len(rows) // BATCH)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    best, kept, waited = -np.inf, net.state_dict(), 0
    for _ in range(EPOCHS):
        net.train()
        for some in rows[torch.randperm(len(rows))].split(BATCH):
            out = net(told[some])
            one = nn.functional.mse_loss(out[:, 0], target[some]) if values else nn.functional.cross_entropy(out, target[some])  # fmt: skip
            optimizer.zero_grad(), one.backward(), optimizer.step(), rate.step()
        found = score(y[stop], answers(net, told[torch.from_numpy(stop)], values))
        if found > best:
            best, waited = found, 0
            kept = {k: v.clone() for k, v in net.state_dict().items()}
        else:
            waited += 1
            if waited == PATIENCE:
                break
    net.load_state_dict(kept)
    return answers(net, told, values)


@torch.no_grad()
def answers(net: nn.Module, told: torch.Tensor, values: bool) -> np.ndarray:
    """What it says of all rows."""
    out = net.eval()(told)
    return out.numpy() if values else out.softmax(1).numpy()


def scaled(x: np.ndarray, train: np.ndarray) -> torch.Tensor:
    """Standardised by the training ground."""
    return torch.from_numpy((x - x[train].mean(0)) / (x[train].std(0) + 1e-6)).float()


def score(y: np.ndarray, said: np.ndarray) -> float:
    """Accuracy of chances or of classes, R2 of values."""
    if y.dtype.kind == "f":
        return float(r2_score(y, said[:, 0] if said.ndim == 2 else said))
    return float(((said.argmax(1) if said.ndim == 2 else said) == y).mean())


Probe = Callable[
    [np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray
]  # y, train, stop, lonlat -> said


def ridge(x: np.ndarray) -> Probe:
    """A ridge whose strength is chosen on `stop`."""

    def fit(y: np.ndarray, train: np.ndarray, stop: np.ndarray, lonlat: np.ndarray) -> np.ndarray:
        told, kind = scaled(x, train).numpy(), Ridge if y.dtype.kind == "f" else RidgeClassifier
        inner = train & ~stop
        best = max(ALPHAS, key=lambda a: score(y[stop], kind(alpha=a).fit(told[inner], y[inner]).predict(told[stop])))  # fmt: skip
        return kind(alpha=best).fit(told[train], y[train]).predict(told)

    return fit


def on(x: np.ndarray) -> Probe:
    """A network on columns."""

    def fit(y: np.ndarray, train: np.ndarray, stop: np.ndarray, lonlat: np.ndarray) -> np.ndarray:
        return network(x, y, train, stop)

    return fit


def ours(y: np.ndarray, train: np.ndarray, stop: np.ndarray, lonlat: np.ndarray) -> np.ndarray:
    """What a model of `geoml train` says, which makes its own folds of the training ground and is shown nothing else."""
    values = y.dtype.kind == "f"
    label = y if values else [f"c{one:02}" for one in y]
    table = pandas.DataFrame({"lon": lonlat[:, 0], "lat": lonlat[:, 1], "y": label})
    with tempfile.TemporaryDirectory() as folder:
        places, asked, model, said = (f"{folder}/{name}" for name in ("places.parquet", "asked.parquet", "model", "said.parquet"))  # fmt: skip
        table[train].to_parquet(places)
        table[["lon", "lat"]].to_parquet(asked)
        for line in (
            ["train", places, "--target", "y", *OURS, "-o", model],
            ["predict", asked, "--model", model, "-q", "-o", said],
        ):
            if run(line) != 0:
                raise SystemExit(" ".join(line))
        told = pandas.read_parquet(said)
    if values:
        return told[["y"]].to_numpy(float)
    names = [f"p_c{k:02}" for k in range(y.max() + 1)]
    # a class may be on held ground alone
    return told.reindex(columns=names, fill_value=0.0).to_numpy(float)


def fitted(classifier: Callable[[], object], regressor: Callable[[], object], x: np.ndarray) -> Probe:  # fmt: skip
    """An estimator of scikit-learn."""

    def fit(y: np.ndarray, train: np.ndarray, stop: np.ndarray, lonlat: np.ndarray) -> np.ndarray:
        model = regressor() if y.dtype.kind == "f" else classifier()
        return model.fit(x[train], y[train]).predict(x)  # type: ignore[attr-defined]

    return fit


def process() -> GaussianProcessRegressor:
    """Matern 3/2 with its own noise."""
    kernel = ConstantKernel(1.0) * Matern(0.3, nu=1.5) + WhiteKernel(0.1)
    return GaussianProcessRegressor(kernel, normalize_y=True, random_state=0)


def probes(lonlat: np.ndarray, few: bool) -> Iterator[tuple[str, Probe, bool]]:
    """Rows of the table: name, probe, and whether it is of values alone."""
    for name, spec in ENCODERS.items():
        x = encoded(spec, lonlat)
        yield f"{name}, ridge", ridge(x), False
        if name == WITH_NETWORK:
            yield f"{name}, network", on(x), False
    clip = geoclip(lonlat)
    yield "GeoCLIP, ridge", ridge(clip), False
    yield "GeoCLIP, network", on(clip), False
    yield "ours: geoclip-harmonics through `geoml train`", ours, False
    xyz = encoded("cartesian", lonlat)
    every = np.column_stack([lonlat, xyz])
    trees = [functools.partial(one, 300, n_jobs=1, random_state=0) for one in (ExtraTreesClassifier, ExtraTreesRegressor)]  # fmt: skip
    neighbours = [functools.partial(one, 5, weights="distance") for one in (KNeighborsClassifier, KNeighborsRegressor)]  # fmt: skip
    yield "5 nearest neighbours", fitted(*neighbours, xyz), False
    yield "extremely random trees", fitted(*trees, every), False
    if few:
        yield "Gaussian process, Matern 3/2", fitted(process, process, xyz), True


def table(
    lonlat: np.ndarray, targets: dict[str, np.ndarray], splits: dict[str, np.ndarray], few: bool, only: Sequence[str]
) -> None:  # fmt: skip
    """Print a table: rows are probes, columns splits with their targets."""
    print("| |" + "".join(f" {name}: {' / '.join(targets)} |" for name in splits))
    print("|---|" + "---|" * len(splits))
    for name, probe, _ in probes(lonlat, few):
        if only and not any(one in name for one in only):
            continue
        row = []
        for train in splits.values():
            stop, found = held_cells(lonlat, train, 1), []
            for y in targets.values():
                z = (y - y[train].mean()) / y[train].std() if y.dtype.kind == "f" else y
                found.append(score(z[~train], probe(z, train, stop, lonlat)[~train]))
            row.append(" / ".join(f"{one:.3f}" if one > -1 else "< -1" for one in found))
        print(f"| {name} | {' | '.join(row)} |", flush=True)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.places_quality")
    parser.add_argument("--only", action="append", default=[])
    only = parser.parse_args().only
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    known = np.load(DATA.parent / "parity/loc_points.npz", allow_pickle=True)
    lonlat, continent = known["lonlat"], known["continent"].astype(str)
    half = rng.permutation(len(lonlat)) < len(lonlat) // 2
    targets = {
        "climate": np.unique(known["koppen5"], return_inverse=True)[1],
        "land cover": np.unique(known["igbp"], return_inverse=True)[1],
        "log people": known["logpop50km"],
    }
    splits = {"chequerboard": even(lonlat), "Africa held": continent != "AF", "random": half, "South America held": continent != "SA"}  # fmt: skip
    table(lonlat, targets, splits, False, only)
    stations = pandas.read_csv(
        DATA / "e_location_tables/air_temperature_stations/stationDataAll.csv"
    )
    lonlat = stations[["Lon", "Lat"]].to_numpy(float)
    half = rng.permutation(len(lonlat)) < len(lonlat) // 2
    targets = {"temperature": stations["meanT"].to_numpy(float), "precipitation": stations["meanP"].to_numpy(float)}  # fmt: skip
    print()
    table(lonlat, targets, {"chequerboard": even(lonlat), "random": half}, True, only)


if __name__ == "__main__":
    main()
