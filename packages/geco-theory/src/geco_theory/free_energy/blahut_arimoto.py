r"""One pass of the fixed-point equations over the data, in row blocks and in the log domain.

Eqs. (3) and (4) on finitely many decoder values :math:`\psi_a` with masses :math:`\pi_a` [D3]:

.. math::
    q_{ia} = \pi_a e^{-|x_i - \psi_a|^2 / 2T} / Z_i, \qquad
    Z_i = \sum_a \pi_a e^{-|x_i - \psi_a|^2 / 2T}.

One pass is the E-step of EM for a Gaussian mixture of fixed variance (the :math:`q_{ia}` are its
responsibilities), `Moments.next` its M-step: the iteration of Blahut (1972) and Arimoto (1972)
with a support that moves. `accelerate` extrapolates it in squares (SQUAREM, Varadhan and Roland
2008).

A block of rows costs two matrix products and one exponential per pair. The exponents come out of
the first product already shifted: :math:`-|\psi_a|^2/2T + \ln\pi_a` is appended to the values as
a column. Memory is one block, never all pairs.
"""

from collections import Counter
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from geco_theory._typing import Array
from geco_theory.free_energy.data import StandardData
from geco_theory.free_energy.mixture import LEAST_MASS, Mixture
from geco_theory.free_energy.pairs import EPSILON, expansion_holds, exponents, rounding
from geco_theory.free_energy.parallel import over_rows
from geco_theory.linalg import squarem

BLOCK_ROWS = 128
_BLOCK_ROWS = 512
Real = TypeVar("Real", bound=np.floating)


@dataclass(frozen=True)
class Moments:
    r"""What one pass over the data leaves.

    Args:
        log_z: (n,) :math:`\ln Z_i`.
        mass: (k,) :math:`m_a = \sum_i w_i q_{ia}`.
        means: (k, r) :math:`\sum_i w_i q_{ia} x_i / m_a`, the update of Eq. (4).
        free_energy: :math:`F = -T \sum_i w_i \ln Z_i`.
        distortion: Mean squared error, summed over the elements.
        rate: KL, :math:`-\sum_i w_i \ln Z_i - \mathrm{RE}/2T`.
        rounding: What rounding can do to the exponents, and so to ln D.
    """

    log_z: Array
    mass: Array
    means: Array
    free_energy: float
    distortion: float
    rate: float
    rounding: float

    def next(self) -> Mixture:
        """The plain step: Eq. (4), and the masses that the data give (Blahut-Arimoto)."""
        return Mixture(self.means, np.maximum(self.mass, 1e-300)).normalised()


def log_joint(rows: Array, mixture: Mixture, temperature: float) -> Array:
    r""":math:`\ln \pi_a - |x_i - \psi_a|^2 / 2T` for every pair, shape (n, k)."""
    with np.errstate(divide="ignore"):
        offset = np.log(mixture.masses)
    squares = np.einsum("ij,ij->i", rows, rows)
    own = np.einsum("ij,ij->i", mixture.values, mixture.values)
    if not expansion_holds(max(squares.max(initial=0.0), own.max()), temperature):
        return np.asarray(offset - exponents(rows, mixture.values, temperature))
    offset -= own / (2 * temperature)
    out = rows @ (mixture.values.T / temperature)
    out += offset
    out -= (squares / (2 * temperature))[:, None]
    return np.asarray(out)


def responsibilities(rows: Array, mixture: Mixture, temperature: float) -> tuple[Array, Array]:
    r"""All :math:`q_{ia}`, shape (n, k), and :math:`\ln Z_i`, shape (n,)."""
    q = log_joint(rows, mixture, temperature)
    return q, normalise(q)


def normalise(exponents: NDArray[Real]) -> NDArray[Real]:
    """Makes exponents (n, k) probabilities, in place.

    Returns:
        The logarithms of their sums, shape (n,).
    """
    shift = exponents.max(axis=1)
    exponents -= shift[:, None]
    np.exp(exponents, out=exponents)
    total = exponents.sum(axis=1)
    exponents /= total[:, None]
    log_sums: NDArray[Real] = shift + np.log(total)
    return log_sums


