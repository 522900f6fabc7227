r"""The certificate of the global optimum, and the births that it points to [D9].

The gradient function of the NPMLE (Lindsay 1983), the optimality condition of Kiefer and Wolfowitz
(1956); as a bound on the rate it is the dual of Csiszar (1974).

A distribution of decoder values is optimal iff :math:`S = \sup_y D(y) \le 1`,

.. math:: D(y) = \sum_i w_i e^{-|x_i - y|^2 / 2T} / Z_i .

The supremum is looked for by ascent from the data points and the decoder values: the step
:math:`y \leftarrow \sum_i r_i x_i / \sum_i r_i`, with :math:`r_i` the terms of the sum, never
lowers D. This is a strong test, not a proof. The ascents are extrapolated (squared steps, taken
back when D falls), and run in single precision until they meet each other or a known maximum;
every height that is reported is computed in double precision.
"""

from dataclasses import dataclass

import numpy as np

from geco_theory._typing import Array
from geco_theory.free_energy.data import StandardData
from geco_theory.free_energy.mixture import Mixture
from geco_theory.npmle.mean_shift import Landscape, captured, climb, distinct, newton_ascent

_BULK_CYCLES = 40
_FIRST_CYCLES = 16  # after which Newton steps take those that still climb
_FINE_CYCLES = 400
_CAPTURE = 0.05  # in sqrt(T): a climb this near to a known maximum has arrived there
_SAME = 0.02  # in sqrt(T): climbs this near to each other go on as one
_HOPELESS = 0.01  # below -this in ln D the end of a climb in single precision is left


@dataclass(frozen=True)
class Maxima:
    r"""Local maxima of D that the ascents ended in.

    Args:
        points: (p, r) where they are, highest first.
        log_d: (p,) :math:`\ln D` there.
    """

    points: Array
    log_d: Array

    @property
    def log_supremum(self) -> float:
        r"""The largest :math:`\ln D` found: :math:`\ln S`."""
        return float(self.log_d[0]) if len(self.log_d) else -np.inf

    def joined(self, other: "Maxima") -> "Maxima":
        """Both, highest first."""
        points = np.concatenate([self.points, other.points])
        log_d = np.concatenate([self.log_d, other.log_d])
        order = np.argsort(-log_d, kind="stable")
        return Maxima(points[order], log_d[order])


def ascend(
    data: StandardData,
    log_z: Array,
    temperature: float,
    starts: Array,
    *,
    known: Array | None = None,
    delicate: Array | None = None,
    accuracy: float = 1e-10,
    capture: float = 5e-3,
    climb_known: bool = False,
    refine: bool = True,
    cycles: int = _BULK_CYCLES,
    hopeless: float = np.inf,
    workers: int = 1,
) -> Maxima:
    """Ascend from every start.

    Args:
        data: The data.
        log_z: (n,) ln Z of the solution.
        temperature: T, in standard units.
        starts: (p, r) points to climb from.
        known: (k, r) maxima that are known already; climbs that come near one end there.
        delicate: (p, r) further starts beside values, climbed from only where ln D is above 0.
        accuracy: Gain in ln D that a climb may still have before it when it is left.
        capture: How near that is for a climb in double precision, in units of sqrt(T).
        climb_known: Climb from `known` as well: needed where they are decoder values that are
            not at their maxima yet, beside which D can be larger than at them.
        refine: Whether the climbs that may end above 0 go on in double precision; without, they
            end within about 1e-5 below the maxima.
        cycles: Extrapolated steps, at most, in single precision.
        hopeless: How far below 0 in ln D climbs are given up, see `climb`.
        workers: Threads.
    """
    none = np.empty((0, starts.shape[1]))
    known = none if known is None else known
    bulk = Landscape(data, log_z, temperature, np.float32, workers)
    fine = Landscape(data, log_z, temperature, workers=workers)
    reach = np.sqrt(temperature)
    early = max(_CAPTURE, capture) if capture > 2e-3 else capture
    settled, going = climb(bulk, starts, known, cycles, max(accuracy, 1e-5), early, hopeless)
    if refine:  # what has settled far below 0 gains no more than the accuracy of that
        settled = settled[bulk.step(settled)[0] > -_HOPELESS - 3 * max(accuracy, 1e-5)]
    points = np.concatenate([settled, going])
    points = points[~captured(points, known, early * reach)]
    if delicate is not None and len(delicate):
        rising = fine.step(delicate)[0] > 0.1 * accuracy
        points = np.concatenate([points, delicate[rising]])
    if len(points):
        points = points[distinct(points, bulk.step(points)[0], 0.1 * _SAME * reach)]
        if refine:
            settled, going = climb(fine, points, known, _FIRST_CYCLES, accuracy, capture)
            going = newton_ascent(fine, going, accuracy)
            rest = climb(fine, going, known, _FINE_CYCLES, accuracy, capture)
            points = np.concatenate([settled, *rest])
    if climb_known:
        points = np.concatenate(
            [points, *climb(fine if refine else bulk, known, none, 20, accuracy, 1e-4)]
        )
    points = np.concatenate([points, known])
    log_d = fine.step(points)[0]
    kept = distinct(points, log_d, 5e-3 * reach)
    return Maxima(points[kept], log_d[kept])


def births(
    maxima: Maxima, mixture: Mixture, temperature: float, excess: float, apart: float = 5e-3
) -> Array:
    """The maxima with ln D above `excess` that are no decoder value already, shape (b, r).

    Args:
        maxima: Maxima of D.
        mixture: The decoder values.
        temperature: T, in standard units.
        excess: ln D above which a value is missing.
        apart: How near to a value a maximum is that value, in sqrt(T).
    """
    points = maxima.points[maxima.log_d > excess]
    return points[~captured(points, mixture.values, apart * np.sqrt(temperature))]
