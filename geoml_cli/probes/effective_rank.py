"""How many dimensions are used: exp of the entropy of the shares of the singular values.

Source: Roy, Vetterli 2007 (EUSIPCO); of the rows minus their mean.
"""

import numpy as np

from geoml_cli.core.probing import Probed, Told

LABELS = ()


def measure(rows: Probed) -> Told:
    """Effective rank, 1 to the number of dimensions."""
    z = rows.z.astype(np.float64)
    z = z - z.mean(axis=0)
    squares = np.linalg.eigvalsh(z.T @ z)
    values = np.sqrt(np.clip(squares, 0, None))
    if values.sum() == 0:
        return Told(value=0.0)
    share = values / values.sum()
    share = share[share > 0]
    return Told(value=float(np.exp(-(share * np.log(share)).sum())))
