r"""One multiplier per group of examples: classes, domains, sensors, indices of a data set."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from geco_core.constraints.base import Constraint, Measure, as_constraint
from geco_core.constraints.reductions import counted
from geco_core.validation import check_violation, whole

__all__ = ["PerGroup"]


class PerGroup(Constraint):
    r"""A constraint that holds in every group by itself, with a multiplier for each.

    The examples' groups are passed by keyword,
    `objective(kl, x, reconstruction, groups=indices)`. With :math:`B_g` the examples of group
    :math:`g` in a batch of :math:`B`, the loss is

    .. math:: \mathbb E\,KL + \frac 1 B \sum_i \lambda_{g(i)} C_i
       = \mathbb E\,KL + \sum_g \frac{B_g}{B} \lambda_g \, \text{mean}_{i \in g} C_i,

    so that equal multipliers give the loss of the constraint without groups, and each multiplier
    ascends on the mean of its own group. Groups that are not in the batch keep theirs. All of
    them are columns of one table: no loop over groups is run.

    Args:
        constraint: A constraint, or a function `(x, reconstruction, **batch) -> (batch,)`.
        groups: How many groups there are, :math:`G`.

    Raises:
        TypeError: If `constraint` is none, or `groups` not a whole number.
        ValueError: If `groups` is not positive, or the constraint has several multipliers.

    Example:
        >>> import torch
        >>> from geco_core import GECO, ReconstructionError
        >>> objective = GECO(PerGroup(ReconstructionError(kappa=0.1), groups=3))
        >>> x, error = torch.zeros(4, 2), torch.tensor([0.1, 0.1, 0.2, 0.3])[:, None]
        >>> groups = torch.tensor([0, 0, 2, 2])
        >>> loss = objective(torch.ones(4), x, (x + error).requires_grad_(), groups=groups)
        >>> objective.step()
        >>> [round(value, 3) for value in objective.info.moving_average.tolist()]
        [0.0, nan, 0.055]
    """

    def __init__(self, constraint: Constraint | Callable[..., Tensor], groups: int) -> None:
        super().__init__()
        self.constraint = as_constraint(constraint)
        if self.constraint.multipliers != 1:
            raise ValueError(
                f"`constraint` must have one multiplier, got "
                f"{type(constraint).__name__} with {self.constraint.multipliers}"
            )
        self.groups = whole("groups", groups)
        self.multipliers = self.groups
        self.reduction = self.constraint.reduction
        known = self.constraint.keywords
        self.keywords = None if known is None else known | {"groups"}

    @property
    def kappa(self) -> float | None:
        """The tolerance of the constraint."""
        kappa: float | None = self.constraint.kappa
        return kappa

    @kappa.setter
    def kappa(self, value: float | None) -> None:
        if hasattr(self, "constraint"):
            self.constraint.kappa = value

    @property
    def scale(self) -> float:
        """The unit of the constraint."""
        return self.constraint.scale

    def forward(self, x: Any, reconstruction: Any, **batch: Any) -> Tensor:
        """The violations of the constraint, :math:`(B,)`."""
        violation: Tensor = self.constraint(x, reconstruction, **batch)
        return violation

    def measure(
        self, name: str, kl: Tensor, x: Any, reconstruction: Any, batch: Mapping[str, Any]
    ) -> Measure:
        """The mean violation of every group.

        Raises:
            TypeError: If `groups` are no integers.
            ValueError: If `groups` are missing, of another shape, or out of range (on a CPU).
        """
        groups = batch.get("groups")
        if groups is None:
            raise ValueError(
                f"`groups` is missing for constraint {name!r}; pass the group of every example by "
                f"keyword, objective(kl, x, reconstruction, groups=indices)"
            )
        self._check(groups, kl)
        violation, weights = self.constraint.evaluate(x, reconstruction, **batch)
        violation = check_violation(violation, kl, x, name)
        if weights is None:
            weights = torch.ones_like(violation)
        weights = weights.detach().to(violation.dtype)
        groups = groups.long()
        seen = counted(violation, weights)
        zeros = violation.new_zeros(self.groups)
        counts = zeros.index_add(0, groups, weights)
        means = zeros.index_add(0, groups, seen) / torch.where(counts > 0, counts, 1.0)
        total = counts.sum()
        return Measure(means, counts, counts / torch.where(total > 0, total, 1.0))

    def elements(self, x: Any) -> float | None:
        """Those of the constraint."""
        return self.constraint.elements(x)

    def equivalent_beta(self, multiplier: Tensor, x: Any) -> Tensor:
        """That of the constraint, for every group."""
        return self.constraint.equivalent_beta(multiplier, x)

    def _check(self, groups: Any, kl: Tensor) -> None:
        if not isinstance(groups, Tensor):
            raise TypeError(f"`groups` must be a torch.Tensor, got {type(groups).__name__}")
        if groups.is_floating_point() or groups.is_complex() or groups.dtype == torch.bool:
            raise TypeError(f"`groups` must be integers, got {groups.dtype}")
        if groups.shape != kl.shape:
            raise ValueError(
                f"`groups` must hold one index per example, shape {tuple(kl.shape)}, got "
                f"{tuple(groups.shape)}"
            )
        if torch.compiler.is_compiling() or type(groups) is not Tensor or not groups.is_cpu:
            return  # on a device, reading them would make the host wait
        lowest, highest = torch.stack(groups.aminmax()).tolist()
        if lowest < 0 or highest >= self.groups:
            raise ValueError(
                f"`groups` must be from 0 to {self.groups - 1}, got values from {lowest} to "
                f"{highest}"
            )

    def extra_repr(self) -> str:
        """The number of groups."""
        return f"groups={self.groups}"
