"""A constraint with a tolerance kappa that is validated, scheduled and saved."""

import logging
import math
from typing import Any

from torch import Tensor

from geco_core.constraints.base import Constraint
from geco_core.text_state import facts_of, tensor_of
from geco_core.validation import valid_kappa

__all__ = ["ToleranceConstraint"]

logger = logging.getLogger(__name__)


class ToleranceConstraint(Constraint):
    r"""The base of constraints whose tolerance :math:`\kappa` is a positive number.

    The tolerance is part of the module's state: a loaded state brings its own `kappa` (and says
    so in the log where it differs), so that a resumed run goes on with the tolerance it had. To
    resume with another one, set `constraint.kappa` after loading. A state that was saved under
    another reduction or by another kind of constraint is refused.

    Args:
        kappa: The tolerance, in the units that the subclass documents.

    Raises:
        TypeError: If `kappa` is not a number.
        ValueError: If `kappa` is not positive and finite, or not below the subclass's limit.
    """

    #: The values that kappa may take are those between 0 and this one, both excluded.
    kappa_limit: float = math.inf

    def __init__(self, kappa: float) -> None:
        super().__init__(kappa)

    @property
    def kappa(self) -> float:
        r"""The tolerance :math:`\kappa`. Setting it is a schedule: it acts from the next call."""
        return self._kappa

    @kappa.setter
    def kappa(self, value: float) -> None:
        self._kappa = valid_kappa(value, self.kappa_limit, type(self).__name__)

    def get_extra_state(self) -> Tensor:
        """The tolerance and the reduction, for `state_dict`."""
        return tensor_of(self._facts(), kappa=self._kappa)

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
        before, self.kappa = self._kappa, saved["kappa"]
        if self._kappa != before:
            logger.warning(
                "%s: the loaded state sets kappa to %g (it was %g); set `kappa` after loading to "
                "change it",
                own["kind"],
                self._kappa,
                before,
            )

    def _facts(self) -> dict[str, Any]:
        """What a saved state must have in common with this constraint."""
        return {"kind": type(self).__name__, "reduction": self.reduction}

    def extra_repr(self) -> str:
        """The tolerance and the reduction."""
        return f"kappa={self._kappa:g}, reduction={self.reduction!r}"
