r"""The code of one image: which component, then a linear code of its coordinates there [D10].

Inside component c, with mean :math:`m_c` and principal variances :math:`\lambda_j`, a direction
with :math:`\lambda_j > \theta` is coded as in D7: the posterior :math:`\mathcal N(a y_j, s^2)`
with :math:`s^2 = \theta/\lambda_j`, :math:`a^2 = (1 - s^2)/\lambda_j` and the decoder
:math:`\lambda_j a z`. For the coordinate y that an image has, whatever its distribution,

.. math::
    \mathrm{KL}_j = \tfrac12 (s^2 + a^2 y_j^2 - 1 - \ln s^2), \qquad
    \mathrm{RE}_j = s^4 y_j^2 + \lambda_j s^2 (1 - s^2) ,

and :math:`\mathrm{RE}_j = y_j^2` for the other directions. The component costs
:math:`-\ln p_c`: a latent of its own whose posterior is the prior cut to a set of mass
:math:`p_c`. Each image takes the component with the least :math:`\mathrm{RE}/2 + \theta\,
\mathrm{KL}`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geco_theory._typing import Array

__all__ = ["Candidates", "Code", "LocalMixture"]

Single = NDArray[np.float32]

_NEAREST = 6  # components that an image may take


@dataclass(frozen=True)
class LocalMixture:
    """Components in coordinates that are cut off after r principal axes of all data.

    Args:
        masses: (K,) shares of the data.
        means: (K, r) means.
        variances: (K, r) principal variances, descending.
        axes: (K, r, r) principal axes, in columns.
        rest: Variance of each of the coordinates that were cut off, the same for all.
        dropped: How many those are.
    """

    masses: Array
    means: Single
    variances: Array
    axes: Single
    rest: float
    dropped: int

    @property
    def size(self) -> int:
        """The number of components, K."""
        return len(self.masses)


@dataclass(frozen=True)
class Code:
    """What every image pays at one water level.

    Args:
        rate: (n,) KL, nats.
        error: (n,) squared error, summed over the elements.
        latents: (n,) directions that are coded.
        component: (n,) the component taken.
    """

    rate: Array
    error: Array
    latents: NDArray[np.int64]
    component: NDArray[np.intp]


class Candidates:
    """Squared coordinates of every image in the components that are near it.

    Args:
        mixture: The components.
        rows: (n, r) images in the leading coordinates.
        rest: (n,) squared length of what was cut off.
    """

    def __init__(self, mixture: LocalMixture, rows: Single, rest: Array) -> None:
        self.mixture = mixture
        self.number = len(rows)
        near = min(_NEAREST, mixture.size)
        gaps = np.square(mixture.means).sum(axis=1) - 2.0 * (rows @ mixture.means.T)
        self.nearest = np.argpartition(gaps, near - 1, axis=1)[:, :near]
        self.rest = rest
        self._groups = []
        for c in range(mixture.size):
            image, slot = np.nonzero(self.nearest == c)
            if len(image):
                turned = (rows[image] - mixture.means[c]) @ mixture.axes[c]
                self._groups.append((c, image, slot, np.square(turned)))

    def at(self, level: float) -> Code:
        """The code at a water level theta."""
        model = self.mixture
        rate = np.empty(self.nearest.shape)
        error = np.empty(self.nearest.shape)
        noise, slope, kept, floor = _prices(model.variances, level)
        rest_noise, rest_slope, rest_kept, rest_floor = _prices(np.array([model.rest]), level)
        surprise = -np.log(model.masses)
        constant_rate = surprise + noise.sum(axis=1) + model.dropped * rest_noise[0]
        constant_error = floor.sum(axis=1) + model.dropped * rest_floor[0]
        for c, image, slot, squares in self._groups:
            rest = self.rest[image]
            rate[image, slot] = constant_rate[c] + squares @ slope[c] + rest * rest_slope[0]
            error[image, slot] = constant_error[c] + squares @ kept[c] + rest * rest_kept[0]
        best = np.argmin(0.5 * error + level * rate, axis=1)
        each = np.arange(self.number)
        component = self.nearest[each, best]
        active = np.count_nonzero(model.variances > level, axis=1)
        active = active + (model.dropped if model.rest > level else 0)
        return Code(rate[each, best], error[each, best], active[component], component)


def _prices(variances: Array, level: float) -> tuple[Array, Array, Array, Array]:
    """Of each direction: KL without its coordinate, and per square of it; what of the squared
    coordinate is left as error, and the error without it.
    """
    coded = variances > level
    safe = np.where(coded, variances, 1.0)
    s2 = np.where(coded, level / safe, 1.0)
    return (
        0.5 * (s2 - 1.0 - np.log(s2)),
        np.where(coded, 0.5 * (1.0 - s2) / safe, 0.0),
        s2 * s2,
        np.where(coded, safe * s2 * (1.0 - s2), 0.0),
    )
