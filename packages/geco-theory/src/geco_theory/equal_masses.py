r"""Equal, fixed masses: one tile of latent space per sample, merged where tiles coincide.

With fixed masses the free energy has many local minima and a branch is followed, not the optimum.
Coinciding tiles move as one of their summed mass; such a group must be tested for splitting
again, because its :math:`C_a` grows as its assignments soften: it is unstable when
:math:`\lambda_{\max}(C_a) > T` [D3]. Every step is guarded by the free energy, and convergence is
judged by the length of the Newton step, which is the error of the solution.
"""

from collections import Counter
from dataclasses import replace

import numpy as np

from geco_theory.curvature import Curvature, curvature
from geco_theory.kernels import moments, responsibilities
from geco_theory.mixtures import Mixture, merge_coincident
from geco_theory.second_order import against, along
from geco_theory.solutions import Solution
from geco_theory.standard_data import Array, StandardData

_MERGE = 1e-3  # in the root mean square of the data
_EAGER = 0.1  # in sqrt(T): merged at first; if that was wrong, the group is split again
_MAX_NEWTON = 200
_MAX_ROUNDS = 200
_UNSTABLE = 1e-4  # excess of lambda_max(C_a)/T over 1 above which a group is split


def solve_equal(
    data: StandardData,
    temperature: float,
    start: Mixture,
    *,
    tolerance: float = 1e-6,
    tied: bool = False,
    eager: bool = True,
) -> Solution:
    """Follow a branch of fixed masses to one temperature.

    Args:
        data: The data.
        temperature: T, in standard units.
        start: The branch at a neighbouring temperature; masses are multiples of 1/n_samples.
        tolerance: Error of the decoder values that is aimed at, in standard units.
        tied: Keep groups of tiles together even where they have become unstable.
        eager: Merge tiles that are near each other at once, and split them again if that was
            wrong; otherwise only tiles that coincide are merged.
    """
    work: Counter[str] = Counter()
    mixture, converged = _relax(data, start, temperature, tolerance, work)
    # plain steps know nothing of stability: only tiles on their own are solved by them
    converged = converged and mixture.size == int(data.counts.sum())
    merge = max(_MERGE, _EAGER * float(np.sqrt(temperature))) if eager else _MERGE
    converged = converged and merge_coincident(mixture, merge).size == mixture.size
    for _ in range(0 if converged else _MAX_ROUNDS):
        mixture, part, error = _descend(data, mixture, temperature, merge, tolerance, work)
        split = None if tied else split_unstable(data, mixture, temperature, part, work)
        if split is None:
            converged = error < tolerance
            break
        mixture, merge = split, _MERGE
    state = moments(data, mixture, temperature)
    rate = (state.free_energy - state.distortion / 2) / temperature
    return Solution(
        temperature,
        mixture.sorted_by_mass(),
        state.free_energy,
        state.distortion,
        max(rate, 0.0),
        float("nan"),
        converged,
        dict(work),
    )


def _relax(
    data: StandardData, mixture: Mixture, temperature: float, tolerance: float, work: Counter[str]
) -> tuple[Mixture, bool]:
    """Plain steps while they converge fast by themselves, as at low temperatures.

    Returns:
        The mixture, and whether the steps shrink so fast that it is solved.
    """
    before = np.inf
    for step in range(12):
        state = moments(data, mixture, temperature)
        work["passes"] += 1
        length = float(np.abs(state.means - mixture.values).max())
        mixture = replace(mixture, values=state.means)
        ratio = length / before if before > 0 else 0.0
        if step > 0 and ratio < 0.5 and length * ratio / (1.0 - ratio) < 0.1 * tolerance:
            return mixture, True
        if step > 1 and ratio > 0.2:
            break
        before = length
    return mixture, False


def _descend(
    data: StandardData,
    mixture: Mixture,
    temperature: float,
    merge: float,
    tolerance: float,
    work: Counter[str],
) -> tuple[Mixture, Curvature, float]:
    """Newton steps on the values until they are shorter than `tolerance`; F never rises."""
    mixture = merge_coincident(mixture, merge)
    least, error, before = 0.02, np.inf, np.inf
    part: Curvature | None = None
    for _ in range(_MAX_NEWTON):
        q, log_z = responsibilities(data.rows, mixture, temperature)
        here = float(-data.weights @ log_z)
        work["newton"] += 1
        if part is None:
            work["systems"] += 1
            part = curvature(data, mixture, temperature, q, least, signed=True)
            if not part.positive:
                part = curvature(data, mixture, temperature, q, least)
        move, slope = _newton_move(data, mixture, temperature, q, part)
        error = float(np.abs(move).max())
        if error < tolerance or slope > -1e-17:
            break
        trial, length = _search(data, mixture, temperature, move, here, slope, work)
        least = float(np.clip(error, 1e-4, 0.02))
        mixture = merge_coincident(trial, merge)
        if mixture.size != trial.size or length != 1.0 or error > 0.1 * before:
            part = None
        before = error
    if part is None:
        q, _ = responsibilities(data.rows, mixture, temperature)
        part = curvature(data, mixture, temperature, q, least, signed=True)
    return mixture, part, error


