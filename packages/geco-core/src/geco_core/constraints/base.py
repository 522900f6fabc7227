r"""What a constraint is: a module that returns one violation per example.

A constraint :math:`C(x, g(z))` is satisfied where its value is at most 0. It carries three
facts that a multiplier update and a record of a run need: its tolerance `kappa` in the units of
the data, the positive `scale` that makes its value relative (:math:`C / \text{scale}` is free of
units; :math:`\kappa^2` for squared errors), and the `reduction` from elements to one value per
example, in words.
"""

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from geco_core.constraints.frozen import FrozenMetric, is_metric
from geco_core.constraints.reductions import counted
from geco_core.held import Held
from geco_core.validation import check_batch, check_violation, positive

__all__ = [
    "BARE",
    "CallableConstraint",
    "Constraint",
    "Constraints",
    "Measure",
    "as_constraint",
    "check_keywords",
    "named_constraints",
]


class Measure(NamedTuple):
    """What a constraint says of a batch: a scalar, or one value for each of its multipliers."""

    value: Tensor
    """The mean violation, with its gradient; 0 where there is no example."""
    examples: Tensor | None = None
    """The weight of the examples that the mean is over; None where all count."""
    share: Tensor | None = None
    """Their share of the batch in the loss; None for 1."""


class Constraint(nn.Module):
    r"""The base of every constraint: subclasses implement :meth:`forward`.

    Args:
        kappa: The tolerance, in the units that the subclass documents. May be set later, for a
            schedule; the next call of the objective uses the new value.
    """

    #: How elements become one value per example, in words; recorded with every result.
    reduction: str = "as the constraint returns it"

    #: The keywords of the batch that it takes, None where that is not known: a keyword which is
    #: nearly one of them is then refused as a misspelling.
    keywords: frozenset[str] | None = None

    #: How many multipliers it has.
    multipliers: int = 1

    #: What several multipliers are about, in words.
    several: str = "groups"

    def __init__(self, kappa: float | None = None) -> None:
        super().__init__()
        self.kappa: Any = kappa

    @property
    def scale(self) -> float:
        r"""The positive unit :math:`s` of the relative violation :math:`C / s`."""
        return 1.0

    @property
    def scales(self) -> list[float]:
        """The unit for each of its multipliers."""
        return [self.scale] * self.multipliers

    def of_multiplier(self, index: int) -> tuple[str, "Constraint"]:
        """What one of several multipliers is about: a label, and the constraint it belongs to.

        Args:
            index: Which of them.
        """
        return str(index), self

    def forward(self, x: Any, reconstruction: Any, **batch: Any) -> Tensor:
        r"""Computes the violations.

        Args:
            x: The data: a tensor :math:`(B, *)`, or whatever the constraint looks at.
            reconstruction: The decoder's output, likewise.
            batch: Whatever else the constraint needs (labels, masks); constraints take what
                they know and ignore the rest.

        Returns:
            One violation per example, :math:`(B,)`, satisfied where :math:`\le 0`.
        """
        raise NotImplementedError

    def quick_mean(self, x: Any, reconstruction: Any, **batch: Any) -> Tensor | None:
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

    def example_weights(self, x: Any, reconstruction: Any, **batch: Any) -> Tensor | None:
        r"""How much each example counts in the mean over the batch.

        Args:
            x: The data, as for :meth:`forward`.
            reconstruction: The decoder's output.
            batch: Whatever else the constraint needs.

        Returns:
            Non-negative weights :math:`(B,)`, 0 for an example that holds no data; or None, as
            here, where all count alike.
        """
        return None

    def evaluate(self, x: Any, reconstruction: Any, **batch: Any) -> tuple[Tensor, Tensor | None]:
        """The violations and :meth:`example_weights`, for constraints that find both in one go.

        Args:
            x: The data, as for :meth:`forward`.
            reconstruction: The decoder's output.
            batch: Whatever else the constraint needs.
        """
        violation = self(x, reconstruction, **batch)
        return violation, self.example_weights(x, reconstruction, **batch)

    def measure(
        self, name: str, kl: Tensor, x: Any, reconstruction: Any, batch: Mapping[str, Any]
    ) -> Measure:
        """The mean violation of a batch, over the examples that count.

        Args:
            name: Its name in the objective, for errors.
            kl: The main loss of every example, :math:`(B,)`.
            x: The data, as for :meth:`forward`.
            reconstruction: The decoder's output.
            batch: Whatever else the constraint needs.
        """
        value = self.quick_mean(x, reconstruction, **batch)
        if value is not None:
            check_batch(kl, x)
            return Measure(value)
        violation, weights = self.evaluate(x, reconstruction, **batch)
        violation = check_violation(violation, kl, x, name)
        if weights is None:
            return Measure(violation.mean())
        weights = weights.detach().to(violation.dtype)
        total = weights.sum()
        return Measure(
            counted(violation, weights).sum() / torch.where(total > 0, total, 1.0), total
        )

    def as_reported(self, field: str, values: Tensor) -> Tensor:
        """A field of the objective's info, given its values for each of the multipliers.

        Args:
            field: The name of the field.
            values: One value per multiplier.

        Returns:
            The value itself where there is one multiplier, else all of them.
        """
        return values[0] if self.multipliers == 1 else values

    def elements(self, x: Any) -> float | None:
        """How many elements of an example the violation is a mean over.

        None where that is not known, 0 where not even the scale of the violations is: the
        default update then takes the mean size of the first ones for it.

        Args:
            x: A batch of data, for its shape.
        """
        return None

    def equivalent_beta(self, multiplier: Tensor, x: Any) -> Tensor:
        r"""The weight of the KL when the constraint's loss has weight 1.

        Args:
            multiplier: The multiplier :math:`\lambda` of this constraint.
            x: A batch of data as tensors of the device "meta", for its shape.

        Returns:
            :math:`1 / \lambda`; subclasses whose constraint is a Gaussian likelihood in disguise
            return the weight of the corresponding beta-VAE instead.
        """
        return multiplier.reciprocal()


