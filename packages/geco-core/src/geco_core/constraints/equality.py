r"""Equalities: something that has to be equal to a target, not only at most."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from geco_core.constraints.base import Constraint, Measure, as_constraint
from geco_core.validation import finite, positive

__all__ = ["Equality"]


class Equality(Constraint):
    r"""The mean of :math:`h(x, g)` is equal to a target :math:`t`.

    It is the pair of inequalities :math:`h - t \le 0` and :math:`t - h \le 0` behind one name:
    two multipliers :math:`\lambda_+, \lambda_- > 0` that every rule can move. What is reported as
    the multiplier is :math:`\lambda_+ - \lambda_-`, of either sign; the violation is
    :math:`h - t`, and feasible means near 0 from both sides.

    Args:
        function: :math:`h`, a function `(x, reconstruction, **batch) -> (batch,)`, or a
            constraint, whose violation then is :math:`h`.
        target: :math:`t`.
        scale: The unit of :math:`h - t`: what counts as a violation of 100%. By default that of
            the constraint, and 1 for a function.

    Raises:
        TypeError: If `function` is neither, or a number is none.
        ValueError: If `target` is not finite, `scale` not positive, or the constraint has
            several multipliers.

    Example:
        >>> import torch
        >>> from geco_core import GECO
        >>> norm = Equality(lambda x, g: g.square().sum(1), target=1.0)
        >>> objective = GECO(norm)
        >>> g = torch.tensor([[0.6, 0.8]], requires_grad=True)
        >>> loss = objective(torch.ones(1), None, g)
        >>> objective.step()
        >>> objective.info.feasible
        tensor(True)
    """

    multipliers = 2

    def __init__(
        self,
        function: Constraint | Callable[..., Tensor],
        *,
        target: float = 0.0,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        self.constraint = as_constraint(function)
        if self.constraint.multipliers != 1:
            raise ValueError(
                f"`function` must have one multiplier, got {type(function).__name__} with "
                f"{self.constraint.multipliers}"
            )
        self.target = finite("target", target)
        self._scale = None if scale is None else positive("scale", scale)
        self.reduction = self.constraint.reduction
        self.keywords = self.constraint.keywords

    @property
    def scale(self) -> float:
        """The unit that was given, or that of the constraint."""
        return self.constraint.scale if self._scale is None else self._scale

    def forward(self, x: Any, reconstruction: Any, **batch: Any) -> Tensor:
        """:math:`h - t` of every example, :math:`(B,)`."""
        value: Tensor = self.constraint(x, reconstruction, **batch)
        return value - self.target

    def example_weights(self, x: Any, reconstruction: Any, **batch: Any) -> Tensor | None:
        """Those of the constraint."""
        return self.constraint.example_weights(x, reconstruction, **batch)

    def evaluate(self, x: Any, reconstruction: Any, **batch: Any) -> tuple[Tensor, Tensor | None]:
        """:math:`h - t`, and how much every example counts."""
        value, weights = self.constraint.evaluate(x, reconstruction, **batch)
        return value - self.target, weights

    def measure(
        self, name: str, kl: Tensor, x: Any, reconstruction: Any, batch: Mapping[str, Any]
    ) -> Measure:
        """The mean of :math:`h - t`, and its negative."""
        value, examples, _ = super().measure(name, kl, x, reconstruction, batch)
        both = None if examples is None else examples.expand(2)
        return Measure(torch.stack([value, -value]), both)

    def as_reported(self, field: str, values: Tensor) -> Tensor:
        """One number for the pair."""
        if field in ("multiplier", "relative_multiplier"):
            return values[0] - values[1]
        if field == "feasible":
            return values.all()
        return values.any() if field == "saturated" else values[0]

    def elements(self, x: Any) -> float | None:
        """Those of the constraint."""
        return self.constraint.elements(x)

    def equivalent_beta(self, multiplier: Tensor, x: Any) -> Tensor:
        """That of the constraint."""
        return self.constraint.equivalent_beta(multiplier, x)

    def extra_repr(self) -> str:
        """The target and the unit."""
        return f"target={self.target:g}, scale={self.scale:g}"
