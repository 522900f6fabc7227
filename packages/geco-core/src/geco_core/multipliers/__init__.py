"""The multipliers: how they move, their memory, and what is said of those that are stuck."""

from geco_core.multipliers.paper import PaperUpdate
from geco_core.multipliers.robust import RobustUpdate
from geco_core.multipliers.state import Multipliers
from geco_core.multipliers.update import COMMON_ROWS, ColumnUpdate, MultiplierUpdate, Observation

__all__ = [
    "COMMON_ROWS",
    "ColumnUpdate",
    "MultiplierUpdate",
    "Multipliers",
    "Observation",
    "PaperUpdate",
    "RobustUpdate",
]
