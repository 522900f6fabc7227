r"""Births of decoder values in the global optimum, located on the certificate [D9].

A value is born where a local maximum of :math:`\ln D` that is no value reaches 0 on cooling. Above
that temperature the maximum can be followed: :math:`\varphi(T) = \ln D(\hat y(T); T) < 0`, smooth
in T, and the birth is its root.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from geco_theory._typing import Array
from geco_theory.free_energy.data import StandardData
from geco_theory.free_energy.solution import Solution
from geco_theory.npmle.mean_shift import climb_to_maximum
from geco_theory.transitions.bracketing import brackets, match

_WIDTH = 1e-7  # relative width at which an interval is left as it is
_ACCURACY = 1e-6  # relative, of a birth
_SAME_VALUE = 0.02  # in sqrt(T)
Solve = Callable[[float, Solution], Solution]


@dataclass(frozen=True)
class Birth:
    """One birth, in standard units.

    Args:
        temperature: T of the birth.
        value: (r,) where the value appears.
        nearest: (r,) the nearest older value.
        parent_mass: Mass of that older value.
    """

    temperature: float
    value: Array
    nearest: Array
    parent_mass: float

    @property
    def distance(self) -> float:
        """From the new value to the nearest older one."""
        return float(np.linalg.norm(self.value - self.nearest))


def locate_births(
    data: StandardData, solve: Solve, upper: Solution, lower: Solution, limit: int
) -> list[Birth]:
    """All births between two solved temperatures, highest first.

    Args:
        data: The data.
        solve: Solves a temperature, starting from a given solution.
        upper: The solution at the higher temperature.
        lower: The solution at the lower temperature, with more values.
        limit: How many births to locate at most.
    """
    found: list[Birth] = []
    pairs = brackets(
        lambda temperature, high, _: solve(temperature, high),
        upper,
        lower,
        lambda number, width: number == 1 or width < _WIDTH,
    )
    while len(found) < limit and (pair := next(pairs, None)):
        found.extend(_between(data, solve, *pair))
    return found[:limit]


def _between(data: StandardData, solve: Solve, high: Solution, low: Solution) -> list[Birth]:
    """The births of values that exist at `low` and not at `high`."""
    born = _newborn(high, low)
    if len(born) == 1:
        birth = _smooth_root(data, solve, high, low, born[0])
        birth = birth or _root_of_mass(solve, high, low, born[0])
        if birth is not None:
            return [birth]
    while np.log(high.temperature / low.temperature) > _WIDTH:  # no smooth root: halve
        middle = solve(float(np.sqrt(high.temperature * low.temperature)), high)
        if middle.mixture.size > high.mixture.size:
            low = middle
        else:
            high = middle
    return [_birth(low.temperature, point, high) for point in _newborn(high, low)]


def _smooth_root(
    data: StandardData, solve: Solve, high: Solution, low: Solution, point: Array
) -> Birth | None:
    """The root of the height of one maximum; None if it cannot be followed.

    Below the birth the mass of the new value, which grows in proportion, shows where to look;
    above it the heights themselves do.
    """
    height, above = _height(data, high, point)
    heights = [(high.temperature, height)] if np.isfinite(height) else []
    masses = [(low.temperature, _mass_near(low, point))]
    root = np.nan
    for _ in range(20):
        if len(heights) >= 2:
            before, root = root, _secant(heights)
            inside = low.temperature < root * (1 + _ACCURACY) and root <= high.temperature
            close = abs(root - before) < _ACCURACY * root or abs(heights[-1][1]) < 1e-9
            if inside and close:
                return _birth(root, above, high)
            guess = root + 0.05 * max(heights[-1][0] - root, 1e-6 * root)
        elif len(masses) >= 2:
            guess = _secant(masses) * (1.0 + 1e-3)
        else:
            guess = np.sqrt(high.temperature * low.temperature)
        if not low.temperature < guess < high.temperature:
            guess = np.sqrt(high.temperature * low.temperature)
        if np.log(high.temperature / low.temperature) < _WIDTH:
            return _birth(root, above, high) if len(heights) >= 2 else None
        middle = solve(float(guess), high)
        if middle.mixture.size > high.mixture.size:
            low = middle
            masses.append((low.temperature, _mass_near(low, point)))
            continue
        height, above = _height(data, middle, _nearest(low, point))
        if not np.isfinite(height):
            return None
        heights.append((middle.temperature, height))
        high = middle
    return None


def _root_of_mass(solve: Solve, high: Solution, low: Solution, point: Array) -> Birth | None:
    """Where the mass of the new value vanishes: for a maximum that exists below the birth only."""
    masses = [(low.temperature, _mass_near(low, point))]
    root = np.nan
    for _ in range(20):
        guess = np.sqrt(high.temperature * low.temperature)
        if len(masses) >= 2:
            before, root = root, _secant(masses)
            inside = low.temperature <= root <= high.temperature
            if inside and abs(root - before) < _ACCURACY * root:
                return _birth(root, point, high)
            guess = root - 0.05 * max(root - masses[-1][0], 1e-6 * root)
        if not low.temperature < guess < high.temperature:
            guess = np.sqrt(high.temperature * low.temperature)
        if np.log(high.temperature / low.temperature) < _ACCURACY:
            return _birth(low.temperature, point, high)
        middle = solve(float(guess), low)
        if middle.mixture.size > high.mixture.size:
            born = _newborn(high, middle)
            if len(born) != 1:
                return None
            low, point = middle, born[0]
            masses.append((low.temperature, _mass_near(low, point)))
        else:
            high = middle
    return None


def _nearest(solution: Solution, point: Array) -> Array:
    gaps = np.linalg.norm(solution.mixture.values - point, axis=1)
    return np.asarray(solution.mixture.values[gaps.argmin()])


def _mass_near(solution: Solution, point: Array) -> float:
    gaps = np.linalg.norm(solution.mixture.values - point, axis=1)
    return float(solution.mixture.masses[gaps.argmin()])


def _secant(history: list[tuple[float, float]]) -> float:
    (t0, h0), (t1, h1) = history[-2:]
    return float(t1 - h1 * (t1 - t0) / (h1 - h0)) if h1 != h0 else float(t1)


def _height(data: StandardData, solution: Solution, start: Array) -> tuple[float, Array]:
    """Ln D at the local maximum above `start`, infinity if that is a value; and the maximum."""
    point, height = climb_to_maximum(data, solution.mixture, solution.temperature, start)
    gaps = np.linalg.norm(solution.mixture.values - point, axis=1)
    if gaps.min() < _SAME_VALUE * np.sqrt(solution.temperature):
        return np.inf, point
    return height, point


def _newborn(high: Solution, low: Solution) -> Array:
    """The values at `low` that are left over when those at `high` are matched to the nearest."""
    left = match(low.mixture.values, high.mixture.values)[1]
    return np.asarray(low.mixture.values[left])


def _birth(temperature: float, point: Array, high: Solution) -> Birth:
    gaps = np.linalg.norm(high.mixture.values - point, axis=1)
    parent = int(gaps.argmin())
    return Birth(
        temperature, point, high.mixture.values[parent], float(high.mixture.masses[parent])
    )
