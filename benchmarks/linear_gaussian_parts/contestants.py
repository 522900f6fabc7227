"""Who takes part: one training step's loss and ascent each."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from geco_core import GECO, PaperUpdate, ReconstructionError, RobustUpdate
from geco_models import LinearVAE
from geco_theory import linear_vae_optimum
from linear_gaussian_parts.cells import Cell

PAPER_RATES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
ASCENT_RATES = (1e-3, 1e-2, 1e-1)


class Contestant(Protocol):
    """What differs: one training step's loss and ascent, and the multiplier in raw units."""

    def step(self, model: LinearVAE, optimizer: torch.optim.Optimizer, x: Tensor) -> None:
        """One step of training."""

    def multiplier(self) -> float:
        """The multiplier of `mean squared error - kappa^2`."""


class Geco:
    """A GECO objective, used as anybody would."""

    def __init__(self, cell: Cell, **settings: Any) -> None:
        self.objective = GECO(ReconstructionError(cell.kappa), **settings)

    def step(self, model: LinearVAE, optimizer: torch.optim.Optimizer, x: Tensor) -> None:
        """One step of training."""
        output = model(x)
        loss = self.objective(output.kl, x, output.reconstruction)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        self.objective.step()

    def multiplier(self) -> float:
        """The multiplier in raw units."""
        return float(self.objective.info.multiplier)  # type: ignore[arg-type]


def relative_violation(x: Tensor, reconstruction: Tensor, kappa: float) -> Tensor:
    """The relative reconstruction error of a batch."""
    return (x - reconstruction).square().mean() / kappa**2 - 1


class Oracle:
    """The plain Lagrangian with the exact multiplier, divided by a constant."""

    def __init__(self, cell: Cell) -> None:
        optimum = linear_vae_optimum(cell.spectrum, cell.kappa)
        self.kappa, self.relative = cell.kappa, optimum.relative_multiplier

    def step(self, model: LinearVAE, optimizer: torch.optim.Optimizer, x: Tensor) -> None:
        """One step of training."""
        output = model(x)
        violation = relative_violation(x, output.reconstruction, self.kappa)
        loss = (output.kl.mean() + self.relative * violation) / (1 + self.relative)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    def multiplier(self) -> float:
        """The multiplier in raw units."""
        return self.relative / self.kappa**2


class Cooper:
    """Cooper: simultaneous descent and projected ascent on the relative constraint."""

    def __init__(self, cell: Cell, rate: float) -> None:
        import cooper

        self.kappa, self.rate = cell.kappa, rate
        self.dual = cooper.multipliers.DenseMultiplier(init=torch.ones(1))
        constraint = cooper.Constraint(
            constraint_type=cooper.ConstraintType.INEQUALITY, multiplier=self.dual
        )
        kappa = cell.kappa

        class Problem(cooper.ConstrainedMinimizationProblem):
            def __init__(self) -> None:
                super().__init__()
                self.constraint = constraint

            def compute_cmp_state(self, model: LinearVAE, x: Tensor) -> Any:
                output = model(x)
                violation = relative_violation(x, output.reconstruction, kappa)
                state = cooper.ConstraintState(violation=violation.reshape(1))
                return cooper.CMPState(
                    loss=output.kl.mean(), observed_constraints={self.constraint: state}
                )

        self.problem = Problem()
        self.rolls: Any = None

    def step(self, model: LinearVAE, optimizer: torch.optim.Optimizer, x: Tensor) -> None:
        """One step of training."""
        if self.rolls is None:
            import cooper

            dual = torch.optim.SGD(self.problem.dual_parameters(), lr=self.rate, maximize=True)
            self.rolls = cooper.optim.SimultaneousOptimizer(
                cmp=self.problem, primal_optimizers=optimizer, dual_optimizers=dual
            )
        self.rolls.roll(compute_cmp_state_kwargs={"model": model, "x": x})

    def multiplier(self) -> float:
        """The multiplier in raw units."""
        return float(self.dual.weight.detach()) / self.kappa**2


class HumanCompatible:
    """humancompatible-train: its augmented Lagrangian method on the relative constraint."""

    def __init__(self, cell: Cell, rate: float) -> None:
        from humancompatible.train.dual_optim import ALM

        self.kappa = cell.kappa
        self.dual = ALM(m=1, lr=rate, init_duals=1.0, is_ineq=True)

    def step(self, model: LinearVAE, optimizer: torch.optim.Optimizer, x: Tensor) -> None:
        """One step of training."""
        output = model(x)
        violation = relative_violation(x, output.reconstruction, self.kappa)
        self.dual.forward_update(output.kl.mean(), violation.reshape(1)).backward()
        optimizer.step()
        optimizer.zero_grad()

    def multiplier(self) -> float:
        """The multiplier in raw units."""
        return float(self.dual.param_groups[0]["params"][0].detach()) / self.kappa**2


def rescaled_oracle(cell: Cell) -> Geco:
    """The exact multiplier in our loss: no ascent."""
    relative = linear_vae_optimum(cell.spectrum, cell.kappa).relative_multiplier
    return Geco(cell, update=RobustUpdate(rate=0.0, gain=0.0, initial=relative))


# name -> the settings to try, and how one is built
CONTESTANTS: dict[str, tuple[Sequence[float], Callable[[Cell, float], Contestant]]] = {
    "ours": ((math.nan,), lambda cell, _: Geco(cell)),
    "oracle": ((math.nan,), lambda cell, _: Oracle(cell)),
    "rescaled-oracle": ((math.nan,), lambda cell, _: rescaled_oracle(cell)),
    "paper": (PAPER_RATES, lambda cell, rate: Geco(cell, update=PaperUpdate(rate=rate))),
    "cooper": (ASCENT_RATES, Cooper),
    "humancompatible": (ASCENT_RATES, HumanCompatible),
}
