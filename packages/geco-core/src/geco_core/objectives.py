r"""What a training loop minimises: GECO's Lagrangian, with its multipliers' ascent.

.. math::

    \mathcal L_\lambda = \mathbb E\,KL(q(z|x) \,\|\, \pi) + \lambda^\top \mathbb E\,C(x, g(z))
    \qquad \text{(Eq. 2)}

is minimised by the user's optimizer over the model's parameters and maximised over
:math:`\lambda \ge 0` by :meth:`GECO.step`.
"""

import logging
import math
from collections.abc import ItemsView
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch import distributed as dist

from geco_core.constraints.base import Constraint, Constraints, check_keywords, named_constraints
from geco_core.feasibility import is_feasible
from geco_core.held import Held
from geco_core.info import Info, Named
from geco_core.multipliers.observed import Seen, SinceAscent
from geco_core.multipliers.robust import chosen_update
from geco_core.multipliers.saturation import SaturationWatch
from geco_core.multipliers.skips import SkipWatch
from geco_core.multipliers.state import Multipliers, has_common_rows
from geco_core.multipliers.update import MultiplierUpdate
from geco_core.over_range import OverRange, Ranks, check_update
from geco_core.precision import at_least_float32
from geco_core.reduction import is_alone
from geco_core.reporting import Columns, flat_metrics, in_lines, shape_of
from geco_core.text_state import facts_of, tensor_of
from geco_core.validation import check_gradient, check_kl

__all__ = ["GECO"]

logger = logging.getLogger(__name__)

#: After how many losses without an ascent a forgotten :meth:`GECO.step` is warned of.
FORGOTTEN_AFTER = 1000