def _search(
    data: StandardData,
    mixture: Mixture,
    temperature: float,
    move: Array,
    here: float,
    slope: float,
    work: Counter[str],
) -> tuple[Mixture, float]:
    """Shorten the step until F falls; lengthen it while F falls more than the model says.

    Where a minimum has just vanished the way down begins flat, and Newton steps are far too short.

    Returns:
        The new mixture and the length used; 0 for a plain step, when no length would do.
    """

    def at(length: float) -> tuple[Mixture, float]:
        work["passes"] += 1
        trial = replace(mixture, values=mixture.values + length * move)
        return trial, moments(data, trial, temperature).free_energy / temperature

    length = 1.0
    trial, there = at(length)
    while there <= here + 0.6 * length * slope and length < 100:
        longer, beyond = at(2 * length)
        if beyond >= there:
            break
        trial, there, length = longer, beyond, 2 * length
    while there > here + 1e-4 * length * slope + 1e-15:
        length *= 0.4
        if length < 1e-4:
            return replace(mixture, values=moments(data, mixture, temperature).means), 0.0
        trial, there = at(length)
    return trial, length


def _newton_move(
    data: StandardData, mixture: Mixture, temperature: float, q: Array, part: Curvature
) -> tuple[Array, float]:
    """The Newton step of the values (k, r), and the slope of F/T along it."""
    root = np.sqrt(data.weights)
    mass = data.weights @ q
    pull = (q.T @ (data.weights[:, None] * data.rows)) / mass[:, None] - mixture.values
    own = part.apply(pull)
    dual = part.solve(root * along(data.rows, mixture, q, own) / temperature)
    move = own - part.apply(against(data.rows, mixture, q, root * dual) / mass[:, None])
    slope = -float(mass @ np.einsum("ij,ij->i", pull, move)) / temperature
    if slope > 0:  # not downhill: the plain step always is
        move, slope = pull, -float(mass @ np.einsum("ij,ij->i", pull, pull)) / temperature
    length = np.linalg.norm(move, axis=1) / np.sqrt(temperature)
    return move / np.maximum(1.0, length / 2.0)[:, None], slope


def split_unstable(
    data: StandardData,
    mixture: Mixture,
    temperature: float,
    part: Curvature,
    work: Counter[str],
) -> Mixture | None:
    """Split every unstable group in two along its unstable direction; None if all are stable.

    The masses are divided in proportion to the data on both sides, in whole tiles.
    """
    if len(part.lowest) != mixture.size:
        return mixture
    samples = int(data.counts.sum())
    tiles = np.rint(mixture.masses * samples).astype(int)
    unstable = np.flatnonzero((part.lowest < -_UNSTABLE) & (tiles > 1))
    if len(unstable) == 0:
        return None
    work["splits"] += len(unstable)
    q, _ = responsibilities(data.rows, mixture, temperature)
    values, masses = [], []
    for a in unstable:
        direction = np.zeros(data.rows.shape[1])
        direction[: part.directions.shape[1]] = part.directions[a]
        side = (data.rows - mixture.values[a]) @ direction
        share = data.weights * q[:, a]
        positive = side > 0
        fraction = float(share[positive].sum() / share.sum())
        number = int(np.clip(round(fraction * tiles[a]), 1, tiles[a] - 1))
        for chosen, count in ((positive, number), (~positive, tiles[a] - number)):
            mean = (share[chosen] @ data.rows[chosen]) / share[chosen].sum()
            values.append(mixture.values[a] + 0.1 * (mean - mixture.values[a]))
            masses.append(count / samples)
    kept = np.ones(mixture.size, dtype=bool)
    kept[unstable] = False
    return Mixture(
        np.concatenate([mixture.values[kept], values]),
        np.concatenate([mixture.masses[kept], masses]),
    )


def split_ratios(data: StandardData, mixture: Mixture, temperature: float) -> tuple[Array, Array]:
    r""":math:`\lambda_{\max}(C_a)/T` of every value [D3], shape (k,), and its axis, (k, r)."""
    q, _ = responsibilities(data.rows, mixture, temperature)
    share = q * data.weights[:, None]
    share /= share.sum(axis=0)
    ratios = np.empty(mixture.size)
    axes = np.empty(mixture.values.shape)
    for a in range(mixture.size):
        mean = share[:, a] @ data.rows
        gap = (data.rows - mean) * np.sqrt(share[:, a, None])
        values, vectors = np.linalg.eigh(gap.T @ gap)
        ratios[a], axes[a] = values[-1] / temperature, vectors[:, -1]
    return ratios, axes
