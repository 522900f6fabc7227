r"""Equal, fixed masses: one tile of latent space per sample, merged where tiles coincide.

Deterministic annealing (Rose, Gurewitz and Fox 1990; Rose 1998) with the masses held.

With fixed masses the free energy has many local minima and a branch is followed, not the optimum.
Coinciding tiles move as one of their summed mass; such a group must be tested for splitting
again, because its :math:`C_a` grows as its assignments soften: it is unstable when
:math:`\lambda_{\max}(C_a) > T` [D3]. Every step lowers the free energy and moves no value by more
than half of :math:`\sqrt T`, so that a branch is left only where it ends; convergence is judged by
the length of the Newton step, which is the error of the solution.
"""

from collections import Counter
from dataclasses import replace

import numpy as np

from geco_theory.deterministic_annealing.splitting import split_unstable
from geco_theory.free_energy.blahut_arimoto import moments
from geco_theory.free_energy.data import StandardData
from geco_theory.free_energy.mixture import Mixture, merge_coincident
from geco_theory.free_energy.newton_cg import FixedMasses, downward_direction, newton_step
from geco_theory.free_energy.solution import Solution

_MERGE = 1e-3  # in the root mean square of the data
_MAX_NEWTON = 300
_MAX_ROUNDS = 200
_ROUGH = 1e-3  # error of the values at which groups are first tested for splitting
_FIRST_MOVE, _LONGEST_MOVE = 0.25, 0.5  # of one value in one step, in sqrt(T)
_ROUNDING = 2e-15  # of F/T, relative


def solve_equal(
    data: StandardData,
    temperature: float,
    start: Mixture,
    *,
    tolerance: float = 1e-6,
    tied: bool = False,
    memory: float = 1024.0,
) -> Solution:
    """Follow a branch of fixed masses to one temperature.

    Args:
        data: The data.
        temperature: T, in standard units.
        start: The branch at a neighbouring temperature; masses are multiples of 1/n_samples.
        tolerance: Error of the decoder values that is aimed at, in standard units.
        tied: Keep groups of tiles together even where they have become unstable.
        memory: MiB for the posteriors of all pairs; where they are more, row blocks are used.
    """
    work: Counter[str] = Counter()
    mixture, converged = _relax(data, start, temperature, tolerance, work)
    # plain steps know nothing of stability: only tiles on their own are solved by them
    converged = converged and mixture.size == int(data.counts.sum())
    converged = converged and merge_coincident(mixture, _MERGE).size == mixture.size
    enough = tolerance if tied else max(_ROUGH, tolerance)
    for _ in range(0 if converged else _MAX_ROUNDS):
        model, reached = _descend(data, mixture, temperature, enough, memory, work)
        mixture = model.mixture
        split = None if tied else split_unstable(data, mixture, temperature, work)
        if split is None and reached and enough <= tolerance and not tied:
            split = _leave_saddle(data, model, memory, work)
        if split is not None:
            mixture = split
        elif enough <= tolerance:
            converged = reached
            break
        else:
            enough = tolerance
    state = moments(data, mixture, temperature)
    return Solution(
        temperature,
        mixture.sorted_by_mass(),
        state.free_energy,
        state.distortion,
        state.rate,
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
    tolerance: float,
    memory: float,
    work: Counter[str],
) -> tuple[FixedMasses, bool]:
    """Newton steps on the values until what is left of them is shorter than `tolerance`.

    Returns:
        The free energy at the last values, and whether that was reached.
    """

    def at(trial: Mixture) -> FixedMasses:
        work["passes"] += 1
        return FixedMasses(data, trial, temperature, memory)

    model = at(merge_coincident(mixture, _MERGE))
    reach = float(np.sqrt(temperature))
    radius, before, shortened = _FIRST_MOVE * reach, np.inf, False
    for _ in range(_MAX_NEWTON):
        slope = np.sqrt(model.inner(model.pull, model.pull))
        relative = float(np.clip(np.sqrt(slope), 1e-3, 0.1))
        step = newton_step(model, radius, relative, 10 * tolerance)
        work["newton"] += 1
        work["products"] += step.products
        length = step.longest
        trial = Mixture(model.mixture.values + step.move, model.mixture.masses)
        ahead = at(trial)
        rounding = _ROUNDING * max(1.0, abs(model.height))
        kept = (model.height - ahead.height + rounding) / max(step.fall, rounding)
        if kept < 0.05:
            work["rejected"] += 1
            if not step.bounded and length < tolerance:
                return model, True
            if length < 1e-9 * reach:
                break
            radius, shortened = 0.3 * length, True
            continue
        if kept > 0.7 and step.bounded and not shortened:
            radius = min(2 * radius, _LONGEST_MOVE * reach)
        elif kept < 0.25:
            radius = 0.5 * length
        shortened = False
        merged = merge_coincident(trial, _MERGE)
        if merged.size != trial.size:
            model, before = at(merged), np.inf
            continue
        model = ahead
        if not step.bounded:
            # once the steps shrink fast, what is left is shorter than the last one in proportion
            shrunk = min(1.0, length / before) if np.isfinite(before) else 1.0
            if length < tolerance or length * shrunk < 0.1 * tolerance:
                return model, True
        before = np.inf if step.bounded else length
    return model, False


def _leave_saddle(
    data: StandardData, model: FixedMasses, memory: float, work: Counter[str]
) -> Mixture | None:
    """Values moved off a saddle to where F is lower; None at a minimum, as far as can be told."""
    direction = downward_direction(model)
    work["saddle tests"] += 1
    if direction is None:
        return None
    reach = float(np.sqrt(model.temperature))
    for length in (0.1, -0.1, 0.01, -0.01, 1e-3, -1e-3):
        values = model.mixture.values + length * reach * direction
        trial = Mixture(values, model.mixture.masses)
        there = FixedMasses(data, trial, model.temperature, memory).height
        if there < model.height - 10 * _ROUNDING * max(1.0, abs(model.height)):
            return trial
    return None
