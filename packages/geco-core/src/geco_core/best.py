"""Keeping the best iterate: the lowest KL among those that satisfy the constraints."""

import copy
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from geco_core.constraints.base import BARE
from geco_core.feasibility import TOLERANCE, is_feasible
from geco_core.validation import not_negative

__all__ = ["BestFeasible", "Candidate"]

Number: TypeAlias = float | Tensor


@dataclass(frozen=True, slots=True)
class Candidate:
    """An iterate that was kept."""

    kl: float
    """The KL that it was offered with."""
    violation: dict[str, float]
    """The relative violations, by name."""
    step: int | None
    """The step that it was offered with."""
    state: Any
    """The copy of its state."""

    @property
    def worst(self) -> float:
        """The largest relative violation."""
        return max(self.violation.values())


class BestFeasible:
    r"""Keeps the state with the lowest KL among those that satisfy every constraint.

    An iterate is feasible if no relative violation :math:`C / s` (with :math:`s` the constraint's
    `scale`) is larger than `tolerance`. For the reconstruction error that is
    :math:`\text{MSE} \le (1 + \text{tolerance}) \, \kappa^2`. As long as nothing feasible was
    offered, the least violating iterate is kept instead, apart: it is never handed out as the
    best one.

    Offering reads numbers on the host, so do it at evaluations and not at every step. The KL of
    a single training batch is noisy, and the lowest of many noisy values is too low; better offer
    what was measured on held-out data. Under several ranks, offer the mean over ranks, so that
    all keep the same iterate. After a change of a kappa, :meth:`clear`: what was feasible before
    need not be any more.

    Args:
        tolerance: The largest relative violation that counts as satisfied; the default is that of
            `info.feasible`.
        device: Where copies are kept; None for where the tensors are.

    Raises:
        TypeError: If `tolerance` is not a number.
        ValueError: If `tolerance` is negative or not finite.

    Example:
        >>> model, best = nn.Linear(2, 1), BestFeasible(tolerance=0.05)
        >>> best.offer(model, kl=12.0, violation={"RE": 0.4, "CLA": 0.0}, step=100)
        True
        >>> best.found
        False
        >>> best.offer(model, kl=15.0, violation={"RE": 0.02, "CLA": -0.1}, step=200)
        True
        >>> best.offer(model, kl=16.0, violation={"RE": 0.01, "CLA": -0.1}, step=300)
        False
        >>> best.best.step
        200
        >>> best.restore(model)
    """

    def __init__(
        self, tolerance: float = TOLERANCE, *, device: torch.device | str | None = "cpu"
    ) -> None:
        self.tolerance = not_negative("tolerance", tolerance)
        self.device = device
        self._kept: Candidate | None = None

    def offer(
        self,
        state: Any,
        objective: nn.Module | None = None,
        *,
        kl: Number | None = None,
        violation: Number | Mapping[str, Number] | None = None,
        step: int | None = None,
    ) -> bool:
        r"""Keeps a copy of a state if it is better than the one that is kept.

        Args:
            state: A module, of which the `state_dict` is kept, or any nest of mappings, lists
                and tuples with tensors and plain values.
            objective: A GECO objective. What is not given below is taken from its `info`: the
                KL of its last batch, and the moving averages of its violations.
            kl: The KL of this iterate.
            violation: Its relative violations :math:`C / s`, one number or one per name.
            step: A number to recognise it by.

        Returns:
            Whether it was kept. A KL or a violation that is not finite never is.

        Raises:
            ValueError: If the KL or the violations are neither given nor to be had from the
                objective, or their names are not those of earlier offers.
        """
        if objective is not None:
            info: Any = objective.info
            kl = info.kl if kl is None else kl
            violation = _relative(objective) if violation is None else violation
        if kl is None or violation is None:
            raise ValueError(
                "`offer` needs `kl` and `violation`, or an `objective` with constraints to take "
                "them from"
            )
        named = violation if isinstance(violation, Mapping) else {BARE: violation}
        violations = {name: float(value) for name, value in named.items()}
        if not violations:
            raise ValueError("`violation` is empty; give one relative violation at least")
        if self._kept is not None and self._kept.violation.keys() != violations.keys():
            raise ValueError(
                f"`violation` must have the names of earlier offers, "
                f"{sorted(self._kept.violation)}, got {sorted(violations)}"
            )
        candidate = Candidate(float(kl), violations, step, None)
        if not self._better(candidate):
            return False
        source = state.state_dict() if isinstance(state, nn.Module) else state
        copied = _copied(source, self.device)
        self._kept = Candidate(candidate.kl, violations, step, copied)
        return True

    @property
    def found(self) -> bool:
        """Whether a feasible iterate was offered."""
        return self._kept is not None and self._feasible(self._kept)

    @property
    def best(self) -> Candidate:
        """The feasible iterate of the lowest KL.

        Raises:
            RuntimeError: If nothing feasible was offered, with what came closest.
        """
        if self._kept is None:
            raise RuntimeError("nothing finite was offered yet; call `offer` at evaluations")
        if not self._feasible(self._kept):
            name = max(self._kept.violation, key=self._kept.violation.__getitem__)
            raise RuntimeError(
                f"nothing offered was feasible within {self.tolerance:g}; the least violating "
                f"iterate (step {self._kept.step}) violates {name!r} by {self._kept.worst:.3g} of "
                f"its scale and is in `closest`; loosen that constraint's kappa or train longer"
            )
        return self._kept

    @property
    def closest(self) -> Candidate | None:
        """The best feasible iterate, else the least violating one, else None."""
        return self._kept

    def restore(self, model: nn.Module) -> None:
        """Loads the best feasible iterate into the module that it came from.

        Raises:
            RuntimeError: If nothing feasible was offered, or the state is that of another model.
        """
        model.load_state_dict(self.best.state)

    def clear(self) -> None:
        """Forgets what was kept."""
        self._kept = None

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs; `torch.load(..., weights_only=True)` reads it."""
        kept = None
        if self._kept is not None:
            fields = Candidate(self._kept.kl, self._kept.violation, self._kept.step, None)
            kept = {**asdict(fields), "state": self._kept.state}
        return {"tolerance": self.tolerance, "kept": kept}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over a saved state, by copy.

        Raises:
            ValueError: If it is no state of this class, or was saved with another tolerance.
        """
        if set(state) != {"tolerance", "kept"}:
            raise ValueError(
                f"the state of BestFeasible must hold 'tolerance' and 'kept', got {sorted(state)}"
            )
        if state["tolerance"] != self.tolerance:
            raise ValueError(
                f"the state was saved with `tolerance` {state['tolerance']:g}, this one has "
                f"{self.tolerance:g}; build it with the same"
            )
        kept = state["kept"]
        if kept is not None:
            kept = Candidate(
                kept["kl"],
                dict(kept["violation"]),
                kept["step"],
                _copied(kept["state"], self.device),
            )
        self._kept = kept

    def _feasible(self, candidate: Candidate) -> bool:
        return bool(is_feasible(candidate.worst, self.tolerance))

    def _better(self, candidate: Candidate) -> bool:
        numbers = (candidate.kl, *candidate.violation.values())
        if not all(math.isfinite(number) for number in numbers):
            return False
        if self._kept is None:
            return True
        if self._feasible(candidate) != self._feasible(self._kept):
            return self._feasible(candidate)
        if self._feasible(candidate):
            return candidate.kl < self._kept.kl
        return candidate.worst < self._kept.worst


def _relative(objective: nn.Module) -> dict[str, Tensor] | None:
    """The relative moving averages of an objective's violations, None without constraints."""
    known: Any = getattr(objective, "relative_violations", None)
    return None if known is None else known()


def _copied(value: Any, device: torch.device | str | None) -> Any:
    """A deep copy of a nest of tensors and plain values, its tensors detached on a device."""
    if isinstance(value, Tensor):
        return value.detach().to(device or value.device, copy=True)
    if isinstance(value, Mapping):
        items = {key: _copied(item, device) for key, item in value.items()}
        if not isinstance(value, dict):
            return items
        duplicate = copy.copy(value)  # with the version numbers that a state_dict carries
        duplicate.update(items)
        return duplicate
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return type(value)(_copied(item, device) for item in value)
    return copy.deepcopy(value)
