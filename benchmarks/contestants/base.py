"""What a contestant is."""

from typing import Any, Protocol

import torch
from torch import Tensor


class Contestant(Protocol):
    """What differs between runs: the loss of a batch, and what happens after a step."""

    def loss(self, kl: Tensor, x: Tensor, reconstruction: Tensor) -> Tensor:
        """The loss of a batch: `kl` (B,), `x` and `reconstruction` (B, d)."""

    def step(self) -> None:
        """What follows the optimizer's step."""

    def multiplier(self) -> float:
        """The relative multiplier in use: that of the squared error over kappa squared."""


class Relative:
    """The base of those that see the relative violation.

    Args:
        kappa: The tolerance.
    """

    def __init__(self, kappa: float) -> None:
        self.kappa = kappa

    def violation(self, x: Tensor, reconstruction: Tensor) -> Tensor:
        """The mean squared error over kappa squared, minus 1."""
        return (x - reconstruction).square().mean() / self.kappa**2 - 1


def train_step(
    contestant: Contestant, model: Any, optimizer: torch.optim.Optimizer, x: Tensor
) -> None:
    """One step of training."""
    output = model(x)
    contestant.loss(output.kl, x, output.reconstruction).backward()
    optimizer.step()
    optimizer.zero_grad()
    contestant.step()
