"""Who takes part in more than one benchmark: GECO, and others' methods behind the same calls."""

from contestants.base import Contestant, Relative, train_step
from contestants.geco import Geco
from contestants.rivals import Cooper, HumanCompatible

__all__ = ["Contestant", "Cooper", "Geco", "HumanCompatible", "Relative", "train_step"]
