"""One run: the loop, its checkpoints and its record."""

from geco_experiments.training.runner import Stopped, choose_device, run

__all__ = ["Stopped", "choose_device", "run"]