class GECO(OverRange, nn.Module):
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
        update = chosen_update(update, total_steps)
        self._ranged = check_update(update, named)
        self.process_group = process_group
        self.constraints = nn.ModuleDict(named)
        self._columns = Columns(named)
        self.multipliers = Multipliers(update, self._columns.total)
        # a tuple, because attributes that are modules are slow to look up
        self._multipliers = (self.multipliers,)
        self._since = SinceAscent()
        # the sets of keywords that were found to be spelt well
        self._spelt: set[frozenset[str]] = {frozenset()}
        self._watch, self._skips = SaturationWatch(), SkipWatch()

    @property
    def process_group(self) -> "dist.ProcessGroup | None":
        """The ranks whose examples are averaged; None for all."""
        return self._group.value if self._group is not None else None

    @process_group.setter
    def process_group(self, group: "dist.ProcessGroup | None") -> None:
        what = "its process group: set `process_group` of the objective"
        self._group = None if group is None else Held(group, what)

    @property
    def _pending(self) -> list[Seen]:
        """What was seen since the last ascent, if anything: one element at most."""
        return [] if self._since.seen is None else [self._since.seen]

    def forward(self, *arguments: Any, **batch: Any) -> Tensor:
        r"""The loss of a batch, called as `objective(kl, x, reconstruction, **batch)`.

        Args:
            arguments: `kl`, the KL of every example in nats, :math:`(B,)`, or any other loss per
                example; `x`, the data, and `reconstruction`, the decoder's output: tensors
                :math:`(B, *)`, or whatever the constraints look at (mappings, distributions,
                graphs), None if they look at neither. They may also be given by name; beside a
                loss that is given by position or as `loss`, `kl` is passed on to the constraints.
            batch: Passed on to the constraints (`labels=` for classification accuracy). With a
                range of tolerances, `kappa`: that of every example, :math:`(B,)`, or one number.

        Returns:
            A scalar to be minimised. In training mode it is remembered for :meth:`step`.

        Raises:
            TypeError: If `kl` is not a floating-point tensor, or a keyword is misspelt.
            ValueError: If a shape does not fit.
            RuntimeError: In training mode, if the loss or a constraint has no gradient.
        """
        if len(arguments) == 3:
            kl, x, reconstruction = arguments
        else:
            kl, x, reconstruction, batch = _by_name(arguments, batch)
        multipliers, training = self._multipliers[0], self.training
        check_kl(kl, x, multipliers.table)
        if batch and not torch.compiler.is_compiling():
            self._check_spelling(frozenset(batch))
        group = self.process_group
        # shared before the weights: all ranks must weigh their gradients alike
        ranks = (group,) if training and not is_alone(group) else None
        of_batch = self._along if self._ranged else self._at_once
        loss, kl_mean, seen = of_batch(kl, x, reconstruction, batch, ranks)
        if training:
            self._remember(seen)
        shape = x.shape if isinstance(x, Tensor) else shape_of(x)
        self._since.last = (loss.detach(), kl_mean.detach(), seen, shape)
        return loss

    def _at_once(
        self, kl: Tensor, x: Any, reconstruction: Any, batch: dict[str, Any], ranks: Ranks
    ) -> tuple[Tensor, Tensor, Seen]:
        """The loss, the mean KL and what the rule sees, with one tolerance for all examples."""
        multipliers = self._multipliers[0]
        kl_mean = at_least_float32(kl).mean()
        measures, scales, elements = [], [], []
        relative = multipliers.update.relative
        for name, constraint in self._named_modules():
            measure = constraint.measure(name, kl, x, reconstruction, batch)
            if self.training:
                check_gradient(measure.value, name)
            measures.append(measure)
            scales.append(constraint.scale if relative else 1.0)
            known = constraint.elements(x)
            elements.append(math.nan if known is None else known)
        seen = multipliers.observe(kl_mean, measures, scales, elements, kl.shape[0], ranks)
        return multipliers.weighted(kl_mean, measures, scales, seen), kl_mean, seen

    def _remember(self, seen: Seen) -> None:
        since = self._since
        before = since.seen
        since.seen = seen if before is None else self._multipliers[0].joined(before, seen)
        if torch.compiler.is_compiling():
            return  # a count in Python would lead to a compilation each time
        since.losses += 1
        if since.losses == FORGOTTEN_AFTER:
            logger.warning(
                "%d losses in training mode without objective.step(): the multipliers do not "
                "move; call it once after each optimizer step, or objective.eval() before an "
                "evaluation",
                FORGOTTEN_AFTER,
            )

    def _check_spelling(self, keywords: frozenset[str]) -> None:
        if keywords not in self._spelt:
            own = {"kappa"} if self._ranged else set()
            check_keywords(keywords - own, self._constraints().values())
            self._spelt.add(keywords)

    def step(self) -> None:
        """The ascent of the multipliers: once per optimizer step, after it.

        Uses the mean over all examples since the last ascent, of all ranks. Does nothing in
        evaluation mode. Where the mean violation of a constraint, or that of the KL, is not
        finite, the ascent is skipped and counted, and said in the log.

        Raises:
            RuntimeError: If there has been no loss in training mode since the last ascent.
        """
        if not self.training:
            return
        since, multipliers = self._since, self._multipliers[0]
        seen = since.seen
        if seen is None:
            raise RuntimeError(
                "step() needs a loss computed in training mode since the last step(): call the "
                "objective first"
            )
        since.seen = None
        multipliers.ascend(seen)
        if not torch.compiler.is_compiling():
            since.losses = 0
            for watch in (self._watch, self._skips):
                watch.tick(multipliers, self)

    def items(self) -> "ItemsView[str, Constraint]":
        """The constraint of every multiplier, by a name of the multiplier."""
        return self._columns.by_label(self._constraints()).items()

    def _look(self) -> None:
        for watch in (self._watch, self._skips):
            watch.look(self.multipliers, self)

    @property
    def info(self) -> Info:
        """The state after the last call; see :class:`Info`."""
        m, scales = self.multipliers, self._scales()
        nan = m.table.new_full((), torch.nan)
        loss, kl, constraint, x = nan, nan, nan.expand(len(scales)), None
        if self._since.last is not None:
            loss, kl, seen, shape = self._since.last
            constraint = m.in_tensors(seen).observation.violation
            if m.update.relative:
                constraint = constraint * m.as_tensor(scales)
            x = torch.empty(shape, device="meta") if isinstance(shape, torch.Size) else shape
        average, multiplier = m.moving_average(scales), m.multiplier(scales)
        named_multiplier = self._named("multiplier", multiplier)
        return Info(
            loss=loss.clone(),
            kl=kl.clone(),
            constraint=self._named("constraint", constraint),
            moving_average=self._named("moving_average", average),
            multiplier=named_multiplier,
            relative_multiplier=self._named("relative_multiplier", m.relative_multiplier(scales)),
            beta=self._betas(named_multiplier, x),
            feasible=self._named(
                "feasible", cast("Tensor", is_feasible(average / m.as_tensor(scales)))
            ),
            saturated=self._named("saturated", m.saturated()),
            skipped=self._named("skipped", m.skipped()),
        )

    def _betas(self, multiplier: Named, x: Any) -> Named:
        named = multiplier if isinstance(multiplier, dict) else {"": multiplier}
        betas = {
            name: torch.full_like(one, torch.nan)
            if self._since.last is None
            else constraint.equivalent_beta(one, x).clone()
            for (name, one), constraint in zip(
                named.items(), self._constraints().values(), strict=True
            )
        }
        return betas[""] if self._bare else betas

    def relative_violations(self) -> dict[str, Tensor]:
        """The moving average of each violation in units of its scale, the worst of its groups."""
        scales = self._scales()
        relative = self.multipliers.moving_average(scales) / self.multipliers.as_tensor(scales)
        # groups that were never seen are not violated
        known = torch.where(relative.isnan(), -torch.inf, relative)
        worst = {}
        for name, where in self._columns.slices():
            single = relative[where]
            worst[name] = single[0] if len(single) == 1 else known[where].amax()
        return worst

    def metrics(self) -> dict[str, float]:
        """The numbers of :attr:`info` under flat names, for any logger.

        `loss` and `kl`; and `NAME/violation`, `NAME/moving_average`, `NAME/multiplier`,
        `NAME/relative_multiplier`, `NAME/beta`, `NAME/feasible`, `NAME/saturated` and
        `NAME/skipped` for each constraint, without `NAME/` for one that was given without a
        name. Of groups their mean, lowest and highest. Reads the device, so call it where you
        log and not at every step.
        """
        return flat_metrics(self.info)

    def report(self) -> str:
        r"""One line per constraint: what was asked for, what is reached, the multiplier.

        Reads numbers from the device, so call it where you log and not at every step. Like
        :meth:`step` from time to time, :meth:`eval` and `state_dict`, it warns once in the log
        `geco_core.multipliers.saturation` of a constraint that cannot be reached: its multiplier
        is at its ceiling, while the violation no longer falls.
        """
        self._look()
        text = in_lines(self.multipliers, self._columns, self._constraints(), self._scales())
        losses = self._since.losses
        if losses >= FORGOTTEN_AFTER:
            text += (
                f"\n{losses} losses since the last ascent: call step() once after each "
                f"optimizer step"
            )
        return text

    def train(self, mode: bool = True) -> "GECO":
        """Sets the mode; before an evaluation, looks for constraints that cannot be reached."""
        if self.training and not mode:
            self._look()
        return super().train(mode)

    def get_extra_state(self) -> Tensor:
        """What a loaded table must agree with, for `state_dict`."""
        self._look()
        return tensor_of(self._agreement())

    def set_extra_state(self, state: Any) -> None:
        """Nothing more to do: it has been checked before anything was loaded."""
        self._since = SinceAscent()
        for watch in (self._watch, self._skips):
            watch.forget()

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        # first of all modules: what does not fit must not be loaded in part
        agreement = self._agreement()
        saved = facts_of(state_dict.get(f"{prefix}_extra_state"))
        if f"{prefix}_extra_state" in state_dict:
            for key, value in agreement.items():
                found = (saved or {}).get(key)
                # of its rows a saved table need only have those that all rules have
                fits = found == value if key != "rows" else has_common_rows(found or ())
                if not fits:
                    raise ValueError(
                        f"the state was saved with {key} {found!r}, this objective has "
                        f"{value!r}; build the objective as it was when the state was saved"
                    )
        key, rows = f"{prefix}multipliers.table", agreement["rows"]
        table, own = state_dict.get(key), self.multipliers.table
        saved_rows = rows if saved is None else saved["rows"]
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

    def _agreement(self) -> dict[str, Any]:
        """What a saved state must have in common with this objective."""
        update = self.multipliers.update
        return {
            "constraints": list(self._columns.counts),
            "update": type(update).__name__,
            "rows": list(update.rows),
        }

    def _named(self, field: str, values: Tensor) -> Named:
        constraints = self._constraints()
        named = {
            name: constraints[name].as_reported(field, values[where]).clone()
            for name, where in self._columns.slices()
        }
        return next(iter(named.values())) if self._bare else named


def _by_name(arguments: tuple[Any, ...], batch: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    """The loss, the data and the reconstruction, of which some were given by name."""
    if len(arguments) > 3:
        raise TypeError(
            f"the objective takes kl, x and reconstruction by position and all else by name, got "
            f"{len(arguments)} arguments"
        )
    names = ("loss" if "loss" in batch else "kl", "x", "reconstruction")
    given = list(arguments)
    for name in names[len(arguments) :]:
        if name in ("kl", "loss") and name not in batch:
            raise TypeError("`kl`, the loss of every example, is missing")
        given.append(batch.pop(name, None))
    return (*given, batch)
