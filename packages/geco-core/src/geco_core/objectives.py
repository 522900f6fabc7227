r"""What a training loop minimises: GECO's Lagrangian, with its multipliers' ascent.

.. math::

    \mathcal L_\lambda = \mathbb E\,KL(q(z|x) \,\|\, \pi) + \lambda^\top \mathbb E\,C(x, g(z))
    \qquad \text{(Eq. 2)}

is minimised by the user's optimizer over the model's parameters and maximised over
:math:`\lambda \ge 0` by :meth:`GECO.step`.
"""

import math
from collections.abc import ItemsView
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch import distributed as dist

from geco_core.constraints.base import Constraint, Constraints, check_keywords, named_constraints
from geco_core.feasibility import is_feasible
from geco_core.info import Info, Named
from geco_core.multipliers.observed import Measure, Seen
from geco_core.multipliers.robust import RobustUpdate
from geco_core.multipliers.saturation import SaturationWatch
from geco_core.multipliers.state import Multipliers
from geco_core.multipliers.update import COMMON_ROWS, MultiplierUpdate
from geco_core.precision import at_least_float32
from geco_core.reduction import is_alone
from geco_core.validation import check_kl, check_violation

__all__ = ["GECO"]


class GECO(nn.Module):
    r"""Minimises the KL under constraints: no weight to tune, only tolerances.

    With several ranks (`torch.distributed`) every loss in training mode sends one small message,
    after which all ranks have seen the violation of the whole batch: they weigh their gradients
    and move their multipliers alike, so each must call the objective the same number of times.

    Args:
        constraints: One constraint, or a mapping from names to constraints. A constraint is a
            :class:`~geco_core.Constraint` or any function
            `(x, reconstruction, **batch) -> (batch,)`, satisfied where :math:`\le 0`.
        update: How the multipliers move; :class:`~geco_core.RobustUpdate` by default.
        process_group: The ranks whose examples are averaged for the ascent; all by default.
        total_steps: The optimizer steps of the whole run, where they are known: the default
            update then makes use of those that are left.

    Raises:
        TypeError: If a constraint or the update is of another type, or `total_steps` is given
            with an update that knows no schedule.
        ValueError: If there is no constraint, or a name is unusable or given twice.

    Example:
        >>> import torch
        >>> from geco_core import GECO, ReconstructionError
        >>> x, decoder = torch.rand(8, 3), torch.nn.Linear(2, 3)
        >>> optimizer = torch.optim.Adam(decoder.parameters())
        >>> objective = GECO(ReconstructionError(kappa=0.1))
        >>> loss = objective(torch.rand(8), x, decoder(torch.rand(8, 2)))
        >>> loss.backward()
        >>> optimizer.step()
        >>> optimizer.zero_grad()
        >>> objective.step()
    """

    def __init__(
        self,
        constraints: Constraints,
        *,
        update: MultiplierUpdate | None = None,
        process_group: "dist.ProcessGroup | None" = None,
        total_steps: int | None = None,
    ) -> None:
        super().__init__()
        self._bare, named = named_constraints(constraints)
        update = RobustUpdate() if update is None else update
        if not isinstance(update, MultiplierUpdate):
            raise TypeError(
                f"`update` must be a MultiplierUpdate such as PaperUpdate() or RobustUpdate(), "
                f"got {update!r}"
            )
        if total_steps is not None:
            if not isinstance(update, RobustUpdate):
                raise TypeError(
                    f"`total_steps` is for RobustUpdate, the default; {type(update).__name__} "
                    f"knows no schedule"
                )
            update = replace(update, total_steps=total_steps)
        self.process_group = process_group
        self.constraints = nn.ModuleDict(named)
        self.multipliers = Multipliers(update, len(named))
        self._names = tuple(named)
        # a tuple, because attributes that are modules are slow to look up
        self._multipliers = (self.multipliers,)
        # what was seen since the last ascent, if anything: one element at most
        self._pending: list[Seen] = []
        # the sets of keywords that were found to be spelt well
        self._spelt: set[frozenset[str]] = {frozenset()}
        self._last: tuple[Tensor, Tensor, Seen, torch.Size] | None = None
        self._watch = SaturationWatch()

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
            TypeError: If `kl` is not a floating-point tensor, or a keyword is misspelt.
            ValueError: If a shape does not fit.
            RuntimeError: In training mode, if the loss or a constraint has no gradient.
        """
        multipliers, training = self._multipliers[0], self.training
        check_kl(kl, x, multipliers.table)
        if batch and not torch.compiler.is_compiling():
            self._check_spelling(frozenset(batch))
        kl_mean = at_least_float32(kl).mean()
        measures, scales, elements = [], [], []
        relative = multipliers.update.relative
        for name, constraint in self._named_modules():
            value = constraint.quick_mean(x, reconstruction, **batch)
            if value is None:
                violation = constraint(x, reconstruction, **batch)
                value = check_violation(violation, kl, name).mean()
            if training and not value.requires_grad:
                raise RuntimeError(
                    f"in training mode constraint {name!r} must depend on parameters, but its "
                    f"value has no gradient: call objective.eval() to evaluate, or check that "
                    f"`reconstruction` was not detached"
                )
            measures.append(Measure(value))
            scales.append(constraint.scale if relative else 1.0)
            known = constraint.elements(x)
            elements.append(math.nan if known is None else known)
        shared = training and not is_alone(self.process_group)
        # shared before the weights: all ranks must weigh their gradients alike
        ranks = (self.process_group,) if shared else None
        seen = multipliers.observe(kl_mean, measures, scales, elements, kl.shape[0], ranks)
        loss = multipliers.weighted(kl_mean, measures, scales, seen)
        if training:
            pending = self._pending
            self._pending = [multipliers.joined(pending[0], seen) if pending else seen]
        self._last = (loss.detach(), kl_mean.detach(), seen, x.shape)
        return loss

    def _check_spelling(self, keywords: frozenset[str]) -> None:
        if keywords not in self._spelt:
            check_keywords(keywords, self._constraints().values())
            self._spelt.add(keywords)

    def step(self) -> None:
        """The ascent of the multipliers: once per optimizer step, after it.

        Uses the mean over all examples since the last ascent, of all ranks. Does nothing in
        evaluation mode.

        Raises:
            RuntimeError: If there has been no loss in training mode since the last ascent.
        """
        if not self.training:
            return
        pending, multipliers = self._pending, self._multipliers[0]
        if not pending:
            raise RuntimeError(
                "step() needs a loss computed in training mode since the last step(): call the "
                "objective first"
            )
        self._pending = []
        multipliers.ascend(pending[0])
        if not torch.compiler.is_compiling():
            self._watch.tick(multipliers, self._modules["constraints"])  # type: ignore[arg-type]

    @property
    def info(self) -> Info:
        """The state after the last call; see :class:`Info`."""
        m, scales = self.multipliers, self._scales()
        nan = m.table.new_full((), torch.nan)
        loss, kl, constraint, shape = nan, nan, nan.expand(len(scales)), None
        if self._last is not None:
            loss, kl, seen, shape = self._last
            constraint = m.in_tensors(seen).observation.violation
        multiplier, average = m.multiplier(scales), m.moving_average(scales)
        beta = nan.expand(len(scales))
        if shape is not None:
            x = torch.empty(shape, device="meta")
            beta = torch.stack(
                [
                    c.equivalent_beta(multiplier[i], x)
                    for i, c in enumerate(self._constraints().values())
                ]
            )
        return Info(
            loss=loss.clone(),
            kl=kl.clone(),
            constraint=self._named(m.in_own_units(constraint, scales)),
            moving_average=self._named(average),
            multiplier=self._named(multiplier),
            relative_multiplier=self._named(m.relative_multiplier(scales)),
            beta=self._named(beta),
            feasible=self._named(cast("Tensor", is_feasible(average / m.as_tensor(scales)))),
            saturated=self._named(m.saturated()),
            skipped=self._named(m.skipped()),
        )

    def report(self) -> str:
        r"""One line per constraint: what was asked for, what is reached, the multiplier.

        Reads numbers from the device, so call it where you log and not at every step. Like
        :meth:`step` from time to time, :meth:`eval` and `state_dict`, it warns once in the log
        `geco_core.saturation` of a constraint that cannot be reached: its multiplier is at the
        upper bound while it is still violated.
        """
        self._watch.look(self.multipliers, self.constraints)
        scales = self._scales()
        average = self.multipliers.moving_average(scales).tolist()
        multiplier = self.multipliers.multiplier(scales).tolist()
        saturated = self.multipliers.saturated().tolist()
        skipped = self.multipliers.skipped().tolist()
        lines = []
        for i, (name, constraint) in enumerate(self._named_modules()):
            feasible = is_feasible(average[i] / scales[i])
            state = "saturated" if saturated[i] else "feasible" if feasible else "violated"
            lines.append(
                f"{name}: {state}, violation {average[i]:.4g} ({average[i] / scales[i]:+.2%} of "
                f"its scale), multiplier {multiplier[i]:.4g}"
                + (f", kappa {constraint.kappa:g}" if constraint.kappa is not None else "")
                + (f", {skipped[i]} ascents skipped" if skipped[i] else "")
            )
        return "\n".join(lines)

    def train(self, mode: bool = True) -> "GECO":
        """Sets the mode; before an evaluation, looks for constraints that cannot be reached."""
        if self.training and not mode:
            self._watch.look(self.multipliers, self.constraints)
        return super().train(mode)

    def get_extra_state(self) -> dict[str, Any]:
        """What a loaded table must agree with, for `state_dict`."""
        self._watch.look(self.multipliers, self.constraints)
        return self._agreement()

    def set_extra_state(self, state: Any) -> None:
        """Nothing more to do: it has been checked before anything was loaded."""
        self._pending, self._last = [], None
        self._watch.forget()

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        # first of all modules: what does not fit must not be loaded by halves
        saved = state_dict.get(f"{prefix}_extra_state")
        if f"{prefix}_extra_state" in state_dict:
            for key, value in self._agreement().items():
                found = saved.get(key) if isinstance(saved, dict) else None
                # of its rows a saved table need only have those that all rules have
                fits = found == value if key != "rows" else {*COMMON_ROWS} <= {*(found or ())}
                if not fits:
                    raise ValueError(
                        f"the state was saved with {key} {found!r}, this objective has "
                        f"{value!r}; build the objective as it was when the state was saved"
                    )
        key = f"{prefix}multipliers.table"
        table, own = state_dict.get(key), self.multipliers.table
        rows = self._agreement()["rows"]
        saved_rows = saved["rows"] if isinstance(saved, dict) else rows
        if table is not None:
            if table.shape != (len(saved_rows), own.shape[1]):
                raise ValueError(
                    f"the saved multipliers have shape {tuple(table.shape)}, those of this "
                    f"objective {(len(saved_rows), own.shape[1])}; build the objective as it was "
                    f"when the state was saved"
                )
            if saved_rows != rows:
                state_dict[key] = self.multipliers.with_rows(table, saved_rows)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _named_modules(self) -> "ItemsView[str, Constraint]":
        if torch.compiler.is_compiling():
            return cast("ItemsView[str, Constraint]", self.constraints.items())
        # past the attribute look-up of modules, which is slow
        return self._modules["constraints"]._modules.items()  # type: ignore[union-attr, return-value]

    def _constraints(self) -> dict[str, Constraint]:
        return dict(self._named_modules())

    def _scales(self) -> list[float]:
        # read anew each time: a tolerance may follow a schedule
        return [constraint.scale for constraint in self._constraints().values()]

    def _agreement(self) -> dict[str, Any]:
        """What a saved state must have in common with this objective."""
        update = self.multipliers.update
        return {
            "constraints": list(self._names),
            "update": type(update).__name__,
            "rows": list(update.rows),
        }

    def _named(self, values: Tensor) -> Named:
        if self._bare:
            return values[0].clone()
        return {name: values[i].clone() for i, name in enumerate(self._names)}
