import itertools
import math

import numpy as np

from geco_theory.free_energy.mixture import Mixture
from geco_theory.free_energy.solution import Solution
from geco_theory.transitions.bracketing import brackets, match

CHANGES = (0.31, 0.5, 0.52, 0.9)


def at(temperature: float) -> Solution:
    """A solution with one value more below each of the changes."""
    k = 1 + sum(temperature < change for change in CHANGES)
    mixture = Mixture(np.arange(float(k))[:, None], np.full(k, 1.0 / k))
    return Solution(temperature, mixture, 0.0, 0.0, 0.0, 0.0, True)


def test_every_change_is_bracketed_hottest_first() -> None:
    found = list(
        brackets(lambda t, high, low: at(t), at(1.0), at(0.1), lambda n, width: width < 1e-4)
    )
    assert [
        any(low.temperature < change <= high.temperature for change in CHANGES)
        for high, low in found
    ] == [True] * len(CHANGES)
    assert all(math.log(high.temperature / low.temperature) < 1e-4 for high, low in found)
    assert all(a[1].temperature >= b[0].temperature for a, b in itertools.pairwise(found))


def test_the_middle_is_solved_between_its_neighbours() -> None:
    def solve(t: float, high: Solution, low: Solution) -> Solution:
        assert low.temperature < t < high.temperature
        return at(t)

    pairs = list(brackets(solve, at(1.0), at(0.1), lambda n, width: n == 1))
    assert [low.mixture.size - high.mixture.size for high, low in pairs] == [1, 1, 1, 1]


def test_matching_is_the_best_of_all_permutations_and_names_who_is_left() -> None:
    rng = np.random.default_rng(0)
    many, few = rng.normal(size=(5, 2)), rng.normal(size=(3, 2))
    taken, left, gaps = match(many, few)
    np.testing.assert_allclose(gaps, np.linalg.norm(many[:, None] - few[None], axis=2))
    best = min(
        itertools.permutations(range(5), 3),
        key=lambda chosen: sum(gaps[a, b] ** 2 for b, a in enumerate(chosen)),
    )
    assert tuple(taken) == best
    assert sorted([*taken, *left]) == [0, 1, 2, 3, 4]
