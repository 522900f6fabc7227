r"""Measures without a gradient, through a proxy that has one."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from geco_core.constraints.base import Constraint, as_constraint
from geco_core.validation import positive

__all__ = ["Proxied"]


class Proxied(Constraint):
    r"""Ascends on a true measure, and descends on a differentiable proxy of it.

    The multiplier sees the violation of `measure`, which need not have a gradient (an error rate,
    a count, the output of another program); the model is trained by the gradient of `proxy`
    (a hinge, a likelihood), which need not have the right value (Cotter et al., "Optimization
    with non-differentiable constraints", JMLR 2019). The value of the loss is that of the measure.

    Args:
        measure: A constraint, or a function `(x, reconstruction, **batch) -> (batch,)`, satisfied
            where :math:`\le 0`. It is called without gradients.
        proxy: A function or constraint whose gradient pulls in the same direction.
        scale: The unit of the violations; by default that of `measure`.

    Raises:
        TypeError: If either is neither constraint nor function.
        ValueError: If one of them has several multipliers.

    Example:
        >>> import torch
        >>> from geco_core import CallableConstraint, GECO
        >>> wrong = lambda x, g: (g[:, 0] < 0).float() - 0.1  # at most a tenth below 0
        >>> hinge = lambda x, g: (1 - g[:, 0]).clamp(min=0)
        >>> objective = GECO(Proxied(wrong, hinge))
        >>> g = torch.tensor([[-1.0], [2.0]], requires_grad=True)
        >>> objective(torch.ones(2), None, g).backward()
        >>> objective.info.constraint
        tensor(0.4000)
        >>> g.grad[0] < 0
        tensor([True])
    """

    def __init__(
        self,
        measure: Constraint | Callable[..., Tensor],
        proxy: Constraint | Callable[..., Tensor],
        *,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        self.measured = as_constraint(measure)
        self.proxy = as_constraint(proxy)
        for name, one in (("measure", self.measured), ("proxy", self.proxy)):
            if one.multipliers != 1:
                raise ValueError(
                    f"`{name}` must have one multiplier, got {type(one).__name__} with "
                    f"{one.multipliers}"
                )
        self._scale = None if scale is None else positive("scale", scale)
        self.reduction = self.measured.reduction
        known = (self.measured.keywords, self.proxy.keywords)
        self.keywords = None if None in known else frozenset().union(*known)  # type: ignore[arg-type]

    @property
    def scale(self) -> float:
        """The unit that was given, or that of the measure."""
        return self.measured.scale if self._scale is None else self._scale

    def forward(self, x: Any, reconstruction: Any, **batch: Any) -> Tensor:
        """The value of the measure with the gradient of the proxy, :math:`(B,)`."""
        return self.evaluate(x, reconstruction, **batch)[0]

    def evaluate(self, x: Any, reconstruction: Any, **batch: Any) -> tuple[Tensor, Tensor | None]:
        """The violations, and how much every example counts for the measure.

        Raises:
            ValueError: If measure and proxy have not the same shape.
        """
        with torch.no_grad():
            value, weights = self.measured.evaluate(x, reconstruction, **batch)
        stand_in, _ = self.proxy.evaluate(x, reconstruction, **batch)
        if value.shape != stand_in.shape:
            raise ValueError(
                f"`measure` and `proxy` must both return one value per example, got "
                f"{tuple(value.shape)} and {tuple(stand_in.shape)}"
            )
        return value.to(stand_in.dtype) + (stand_in - stand_in.detach()), weights

    def elements(self, x: Any) -> float | None:
        """Those of the measure."""
        return self.measured.elements(x)
