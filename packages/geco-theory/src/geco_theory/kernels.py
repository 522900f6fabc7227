r"""One pass of the fixed-point equations over the data, in row blocks and in the log domain.

Eqs. (3) and (4) on finitely many decoder values :math:`\psi_a` with masses :math:`\pi_a` [D3]:

.. math::
    q_{ia} = \pi_a e^{-|x_i - \psi_a|^2 / 2T} / Z_i, \qquad
    Z_i = \sum_a \pi_a e^{-|x_i - \psi_a|^2 / 2T}.

A block of rows costs two matrix products and one exponential per pair. The exponents come out of
the first product already shifted: :math:`-|\psi_a|^2/2T + \ln\pi_a` is appended to the values as
a column. Memory is one block, never all pairs.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geco_theory.mixtures import Mixture
from geco_theory.standard_data import Array, StandardData

BLOCK_ROWS = 128


@dataclass(frozen=True)
class Moments:
    r"""What one pass over the data leaves.

    Args:
        log_z: (n,) :math:`\ln Z_i`.
        mass: (k,) :math:`m_a = \sum_i w_i q_{ia}`.
        means: (k, r) :math:`\sum_i w_i q_{ia} x_i / m_a`, the update of Eq. (4).
        free_energy: :math:`F = -T \sum_i w_i \ln Z_i`.
        distortion: Mean squared error, summed over the elements.
    """

    log_z: Array
    mass: Array
    means: Array
    free_energy: float
    distortion: float


def log_joint(rows: Array, mixture: Mixture, temperature: float) -> Array:
    r""":math:`\ln \pi_a - |x_i - \psi_a|^2 / 2T` for every pair, shape (n, k)."""
    with np.errstate(divide="ignore"):
        offset = np.log(mixture.masses)
    offset -= np.einsum("ij,ij->i", mixture.values, mixture.values) / (2 * temperature)
    out = rows @ (mixture.values.T / temperature)
    out += offset
    out -= (np.einsum("ij,ij->i", rows, rows) / (2 * temperature))[:, None]
    return np.asarray(out)


def responsibilities(rows: Array, mixture: Mixture, temperature: float) -> tuple[Array, Array]:
    r"""All :math:`q_{ia}`, shape (n, k), and :math:`\ln Z_i`, shape (n,)."""
    q = log_joint(rows, mixture, temperature)
    shift = q.max(axis=1)
    q -= shift[:, None]
    np.exp(q, out=q)
    total = q.sum(axis=1)
    q /= total[:, None]
    return q, shift + np.log(total)


def moments(
    data: StandardData, mixture: Mixture, temperature: float, block_rows: int = BLOCK_ROWS
) -> Moments:
    """One pass over the data in blocks of `block_rows` rows."""
    rows, weights = data.rows, data.weights
    n, r = rows.shape
    values = mixture.values
    with np.errstate(divide="ignore"):
        offset = np.log(mixture.masses)
    offset -= np.einsum("ij,ij->i", values, values) / (2 * temperature)
    left = np.empty((n, r + 1))
    left[:, :r] = rows
    left[:, r] = 1.0
    right = np.concatenate([values / temperature, offset[:, None]], axis=1).T
    log_z = np.empty(n)
    sums = np.zeros((mixture.size, r + 1))
    buffer = np.empty((min(block_rows, n), mixture.size))
    for begin in range(0, n, block_rows):
        part = left[begin : begin + block_rows]
        q: NDArray[np.float64] = np.dot(part, right, out=buffer[: len(part)])
        shift = q.max(axis=1)
        q -= shift[:, None]
        np.exp(q, out=q)
        total = q.sum(axis=1)
        log_z[begin : begin + block_rows] = shift + np.log(total)
        sums += q.T @ (part * (weights[begin : begin + block_rows] / total)[:, None])
    squares = np.einsum("ij,ij->i", rows, rows)
    log_z -= squares / (2 * temperature)
    mass = sums[:, r]
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.where(mass[:, None] > 0, sums[:, :r] / mass[:, None], values)
    # sum_ia w q |x - psi|^2 = sum_i w |x|^2 + sum_a m (|psi|^2 - 2 psi.mean)
    cross = np.einsum("ij,ij->i", values, values - 2 * means)
    distortion = float(weights @ squares + mass @ cross)
    free_energy = float(-temperature * (weights @ log_z))
    return Moments(log_z, mass, means, free_energy, max(distortion, 0.0))
