"""What feasible means, wherever the word is used."""

from typing import TypeVar

from torch import Tensor

__all__ = ["TOLERANCE", "is_feasible"]

#: The relative violation that counts as satisfied: 2% of what is allowed. At the optimum of a
#: constraint that binds, the moving average of a training run is as often above 0 as below.
TOLERANCE = 0.02

Number = TypeVar("Number", float, Tensor)


def is_feasible(relative: Number, tolerance: float = TOLERANCE) -> "bool | Tensor":
    r"""Whether a relative violation :math:`C / s` counts as satisfied.

    Args:
        relative: The violation in units of the constraint's scale, a number or a tensor.
        tolerance: The largest value that counts.

    Returns:
        A truth value, or a boolean tensor of the same shape. NaN is not feasible.
    """
    return relative <= tolerance
