"""Other libraries' ascents on the relative violation. What a step costs is not compared with
these: `benchmarks/overhead.py` uses each library as its documentation does.
"""

from typing import Any

import torch
from torch import Tensor

from contestants.base import Relative


class Cooper(Relative):
    """Cooper's formulation and multiplier: simultaneous descent and projected ascent.

    Args:
        kappa: The tolerance.
        rate: The rate of the ascent.
    """

    def __init__(self, kappa: float, rate: float) -> None:
        super().__init__(kappa)
        import cooper

        self.dual = cooper.multipliers.DenseMultiplier(init=torch.ones(1))
        self.constraint = cooper.Constraint(
            constraint_type=cooper.ConstraintType.INEQUALITY, multiplier=self.dual
        )
        self.optimizer = torch.optim.SGD(self.dual.parameters(), lr=rate, maximize=True)
        self.cooper = cooper
        self.state: Any = None

    def loss(self, kl: Tensor, x: Tensor, reconstruction: Tensor) -> Tensor:
        """The primal Lagrangian."""
        violation = self.violation(x, reconstruction).reshape(1)
        observed = {self.constraint: self.cooper.ConstraintState(violation=violation)}
        self.state = self.cooper.CMPState(loss=kl.mean(), observed_constraints=observed)
        return self.state.compute_primal_lagrangian().lagrangian

    def step(self) -> None:
        """The dual's step and projection."""
        self.optimizer.zero_grad()
        self.state.compute_dual_lagrangian().lagrangian.backward()
        self.optimizer.step()
        self.dual.post_step_()

    def multiplier(self) -> float:
        """The relative multiplier."""
        return float(self.dual.weight.detach())


class HumanCompatible(Relative):
    """humancompatible-train's augmented Lagrangian method.

    Args:
        kappa: The tolerance.
        rate: The rate of the ascent.
    """

    def __init__(self, kappa: float, rate: float) -> None:
        super().__init__(kappa)
        from humancompatible.train.dual_optim import ALM

        self.dual = ALM(m=1, lr=rate, init_duals=1.0, is_ineq=True)

    def loss(self, kl: Tensor, x: Tensor, reconstruction: Tensor) -> Tensor:
        """The augmented Lagrangian, with the dual's update."""
        violation = self.violation(x, reconstruction).reshape(1)
        return self.dual.forward_update(kl.mean(), violation)

    def step(self) -> None:
        """Nothing: the dual has moved."""

    def multiplier(self) -> float:
        """The relative multiplier."""
        return float(self.dual.param_groups[0]["params"][0].detach())
