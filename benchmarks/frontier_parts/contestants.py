"""Who takes part in `benchmarks/frontier.py`: a loss and an ascent each."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from frontier_parts.stack import Contestant
from geco_core import GECO, PaperUpdate, ReconstructionError, RobustUpdate


class Geco:
    """A GECO objective, used as anybody would.

    Args:
        kappa: The tolerance.
        kl_unit: What the KL is multiplied by: 1/16 for a mean over 16 dimensions.
        change: A step and the tolerance from it on.
        settings: For the objective.
    """

    def __init__(
        self,
        kappa: float,
        *,
        kl_unit: float = 1.0,
        change: tuple[int, float] | None = None,
        **settings: Any,
    ) -> None:
        self.constraint = ReconstructionError(kappa)
        self.objective = GECO(self.constraint, **settings)
        self.kl_unit, self.change, self.steps = kl_unit, change, 0

    def loss(self, kl: Tensor, x: Tensor, reconstruction: Tensor) -> Tensor:
        """The objective's loss."""
        return self.objective(kl * self.kl_unit, x, reconstruction)

    def step(self) -> None:
        """The ascent."""
        self.objective.step()
        self.steps += 1
        if self.change is not None and self.steps == self.change[0]:
            self.constraint.kappa = self.change[1]

    def multiplier(self) -> float:
        """The relative multiplier."""
        return float(self.objective.info.relative_multiplier)  # type: ignore[arg-type]


class Fixed(Geco):
    """A fixed relative multiplier, with the loss divided by its weights or not."""

    def __init__(
        self, kappa: float, multiplier: float, *, rescale: bool = True, kl_unit: float = 1.0
    ) -> None:
        update = RobustUpdate(rate=0.0, gain=0.0, initial=multiplier * kl_unit, rescale=rescale)
        super().__init__(kappa, kl_unit=kl_unit, update=update)


class _Relative:
    """The base of those that see the relative violation."""

    def __init__(self, kappa: float) -> None:
        self.kappa = kappa

    def violation(self, x: Tensor, reconstruction: Tensor) -> Tensor:
        return (x - reconstruction).square().mean() / self.kappa**2 - 1


class Cooper(_Relative):
    """Cooper's own formulation and multiplier: gradient ascent, projected, one step per batch."""

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


class HumanCompatible(_Relative):
    """humancompatible-train's augmented Lagrangian method."""

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


class OptimalSigma(_Relative):
    r"""The optimal-sigma VAE: sigma^2 is the batch's error, beta 1; it has no tolerance."""

    def loss(self, kl: Tensor, x: Tensor, reconstruction: Tensor) -> Tensor:
        """KL + (d / 2) ln MSE."""
        error = (x - reconstruction).square().mean()
        self.relative = 0.5 * x[0].numel() * self.kappa**2 / float(error.detach())
        return kl.mean() + 0.5 * x[0].numel() * error.log()

    def step(self) -> None:
        """Nothing moves."""

    def multiplier(self) -> float:
        """Half of d times kappa^2 over the error."""
        return self.relative


class BetaPI(_Relative):
    r"""ControlVAE's controller, with the error as its set-point: PI on the KL's weight.

    :math:`\beta = K_p / (1 + e^{-e}) + I` with :math:`e = -c` the relative error that is left,
    :math:`I` the sum of :math:`K_i e`, in [0, 1]; the loss is
    :math:`(d / 2) MSE / \kappa^2 + \beta KL`.
    """

    def __init__(self, kappa: float, rate: float) -> None:
        super().__init__(kappa)
        self.rate, self.integral, self.beta, self.seen, self.elements = rate, 0.0, 0.0, 0.0, 1

    def loss(self, kl: Tensor, x: Tensor, reconstruction: Tensor) -> Tensor:
        """The weighted sum."""
        c = self.violation(x, reconstruction)
        self.seen, self.elements = float(c.detach()), x[0].numel()
        return 0.5 * self.elements * (c + 1) + self.beta * kl.mean()

    def step(self) -> None:
        """The controller's step."""
        error = max(-50.0, min(50.0, -self.seen))
        self.integral = min(max(self.integral + self.rate * error, 0.0), 10.0)
        self.beta = 0.01 / (1 + math.exp(-error)) + self.integral

    def multiplier(self) -> float:
        """Half of d over beta."""
        return 0.5 * self.elements / max(self.beta, 1e-9)


# name -> the settings to try, and how one is built
CONTESTANTS: dict[str, tuple[Sequence[float], Callable[[float, float], Contestant]]] = {
    "ours": ((math.nan,), lambda kappa, _: Geco(kappa)),
    "paper": ((0.1, 1.0, 10.0), lambda kappa, rate: Geco(kappa, update=PaperUpdate(rate=rate))),
    "cooper": ((0.01, 0.1, 1.0), Cooper),
    "humancompatible": ((0.01, 0.1, 1.0), HumanCompatible),
    "optimal-sigma": ((math.nan,), lambda kappa, _: OptimalSigma(kappa)),
    "beta-pi": ((1e-4, 1e-3, 1e-2), BetaPI),
}
