"""What an objective can do whose constraints have ranges of tolerances."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import torch
from torch import Tensor
from torch import distributed as dist

from geco_core.constraints.base import Constraint
from geco_core.constraints.tolerance import ToleranceConstraint
from geco_core.constraints.tolerance_range import Scale, hats, interpolated, tightest_met
from geco_core.feasibility import is_feasible
from geco_core.multipliers.along import AtKnots, OfAll, Part, loss_along, observed_along
from geco_core.multipliers.observed import Seen
from geco_core.multipliers.state import Multipliers
from geco_core.multipliers.update import ColumnUpdate
from geco_core.precision import at_least_float32
from geco_core.reporting import Columns
from geco_core.validation import check_gradient, check_violation, whole

if TYPE_CHECKING:
    from geco_core.info import Named

__all__ = ["Curve", "OverRange", "Ranks", "check_update"]

#: The ranks that see a part of the batch each, in a tuple; None where this process sees all of it.
Ranks: TypeAlias = "tuple[dist.ProcessGroup | None] | None"


@dataclass(frozen=True, slots=True)
class Curve:
    r"""The trade-off along a range, as the objective has seen it in training: tensors (K,).

    Averages over about the last hundred steps, of the training batches. The tight end comes
    first.
    """

    kappa: Tensor
    """The tolerances of the knots, in the units of the constraint."""
    reached: Tensor
    """The tolerances that were reached there: equal to `kappa` where it is met exactly."""
    kl: Tensor
    """The mean KL in nats; NaN where the rule keeps no average of it."""
    multiplier: Tensor
    r""":math:`\lambda = -dKL/dC`, the slope of the rate-distortion curve in nats per unit of the
    error (D7)."""
    price: Tensor
    r"""What the next step costs: :math:`-dKL / d\ln\kappa = \lambda\,|ds / d\ln\kappa|` with
    :math:`s` what is allowed; :math:`2 \lambda \kappa^2` nats for squared errors. A tolerance that
    is smaller by 1% costs a hundredth of it; :math:`\ln 10` times it, by one decimal digit."""
    feasible: Tensor
    """Whether the average violation is at most 2% of what is allowed."""

    @property
    def smallest(self) -> float:
        """About the smallest tolerance that is met, NaN if none is; reads the device.

        Of constraints that ask for a least value, the largest.
        """
        return tightest_met(self.kappa.tolist(), self.reached.tolist(), self.feasible.tolist())


class OverRange:
    """The part of an objective that knows of ranges; see `docs/one-run.md`."""

    multipliers: Multipliers
    training: bool
    _bare: bool
    _columns: Columns

    def _constraints(self) -> dict[str, Constraint]:
        raise NotImplementedError

    def draw_tolerance(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        r"""Tolerances for a batch: log-uniform over the range, one from each of `n` equal parts.

        They come in random order, so that neighbours in the batch have nothing in common.

        Args:
            n: The number of examples, :math:`B`.
            generator: The source of randomness; the global one by default.

        Returns:
            Tolerances :math:`(B,)` on the objective's device, float32. Where several constraints
            have ranges, those of the first; the others are at the same place of theirs.

        Raises:
            TypeError: If `n` is not a whole number.
            ValueError: If it is not positive, or no constraint has a range.
        """
        scale = self._leading("draw_tolerance")
        n = whole("n", n)
        table = self.multipliers.table
        device = table.device if generator is None else generator.device
        order = torch.randperm(n, generator=generator, device=device)
        jitter = torch.rand(n, generator=generator, device=device)
        place = ((order + jitter) / n).to(table.device)
        kappa: Tensor = scale.kappa(place)
        return kappa

    def multiplier_at(self, kappa: Tensor | float) -> "Named":
        r"""The multiplier :math:`\lambda(\kappa)` of the violation in its own units.

        It is the slope of the rate-distortion curve, :math:`-dKL / dC` in nats per unit of the
        error (D7); :meth:`curve` has it in nats per relative change of the tolerance.

        Args:
            kappa: Tolerances, a number or :math:`(*)`.

        Returns:
            The multipliers, of the shape of `kappa`; by name where constraints have names.

        Raises:
            TypeError: If `kappa` is neither a number nor a floating-point tensor.
            ValueError: If it is outside of the range, or no constraint has a range.
        """
        leading, table = self._leading("multiplier_at"), self.multipliers.table
        flat = kappa.reshape(-1) if isinstance(kappa, Tensor) else kappa
        count = flat.numel() if isinstance(flat, Tensor) else 1
        place = leading.place(leading.checked(flat, count, table))
        shape = kappa.shape if isinstance(kappa, Tensor) else ()
        relative = self.multipliers.relative_multiplier(self._scales())
        named = {}
        for name, where, _, along in self.ranges():
            weights = hats(place, along.knots).to(relative.dtype)
            value = interpolated(relative[where], weights) / along.allowed(place)
            named[name] = value.reshape(shape)
        return next(iter(named.values())) if self._bare else named

    def curve(self) -> "Curve | dict[str, Curve]":
        """The trade-off along the range as it was seen in training; see :class:`~geco_core.Curve`.

        Returns:
            One curve, or by name those of all constraints with a range.

        Raises:
            ValueError: If no constraint has a range.
        """
        self._leading("curve")
        curves = {
            name: self._curve(where, constraint, along)
            for name, where, constraint, along in self.ranges()
        }
        return next(iter(curves.values())) if self._bare else curves

    def _curve(self, where: slice, constraint: ToleranceConstraint, along: Scale) -> Curve:
        multipliers, scales = self.multipliers, self._scales()
        rows = multipliers.update.columns(multipliers.table)
        allowed = multipliers.as_tensor(scales)[where]
        violation = multipliers.moving_average(scales)[where]
        kappa = multipliers.as_tensor(along.at_knots())
        multiplier = multipliers.multiplier(scales)[where]
        kl = (
            rows["loss_average"][where]
            if "loss_average" in rows
            else torch.full_like(kappa, torch.nan)
        )
        feasible = cast("Tensor", is_feasible(violation / allowed))
        return Curve(
            kappa=kappa,
            reached=constraint.tolerance(violation + allowed),
            kl=kl.clone(),
            multiplier=multiplier,
            price=multiplier * along.slope(kappa),
            feasible=feasible,
        )

    def ranges(self) -> Iterator[tuple[str, slice, ToleranceConstraint, Scale]]:
        """The constraints with a range: name, multipliers, constraint, places and knots."""
        constraints = self._constraints()
        for name, where in self._columns.slices():
            constraint = constraints[name]
            if isinstance(constraint, ToleranceConstraint) and constraint.along is not None:
                yield name, where, constraint, constraint.along

    def _scales(self) -> list[float]:
        # read anew each time: a tolerance may follow a schedule
        return [scale for one in self._constraints().values() for scale in one.scales]

    def _leading(self, what: str) -> Scale:
        for _, _, _, along in self.ranges():
            return along
        raise ValueError(
            f"`{what}` is for objectives with a range of tolerances; give a constraint one, as in "
            f"GECO(ReconstructionError(kappa=ToleranceRange(0.06, 0.2)))"
        )

    def _along(
        self, kl: Tensor, x: Any, reconstruction: Any, batch: dict[str, Any], ranks: Ranks
    ) -> tuple[Tensor, Tensor, Seen]:
        """The loss, the mean KL and what the rule sees, with tolerances of the examples."""
        multipliers = self.multipliers
        relative, wide = multipliers.update.relative, at_least_float32(kl)
        leading = self._leading("kappa")
        batch["kappa"] = leading.checked(batch.get("kappa"), kl.shape[0], kl)
        place = leading.place(batch["kappa"])
        parts: list[Part] = []
        for name, constraint in self._constraints().items():
            known = constraint.elements(x)
            elements = math.nan if known is None else known
            along = getattr(constraint, "along", None)
            if along is None:
                measure = constraint.measure(name, kl, x, reconstruction, batch)
                scale = constraint.scale if relative else 1.0
                parts.append(OfAll(measure, scale, elements))
                value = measure.value
            else:
                value, weights = constraint.evaluate(x, reconstruction, **batch)
                error = check_violation(value, kl, x, name) + constraint.scale
                allowed = along.allowed(place).to(error.dtype)
                value = error / allowed - 1.0 if relative else error - allowed
                weights = None if weights is None else weights.detach().to(value.dtype)
                parts.append(AtKnots(value, weights, hats(place, along.knots), elements))
            if self.training:
                check_gradient(value, name)
        seen = observed_along(multipliers, wide, parts, ranks)
        return loss_along(multipliers, wide, parts, seen), wide.mean(), seen


def check_update(update: object, constraints: Mapping[str, Constraint]) -> bool:
    """Whether a constraint has a range, which only some rules can serve.

    Raises:
        TypeError: If the rule cannot.
    """
    ranged = [name for name, one in constraints.items() if getattr(one, "along", None) is not None]
    if ranged and not isinstance(update, ColumnUpdate):
        raise TypeError(
            f"the range of {ranged[0]!r} needs a ColumnUpdate such as RobustUpdate(), the "
            f"default, got {type(update).__name__}: its multipliers must not see each other"
        )
    return bool(ranged)
