r"""Models that take the tolerance :math:`\kappa` as an input: one training for a range of errors.

A small network of :math:`\ln \kappa` scales and shifts a hidden layer, channel by channel (FiLM,
Perez et al., 2017, https://arxiv.org/abs/1709.07871). It starts as the identity, so that a fresh
conditional model equals the plain one.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from geco_models.validation import as_number, as_positive

__all__ = ["ToleranceModulation", "as_range", "check_tolerance", "modulated", "modulations"]

HIDDEN = 32
"""The hidden units of the network of ln kappa."""


class ToleranceModulation(nn.Module):
    r"""Scales and shifts a hidden layer depending on the tolerance.

    With :math:`\tau = (2 \ln \kappa - \ln a - \ln b) / (\ln b - \ln a) \in [-1, 1]`,

    .. math::
        h' = h \odot (1 + s(\tau)) + t(\tau), \qquad
        (s, t)(\tau) = W_2 \operatorname{SiLU}(w_1 \tau + b_1) + b_2

    where :math:`W_2` and :math:`b_2` start at zero. It also serves networks of your own: put it
    behind a layer and hand it the same `kappa` as the objective.

    Args:
        features: The features or channels of the layer, its dimension 1.
        tolerance: The range :math:`(a, b)` of :math:`\kappa`, in the units of the data.
        hidden: The number of hidden units.

    Raises:
        TypeError: If a number is not a number.
        ValueError: If the range is not positive and increasing.
    """

    def __init__(self, features: int, tolerance: Sequence[float], *, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.features = as_positive(features, "features")
        self.low, self.high = as_range(tolerance)
        self.first = nn.Linear(1, as_positive(hidden, "hidden"))
        self.last = nn.Linear(self.first.out_features, 2 * self.features)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def factors(self, kappa: Tensor) -> tuple[Tensor, Tensor]:
        """What the layer is multiplied by, and what is added to it, each (batch, features).

        Args:
            kappa: The tolerances, (batch,).
        """
        # the logarithm in float32 at least: in half precision neighbouring tolerances coincide
        kappa = kappa.to(torch.promote_types(kappa.dtype, torch.float32))
        middle, half = 0.5 * math.log(self.low * self.high), 0.5 * math.log(self.high / self.low)
        place = ((kappa.log() - middle) / half).to(self.first.weight.dtype)
        scale, shift = self.last(functional.silu(self.first(place[:, None]))).chunk(2, dim=1)
        return 1 + scale, shift

    def forward(self, hidden: Tensor, kappa: Tensor | float) -> Tensor:
        """The layer, scaled and shifted.

        Args:
            hidden: The layer, (batch, features, ...).
            kappa: The tolerances, (batch,), or one number for all.

        Returns:
            A tensor of the shape of `hidden`.

        Raises:
            TypeError: If `kappa` is not a number or a floating-point tensor.
            ValueError: If it is of a wrong shape or outside the range, or `hidden` has not as many
                features as the modulation.
        """
        if hidden.dim() < 2 or hidden.shape[1] != self.features:
            shape = tuple(hidden.shape)
            raise ValueError(f"`hidden` must be (batch, {self.features}, ...), got {shape}")
        kappa = check_tolerance(
            kappa, (self.low, self.high), hidden.shape[0], hidden, type(self).__name__
        )
        return self.modulate(hidden, kappa)

    def modulate(self, hidden: Tensor, kappa: Tensor) -> Tensor:
        """Like `forward`, of checked tolerances, (batch,)."""
        ones = [1] * (hidden.dim() - 2)
        scale, shift = (part.view(*part.shape, *ones) for part in self.factors(kappa))
        return torch.addcmul(shift.to(hidden.dtype), hidden, scale.to(hidden.dtype))

    def extra_repr(self) -> str:
        """The sizes, as `repr` shows them."""
        return f"{self.features}, tolerance=({self.low}, {self.high})"


def modulations(
    features: Sequence[int], tolerance: Sequence[float] | None
) -> nn.ModuleList | None:
    """A modulation for each of several layers, or None in a model without a tolerance.

    Args:
        features: The features or channels of each layer.
        tolerance: The range of tolerances, or None.
    """
    if tolerance is None:
        return None
    return nn.ModuleList(ToleranceModulation(size, tolerance) for size in features)


def modulated(
    modules: nn.ModuleList | None, index: int, hidden: Tensor, kappa: Tensor | None
) -> Tensor:
    """A hidden layer after its modulation; as it is where it has none.

    Args:
        modules: What `modulations` made.
        index: The layer's place among them; layers beyond the last have no modulation.
        hidden: The layer, (batch, features, ...).
        kappa: The checked tolerances, (batch,), or None.
    """
    if modules is None or kappa is None or index >= len(modules):
        return hidden
    result: Tensor = modules[index].modulate(hidden, kappa)  # type: ignore[operator]
    return result


def as_range(tolerance: Any) -> tuple[float, float]:
    """The ends of a range of tolerances.

    Args:
        tolerance: What was passed: a pair (low, high).

    Returns:
        The two numbers.

    Raises:
        TypeError: If it is not a pair of numbers.
        ValueError: If not 0 < low < high.
    """
    if not isinstance(tolerance, Sequence) or isinstance(tolerance, str) or len(tolerance) != 2:
        raise TypeError(f"`tolerance` must be a pair (low, high), got {tolerance!r}")
    low, high = (as_number(value, "tolerance") for value in tolerance)
    if not 0 < low < high:
        raise ValueError(f"`tolerance` must be (low, high) with 0 < low < high, got {(low, high)}")
    return low, high


def check_tolerance(
    kappa: Any, tolerance: tuple[float, float], batch: int, like: Tensor, owner: str
) -> Tensor:
    """The tolerance of each example, once its type, shape and values are right.

    The values of tensors are read on the CPU only: elsewhere that would wait for the device.

    Args:
        kappa: What was passed: a number, or a tensor () or (batch,).
        tolerance: The allowed range.
        batch: The number of examples.
        like: A tensor whose device the result takes, and whose type, but float32 at least.
        owner: The name of the class that is asked, for the message.

    Returns:
        The tolerances, (batch,).

    Raises:
        TypeError: If it is not a number or a floating-point tensor.
        ValueError: If it is of a wrong shape or outside the range.
    """
    low, high = tolerance
    allowed = f"in [{low:g}, {high:g}], the `tolerance` of this {owner}"
    if not isinstance(kappa, Tensor):
        number = as_number(kappa, "kappa")
        if not low * (1 - 1e-6) <= number <= high * (1 + 1e-6):
            raise ValueError(f"`kappa` must be {allowed}, got {number:g}")
        dtype = torch.promote_types(like.dtype, torch.float32)
        return torch.full((batch,), number, dtype=dtype, device=like.device)
    if not kappa.is_floating_point():
        raise TypeError(f"`kappa` must be a number or floating point, got {kappa.dtype}")
    if kappa.shape not in ((), (batch,)):
        msg = f"`kappa` must be a number or ({batch},), one per example, got {tuple(kappa.shape)}"
        raise ValueError(msg)
    odd = _outside(kappa.detach(), low, high)
    if odd is not None:
        raise ValueError(f"`kappa` must be {allowed}, got {odd:g}")
    dtype = torch.promote_types(like.dtype, torch.float32)
    return kappa.to(like.device, dtype).expand(batch)


def _outside(kappa: Tensor, low: float, high: float) -> float | None:
    """A value outside the range, or None; also None where reading values is not to be had."""
    if kappa.device.type != "cpu" or torch.compiler.is_compiling():
        return None
    slack = 4 * torch.finfo(kappa.dtype).eps  # the ends themselves, rounded to this type
    inside = (kappa >= low * (1 - slack)) & (kappa <= high * (1 + slack))
    try:
        values: list[float] = kappa.reshape(-1)[~inside.reshape(-1)][:1].tolist()
    except RuntimeError:  # fake tensors, functional transforms
        return None
    return values[0] if values else None
