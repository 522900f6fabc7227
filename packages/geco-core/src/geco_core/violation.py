r"""What a constraint is: a module that returns one violation per example.

A constraint :math:`C(x, g(z))` is satisfied where its value is at most 0. It carries three
facts that a multiplier update and a record of a run need: its tolerance `kappa` in the units of
the data, the positive `scale` that makes its value relative (:math:`C / \text{scale}` is free of
units; :math:`\kappa^2` for squared errors), and the `reduction` from elements to one value per
example, in words.
"""

import difflib
import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["CallableConstraint", "Constraint", "as_constraint"]


class Constraint(nn.Module):
    r"""The base of every constraint: subclasses implement :meth:`forward`.

    Args:
        kappa: The tolerance, in the units that the subclass documents. May be set later, for a
            schedule; the next call of the objective uses the new value.
    """

    #: How elements become one value per example, in words; recorded with every result.
    reduction: str = "as the constraint returns it"

    #: The keywords of the batch that it takes, None where that is not known: a keyword which is
    #: nearly one of them is then refused as a slip of the pen.
    keywords: frozenset[str] | None = None

    def __init__(self, kappa: float | None = None) -> None:
        super().__init__()
        self.kappa = kappa

    @property
    def scale(self) -> float:
        r"""The positive unit :math:`s` of the relative violation :math:`C / s`."""
        return 1.0

    def forward(self, x: Tensor, reconstruction: Tensor, **batch: Any) -> Tensor:
        r"""Computes the violations.

        Args:
            x: The data, :math:`(B, *)`.
            reconstruction: The decoder's output, :math:`(B, *)`.
            batch: Whatever else the constraint needs (labels, masks); constraints take what
                they know and ignore the rest.

        Returns:
            One violation per example, :math:`(B,)`, satisfied where :math:`\le 0`.
        """
        raise NotImplementedError

    def quick_mean(self, x: Tensor, reconstruction: Tensor, **batch: Any) -> Tensor | None:
        """The mean violation of a batch, where that is cheaper than one value per example.

        Args:
            x: The data, as for :meth:`forward`.
            reconstruction: The decoder's output.
            batch: Whatever else the constraint needs.

        Returns:
            The mean of :meth:`forward` as a scalar of float32 or wider, or None, as here: then
            :meth:`forward` is called.
        """
        return None

    def equivalent_beta(self, multiplier: Tensor, x: Tensor) -> Tensor:
        r"""The weight of the KL when the constraint's loss has weight 1.

        Args:
            multiplier: The multiplier :math:`\lambda` of this constraint, a scalar.
            x: A batch of data, for its shape.

        Returns:
            :math:`1 / \lambda`; subclasses whose constraint is a Gaussian likelihood in disguise
            return the weight of the corresponding beta-VAE instead.
        """
        return multiplier.reciprocal()


