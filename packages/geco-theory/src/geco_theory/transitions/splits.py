r"""Merges on heating and splits on cooling of equal masses, located one by one [D3].

A group of tiles splits on cooling where :math:`\lambda_{\max}(C_a) = T` for the group kept tied.
On heating its parts meet at that temperature if the transition is continuous, and above it, with a
jump, if it is not.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from geco_theory._typing import Array
from geco_theory.deterministic_annealing.solver import solve_equal
from geco_theory.deterministic_annealing.splitting import split_ratios
from geco_theory.free_energy.data import StandardData
from geco_theory.free_energy.mixture import Mixture
from geco_theory.free_energy.solution import Solution
from geco_theory.transitions.bracketing import brackets, match

MERGE = "merge"
SPLIT = "split"
_WIDTH = 1e-4  # relative width to which a merge is bracketed
_CONTINUOUS = 5e-3  # largest 1 - lambda_max/T at a merge that is called continuous
_EDGE = 1e-3  # relative step below a split at which the split branch is entered
Solve = Callable[[float, Mixture], Solution]


@dataclass(frozen=True)
class GroupChange:
    """One merge or split, in standard units.

    Args:
        temperature: T.
        kind: `merge` or `split`.
        jump: Distance between the parts next to the transition; 0 if it is continuous.
        continuous: Whether there is no jump.
        mass: Mass of the whole group.
        parts: Masses of its parts.
        direction: (r,) unit vector between the parts.
    """

    temperature: float
    kind: str
    jump: float
    continuous: bool
    mass: float
    parts: tuple[float, ...]
    direction: Array


def locate_merges(
    data: StandardData, solve: Solve, lower: Solution, upper: Solution, limit: int
) -> list[GroupChange]:
    """Merges between two solved temperatures of a heating branch, highest first."""
    found: list[GroupChange] = []
    pairs = brackets(
        lambda temperature, _, low: solve(temperature, low.mixture),
        upper,
        lower,
        lambda _, width: width < _WIDTH,
    )
    while len(found) < limit and (pair := next(pairs, None)):
        found.extend(_merges(data, *pair))
    return found[:limit]


def _merges(data: StandardData, high: Solution, low: Solution) -> list[GroupChange]:
    """What merged between two temperatures that are next to each other."""
    old, new = low.mixture, high.mixture
    taken, left, gaps = match(old.values, new.values)
    ratios = split_ratios(data, new, high.temperature)[0]
    changes = []
    for a in left:
        target = int(gaps[a].argmin())
        partner = int(taken[target])
        offset = old.values[a] - old.values[partner]
        distance = float(np.linalg.norm(offset))
        continuous = bool(ratios[target] > 1.0 - _CONTINUOUS)
        changes.append(
            GroupChange(
                high.temperature,
                MERGE,
                0.0 if continuous else distance,
                continuous,
                float(new.masses[target]),
                (float(old.masses[a]), float(old.masses[partner])),
                offset / max(distance, 1e-300),
            )
        )
    return changes


def cool(
    data: StandardData,
    temperatures: Array,
    limit: int,
    report: Callable[[Solution], None],
    memory: float = 1024.0,
) -> tuple[list[Solution], list[GroupChange]]:
    """Follow the branch of one group downwards; the first `limit` splits are located.

    Args:
        data: The data.
        temperatures: To solve, in standard units; any order.
        limit: How many splits to locate; further ones happen between temperatures.
        report: Called with every solution.
        memory: MiB for the posteriors of all pairs, as in `solve_equal`.
    """
    mixture = Mixture(np.zeros((1, data.rows.shape[1])), np.ones(1))
    above = float(data.variances[0]) * 1.01
    solutions: list[Solution] = []
    changes: list[GroupChange] = []
    for target in np.sort(temperatures)[::-1]:
        while len(changes) < limit and target < above:
            event = _next_split(data, mixture, above, float(target), memory)
            if event is None:
                break
            mixture, above = event[0].mixture, event[0].temperature
            changes.append(event[1])
        solution = solve_equal(data, float(target), mixture, memory=memory)
        mixture, above = solution.mixture, min(above, float(target))
        solutions.append(solution)
        report(solution)
    return solutions, changes


def _next_split(
    data: StandardData, mixture: Mixture, above: float, target: float, memory: float
) -> tuple[Solution, GroupChange] | None:
    """The first split below `above`, if there is one before `target`."""
    samples = float(data.counts.sum())
    tied = {above: mixture}

    def excess(temperature: float) -> float:
        if temperature not in tied:
            warmer = min(t for t in tied if t > temperature)
            tied[temperature] = solve_equal(
                data, temperature, tied[warmer], tied=True, tolerance=1e-8, memory=memory
            ).mixture
        state = tied[temperature]
        ratios = split_ratios(data, state, temperature)[0]
        groups = state.masses * samples > 1.5
        return float(ratios[groups].max()) - 1.0 if groups.any() else -1.0

    temperature = above
    if excess(above) < 0:
        if excess(target) <= 0:
            return None
        temperature = float(brentq(excess, target, above, xtol=1e-10 * above, rtol=1e-10))
        excess(temperature)
    state = tied[temperature]
    ratios, axes = split_ratios(data, state, temperature)
    ratios[state.masses * samples < 1.5] = 0.0
    group = int(ratios.argmax())
    branch = _divided(data, state, group, axes[group], temperature)
    edge = _EDGE
    for _ in range(4):  # next to a slow continuous split the parts still count as coinciding
        near, parts, distance = _after(
            data, state, group, branch, temperature * (1.0 - edge), memory
        )
        if len(parts) > 1:
            break
        edge *= 3.0
    else:
        return None
    farther = _after(data, state, group, near.mixture, temperature * (1.0 - 4 * edge), memory)[2]
    # next to a continuous split the distance grows as the square root, after a jump hardly
    continuous = distance < 0.75 * farther
    change = GroupChange(
        temperature,
        SPLIT,
        0.0 if continuous else distance,
        continuous,
        float(state.masses[group]),
        tuple(float(m) for m in near.mixture.masses[parts]),
        axes[group],
    )
    return near, change


def _after(
    data: StandardData,
    state: Mixture,
    group: int,
    start: Mixture,
    temperature: float,
    memory: float,
) -> tuple[Solution, NDArray[np.intp], float]:
    """The branch below a split, the parts of the group there and how far they are apart."""
    solved = solve_equal(data, temperature, start, tied=True, memory=memory)
    gaps = np.linalg.norm(solved.mixture.values[:, None] - state.values[None], axis=2)
    parts = np.flatnonzero(gaps.argmin(axis=1) == group)
    spread = solved.mixture.values[parts] - solved.mixture.values[parts[:1]]
    distance = float(np.linalg.norm(spread, axis=1).max()) if len(parts) else 0.0
    return solved, parts, distance


def _divided(
    data: StandardData, mixture: Mixture, group: int, axis: Array, temperature: float
) -> Mixture:
    """The group in two parts along an axis, in whole tiles, in proportion to the data there."""
    samples = int(data.counts.sum())
    side = (data.rows - mixture.values[group]) @ axis
    exponent = -np.sum((data.rows - mixture.values[group]) ** 2, axis=1) / (2 * temperature)
    share = data.weights * np.exp(exponent - exponent.max())
    fraction = float(share[side > 0].sum() / share.sum())
    tiles = round(mixture.masses[group] * samples)
    number = int(np.clip(round(fraction * tiles), 1, tiles - 1))
    offset = 0.05 * np.sqrt(temperature) * axis
    first, second = number / samples, (tiles - number) / samples
    kept = np.arange(mixture.size) != group
    values = [
        mixture.values[group] + offset * second / (first + second),
        mixture.values[group] - offset * first / (first + second),
    ]
    return Mixture(
        np.concatenate([mixture.values[kept], values]),
        np.concatenate([mixture.masses[kept], [first, second]]),
    )
