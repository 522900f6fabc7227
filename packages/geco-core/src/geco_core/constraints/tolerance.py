"""A constraint with a tolerance kappa that is validated, scheduled and saved."""

import copy
import logging
import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from geco_core.constraints.base import Constraint, Measure
from geco_core.constraints.tolerance_range import Scale, ToleranceRange
from geco_core.text_state import facts_of, tensor_of
from geco_core.validation import valid_kappa

__all__ = ["ComplementTolerance", "SquaredTolerance", "ToleranceConstraint"]

logger = logging.getLogger(__name__)


class ToleranceConstraint(Constraint):
    r"""The base of constraints whose tolerance :math:`\kappa` is a positive number.

    The tolerance is part of the module's state: a loaded state brings its own `kappa` (and says
    so in the log where it differs), so that a resumed run goes on with the tolerance it had. To
    resume with another one, set `constraint.kappa` after loading. A state that was saved under
    another reduction or by another kind of constraint is refused.

    Instead of a number it may be a :class:`~geco_core.ToleranceRange`, where the subclass says
    what is allowed at a tolerance (:meth:`allowed` and :meth:`tolerance`, as
    :class:`SquaredTolerance` and :class:`ComplementTolerance` do) and its violations are an error
    less :attr:`scale`. The objective then takes the tolerance of every example.

    Args:
        kappa: The tolerance, in the units that the subclass documents, or a range of them.

    Raises:
        TypeError: If `kappa` is neither a number nor a range.
        ValueError: If `kappa` is not positive and finite, or not below the subclass's limit.
    """

    #: The values that kappa may take are those between 0 and this one, both excluded.
    kappa_limit: float = math.inf

    several = "tolerances"

    #: The places, knots and tolerances of a range; None where the tolerance is a number.
    along: Scale | None = None

    def __init__(self, kappa: float | ToleranceRange) -> None:
        if isinstance(kappa, ToleranceRange):
            valid_kappa(kappa.high, self.kappa_limit, type(self).__name__)
            if type(self).allowed is ToleranceConstraint.allowed:
                raise TypeError(
                    f"{type(self).__name__} takes no ToleranceRange: it does not say what is "
                    f"allowed at a tolerance; derive it from SquaredTolerance or "
                    f"ComplementTolerance, or write `allowed` and `tolerance`"
                )
        super().__init__(kappa)  # type: ignore[arg-type]

    @property
    def kappa(self) -> float | ToleranceRange:
        r"""The tolerance :math:`\kappa`. Setting it is a schedule: it acts from the next call.

        A range stays what it is: the multipliers belong to its knots.
        """
        return self._kappa if self.along is None else self.along.ends

    @kappa.setter
    def kappa(self, value: float | ToleranceRange) -> None:
        ranged = isinstance(value, ToleranceRange)
        if "_kappa" in self.__dict__ and (self.along is not None or ranged):
            raise ValueError(
                f"`kappa` of {type(self).__name__} cannot become {value}: a range is given when "
                f"the constraint is built, and stays"
            )
        if isinstance(value, ToleranceRange):
            self._take(value)
        else:
            self._kappa = valid_kappa(value, self.kappa_limit, type(self).__name__)

    def _take(self, ends: ToleranceRange) -> None:
        self.along = Scale(ends, self.allowed, self.tolerance)
        self.multipliers = self.along.knots
        # violations are computed at one tolerance, from which those at others follow
        self._kappa = self.along.kappa(0.5)

    def allowed(self, kappa: Any) -> Any:
        """What is allowed at a tolerance, a number or a tensor: the scale there.

        Args:
            kappa: Tolerances.
        """
        raise NotImplementedError

    def tolerance(self, allowed: Any) -> Any:
        """The tolerance at which so much is allowed, a number or a tensor.

        Args:
            allowed: What is allowed.
        """
        raise NotImplementedError

    @property
    def scales(self) -> list[float]:
        """What is allowed at every knot of a range."""
        if self.along is None:
            return super().scales
        return [self.allowed(kappa) for kappa in self.along.at_knots()]

    def of_multiplier(self, index: int) -> tuple[str, "Constraint"]:
        """A knot's tolerance, and the constraint at that tolerance alone."""
        if self.along is None:
            return super().of_multiplier(index)
        kappa = self.along.at_knots()[index]
        return f"kappa={kappa:.4g}", self.at(kappa)

    def measure(
        self, name: str, kl: Tensor, x: Any, reconstruction: Any, batch: Mapping[str, Any]
    ) -> Measure:
        """The mean violation of a batch, at one tolerance.

        Raises:
            TypeError: If the tolerance is a range.
        """
        if self.along is not None:
            raise TypeError(
                f"the tolerance of constraint {name!r} is a range, which only GECO itself serves; "
                f"take the constraint at one tolerance, constraint.at({self.along.ends.high:g})"
            )
        return super().measure(name, kl, x, reconstruction, batch)

    def at(self, kappa: float) -> "ToleranceConstraint":
        """The same constraint at one tolerance; networks are shared.

        Args:
            kappa: The tolerance.

        Raises:
            TypeError: If it is not a number.
            ValueError: If it is not positive and finite, or not below the limit.
        """
        one = copy.copy(self)
        one.along, one.multipliers = None, 1
        one._kappa = valid_kappa(kappa, self.kappa_limit, type(self).__name__)
        return one

    def get_extra_state(self) -> Tensor:
        """The tolerance and the reduction, for `state_dict`."""
        if self.along is None:
            return tensor_of(self._facts(), kappa=self._kappa)
        low, high = self.along.ends.low, self.along.ends.high
        return tensor_of({**self._facts(), "range": True}, kappa=low, high=high)

    def set_extra_state(self, state: Any) -> None:
        """Takes over a saved tolerance, for `load_state_dict`.

        Raises:
            ValueError: If the state belongs to another kind of constraint or reduction.
        """
        own, saved = self._facts(), facts_of(state)
        if saved is None or not {*own, "kappa"} <= saved.keys():
            raise ValueError(
                f"the state of {own['kind']} must hold kind, kappa, reduction, got {state!r}; "
                f"load a state that `state_dict` of the same constraint returned"
            )
        for key, value in own.items():
            if saved[key] != value:
                raise ValueError(
                    f"the state was saved with {key} {saved[key]!r}, this constraint has "
                    f"{value!r}; build the constraint as it was when the state was saved"
                )
        if bool(saved.get("range")) != (self.along is not None):
            raise ValueError(
                f"the state was saved with {'a range' if saved.get('range') else 'one tolerance'} "
                f"as kappa, this constraint has {self.kappa}; build the constraint as it was when "
                f"the state was saved"
            )
        before = self.kappa
        if self.along is None:
            self.kappa = saved["kappa"]
        else:
            self._take(ToleranceRange(saved["kappa"], saved["high"]))
        if self.kappa != before:
            logger.warning(
                "%s: the loaded state sets kappa to %s (it was %s)%s",
                own["kind"],
                f"{self.kappa:g}",
                f"{before:g}",
                "; set `kappa` after loading to change it" if self.along is None else "",
            )

    def _facts(self) -> dict[str, Any]:
        """What a saved state must have in common with this constraint."""
        return {"kind": type(self).__name__, "reduction": self.reduction}

    def extra_repr(self) -> str:
        """The tolerance and the reduction."""
        return f"kappa={self.kappa:g}, reduction={self.reduction!r}"


class SquaredTolerance(ToleranceConstraint):
    r"""The base of constraints on a mean squared error, of which :math:`\kappa^2` is allowed."""

    @property
    def scale(self) -> float:
        r"""The allowed mean squared error :math:`\kappa^2`, at one tolerance of a range."""
        return self._kappa**2

    def allowed(self, kappa: Any) -> Any:
        r""":math:`\kappa^2`."""
        return kappa * kappa

    def tolerance(self, allowed: Any) -> Any:
        r"""The root of what is allowed."""
        return allowed**0.5


class ComplementTolerance(ToleranceConstraint):
    r"""The base of constraints on what is missing to 1, of which :math:`1 - \kappa` is allowed."""

    kappa_limit = 1.0

    @property
    def scale(self) -> float:
        r"""What may be missing, :math:`1 - \kappa`, at one tolerance of a range."""
        return 1 - self._kappa

    def allowed(self, kappa: Any) -> Any:
        r""":math:`1 - \kappa`."""
        return 1 - kappa

    def tolerance(self, allowed: Any) -> Any:
        r"""1 less what is allowed."""
        return 1 - allowed
