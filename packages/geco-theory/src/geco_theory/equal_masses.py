"""Equal, fixed masses: one tile of latent space per sample, merged where tiles coincide."""

import numpy as np
from scipy import linalg

from geco_theory.kernels import moments, responsibilities
from geco_theory.mixtures import Mixture, merge_coincident
from geco_theory.solutions import Solution
from geco_theory.standard_data import StandardData

_MERGE = 1e-3


def solve_equal(
    data: StandardData,
    temperature: float,
    start: Mixture,
    *,
    tolerance: float = 1e-9,
    max_steps: int = 5000,
) -> Solution:
    """Iterate Eqs. (3) and (4) with fixed masses from `start`, merging coincident tiles."""
    mixture, converged, steps = start, False, 0
    for steps in range(1, max_steps + 1):
        state = moments(data, mixture, temperature)
        move = float(np.abs(state.means - mixture.values).max())
        mixture = Mixture(state.means, mixture.masses)
        if steps % 10 == 0:
            mixture = merge_coincident(mixture, _MERGE * np.sqrt(temperature))
        if move < tolerance:
            converged = True
            break
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
        {"passes": steps},
    )


def split_ratios(data: StandardData, mixture: Mixture, temperature: float) -> np.ndarray:
    r""":math:`\lambda_{\max}(C_a)/T` of every tile [D3], shape (k,)."""
    q, _ = responsibilities(data.rows, mixture, temperature)
    share = q * data.weights[:, None]
    share /= share.sum(axis=0)
    ratios = np.empty(mixture.size)
    for a in range(mixture.size):
        gap = data.rows - mixture.values[a]
        ratios[a] = linalg.eigvalsh((gap * share[:, a, None]).T @ gap)[-1] / temperature
    return ratios
