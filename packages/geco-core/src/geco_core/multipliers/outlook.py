"""What can still be expected of constraints that are not reached."""

from typing import NamedTuple

from torch import Tensor

__all__ = ["Outlook"]


class Outlook(NamedTuple):
    """What a rule expects of constraints that are not reached: :math:`(L,)`, NaN where unknown."""

    least: Tensor
    """The smallest average of the violation so far, in the units of the rule."""
    reachable: Tensor
    """About the smallest violation at any multiplier, with the model as it is."""
    share: Tensor
    """The share of the error that still answers to the multiplier."""
