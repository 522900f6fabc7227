r"""What a training loop minimises: GECO's Lagrangian, with its multipliers' ascent.

.. math::

    \mathcal L_\lambda = \mathbb E\,KL(q(z|x) \,\|\, \pi) + \lambda^\top \mathbb E\,C(x, g(z))
    \qquad \text{(Eq. 2)}

is minimised by the user's optimizer over the model's parameters and maximised over
:math:`\lambda \ge 0` by :meth:`GECO.step`.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from geco_core.info import Info, Named
from geco_core.multipliers import Multipliers
from geco_core.reduction import mean_over_examples
from geco_core.updates import MultiplierUpdate, RobustUpdate
from geco_core.violation import Constraint, as_constraint, at_least_float32, check_violation

__all__ = ["GECO"]

#: The name in `objective.constraints` of a constraint that was given without one.
BARE = "constraint"

ConstraintLike = Constraint | Callable[..., Tensor]
Constraints = ConstraintLike | Mapping[str, ConstraintLike] | Iterable[tuple[str, ConstraintLike]]


class GECO(nn.Module):
    r"""Minimises the KL under constraints: no weight to tune, only tolerances.

    Args:
        constraints: One constraint, or a mapping from names to constraints. A constraint is a
            :class:`~geco_core.Constraint` or any function
            `(x, reconstruction, **batch) -> (batch,)`, satisfied where :math:`\le 0`.
        update: How the multipliers move; :class:`~geco_core.RobustUpdate` by default.
        process_group: The ranks whose examples are averaged for the ascent; all by default.

    Raises:
        TypeError: If a constraint or the update is of another type.
        ValueError: If there is no constraint, or a name is unusable or given twice.

    Example:
        >>> objective = GECO(ReconstructionError(kappa=0.1))
        >>> loss = objective(kl, x, reconstruction)
        >>> loss.backward(); optimizer.step(); optimizer.zero_grad()
        >>> objective.step()
    """

    def __init__(
        self,
        constraints: Constraints,
        *,
        update: MultiplierUpdate | None = None,
        process_group: "dist.ProcessGroup | None" = None,
    ) -> None:
        super().__init__()
        self._bare, named = _named_constraints(constraints)
        update = RobustUpdate() if update is None else update
        if not isinstance(update, MultiplierUpdate):
            raise TypeError(
                f"`update` must be a MultiplierUpdate such as PaperUpdate() or RobustUpdate(), "
                f"got {update!r}"
            )
        self.process_group = process_group
        self.constraints = nn.ModuleDict(named)
        self._items: tuple[tuple[str, Constraint], ...] = tuple(named.items())
        self._scales = tuple(c.scale for c in named.values())
        self.multipliers = Multipliers(update, self._scales)
        self._pending: list[Tensor] = []
        self._counts: list[int] = []
        self._last: tuple[Tensor, Tensor, Tensor] | None = None
        self._shape: torch.Size | None = None

    def forward(self, kl: Tensor, x: Tensor, reconstruction: Tensor, **batch: Any) -> Tensor:
        r"""The loss of a batch.

        Args:
            kl: The KL of every example in nats, :math:`(B,)`, or any other loss per example.
            x: The data, :math:`(B, *)`.
            reconstruction: The decoder's output, :math:`(B, *)`.
            batch: Passed on to the constraints (`labels=` for classification accuracy).

        Returns:
            A scalar to be minimised. In training mode it is remembered for :meth:`step`.

        Raises:
            ValueError: If a shape does not fit.
            RuntimeError: In training mode, if the loss has no gradient.
        """
        _check_kl(kl, x)
        scales = tuple(c.scale for _, c in self._items)
        if scales != self._scales:
            self._scales = scales
            self.multipliers.rescale(scales)
        kl_mean = at_least_float32(kl).mean()
        means = torch.stack(
            [
                check_violation(c(x, reconstruction, **batch), kl, name).mean()
                for name, c in self._items
            ]
        )
        values = means
        weights = self.multipliers.weights.to(kl_mean.dtype)
        detached = means.detach()
        if self.multipliers.update.straight_through:
            average = self.multipliers.update.average(
                self.multipliers.table, detached.to(self.multipliers.table.dtype)
            )
            values = means + (average - detached)
        loss = weights[0] * kl_mean + torch.dot(weights[1:], values.to(weights.dtype))
        if self.training:
            if not loss.requires_grad:
                raise RuntimeError(
                    "in training mode the loss must depend on parameters, but neither `kl` nor "
                    "the constraints require a gradient; use objective.eval() for evaluation"
                )
            self._pending.append(detached)
            self._counts.append(kl.shape[0])
        self._last = (loss.detach(), kl_mean.detach(), detached)
        self._shape = x.shape
        return loss

    def step(self) -> None:
        """The ascent of the multipliers: once per optimizer step, after it.

        Uses the mean over all examples since the last ascent, of all ranks. Does nothing in
        evaluation mode.

        Raises:
            RuntimeError: If there has been no loss in training mode since the last ascent.
        """
        if not self.training:
            return
        if not self._pending:
            raise RuntimeError(
                "step() needs a loss computed in training mode since the last step(); call the "
                "objective first"
            )
        violation = mean_over_examples(self._pending, self._counts, self.process_group)
        self._pending, self._counts = [], []
        self.multipliers.ascend(violation)

    @property
    def info(self) -> Info:
        """The state after the last call; see :class:`Info`."""
        m = self.multipliers
        nan = m.table.new_full((), torch.nan)
        loss, kl, constraint = self._last or (nan, nan, nan.expand(len(self._items)))
        multiplier = m.multiplier
        average = m.moving_average
        beta = nan.expand(len(self._items))
        if self._shape is not None:
            x = torch.empty(self._shape, device="meta")
            beta = torch.stack(
                [c.equivalent_beta(multiplier[i], x) for i, (_, c) in enumerate(self._items)]
            )
        return Info(
            loss=loss,
            kl=kl,
            constraint=self._named(constraint),
            moving_average=self._named(average),
            multiplier=self._named(multiplier),
            relative_multiplier=self._named(m.relative_multiplier),
            beta=self._named(beta),
            feasible=self._named(average <= 0),
            saturated=self._named(m.update.saturated(m.table)),
            skipped=self._named(m.table[3].long()),
        )

    def _named(self, values: Tensor) -> Named:
        if self._bare:
            return values[0].clone()
        return {name: values[i].clone() for i, (name, _) in enumerate(self._items)}


def _named_constraints(constraints: Any) -> tuple[bool, dict[str, Constraint]]:
    """Constraints by name, and whether a single one was given without a name."""
    if isinstance(constraints, nn.ModuleDict):
        constraints = dict(constraints.items())
    if isinstance(constraints, Mapping):
        pairs = list(constraints.items())
    elif callable(constraints) or not isinstance(constraints, Iterable):
        return True, {BARE: as_constraint(constraints)}
    else:
        pairs = list(constraints)
    named: dict[str, Constraint] = {}
    taken = nn.ModuleDict()
    for name, constraint in pairs:
        if name in named:
            raise ValueError(f"`constraints` has the name {name!r} twice; give each its own")
        if not isinstance(name, str) or not name or "." in name or hasattr(taken, name):
            raise ValueError(
                f"`constraints` must have names that are non-empty strings without dots and not "
                f"those of dictionary methods, got {name!r}"
            )
        named[name] = as_constraint(constraint)
    if not named:
        raise ValueError("`constraints` is empty; give at least one constraint")
    return False, named


def _check_kl(kl: Tensor, x: Tensor) -> None:
    if not isinstance(kl, Tensor):
        raise TypeError(f"`kl` must be a tensor of shape (batch,), got {type(kl).__name__}")
    if kl.dim() != 1 or x.dim() == 0 or kl.shape[0] != x.shape[0]:
        raise ValueError(
            f"`kl` must hold one value per example, shape ({x.shape[0] if x.dim() else 'batch'},)"
            f", got {tuple(kl.shape)}; sum it over the latent dimensions only"
        )
