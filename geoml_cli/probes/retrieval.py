"""Mean average precision of finding rows of the same class on other ground, by cosine."""

import numpy as np
import torch

from geoml_cli.core.neighbours import unit
from geoml_cli.core.probing import Probed, Told

LABELS = ("classes",)


def measure(rows: Probed, *, queries: int = 2000) -> Told:
    """Average precision of each labelled row as a query among those of other folds, of `queries` drawn rows."""
    assert rows.labels is not None
    known = np.flatnonzero(rows.known)
    z = unit(rows.z[known] - rows.z[known].mean(axis=0))
    y, fold = rows.labels[known], rows.fold[known]
    asked = np.arange(len(known))
    if len(asked) > queries:
        rng = np.random.Generator(np.random.PCG64(rows.seed))
        asked = np.sort(rng.choice(len(known), queries, replace=False))
    each = np.full(len(rows.z), np.nan)
    base = torch.from_numpy(z).to(rows.device)
    for start in range(0, len(asked), 64):
        rows.check()
        some = asked[start : start + 64]
        near = (base[torch.from_numpy(some)] @ base.T).cpu().numpy()
        for row, close in zip(some, near, strict=True):
            other = np.flatnonzero(fold != fold[row])
            hits = (y[other] == y[row])[np.argsort(-close[other], kind="stable")]
            if hits.any():
                ranks = np.flatnonzero(hits) + 1
                each[known[row]] = (np.arange(1, len(ranks) + 1) / ranks).mean()
    return Told(each=each, about={"metric": "map", "queries": len(asked)})
