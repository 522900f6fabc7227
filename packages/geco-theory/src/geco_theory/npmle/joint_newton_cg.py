r"""Newton steps on decoder values and masses together, by conjugate gradients.

For data too many for the factored system of `joint_newton`. The function is the one of there,
:math:`f = -\sum_i w_i \ln Z_i + \sum_a \pi_a`, in the values and the logarithms
:math:`\eta_a` of the masses; with :math:`m_a = \sum_i w_i q_{ia}` and
:math:`\gamma_{ia} = (x_i - \psi_a) \cdot v_a / T + s_a` for a step (v, s),

.. math::
    \frac{\partial f}{\partial \eta_a} = \pi_a - m_a, \qquad
    (H(v, s))_{\eta_a} = \pi_a s_a
        - \sum_i w_i q_{ia} \Bigl(\gamma_{ia} - \sum_b q_{ib} \gamma_{ib}\Bigr),

and the part of the values as in `free_energy.newton_cg`. A product costs what it costs there.
"""

from collections import Counter

import numpy as np

from geco_theory._typing import Array
from geco_theory.free_energy.data import StandardData
from geco_theory.free_energy.mixture import LEAST_MASS, Mixture
from geco_theory.free_energy.newton_cg import FixedMasses, Floats, newton_step

_LEAST_SHARE = 1e-6  # of its mass that the metric of a value is at least
_FIRST_RADIUS = 1.0  # in sqrt(T): longest move of one value, and of a log mass
_LARGEST_RADIUS = 2.0
_SHORT = 0.02  # in sqrt(T): a Newton step this short leaves an error of about its square
_RELATIVE = 0.1  # residual at which a step is good enough


class MovingMasses(FixedMasses):
    r"""f at one mixture.

    Vectors have one more column than there are axes: :math:`s_a \sqrt{T}`, so that lengths
    are comparable.
    """

    def __init__(
        self,
        data: StandardData,
        mixture: Mixture,
        temperature: float,
        still: float = 0.0,
        memory: float = 1024.0,
        workers: int = 1,
    ) -> None:
        super().__init__(data, mixture, temperature, memory, workers)
        self._reach = float(np.sqrt(temperature))
        self.height += float(mixture.masses.sum())
        # the metric: the posterior mass, but not so small that quotients by it overflow
        metric = np.maximum(self.mass, _LEAST_SHARE * mixture.masses)
        share = self.mass / metric
        to_mass = self._reach * (self.mass - mixture.masses) / metric
        pull = np.column_stack([share[:, None] * self.pull, to_mass])
        self.moving = np.flatnonzero(np.linalg.norm(pull, axis=1) > still * self._reach)
        self.pull, self.values = pull[self.moving], self.values[self.moving]
        self.mass, self._share = metric[self.moving], share[self.moving]
        self._ratio = mixture.masses[self.moving] / self.mass
        self._q = {index: q[:, self.moving] for index, q in self._q.items()}

    def curved(self, vectors: Array) -> Array:
        """The Hessian over m / T times one vector per value, (k, r + 1)."""
        logs = vectors[:, -1] / self._reach
        ahead, change = self._curved(vectors[:, :-1], logs)
        ahead -= (1.0 - self._share)[:, None] * vectors[:, :-1]
        return np.column_stack([ahead, self._reach * self._ratio * logs - change / self._reach])

    def moved(self, move: Array) -> Mixture:
        """The mixture after a step (k, r + 1), without values that lose their mass."""
        values, masses = self.mixture.values.copy(), self.mixture.masses.copy()
        values[self.moving] += move[:, :-1]
        masses[self.moving] *= np.exp(move[:, -1] / self._reach)
        return Mixture(values, masses).select(masses > LEAST_MASS)

    def _posterior(self, block: slice) -> Floats:
        return super()._posterior(block)[:, self.moving]


def descend(
    data: StandardData,
    mixture: Mixture,
    temperature: float,
    max_steps: int,
    work: Counter[str],
    still: float = 0.0,
    memory: float = 1024.0,
    workers: int = 1,
) -> Mixture:
    """Newton steps in a trust region until one is short; f never rises.

    Args:
        data: The data.
        mixture: Where to begin.
        temperature: T, in standard units.
        max_steps: Steps at most.
        work: Counts, added to.
        still: Values whose plain step is shorter, in sqrt(T), are left out of a step; none is
            taken where that leaves none.
        memory: MiB of posteriors to keep.
        workers: Threads.
    """
    reach = float(np.sqrt(temperature))
    radius = _FIRST_RADIUS * reach
    model = MovingMasses(data, mixture, temperature, still, memory, workers)
    for _ in range(max_steps):
        if len(model.moving) == 0:
            break
        step = newton_step(model, radius, _RELATIVE, _SHORT * reach)
        ahead = MovingMasses(data, model.moved(step.move), temperature, still, memory, workers)
        work["newton"] += 1
        work["products"] += step.products
        fall = model.height - ahead.height
        if fall < 0.25 * step.fall:
            radius = 0.25 * min(radius, step.longest)
        elif fall > 0.75 * step.fall and step.bounded:
            radius = min(2.0 * radius, _LARGEST_RADIUS * reach)
        if fall > 0.0:
            model = ahead
        if step.longest < _SHORT * reach and not step.downward:
            break
    return model.mixture.normalised()
