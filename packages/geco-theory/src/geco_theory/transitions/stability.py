r"""Where the one-value solution stops being stable, and where it stops being optimal.

With centred data and one decoder value at the mean, [D9] reads: one value is optimal iff

.. math:: \sup_y \ln \sum_i w_i e^{(x_i \cdot y - |y|^2/2) / T} \le 0 .

For a fixed y the left side is convex in 1/T, zero at 1/T = 0 and falling there, so it has at most
one more zero :math:`T(y)`, and the one-value solution ends at :math:`\sup_y T(y)`. The
supremum is approached from below: ascend to the best y at the present T, move T to T(y), repeat.
"""

from dataclasses import dataclass

import numpy as np
from scipy import optimize, special
from threadpoolctl import threadpool_limits

from geco_theory._typing import Array
from geco_theory.free_energy.data import StandardData
from geco_theory.npmle.certificate import ascend
from geco_theory.npmle.subsample import climbing_starts

_MAX_ROUNDS = 100
_STARTS = 2048  # data points that the search starts from, at most
_FIRST = 64  # starts of the first search
_FEW = 16  # highest maxima that are followed between searches from all starts


@dataclass(frozen=True)
class OneValueLimit:
    """The highest temperature at which more than one decoder value is needed.

    Args:
        temperature: T, in standard units; never below the stability temperature.
        birth: (r,) where the new value appears; the mean itself if it splits off continuously.
        continuous: Whether the two temperatures coincide (a split without a jump).
    """

    temperature: float
    birth: Array
    continuous: bool


def stability_temperature(data: StandardData) -> float:
    """The top covariance eigenvalue [D2]: below it the one-value solution is unstable."""
    return float(data.variances[0])


def top_transition(data: StandardData) -> OneValueLimit:
    """The top transition, looked for from at most 2,048 data points."""
    # one value explains the points worst that are farthest from it
    rows = climbing_starts(data, -data.squares, _STARTS)
    return one_value_limit(data, np.concatenate([rows, data.group_means]))


def one_value_limit(data: StandardData, starts: Array) -> OneValueLimit:
    """The top transition of the global optimum, to about 1e-12 relative.

    Args:
        data: The data.
        starts: (p, r) points to ascend from: the data, or a part of them.
    """
    with threadpool_limits(1, user_api="blas"):  # small blocks: threads would only wait
        return _limit(data, starts)


def _limit(data: StandardData, starts: Array) -> OneValueLimit:
    limit = stability_temperature(data)
    temperature = limit * (1.0 + 1e-9)
    squares = data.squares
    birth: Array = np.zeros(data.rows.shape[1])
    mean = np.zeros((1, data.rows.shape[1]))
    few, all_of_them = starts[:: max(1, len(starts) // _FIRST)], False
    for _ in range(_MAX_ROUNDS):
        log_z = -squares / (2 * temperature)
        maxima = ascend(data, log_z, temperature, few, known=mean, accuracy=1e-12, capture=1e-3)
        best = maxima.points[0]
        higher = temperature
        if maxima.log_supremum > 1e-13 and best @ best >= 1e-10 * temperature:
            birth = best
            higher = _zero_temperature(data, birth)
        if higher > temperature * (1.0 + 1e-14):
            temperature = higher
            # they move little: all starts again only at the end
            few, all_of_them = maxima.points[:_FEW], False
        elif all_of_them:
            break
        else:
            few, all_of_them = starts, True
    continuous = not bool(birth.any())
    return OneValueLimit(limit if continuous else temperature, birth, continuous)


def _zero_temperature(data: StandardData, point: Array) -> float:
    """T(y): where ln sum_i w_i exp(u_i / T) crosses zero, u_i = x_i.y - |y|^2/2."""
    u = data.rows @ point - point @ point / 2

    def height(inverse: float) -> float:
        return float(special.logsumexp(inverse * u, b=data.weights))

    low = 1.0 / float(u.max() if u.max() > 0 else 1.0)
    while height(low) > 0:
        low /= 2
    high = 2 * low
    while height(high) < 0:
        high *= 2
    return 1.0 / float(optimize.brentq(height, low, high, xtol=1e-15 * low, rtol=1e-14))
