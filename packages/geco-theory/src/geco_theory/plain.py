r"""Free masses where the data are too many for a factored Newton step.

Blahut-Arimoto with free support, squared extrapolation (in the values and the logarithms of the
masses) guarded by F, and births from a certificate whose ascents start at a sample of the data.
Nothing larger than one block of rows by the number of values is ever held.
"""

from collections import Counter

import numpy as np

from geco_theory.certificate import Maxima, ascend
from geco_theory.kernels import Moments, moments
from geco_theory.mixtures import Mixture
from geco_theory.standard_data import Array, StandardData

_LEAST_MASS = 1e-10


def accelerate(
    data: StandardData,
    mixture: Mixture,
    temperature: float,
    enough: float,
    max_cycles: int,
    work: Counter[str],
) -> Mixture:
    """Squared steps until a cycle lowers F/T by less than `enough`; F never rises."""
    state = _pass(data, mixture, temperature, work)
    for cycle in range(max_cycles):
        first = _next(state)
        middle = _pass(data, first, temperature, work)
        second = _next(middle)
        trial = _extrapolate(mixture, first, second, 2.0 ** (cycle + 2))
        ahead = _pass(data, trial, temperature, work)
        if ahead.free_energy > middle.free_energy:
            trial, ahead = second, _pass(data, second, temperature, work)
        fall = (state.free_energy - ahead.free_energy) / temperature
        mixture, state = trial, ahead
        if fall < enough:
            break
        light = mixture.masses < _LEAST_MASS
        if light.any():
            mixture = mixture.select(~light).normalised()
            state = _pass(data, mixture, temperature, work)
    return mixture


def sampled_maxima(
    data: StandardData,
    state: Moments,
    temperature: float,
    mixture: Mixture,
    starts: Array,
    tolerance: float,
) -> Maxima:
    """The certificate with ascents from `starts` only."""
    return ascend(
        data,
        state.log_z,
        temperature,
        starts,
        known=mixture.values,
        accuracy=0.05 * tolerance,
    )


def _pass(data: StandardData, mixture: Mixture, temperature: float, work: Counter[str]) -> Moments:
    work["passes"] += 1
    return moments(data, mixture, temperature, block_rows=512)


def _next(state: Moments) -> Mixture:
    """The plain step: Eq. (4) and the masses that the data give."""
    return Mixture(state.means, np.maximum(state.mass, 1e-300)).normalised()


def _extrapolate(start: Mixture, first: Mixture, second: Mixture, most: float) -> Mixture:
    """The squared extrapolation of three iterates, in the values and the log masses."""
    weight = np.sqrt(start.masses)[:, None]

    def stack(mixture: Mixture) -> Array:
        return np.concatenate([mixture.values, np.log(mixture.masses)[:, None]], axis=1)

    one = stack(first) - stack(start)
    change = stack(second) - stack(first) - one
    length = float(np.linalg.norm(weight * one))
    bend = float(np.linalg.norm(weight * change))
    stretch = min(max(length / max(bend, 1e-300), 1.0), most)
    ahead = stack(start) + 2 * stretch * one + stretch**2 * change
    masses = np.exp(np.clip(ahead[:, -1], -600, 0.0))
    return Mixture(np.ascontiguousarray(ahead[:, :-1]), masses).normalised()
