r"""The rate: any loss is minimised subject to a KL that is named.

:math:`C = KL - R` with :math:`R` in nats. The set point of ControlVAE (Shao et al., ICML 2020) and
of the capacity of Burgess et al. (2018), as an inequality with a multiplier.
"""

import math
from typing import Any

from torch import Tensor

from geco_core.constraints.base import Constraint
from geco_core.precision import at_least_float32
from geco_core.text_state import facts_of, tensor_of
from geco_core.validation import check_number, positive

__all__ = ["Rate"]


class Rate(Constraint):
    r"""The mean KL is at most a number of nats, whatever else is minimised.

    .. math:: \min \mathbb E\,D(x, g) \quad \text{subject to} \quad \mathbb E\,KL \le R

    The loss takes the distortion where it took the KL, and the KL by keyword:
    `objective(distortion, x, reconstruction, kl=kl)`. The multiplier is the derivative
    :math:`-dD/dR` of the distortion-rate function: the :math:`\beta` of the beta-VAE whose
    reconstruction loss is :math:`D`.

    Args:
        at_most: :math:`R`, in nats per example. May be set later, for a schedule.
        scale: The unit of the violation; `at_most` by default, so that a violation of 2% is a
            KL that is 2% too large.

    Raises:
        TypeError: If an argument is not a number.
        ValueError: If `at_most` is negative or not finite, 0 without a `scale`, or `scale` not
            positive.

    Example:
        >>> import torch
        >>> from geco_core import GECO
        >>> objective = GECO(Rate(at_most=10.0))
        >>> x, g = torch.zeros(2, 3), torch.ones(2, 3, requires_grad=True)
        >>> kl = 15 * g.mean(1)
        >>> loss = objective((x - g).square().sum(1), x, g, kl=kl)
        >>> objective.info.constraint
        tensor(5.)
    """

    reduction = "as the KL is given: one value per example"
    keywords = frozenset({"kl"})

    def __init__(self, at_most: float, *, scale: float | None = None) -> None:
        super().__init__()
        self._scale = None if scale is None else positive("scale", scale)
        self.at_most = at_most

    @property
    def at_most(self) -> float:
        """The largest mean KL, in nats. Setting it acts from the next call."""
        return self._at_most

    @at_most.setter
    def at_most(self, value: float) -> None:
        number = check_number("at_most", value, 0.0, math.inf)
        if number == 0.0 and self._scale is None:
            raise ValueError(
                "`at_most` of 0 nats needs a `scale`, the number of nats that counts as a "
                "violation of 100%"
            )
        self._at_most = number

    @property
    def scale(self) -> float:
        """The unit that was given, or the allowed rate."""
        return self._at_most if self._scale is None else self._scale

    def forward(self, x: Any, reconstruction: Any, *, kl: Any = None, **batch: Any) -> Tensor:
        r"""Computes the violations.

        Args:
            x: Ignored.
            reconstruction: Ignored.
            kl: The KL of every example in nats, :math:`(B,)`.
            batch: Ignored.

        Returns:
            :math:`KL - R`, :math:`(B,)`, float32 or wider.

        Raises:
            ValueError: If `kl` is missing.
            TypeError: If it is not a floating-point tensor.
        """
        if kl is None:
            raise ValueError(
                "`kl` is missing; pass it by keyword beside the loss that is minimised, "
                "objective(distortion, x, reconstruction, kl=kl)"
            )
        if not isinstance(kl, Tensor) or not kl.is_floating_point():
            given = kl.dtype if isinstance(kl, Tensor) else type(kl).__name__
            raise TypeError(f"`kl` must be a floating-point tensor, got {given}")
        return at_least_float32(kl) - self._at_most

    def equivalent_beta(self, multiplier: Tensor, x: Any) -> Tensor:
        """The multiplier itself: the weight of the KL beside a loss of weight 1."""
        return multiplier.clone()

    def get_extra_state(self) -> Tensor:
        """The allowed rate, for `state_dict`."""
        return tensor_of({"kind": "Rate"}, at_most=self._at_most)

    def set_extra_state(self, state: Any) -> None:
        """Takes over a saved rate, for `load_state_dict`.

        Raises:
            ValueError: If the state belongs to something else.
        """
        saved = facts_of(state)
        if saved is None or saved.get("kind") != "Rate":
            raise ValueError(f"the state must be that of a Rate, got {saved or state!r}")
        self.at_most = saved["at_most"]

    def extra_repr(self) -> str:
        """The allowed rate and the unit."""
        return f"at_most={self._at_most:g}, scale={self.scale:g}"
