"""A solved temperature."""

from dataclasses import dataclass, field
from typing import Self

from geco_theory.free_energy.blahut_arimoto import Moments
from geco_theory.free_energy.mixture import Mixture


@dataclass(frozen=True)
class Solution:
    """A solved temperature, in standard units.

    Args:
        temperature: T.
        mixture: The decoder values and their masses.
        free_energy: F.
        distortion: RE, summed over elements.
        rate: KL, in nats.
        certificate: ln S, rounding included; F lies at most T ln S above the optimum (nan for
            equal masses).
        converged: Whether the tolerance was reached.
        work: Counts of what was done.
        sampled: Whether the certificate was looked for from a sample of the data only; it is
            then a lower estimate of ln S.
    """

    temperature: float
    mixture: Mixture
    free_energy: float
    distortion: float
    rate: float
    certificate: float
    converged: bool
    work: dict[str, int] = field(default_factory=dict)
    sampled: bool = False

    @classmethod
    def of(
        cls,
        temperature: float,
        mixture: Mixture,
        state: Moments,
        log_supremum: float,
        tolerance: float,
        work: dict[str, int],
        *,
        sampled: bool = False,
    ) -> Self:
        """A solution of free masses from one pass over the data and the largest ln D found."""
        certificate = max(log_supremum, 0.0) + state.rounding
        return cls(
            temperature,
            mixture.sorted_by_mass(),
            state.free_energy,
            state.distortion,
            state.rate,
            certificate,
            certificate <= tolerance,
            work,
            sampled,
        )
