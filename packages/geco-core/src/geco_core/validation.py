"""Checks of what users pass.

Everything here looks at shapes and dtypes only, never at values: nothing waits for the device,
and all of it can be compiled and traced with fake tensors.
"""

import math
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from geco_core.precision import at_least_float32

__all__ = [
    "check_batch",
    "check_gradient",
    "check_images",
    "check_kl",
    "check_number",
    "check_violation",
    "finite",
    "not_negative",
    "positive",
    "valid_kappa",
    "whole",
]


def check_images(x: Tensor, reconstruction: Tensor, *, dimensions: tuple[int, ...] = ()) -> None:
    """Checks that data and reconstruction are real tensors of one shape with a batch axis.

    Args:
        x: The data.
        reconstruction: The decoder's output.
        dimensions: The numbers of axes that are allowed, any by default.

    Raises:
        TypeError: If either is no floating-point tensor.
        ValueError: If the shapes differ, an example has no element, or the number of axes is
            not allowed.
    """
    for name, value in (("x", x), ("reconstruction", reconstruction)):
        if not isinstance(value, Tensor):
            raise TypeError(f"`{name}` must be a torch.Tensor, got {type(value).__name__}")
        if not value.is_floating_point():
            raise TypeError(
                f"`{name}` must have a floating-point dtype, got {value.dtype}; convert it to "
                f"the units of kappa first, e.g. images.float() / 255"
            )
    if x.shape != reconstruction.shape:
        raise ValueError(
            f"`x` and `reconstruction` must have the same shape, got {tuple(x.shape)} and "
            f"{tuple(reconstruction.shape)}; nothing is broadcast here"
        )
    if x.ndim < 1 or any(size == 0 for size in x.shape[1:]):
        raise ValueError(
            f"`x` must be (batch, ...) with at least one element per example, got shape "
            f"{tuple(x.shape)}"
        )
    if dimensions and x.ndim not in dimensions:
        allowed = " or ".join(str(number) for number in dimensions)
        raise ValueError(
            f"`x` must have {allowed} axes (batch, channels, then space), got shape "
            f"{tuple(x.shape)}"
        )


def check_violation(violation: Tensor, kl: Tensor, x: Any, name: str) -> Tensor:
    """Checks that there is one violation per example, and returns it in at least float32.

    Raises:
        ValueError: If the shapes of `violation` and `kl` differ, naming both.
    """
    if violation.shape != kl.shape:
        if violation.ndim == 1 and isinstance(x, Tensor) and violation.shape == x.shape[:1]:
            check_batch(kl, x)  # it is `kl` that does not fit
        raise ValueError(
            f"constraint {name!r} must return one violation per example, shape "
            f"{tuple(kl.shape)}, but returned {tuple(violation.shape)}; reduce every axis "
            f"except the first"
        )
    return at_least_float32(violation)


def check_gradient(value: Tensor, name: str) -> None:
    """Checks that what a constraint says in training mode has a gradient.

    Raises:
        RuntimeError: If it has none.
    """
    if not value.requires_grad:
        raise RuntimeError(
            f"in training mode constraint {name!r} must depend on parameters, but its value has "
            f"no gradient: call objective.eval() to evaluate, or check that `reconstruction` was "
            f"not detached"
        )


