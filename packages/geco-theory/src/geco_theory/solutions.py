"""A solved temperature."""

from dataclasses import dataclass, field

from geco_theory.mixtures import Mixture


@dataclass(frozen=True)
class Solution:
    """A solved temperature, in standard units.

    Args:
        temperature: T.
        mixture: The decoder values and their masses.
        free_energy: F.
        distortion: RE, summed over elements.
        rate: KL, in nats.
        certificate: ln S; F lies at most T ln S above the optimum (nan for equal masses).
        converged: Whether the tolerance was reached.
        work: Counts of what was done.
    """

    temperature: float
    mixture: Mixture
    free_energy: float
    distortion: float
    rate: float
    certificate: float
    converged: bool
    work: dict[str, int] = field(default_factory=dict)
