import numpy as np
import pytest

from geco_theory.free_energy.data import StandardData
from geco_theory.free_energy.mixture import Mixture
from geco_theory.free_energy.solution import Solution
from geco_theory.npmle.solver import solve_free
from geco_theory.transitions.births import locate_births


@pytest.mark.parametrize(("name", "end"), [("standard_blobs", 0.2), ("standard_digits", 0.84)])
def test_the_number_of_values_changes_at_every_located_birth(
    name: str, end: float, request: pytest.FixtureRequest
) -> None:
    data: StandardData = request.getfixturevalue(name)

    def solve(temperature: float, near: Solution) -> Solution:
        return solve_free(data, temperature, near.mixture, tolerance=1e-9)

    one = Mixture(np.zeros((1, data.rows.shape[1])), np.ones(1))
    top = float(data.variances[0])
    high = solve_free(data, 0.9 * top, one, tolerance=1e-9)
    low = solve(end * top, high)
    found = locate_births(data, solve, high, low, 50)
    assert len(found) == low.mixture.size - high.mixture.size >= 2
    temperatures = [birth.temperature for birth in found]
    assert temperatures == sorted(temperatures, reverse=True)
    for number, birth in enumerate(found[:3]):
        assert birth.distance > 0
        below = solve(birth.temperature * (1 - 2e-5), low).mixture.size
        above = solve(birth.temperature * (1 + 2e-5), high).mixture.size
        assert (above, below) == (high.mixture.size + number, high.mixture.size + number + 1)


def test_the_limit_is_kept(standard_blobs: StandardData) -> None:
    def solve(temperature: float, near: Solution) -> Solution:
        return solve_free(standard_blobs, temperature, near.mixture)

    one = Mixture(np.zeros((1, 2)), np.ones(1))
    high = solve_free(standard_blobs, 0.6, one)
    low = solve(0.1, high)
    assert len(locate_births(standard_blobs, solve, high, low, 2)) == 2
    assert locate_births(standard_blobs, solve, high, high, 2) == []
