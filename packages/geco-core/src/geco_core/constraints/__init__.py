"""The constraints RE, FRE, CLA and PNCC: one violation per example, satisfied at most 0."""

from geco_core.constraints.reconstruction import ReconstructionError
from geco_core.constraints.tolerance import ToleranceConstraint

__all__ = ["ReconstructionError", "ToleranceConstraint"]
