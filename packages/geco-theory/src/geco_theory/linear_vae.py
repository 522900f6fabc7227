r"""The exact optimum of a linear VAE under a reconstruction constraint (D7, D8).

For data with covariance eigenvalues :math:`\mu_j` the best rate that a linear VAE reaches under a
summed squared error of at most :math:`D` is the rate-distortion function of the Gaussian source
with those eigenvalues ("reverse water-filling", Kolmogorov 1956; Cover and Thomas 2006, section
10.3.3): a water level :math:`\theta` solves

.. math:: \sum_j \min(\theta, \mu_j) = D,

directions with :math:`\mu_j > \theta` are encoded with an error :math:`\theta` each, the others
are dropped, and

.. math::
    R = \tfrac12 \sum_j \ln^+ (\mu_j / \theta), \qquad
    -\mathrm{d}R / \mathrm{d}D = \frac{1}{2 \theta} .

The constraint RE is a mean over the :math:`d` elements, so :math:`D = d \kappa^2`, and the
multiplier of :math:`\mathrm{KL} + \lambda (\mathrm{mean\ squared\ error} - \kappa^2)` is
:math:`\lambda^* = d / (2 \theta)`. Without units, :math:`\lambda^* \kappa^2 = D / (2 \theta)`:
half the number of active dimensions, plus what the dropped ones leave (D8).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from geco_theory.linalg import covariance_spectrum
from geco_theory.validation import positive, whole_number

__all__ = ["LinearVAEOptimum", "linear_vae_optimum"]


@dataclass(frozen=True)
class LinearVAEOptimum:
    r"""The answer of `linear_vae_optimum`: one point of the rate-distortion curve.

    Attributes:
        kappa: the tolerance asked for: root-mean-square error per element, in the data's units.
        rate: the mean KL per example at the optimum, in nats; the marginal KL is 0, so it is
            the mutual information as well (D6).
        water_level: :math:`\theta`, in squared units of the data. It is also the temperature
            :math:`T = \beta \sigma^2` of the optimum, hence the equivalent beta of a decoder of
            unit variance. Where nothing needs to be encoded it is the largest eigenvalue.
        multiplier: :math:`\lambda^* = d / (2 \theta)`, of the constraint
            ``mean squared error - kappa**2``; in inverse squared units of the data; 0 where the
            constraint is met without encoding anything.
        relative_multiplier: :math:`\lambda^* \kappa^2`, of the relative constraint; no units.
        active_dimensions: the number of directions that are encoded, :math:`\mu_j > \theta`.
        distortion: the summed squared error that is reached,
            :math:`\min(d \kappa^2, \sum_j \mu_j)`.
        root_mean_square_error: the same per element: ``min(kappa, that of the mean value)``.
        explained_variance: the share of the total variance that is kept,
            :math:`1 - D / \sum_j \mu_j` (0 for data without variance).
    """

    kappa: float
    rate: float
    water_level: float
    multiplier: float
    relative_multiplier: float
    active_dimensions: int
    distortion: float
    root_mean_square_error: float
    explained_variance: float


def linear_vae_optimum(
    covariance: ArrayLike, kappa: float, *, n_features: int | None = None
) -> LinearVAEOptimum:
    r"""Solve a linear VAE with the constraint RE exactly (D7).

    Args:
        covariance: the covariance matrix of the data (d, d) in the 1/n normalisation, or its
            eigenvalues (d,) in any order; in squared units of the data.
        kappa: the tolerance of the constraint RE, ``mean_j (x_j - g_j)**2 <= kappa**2``: a
            root-mean-square error per element, in the units of the data.
        n_features: the number d of elements that the mean of RE runs over; by default the size
            of `covariance`. Needed where only the leading eigenvalues are passed (the missing
            ones count as 0).

    Returns:
        The optimum: rate, water level, multiplier in both units, active dimensions. A `kappa`
        that the mean of the data already satisfies gives rate 0 and multiplier 0.

    Raises:
        TypeError: `covariance` is not numeric, or `kappa` or `n_features` is not a number.
        ValueError: `covariance` is not square, symmetric, finite and positive semidefinite (or
            a vector of finite eigenvalues >= 0), `kappa` is not positive and finite, or
            `n_features` is smaller than the number of eigenvalues.

    Example:
        >>> optimum = linear_vae_optimum([4.0, 1.0], kappa=1.0)
        >>> optimum.water_level, optimum.active_dimensions, round(optimum.rate, 4)
        (1.0, 1, 0.6931)
    """
    spectrum = covariance_spectrum(covariance)
    tolerance = positive(kappa, "kappa")
    features = spectrum.size
    if n_features is not None:
        features = whole_number(n_features, "n_features", least=spectrum.size)

    top = float(spectrum[0])
    if top == 0.0:
        return _nothing_encoded(tolerance, features, 0.0, 0.0)

    # in units of the largest eigenvalue nothing under- or overflows, whatever the data's scale
    mu = spectrum / top
    total = float(math.fsum(mu))
    relative_kappa = tolerance / math.sqrt(top)
    allowed = features * relative_kappa * relative_kappa
    if allowed >= total:
        return _nothing_encoded(tolerance, features, top, total * top)
    if allowed == 0.0:
        raise ValueError(
            f"`kappa` must not be so small that its square vanishes beside the data's variance, "
            f"got {tolerance} against a standard deviation of {math.sqrt(top)}; ask for more."
        )

    # with k active directions the level is (D - what the others hold) / k; it is the right k
    # where that level lies below the k-th eigenvalue and not below the next one
    tails = np.concatenate([np.cumsum(mu[::-1])[::-1][1:], [0.0]])
    levels = (allowed - tails) / np.arange(1, mu.size + 1)
    active = int(np.flatnonzero(levels < mu)[-1]) + 1
    level = float(levels[active - 1])
    rate = 0.5 * math.fsum(np.log(mu[:active]) - math.log(level))
    return LinearVAEOptimum(
        kappa=tolerance,
        rate=rate,
        water_level=level * top,
        multiplier=features / (2.0 * level) / top,
        relative_multiplier=allowed / (2.0 * level),
        active_dimensions=active,
        distortion=allowed * top,
        root_mean_square_error=tolerance,
        explained_variance=1.0 - allowed / total,
    )


def _nothing_encoded(
    kappa: float, features: int, top: float, distortion: float
) -> LinearVAEOptimum:
    """The optimum where the mean of the data already satisfies the constraint."""
    return LinearVAEOptimum(
        kappa=kappa,
        rate=0.0,
        water_level=top,
        multiplier=0.0,
        relative_multiplier=0.0,
        active_dimensions=0,
        distortion=distortion,
        root_mean_square_error=math.sqrt(distortion / features),
        explained_variance=0.0,
    )