class CallableConstraint(Constraint):
    r"""Makes a constraint out of any function `(x, reconstruction, **batch) -> (batch,)`.

    Args:
        function: Returns one violation per example, satisfied where :math:`\le 0`. Keywords that
            it does not name are not passed to it.
        scale: The unit of its violations: what counts as a violation of 100%.
        reduction: How elements become one value per example, in words.

    Raises:
        TypeError: If `function` cannot be called.
        ValueError: If `scale` is not positive and finite.
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        *,
        scale: float = 1.0,
        reduction: str = "as the function returns it",
    ) -> None:
        super().__init__()
        if not callable(function):
            raise TypeError(
                f"`function` must be callable as (x, reconstruction, **batch), "
                f"got {type(function).__name__}"
            )
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"`scale` must be positive and finite, got {scale}")
        self.function = function
        self.reduction = reduction
        self._scale = float(scale)
        self.keywords = _accepted_keywords(function)

    @property
    def scale(self) -> float:
        """The unit that was given."""
        return self._scale

    def forward(self, x: Tensor, reconstruction: Tensor, **batch: Any) -> Tensor:
        """Calls the function with the keywords that it accepts."""
        if self.keywords is not None:
            batch = {key: value for key, value in batch.items() if key in self.keywords}
        violation = self.function(x, reconstruction, **batch)
        if not isinstance(violation, Tensor):
            raise TypeError(
                f"a constraint must return a tensor with one violation per example, "
                f"got {type(violation).__name__}"
            )
        return violation

    def extra_repr(self) -> str:
        """The name of the function, its unit and its reduction."""
        name = getattr(self.function, "__name__", type(self.function).__name__)
        return f"{name}, scale={self._scale:g}, reduction={self.reduction!r}"


def _accepted_keywords(function: Callable[..., Tensor]) -> frozenset[str] | None:
    """The keywords that a function accepts by name, None for all of them."""
    target = function.forward if isinstance(function, nn.Module) else function
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):  # builtins without a signature
        return frozenset()
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        return None
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    # the first two are the data and the reconstruction
    positional = [p.name for p in parameters if p.kind is not inspect.Parameter.KEYWORD_ONLY][:2]
    return frozenset(p.name for p in parameters if p.kind in named and p.name not in positional)


def as_constraint(constraint: Constraint | Callable[..., Tensor]) -> Constraint:
    """Returns a constraint unchanged and wraps any other callable.

    Raises:
        TypeError: If it is neither.
    """
    if isinstance(constraint, Constraint):
        return constraint
    if isinstance(constraint, type) or not callable(constraint):
        raise TypeError(
            f"a constraint must be a Constraint instance or a function "
            f"(x, reconstruction, **batch) -> (batch,), got {constraint!r}"
        )
    return CallableConstraint(constraint)


def check_violation(violation: Tensor, kl: Tensor, name: str) -> Tensor:
    """Checks that there is one violation per example, and returns it in at least float32.

    Raises:
        ValueError: If the shapes of `violation` and `kl` differ, naming both.
    """
    if violation.shape != kl.shape:
        raise ValueError(
            f"constraint {name!r} must return one violation per example, shape "
            f"{tuple(kl.shape)}, but returned {tuple(violation.shape)}; reduce every axis "
            f"except the first"
        )
    return at_least_float32(violation)


def check_keywords(keywords: Iterable[str], constraints: Iterable[Constraint]) -> None:
    """Refuses a misspelt keyword, which every constraint would silently ignore.

    Keywords that no constraint takes and that resemble none of theirs are fine: a loop may hand
    its labels to every objective.

    Raises:
        TypeError: If a keyword that none takes is nearly one that some constraint takes.
    """
    known: set[str] = set()
    for constraint in constraints:
        if constraint.keywords is None:
            return  # it may take anything
        known |= constraint.keywords
    for key in keywords:
        near = [] if key in known else difflib.get_close_matches(key, sorted(known), n=1)
        if near:
            raise TypeError(
                f"no constraint takes the keyword `{key}`, which is nearly `{near[0]}`; "
                f"there are {', '.join(f'`{name}`' for name in sorted(known))}"
            )


def at_least_float32(value: Tensor) -> Tensor:
    """Returns half-precision values as float32 and everything else unchanged."""
    if value.dtype in (torch.float16, torch.bfloat16):
        return value.float()
    return value


def check_kl(kl: Tensor, x: Tensor, like: Tensor | None = None) -> None:
    """Checks that there is one KL per example.

    Raises:
        TypeError: If `kl` is not a floating-point tensor, or `x` not a tensor.
        ValueError: If its shape is not that of the batch, the batch is empty, or its device is
            not that of `like`.
    """
    # the usual case is seen at a glance; this is the hot path of a training loop
    if type(kl) is Tensor and type(x) is Tensor and kl.dtype is torch.float32 and kl.dim() == 1:
        fits = x.dim() > 0 and 0 < kl.shape[0] == x.shape[0]
        if fits and (like is None or kl.device == like.device):
            return
    values: dict[str, object] = {"kl": kl, "x": x}
    for name, value in values.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"`{name}` must be a torch.Tensor, got {type(value).__name__}")
    if not kl.is_floating_point():
        raise TypeError(f"`kl` must have a floating-point dtype, got {kl.dtype}")
    if kl.dim() != 1 or x.dim() == 0 or kl.shape[0] != x.shape[0]:
        due = f"({x.shape[0]},)" if x.dim() else "(batch,)"
        raise ValueError(
            f"`kl` must hold one value per example, shape {due}, got {tuple(kl.shape)}; sum it "
            f"over the latent dimensions only"
        )
    if kl.shape[0] == 0:
        raise ValueError("`kl` must hold at least one example, got an empty batch")
    if like is not None and kl.device != like.device:
        raise ValueError(
            f"`kl` is on {kl.device}, but the objective is on {like.device}; move it with "
            f"objective.to({str(kl.device)!r})"
        )