class CallableConstraint(Constraint):
    r"""Makes a constraint out of any function `(x, reconstruction, **batch) -> (batch,)`.

    Args:
        function: Returns one violation per example, satisfied where :math:`\le 0`. Keywords that
            it does not name are not passed to it. A module of whose parameters none is to be
            trained (it is in evaluation mode, or none needs a gradient) is a metric: it stays in
            evaluation mode and is no part of the constraint's parameters and state.
        scale: The unit of its violations: what counts as a violation of 100%. None leaves it to
            the update: the default one takes the mean size of the first violations.
        reduction: How elements become one value per example, in words.

    Raises:
        TypeError: If `function` cannot be called.
        ValueError: If `scale` is not positive and finite.
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        *,
        scale: float | None = None,
        reduction: str = "as the function returns it",
    ) -> None:
        super().__init__()
        if not callable(function):
            raise TypeError(
                f"`function` must be callable as (x, reconstruction, **batch), "
                f"got {type(function).__name__}"
            )
        # a module with parameters to train belongs to this one; a metric does not
        if isinstance(function, nn.Module) and not is_metric(function):
            self._held: Held | FrozenMetric | None = None
            self._modules["function"] = function
        elif isinstance(function, nn.Module):
            self._held = FrozenMetric(function)
        else:
            self._held = Held(function, "the function: define it at the top of a module")
        self.reduction = reduction
        self._scale = None if scale is None else positive("scale", scale)
        self.keywords = _accepted_keywords(function)

    @property
    def function(self) -> Callable[..., Tensor]:
        """The function that was given."""
        if isinstance(self._held, FrozenMetric):
            return self._held.network
        return self._modules["function"] if self._held is None else self._held.value  # type: ignore[return-value]

    @property
    def scale(self) -> float:
        """The unit that was given, 1 where none was."""
        return 1.0 if self._scale is None else self._scale

    def elements(self, x: Any) -> float | None:
        """Unknown: None with a scale, 0 without."""
        return 0.0 if self._scale is None else None

    def forward(self, x: Any, reconstruction: Any, **batch: Any) -> Tensor:
        """Calls the function with the keywords that it accepts.

        Raises:
            TypeError: If it returns no tensor.
        """
        if self.keywords is not None:
            batch = {key: value for key, value in batch.items() if key in self.keywords}
        call = self._modules["function"] if self._held is None else self._held
        violation = call(x, reconstruction, **batch)  # type: ignore[misc]
        if not isinstance(violation, Tensor):
            raise TypeError(
                f"a constraint must return a tensor with one violation per example, "
                f"got {type(violation).__name__}"
            )
        return violation

    def extra_repr(self) -> str:
        """The name of the function, its unit and its reduction."""
        name = getattr(self.function, "__name__", type(self.function).__name__)
        return f"{name}, scale={self._scale}, reduction={self.reduction!r}"


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


def check_keywords(keywords: Iterable[str], constraints: Iterable[Constraint]) -> None:
    """Refuses a misspelt keyword, which every constraint would silently ignore.

    Keywords that no constraint takes and that resemble none of theirs are fine: a loop may hand
    its labels to every objective.

    Raises:
        TypeError: If a keyword that none takes is nearly one that some constraint takes.
        ValueError: If `kappa`, the tolerances of the examples, is among them and none takes it.
    """
    known: set[str] = set()
    for constraint in constraints:
        if constraint.keywords is None:
            return  # it may take anything
        known |= constraint.keywords
    for key in keywords:
        if key == "kappa" and key not in known:
            raise ValueError(
                "`kappa` is given, but the tolerances of this objective are fixed numbers; give "
                "a constraint a range, kappa=ToleranceRange(low, high), or leave it out"
            )
        near = [] if key in known else difflib.get_close_matches(key, sorted(known), n=1)
        if near:
            raise TypeError(
                f"no constraint takes the keyword `{key}`, which is nearly `{near[0]}`; "
                f"there are {', '.join(f'`{name}`' for name in sorted(known))}"
            )


#: The name in `objective.constraints` of a constraint that was given without one.
BARE = "constraint"

ConstraintLike: TypeAlias = Constraint | Callable[..., Tensor]
Constraints: TypeAlias = (
    ConstraintLike | Mapping[str, ConstraintLike] | Iterable[tuple[str, ConstraintLike]]
)


def named_constraints(constraints: Any) -> tuple[bool, dict[str, Constraint]]:
    """Constraints by name, and whether a single one was given without a name.

    Args:
        constraints: A constraint, a mapping of them, or pairs of a name and a constraint.

    Raises:
        TypeError: If something is not a constraint.
        ValueError: If there is none, or a name is unusable or given twice.
    """
    if isinstance(constraints, nn.ModuleDict):
        constraints = dict(constraints.items())
    if isinstance(constraints, Mapping):
        pairs = list(constraints.items())
    elif callable(constraints) or not isinstance(constraints, Iterable):
        return True, {BARE: as_constraint(constraints)}
    else:
        pairs = [_as_pair(item) for item in constraints]
    named: dict[str, Constraint] = {}
    module = nn.ModuleDict()
    for name, constraint in pairs:
        if name in named:
            raise ValueError(f"`constraints` has the name {name!r} twice; give each its own")
        if not isinstance(name, str) or not name or "." in name or hasattr(module, name):
            raise ValueError(
                f"`constraints` must have names that are non-empty strings without dots and not "
                f"those of a module's own attributes, got {name!r}"
            )
        named[name] = as_constraint(constraint)
    if not named:
        raise ValueError("`constraints` is empty; give at least one constraint")
    return False, named


def _as_pair(item: Any) -> tuple[Any, Any]:
    if not (isinstance(item, tuple | list) and len(item) == 2):
        raise TypeError(
            f"`constraints` must be a constraint, a mapping from names to constraints, or pairs "
            f"(name, constraint), got an element {item!r}"
        )
    return item[0], item[1]
