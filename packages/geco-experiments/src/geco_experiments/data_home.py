"""The place of `DataHome` in the first version; it is in `geco_experiments.datasets.home` now."""

from geco_experiments.datasets.home import DataHome

__all__ = ["DataHome"]
