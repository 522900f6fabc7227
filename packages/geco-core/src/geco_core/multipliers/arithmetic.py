"""The few functions that rules are written in, once for plain numbers and once for tensors.

A rule that is a :class:`~geco_core.multipliers.update.ColumnUpdate` writes its formula with
operators and with these, and so works on both: on the CPU the arithmetic on a handful of numbers
costs a fraction of what it costs as operations on tensors of a few elements
(`benchmarks/overhead.py`), while tensors on a device must not be read by the host.
"""

import math
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

__all__ = ["NUMBERS", "TENSORS", "Arithmetic", "Number"]

#: A float, or a tensor of any shape. Truth values are bools, or boolean tensors.
Number: TypeAlias = Any


class Arithmetic(Protocol):
    """What a formula may use beside operators and comparisons."""

    def exp(self, a: Number) -> Number:
        """The exponential."""

    def log(self, a: Number) -> Number:
        """The natural logarithm; -inf at 0, NaN below."""

    def sqrt(self, a: Number) -> Number:
        """The square root; NaN below 0."""

    def asinh(self, a: Number) -> Number:
        """The inverse hyperbolic sine."""

    def tanh(self, a: Number) -> Number:
        """The hyperbolic tangent."""

    def abs(self, a: Number) -> Number:
        """The absolute value."""

    def divide(self, a: Number, b: Number) -> Number:
        """The quotient; infinite or NaN where `b` is 0."""

    def minimum(self, a: Number, b: Number) -> Number:
        """The smaller one."""

    def maximum(self, a: Number, b: Number) -> Number:
        """The larger one."""

    def clip(self, a: Number, low: Number, high: Number) -> Number:
        """The nearest value in [low, high]."""

    def where(self, condition: Number, a: Number, b: Number) -> Number:
        """`a` where the condition holds, else `b`."""

    def isfinite(self, a: Number) -> Number:
        """Whether it is neither infinite nor NaN."""


class _Numbers:
    """For floats; the results are those of tensors where functions of `math` would raise."""

    asinh = staticmethod(math.asinh)
    tanh = staticmethod(math.tanh)
    abs = staticmethod(abs)
    isfinite = staticmethod(math.isfinite)

    @staticmethod
    def exp(a: float) -> float:
        return math.exp(a) if a < 709.0 or math.isnan(a) else math.inf

    @staticmethod
    def log(a: float) -> float:
        return math.log(a) if a > 0 else -math.inf if a == 0 else math.nan

    @staticmethod
    def sqrt(a: float) -> float:
        return math.sqrt(a) if a >= 0 else math.nan

    @staticmethod
    def divide(a: float, b: float) -> float:
        if b:
            return a / b
        return math.copysign(math.inf, a) * math.copysign(1.0, b) if a and a == a else math.nan

    @staticmethod
    def minimum(a: float, b: float) -> float:
        return b if b < a or b != b else a

    @staticmethod
    def maximum(a: float, b: float) -> float:
        return b if b > a or b != b else a

    @staticmethod
    def clip(a: float, low: float, high: float) -> float:
        return high if a > high else low if a < low else a

    @staticmethod
    def where(condition: bool, a: float, b: float) -> float:
        return a if condition else b


class _Tensors:
    """For tensors, beside which plain numbers may stand."""

    exp = staticmethod(torch.exp)
    log = staticmethod(torch.log)
    sqrt = staticmethod(torch.sqrt)
    asinh = staticmethod(torch.asinh)
    tanh = staticmethod(torch.tanh)
    abs = staticmethod(torch.abs)
    divide = staticmethod(torch.true_divide)
    isfinite = staticmethod(torch.isfinite)

    @staticmethod
    def where(condition: Tensor, a: Number, b: Number) -> Tensor:
        return torch.where(condition, a, b)

    @staticmethod
    def minimum(a: Number, b: Number) -> Tensor:
        if not isinstance(b, Tensor):
            return torch.clamp(a, max=b)
        return torch.minimum(a, b) if isinstance(a, Tensor) else torch.clamp(b, max=a)

    @staticmethod
    def maximum(a: Number, b: Number) -> Tensor:
        if not isinstance(b, Tensor):
            return torch.clamp(a, min=b)
        return torch.maximum(a, b) if isinstance(a, Tensor) else torch.clamp(b, min=a)

    @staticmethod
    def clip(a: Tensor, low: Number, high: Number) -> Tensor:
        if isinstance(low, Tensor) or isinstance(high, Tensor):
            return _Tensors.minimum(_Tensors.maximum(a, low), high)
        return torch.clamp(a, low, high)


#: The functions for floats.
NUMBERS: Arithmetic = _Numbers()
#: The functions for tensors.
TENSORS: Arithmetic = _Tensors()
