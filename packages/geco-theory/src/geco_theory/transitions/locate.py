"""Transitions below the top one, from the highest down, between the temperatures of a path."""

import itertools
from collections.abc import Iterator, Sequence

from geco_theory.continuation import Solver
from geco_theory.free_energy.solution import Solution
from geco_theory.transitions.births import Birth, locate_births
from geco_theory.transitions.splits import GroupChange, locate_merges
from geco_theory.transitions.stability import OneValueLimit

_RESOLVED = 60  # values above which births are too many to be listed


def births_below(
    solver: Solver, path: Sequence[Solution], limit: OneValueLimit, number: int
) -> Iterator[tuple[list[Birth], Solution]]:
    """Births of a path of free masses below the top one, as far as they can be told apart.

    Args:
        solver: How one temperature is solved.
        path: Solutions, hottest first.
        limit: The top transition.
        number: How many births to locate at most.

    Yields:
        The births between two neighbours of the path, and the colder one of the two.
    """
    left = number
    for high, low in itertools.pairwise(path):
        if left <= 0 or low.mixture.size > _RESOLVED:
            break
        upper = high
        if high.temperature > limit.temperature > low.temperature:
            upper = _below_top(solver, limit, low)
        elif high.mixture.size == 1:
            continue
        found = locate_births(
            solver.data, lambda t, near: solver.solve(t, near.mixture), upper, low, left
        )
        left -= len(found)
        yield found, low


def _below_top(solver: Solver, limit: OneValueLimit, low: Solution) -> Solution:
    """A solution just below the top transition, with more than one value."""
    for step in (1e-6, 1e-4, 1e-3, 1e-2):
        temperature = limit.temperature * (1.0 - step)
        if temperature <= low.temperature:
            break
        solution = solver.solve(temperature, solver.one_value())
        if solution.mixture.size > 1:
            return solution
    return low


def merges_below(
    solver: Solver, path: Sequence[Solution], number: int
) -> Iterator[tuple[list[GroupChange], Solution]]:
    """Merges of a heating path of equal masses.

    Args:
        solver: How one temperature is solved.
        path: Solutions, hottest first.
        number: How many merges to locate at most.

    Yields:
        The merges between two neighbours of the path, and the colder one of the two.
    """
    left = number
    for high, low in itertools.pairwise(path):
        if left <= 0:
            break
        found = locate_merges(solver.data, solver.solve, low, high, left)
        left -= len(found)
        yield found, low
