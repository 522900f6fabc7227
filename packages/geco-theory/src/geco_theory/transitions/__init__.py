"""Where the number of decoder values changes: located, described, detected."""

from geco_theory.transitions.detector import detect

__all__ = ["detect"]
