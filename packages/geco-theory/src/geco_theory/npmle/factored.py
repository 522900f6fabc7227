"""The global optimum at one temperature: free masses, with its certificate [D9].

Rounds of: plain steps, Newton steps on values and masses together (`joint_newton`), ascent for
the certificate, births where it exceeds 1. Values that are about to coincide are merged; if that
was wrong the certificate says so, and the next round merges more carefully.
"""

from collections import Counter

import numpy as np

from geco_theory._typing import Array
from geco_theory.free_energy.blahut_arimoto import moments, responsibilities
from geco_theory.free_energy.data import StandardData
from geco_theory.free_energy.mixture import LEAST_MASS, Mixture, merge_coincident
from geco_theory.free_energy.solution import Solution
from geco_theory.npmle.certificate import ascend, births
from geco_theory.npmle.joint_newton import NewtonSystem
from geco_theory.npmle.support import give_birth, reduce_support

_MERGE = (0.1, 0.03, 0.01, 3e-3)  # in sqrt(T), by round
_BESIDE = (-0.8, -0.4, -0.2, -0.1, -0.05, 0.05, 0.1, 0.2, 0.4, 0.8)
_MAX_NEWTON = 40
_MAX_REDUCTIONS = 2
_SETTLED = 1e-18  # fall of f that is only rounding
_PLAIN_STEPS = 4
_GENTLE = 0.1  # far from the optimum no mass falls by more than this factor at once


def solve_factored(
    data: StandardData, temperature: float, start: Mixture, tolerance: float, max_rounds: int
) -> Solution:
    """Rounds of Newton steps, certificate and births."""
    work: Counter[str] = Counter()
    mixture = start.normalised()
    starts = np.concatenate([data.rows, data.group_means])
    reach = np.sqrt(temperature)
    for attempt in range(max_rounds):
        work["rounds"] += 1
        merge = _MERGE[min(attempt, len(_MERGE) - 1)] * reach
        mixture, fall = _relax(data, mixture, temperature, 1 if attempt else _PLAIN_STEPS, work)
        mixture = merge_coincident(mixture, merge)
        soft, exact = np.empty((0, data.rows.shape[1])), True
        if attempt or fall > 1e-7 * tolerance:
            mixture, soft, exact = _polish(
                data, mixture, temperature, merge, 0.1 * tolerance, work
            )
        state = moments(data, mixture, temperature)
        wanted = max(tolerance - state.rounding, 0.5 * tolerance)
        maxima = ascend(
            data,
            state.log_z,
            temperature,
            starts,
            known=mixture.values,
            delicate=soft,
            accuracy=0.1 * wanted,
            climb_known=not exact,
        )
        if maxima.log_supremum <= wanted:
            break
        new = births(maxima, mixture, temperature, 0.3 * wanted)
        if len(new):
            mixture = give_birth(data, state.log_z, temperature, mixture, new)
            work["births"] += len(new)
    return Solution.of(temperature, mixture, state, maxima.log_supremum, tolerance, dict(work))


def _relax(
    data: StandardData,
    mixture: Mixture,
    temperature: float,
    steps: int,
    work: Counter[str],
) -> tuple[Mixture, float]:
    """Plain steps of Eqs. (3) and (4) with the masses following (Blahut-Arimoto).

    Returns:
        The mixture, and by how much f fell in the last step.
    """
    previous, fall = np.inf, np.inf
    for step in range(8):
        state = moments(data, mixture, temperature)
        work["passes"] += 1
        last, fall = fall, previous - state.free_energy / temperature
        previous = state.free_energy / temperature
        mixture = state.next()
        mixture = mixture.select(mixture.masses > LEAST_MASS).normalised()
        if step + 1 >= steps and not (fall < 0.05 * last and fall > 1e-15):
            break  # goes on only while it converges fast by itself, as at low temperatures
    return mixture, fall


def _polish(
    data: StandardData,
    mixture: Mixture,
    temperature: float,
    merge: float,
    enough: float,
    work: Counter[str],
) -> tuple[Mixture, Array, bool]:
    """Newton steps, each lowering f, until ln D at the values is below `enough`.

    Returns:
        The mixture, points beside the values with the softest curvature, and whether ln D at the
        values is that small.
    """
    system: NewtonSystem | None = None
    before, excess, reductions, settled = np.inf, np.inf, 0, False
    for _ in range(_MAX_NEWTON):
        q, log_z = responsibilities(data.rows, mixture, temperature)
        here = float(-data.weights @ log_z + mixture.masses.sum())
        lost = data.weights @ q < 0.01 * LEAST_MASS
        if lost.any():  # a value that no data point is near to
            mixture, system = mixture.select(~lost), None
            continue
        work["newton"] += 1
        if system is None:
            least = float(np.clip(np.sqrt(before), 1e-5, 0.02))
            system = NewtonSystem.at(data, mixture, temperature, q, least)
            work["systems"] += 1
        floor = _GENTLE if before > 1e-4 else 0.0
        step = system.direction(data, mixture, temperature, q, floor)
        fall = -step.slope
        settled = step.excess < enough
        if 0 <= fall < _SETTLED and (settled or step.excess > 0.5 * excess):
            break  # f cannot fall any more, and the gradient does not either
        excess = step.excess
        length = 1.0
        while length > 1e-3 and fall >= 0:
            masses = mixture.masses + length * step.masses
            alive = masses > LEAST_MASS
            trial = Mixture((mixture.values + length * step.values)[alive], masses[alive])
            state = moments(data, trial, temperature)
            work["passes"] += 1
            there = state.free_energy / temperature + float(trial.masses.sum())
            if there <= here - 1e-4 * length * fall + 1e-15:
                break
            length *= 0.4
        else:  # no descent: too many values that do the same
            if settled:
                break
            if reductions < _MAX_REDUCTIONS:
                mixture = reduce_support(data, mixture, temperature, work)
                reductions += 1
            mixture, _ = _relax(data, mixture, temperature, 3, work)
            system, before = None, np.inf
            continue
        if settled:  # the last step, which squares what error is left
            mixture, system = trial.normalised(), system.select(alive)
            break
        merged = merge_coincident(trial, merge)
        stale = fall > 0.3 * before or length < 1.0 or not np.isfinite(before)
        mixture = merged.normalised()
        before = fall
        system = None if stale or merged.size != trial.size else system.select(alive)
    soft = (
        np.empty((0, data.rows.shape[1]))
        if system is None
        else _soft(system, mixture, temperature)
    )
    return mixture, soft, settled


def _soft(system: NewtonSystem, mixture: Mixture, temperature: float) -> Array:
    """Points on both sides of each value whose curvature nearly vanishes somewhere."""
    if len(system.gram) != mixture.size:
        return np.empty((0, mixture.values.shape[1]))
    vectors = np.ones(mixture.values.shape)
    for _ in range(8):
        vectors /= np.linalg.norm(vectors, axis=1)[:, None]
        ahead = system.curvature.apply(vectors)
        top = np.einsum("ij,ij->i", vectors, ahead)
        vectors = ahead
    vectors /= np.linalg.norm(vectors, axis=1)[:, None]
    chosen = top > 20.0
    offset = np.sqrt(temperature) * vectors[chosen]
    values = mixture.values[chosen]
    return np.concatenate([values + size * offset for size in _BESIDE])