def exponent_columns(mixture: Mixture, temperature: float) -> Array:
    r"""(r + 1, k): rows with a 1 appended, times it, are the exponents up to one number per row.

    The exponent lacks :math:`-|x_i|^2 / 2T`. ln 0 is a number that single precision can hold.
    """
    values = mixture.values
    with np.errstate(divide="ignore"):
        offset = np.log(mixture.masses)
    offset -= np.einsum("ij,ij->i", values, values) / (2 * temperature)
    offset = np.maximum(offset, -1e30)
    return np.concatenate([values / temperature, offset[:, None]], axis=1).T


def most_probable(rows: Array, mixture: Mixture, temperature: float) -> NDArray[np.int64]:
    """The value with the largest responsibility for each row, shape (n,)."""
    block = max(1, 2**22 // mixture.size)
    parts = [
        log_joint(rows[begin : begin + block], mixture, temperature).argmax(axis=1)
        for begin in range(0, len(rows), block)
    ]
    return np.concatenate(parts).astype(np.int64)


def moments(
    data: StandardData,
    mixture: Mixture,
    temperature: float,
    block_rows: int = BLOCK_ROWS,
    *,
    single: bool = False,
    workers: int = 1,
) -> Moments:
    r"""One pass over the data in blocks of `block_rows` rows.

    Args:
        data: The data.
        mixture: Decoder values and masses.
        temperature: T, in standard units.
        block_rows: Rows held at a time.
        single: Pairs in single precision, sums over the data in double: half the time. F/T and
            the means are then good to about :math:`10^{-7} |x|^2/T`.
        workers: Threads.
    """
    if not expansion_holds(data.largest_square, temperature):
        return _exact_moments(data, mixture, temperature, workers)
    rows, weights = data.rows, data.weights
    n, r = rows.shape
    values = mixture.values
    dtype = np.float32 if single else np.float64
    right = exponent_columns(mixture, temperature).astype(dtype)
    log_z = np.empty(n)

    def stretch(first: int, last: int) -> Array:
        sums = np.zeros((mixture.size, r + 1))
        height = min(block_rows, last - first)
        buffer = np.empty((height, mixture.size), dtype)
        left = np.ones((height, r + 1), dtype)
        for begin in range(first, last, block_rows):
            end = min(begin + block_rows, last)
            if single:
                part = data.with_ones(np.float32)[begin:end]
            else:
                part = left[: end - begin]
                part[:, :r] = rows[begin:end]
            q = np.dot(part, right, out=buffer[: end - begin])
            shift = q.max(axis=1)
            q -= shift[:, None]
            np.exp(q, out=q)
            total = q.sum(axis=1)
            log_z[begin:end] = shift + np.log(total)
            sums += q.T @ (part * (weights[begin:end] / total)[:, None].astype(dtype))
        return sums

    sums = np.sum(over_rows(stretch, n, workers), axis=0)
    log_z -= data.squares / (2 * temperature)
    mass = sums[:, r]
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.where(mass[:, None] > 0, sums[:, :r] / mass[:, None], values)
    # sum_ia w q |x - psi|^2 = sum_i w |x|^2 + sum_a m (|psi|^2 - 2 psi.mean)
    cross = np.einsum("ij,ij->i", values, values - 2 * means)
    distortion = float(weights @ data.squares + mass @ cross)
    distortion = max(distortion, 0.0)
    free_energy = float(-temperature * (weights @ log_z))
    rate = max(free_energy / temperature - distortion / (2 * temperature), 0.0)
    lost = rounding(data.largest_square, temperature, weights, data.squares)
    return Moments(log_z, mass, means, free_energy, distortion, rate, lost)


def _exact_moments(
    data: StandardData, mixture: Mixture, temperature: float, workers: int
) -> Moments:
    """The same from the differences of all pairs, where expanded squares are not exact enough."""
    rows, weights = data.rows, data.weights
    n, r = rows.shape
    log_z, half = np.empty(n), np.empty(n)
    with np.errstate(divide="ignore"):
        log_masses = np.log(mixture.masses)

    def stretch(first: int, last: int) -> Array:
        sums = np.zeros((mixture.size, r + 1))
        for begin in range(first, last, BLOCK_ROWS):
            block = slice(begin, min(begin + BLOCK_ROWS, last))
            gaps = exponents(rows[block], mixture.values, temperature)
            q = log_masses - gaps
            shift = q.max(axis=1)
            q = np.exp(q - shift[:, None])
            total = q.sum(axis=1)
            log_z[block] = shift + np.log(total)
            q /= total[:, None]
            half[block] = np.einsum("ij,ij->i", q, gaps)
            q *= weights[block, None]
            sums[:, :r] += q.T @ rows[block]
            sums[:, r] += q.sum(axis=0)
        return sums

    sums = np.sum(over_rows(stretch, n, workers), axis=0)
    mass = sums[:, r]
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.where(mass[:, None] > 0, sums[:, :r] / mass[:, None], mixture.values)
    # a move that is only rounding is none: a value that lies on its row stays there
    size = np.abs(mixture.values).max(axis=1, keepdims=True)
    means = np.where(np.abs(means - mixture.values) <= 4 * EPSILON * size, mixture.values, means)
    lengths = np.sqrt(data.squares * 2 * temperature * half)
    return Moments(
        log_z,
        mass,
        means,
        float(-temperature * (weights @ log_z)),
        float(2 * temperature * (weights @ half)),
        max(float(-(weights @ log_z) - weights @ half), 0.0),
        rounding(data.largest_square, temperature, weights, lengths),
    )


def single_is_enough(data: StandardData, temperature: float, tolerance: float) -> bool:
    """Whether pairs in single precision can serve steps that aim at an error of ln S."""
    return bool(3e-7 * max(float(data.squares.max()) / temperature, 1.0) < tolerance)


def accelerate(
    data: StandardData,
    mixture: Mixture,
    temperature: float,
    enough: float,
    max_cycles: int,
    work: Counter[str],
    *,
    single: bool = False,
    workers: int = 1,
) -> Mixture:
    """Squared steps until ln D at the values is below `enough`, or F hardly falls; F never rises.

    Args:
        data: The data.
        mixture: Where to begin.
        temperature: T, in standard units.
        enough: ln D at the values, and where the next step takes them, that is small enough.
        max_cycles: Cycles at most.
        work: Counts, added to.
        single: Pairs in single precision; F then never rises by more than its rounding.
        workers: Threads.
    """

    def at(trial: Mixture) -> Moments:
        work["passes"] += 1
        return moments(
            data, trial, temperature, block_rows=_BLOCK_ROWS, single=single, workers=workers
        )

    state = at(mixture)
    for cycle in range(max_cycles):
        first = state.next()
        middle = at(first)
        second = middle.next()
        trial = _extrapolate(mixture, first, second, 2.0 ** (cycle + 2))
        ahead = at(trial)
        if ahead.free_energy > middle.free_energy:
            trial, ahead = second, at(second)
        fall = (state.free_energy - ahead.free_energy) / temperature
        mixture, state = trial, ahead
        if fall < 1e-3 * enough or excess(mixture, state, temperature) < enough:
            break
        light = mixture.masses < LEAST_MASS
        if light.any():
            mixture = mixture.select(~light).normalised()
            state = at(mixture)
    return mixture


def excess(mixture: Mixture, state: Moments, temperature: float) -> float:
    """Estimate of ln D where the values go: at them, and what their next steps would gain."""
    gaps = state.means - mixture.values
    with np.errstate(divide="ignore"):
        here = np.log(state.mass / mixture.masses)
    return float((here + np.einsum("ij,ij->i", gaps, gaps) / temperature).max())


def _extrapolate(start: Mixture, first: Mixture, second: Mixture, most: float) -> Mixture:
    """The squared extrapolation of three iterates, in the values and the log masses."""
    weight = np.sqrt(start.masses)[:, None]

    def stack(mixture: Mixture) -> Array:
        return np.concatenate([mixture.values, np.log(mixture.masses)[:, None]], axis=1)

    def norm(vectors: Array) -> Array:
        return np.asarray(np.linalg.norm(weight * vectors))

    ahead, _, _ = squarem(stack(start), stack(first), stack(second), norm, most)
    masses = np.exp(np.clip(ahead[:, -1], -600, 0.0))
    return Mixture(np.ascontiguousarray(ahead[:, :-1]), masses).normalised()
