r"""Which groups of tiles have become unstable, and their parts [D3].

The condition :math:`\lambda_{\max}(C_a) > T` is the one of deterministic annealing (Rose, Gurewitz
and Fox 1990; Rose 1998).
"""

from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from geco_theory._typing import Array
from geco_theory.free_energy.blahut_arimoto import log_joint, moments
from geco_theory.free_energy.data import StandardData
from geco_theory.free_energy.mixture import Mixture

_UNSTABLE = 1e-4  # excess of lambda_max(C_a)/T over 1 above which a group is split
_BLOCK = 2**20  # numbers in one block of pairs


def split_unstable(
    data: StandardData, mixture: Mixture, temperature: float, work: Counter[str]
) -> Mixture | None:
    """Split every unstable group in two along its unstable direction; None if all are stable.

    The masses are divided in proportion to the data on both sides, in whole tiles.
    """
    work["tests"] += 1
    samples = int(data.counts.sum())
    tiles = np.rint(mixture.masses * samples).astype(int)
    kept = np.ones(mixture.size, dtype=bool)
    values, masses = [], []
    limit = (1.0 + _UNSTABLE) * np.eye(data.rows.shape[1])
    for a, share in _shares(data, mixture, temperature, np.flatnonzero(tiles > 1)):
        near = np.flatnonzero(share > 1e-9 * share.max())
        share = share[near] / share[near].sum()
        gaps = data.rows[near] - share @ data.rows[near]
        ratio = (gaps * share[:, None]).T @ gaps / temperature
        if _positive_definite(limit - ratio):
            continue
        side = gaps @ np.linalg.eigh(ratio)[1][:, -1] > 0
        number = int(np.clip(round(float(share[side].sum()) * tiles[a]), 1, tiles[a] - 1))
        for chosen, count in ((side, number), (~side, tiles[a] - number)):
            mean = share[chosen] @ gaps[chosen] / share[chosen].sum()
            values.append(mixture.values[a] + 0.1 * mean)
            masses.append(count / samples)
        kept[a] = False
    work["splits"] += int((~kept).sum())
    if kept.all():
        return None
    return Mixture(
        np.concatenate([mixture.values[kept], values]),
        np.concatenate([mixture.masses[kept], masses]),
    )


def split_ratios(data: StandardData, mixture: Mixture, temperature: float) -> tuple[Array, Array]:
    r""":math:`\lambda_{\max}(C_a)/T` of every value [D3], shape (k,), and its axis, (k, r)."""
    ratios = np.empty(mixture.size)
    axes = np.empty(mixture.values.shape)
    for a, share in _shares(data, mixture, temperature, np.arange(mixture.size)):
        gaps = data.rows - share @ data.rows
        values, vectors = np.linalg.eigh((gaps * share[:, None]).T @ gaps)
        ratios[a], axes[a] = values[-1] / temperature, vectors[:, -1]
    return ratios, axes


def _shares(
    data: StandardData, mixture: Mixture, temperature: float, chosen: NDArray[np.intp]
) -> Iterator[tuple[int, Array]]:
    """The chosen values, one by one, with the share (n,) of every row in their mass."""
    log_z = moments(data, mixture, temperature).log_z
    block = max(1, _BLOCK // len(data.rows))
    for begin in range(0, len(chosen), block):
        part = chosen[begin : begin + block]
        q = np.exp(log_joint(data.rows, mixture.select(part), temperature) - log_z[:, None])
        q *= data.weights[:, None]
        yield from zip(part.tolist(), (q / q.sum(axis=0)).T, strict=True)


def _positive_definite(matrix: Array) -> bool:
    return int(linalg.lapack.dpotrf(matrix, lower=1, clean=0)[1]) == 0
