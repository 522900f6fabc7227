"""Components for the local code: k-means cells with covariances shrunk to those around them.

A mixture of probabilistic principal component analysers (Tipping and Bishop 1999) by hard
assignment. A cell of few images has no covariance of its own worth the name, so it borrows:
from the cells around it, which lean on the pooled covariance within all cells, which is shrunk as
Ledoit and Wolf (2004) do.
"""

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans
from sklearn.covariance import ledoit_wolf_shrinkage

from geco_theory._typing import Array
from geco_theory.forecast.local_code import Candidates, LocalMixture, Single

__all__ = ["cells", "fit_components", "reassign"]

_OWN = 100.0  # images that the covariance of the cells around counts as
_AROUND = 300.0  # images that the pooled covariance counts as among those around
_NEIGHBOURS = 10  # cells around a cell, itself included
_LEAST = 1e-9  # of the largest variance
_WOLF_ROWS = 4000  # images that the shrinkage of the pooled covariance is estimated from


def cells(rows: Single, number: int, seed: int) -> NDArray[np.intp]:
    """Cut images (n, r) into at most `number` cells by k-means; (n,) the cell of each."""
    if number == 1:
        return np.zeros(len(rows), dtype=np.intp)
    means = MiniBatchKMeans(number, n_init=1, batch_size=4096, max_iter=30, random_state=seed).fit(
        rows
    )
    return np.asarray(np.unique(means.predict(rows), return_inverse=True)[1].reshape(-1))


def fit_components(
    rows: Single, cell: NDArray[np.intp], rest: float, dropped: int
) -> LocalMixture:
    """Means, shrunk covariances and masses of cells.

    Args:
        rows: (n, r) images in the leading coordinates.
        cell: (n,) the cell of each; every number up to the largest occurs.
        rest: Variance of each of the coordinates that were cut off.
        dropped: How many those are.
    """
    counts = np.bincount(cell).astype(float)
    order = np.argsort(cell, kind="stable")
    parts = np.split(order, np.cumsum(counts.astype(int))[:-1])
    means = np.stack([rows[part].mean(axis=0, dtype=np.float64) for part in parts])
    scatters = np.empty((len(parts), rows.shape[1], rows.shape[1]), np.float32)
    for c, part in enumerate(parts):
        gaps = rows[part] - means[c].astype(np.float32)
        scatters[c] = gaps.T @ gaps
    pooled = scatters.sum(axis=0, dtype=np.float64) / len(rows)
    some = np.linspace(0, len(rows) - 1, min(len(rows), _WOLF_ROWS)).astype(int)
    inside = rows[some] - means[cell[some]]
    share = float(ledoit_wolf_shrinkage(inside, assume_centered=True)) * len(some) / len(rows)
    size = np.trace(pooled) / len(pooled)
    pooled = (1.0 - share) * pooled + share * size * np.eye(len(pooled))
    gaps = np.square(means[:, None] - means[None]).sum(axis=2)
    around = np.argsort(gaps, axis=1)[:, :_NEIGHBOURS]
    variances = np.empty(means.shape)
    axes = np.empty(scatters.shape, np.float32)
    for c, near in enumerate(around):
        borrowed = scatters[near].sum(axis=0, dtype=np.float64) + _AROUND * pooled
        borrowed /= counts[near].sum() + _AROUND
        own = (scatters[c] + _OWN * borrowed) / (counts[c] + _OWN)
        values, vectors = np.linalg.eigh(own)
        variances[c], axes[c] = values[::-1], vectors[:, ::-1]
    variances = np.maximum(variances, _LEAST * float(variances.max()))
    return LocalMixture(
        counts / len(rows), means.astype(np.float32), variances, axes, rest, dropped
    )


def reassign(
    rows: Single, squares: Array, mixture: LocalMixture, level: float, block: int = 4096
) -> NDArray[np.intp]:
    """The component that each image takes at a water level: hard EM's next assignment."""
    taken = [
        Candidates(mixture, rows[begin : begin + block], squares[begin : begin + block])
        .at(level)
        .component
        for begin in range(0, len(rows), block)
    ]
    return np.asarray(np.unique(np.concatenate(taken), return_inverse=True)[1].reshape(-1))
