"""What an objective tells about its last call."""

from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor

__all__ = ["Info", "Named"]

#: One value for a bare constraint, a dictionary by name for a mapping of constraints.
Named: TypeAlias = Tensor | dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Info:
    """The state of an objective after its last call, as detached tensors on its device.

    Nothing here has been read by the host: `float(info.loss)` is what waits for the device.
    Objectives without constraints leave the fields that concern constraints at None. Before the
    first call the fields that concern a call are NaN.

    `info["multiplier"]` is `info.multiplier`.
    """

    loss: Tensor
    """The value that was returned to be minimised."""
    kl: Tensor
    """The mean of the KL over the batch, in nats."""
    constraint: Named | None = None
    """The mean violation of the batch, in the constraint's own units."""
    moving_average: Named | None = None
    """The moving average of the violation, in the constraint's own units."""
    multiplier: Named | None = None
    r"""The multiplier :math:`\lambda` of :math:`KL + \lambda C`."""
    relative_multiplier: Named | None = None
    r"""The multiplier of the relative violation, :math:`\lambda` times the scale."""
    beta: Named | None = None
    """The weight of the KL in the equivalent beta-VAE."""
    feasible: Named | None = None
    """Whether the moving average is at most 2% of the constraint's scale."""
    saturated: Named | None = None
    """Whether the multiplier is at its upper bound while the constraint is still violated."""
    skipped: Named | None = None
    """How many ascents were skipped because a violation was not finite."""

    def __getitem__(self, field: str) -> Any:
        """Returns a field by its name.

        Raises:
            KeyError: If there is no such field.
        """
        if field not in self.__slots__:
            raise KeyError(f"no field {field!r}; there are {', '.join(self.__slots__)}")
        return getattr(self, field)