def check_batch(kl: Tensor, x: Any) -> None:
    """Checks that the data have as many examples as `kl`.

    Raises:
        TypeError: If `x` is not a tensor.
        ValueError: If its first axis is not the batch.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"`x` must be a torch.Tensor, got {type(x).__name__}")
    if x.dim() == 0 or x.shape[0] != kl.shape[0]:
        raise ValueError(_one_per_example(kl, x))


def check_kl(kl: Tensor, x: Any, like: Tensor | None = None) -> None:
    """Checks that there is one KL per example.

    Args:
        kl: The KL, or another loss that is minimised.
        x: The data, to say in errors how many examples there are.
        like: A tensor on the device where the KL must be.

    Raises:
        TypeError: If `kl` is not a floating-point tensor.
        ValueError: If it has not one axis, the batch is empty, or its device is not that of
            `like`.
    """
    # the usual case is seen at a glance; this is the hot path of a training loop
    usual = type(kl) is Tensor and kl.dtype is torch.float32 and kl.dim() == 1
    if usual and kl.shape[0] > 0 and (like is None or kl.device == like.device):
        return
    if not isinstance(kl, Tensor):
        raise TypeError(f"`kl` must be a torch.Tensor, got {type(kl).__name__}")
    if not kl.is_floating_point():
        raise TypeError(f"`kl` must have a floating-point dtype, got {kl.dtype}")
    if kl.dim() != 1:
        raise ValueError(_one_per_example(kl, x))
    if kl.shape[0] == 0:
        raise ValueError("`kl` must hold at least one example, got an empty batch")
    if like is not None and like.is_meta and not kl.is_meta and isinstance(kl, Tensor):
        raise ValueError(
            f"`kl` is on {kl.device}, but the objective was built on the meta device; call "
            f"objective.to_empty(device=...) and load its state, or load with assign=True. "
            f"Built elsewhere it moves with objective.to({str(kl.device)!r})"
        )
    if like is not None and kl.device != like.device:
        raise ValueError(
            f"`kl` is on {kl.device}, but the objective is on {like.device}; move it with "
            f"objective.to({str(kl.device)!r})"
        )


def _one_per_example(kl: Tensor, x: Any) -> str:
    due = f"({x.shape[0]},)" if isinstance(x, Tensor) and x.dim() else "(batch,)"
    return (
        f"`kl` must hold one value per example, shape {due}, got {tuple(kl.shape)}; sum it "
        f"over the latent dimensions only"
    )


def check_number(name: str, value: object, low: float, high: float) -> float:
    """Checks that a number is in [low, high), and returns it as a float.

    Numbers of numpy are numbers, too.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is outside.
    """
    number = _number(name, value)
    if not low <= number < high:  # NaN included
        if math.isinf(low):
            allowed = "finite"
        else:
            allowed = (
                f"in [{low:g}, {high:g})" if math.isfinite(high) else f"finite and >= {low:g}"
            )
        raise ValueError(f"`{name}` must be {allowed}, got {value}")
    return number


def finite(name: str, value: object) -> float:
    """Checks that a number is finite, and returns it as a float.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is not finite.
    """
    number = _number(name, value)
    if not math.isfinite(number):
        raise ValueError(f"`{name}` must be finite, got {value}")
    return number


def not_negative(name: str, value: object) -> float:
    """Checks that a number is not negative and finite, and returns it as a float.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is negative or not finite.
    """
    number = _number(name, value, "a non-negative number")
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"`{name}` must be non-negative and finite, got {value}")
    return number


def positive(name: str, value: object) -> float:
    """Checks that a number is positive and finite, and returns it as a float.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is not positive and finite.
    """
    number = _number(name, value, "a positive number")
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"`{name}` must be positive and finite, got {value}")
    return number


def whole(name: str, value: object, least: int = 1) -> int:
    """Checks a whole number, and returns it as an int.

    Raises:
        TypeError: If it is not a whole number.
        ValueError: If it is less than `least`.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"`{name}` must be a whole number, got {type(value).__name__}")
    if value < least:
        raise ValueError(f"`{name}` must be a whole number from {least} on, got {value}")
    return int(value)


def valid_kappa(value: object, limit: float, kind: str) -> float:
    """Returns a tolerance as a float, or says what is wrong with it."""
    allowed = "positive and finite" if limit == math.inf else f"between 0 and {limit:g} (excluded)"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(
            f"`kappa` of {kind} must be a number {allowed}, got {type(value).__name__}; convert "
            f"tensors and texts with float()"
        )
    kappa = float(value)
    if not (math.isfinite(kappa) and 0 < kappa < limit):
        raise ValueError(f"`kappa` of {kind} must be {allowed}, got {kappa}")
    return kappa


def _number(name: str, value: object, what: str = "a number") -> float:
    # numpy registers its scalars with the abstract classes of numbers
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"`{name}` must be {what}, got {type(value).__name__}")
    return float(value)
