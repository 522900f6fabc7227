"""From elements to one value per example: weights, masks and means."""

import torch
from torch import Tensor

__all__ = ["counted", "element_weights", "mean_per_example", "observed_examples"]


def counted(values: Tensor, weights: Tensor) -> Tensor:
    """Values times weights, 0 where the weight is 0, whatever the value.

    Args:
        values: The values, NaN allowed where they do not count.
        weights: Non-negative weights; either may broadcast against the other.
    """
    # not only the weight: 0 times NaN is NaN, in the gradient too
    return torch.where(weights > 0, values, 0.0) * weights


def element_weights(
    x: Tensor, mask: Tensor | None, weights: Tensor | None, dtype: torch.dtype
) -> Tensor | None:
    """The weights of the elements of `x`: the product of a mask and of weights.

    Args:
        x: The data, for its shape.
        mask: True where an element counts; None counts all.
        weights: Non-negative weights; None weighs all alike. May be :math:`(B,)`.
        dtype: The dtype of the result.

    Returns:
        Weights that broadcast against `x`, None where neither was given.

    Raises:
        TypeError: If `mask` is not boolean or `weights` not floating-point.
        ValueError: If either has a shape other than that of `x` with some axes of size 1.
    """
    weights = _per_example(x, weights)
    if mask is not None:
        _check_against(x, mask, "mask")
        if mask.dtype != torch.bool:
            raise TypeError(
                f"`mask` must be boolean, True where an element counts, got {mask.dtype}; "
                f"write mask != 0, or pass numbers as `weights`"
            )
    if weights is not None:
        _check_against(x, weights, "weights")
        if not weights.is_floating_point():
            raise TypeError(
                f"`weights` must have a floating-point dtype, got {weights.dtype}; for elements "
                f"that count or do not, pass a boolean `mask`"
            )
    if weights is None:
        return None if mask is None else mask.to(dtype)
    if mask is None:
        return weights.to(dtype)
    return weights.to(dtype) * mask


def mean_per_example(values: Tensor, weights: Tensor | None = None) -> Tensor:
    """The (weighted) mean over all axes but the first.

    Args:
        values: The values, (batch, ...).
        weights: Weights that broadcast against `values`. An example whose weights are all 0 has
            mean 0, with gradient 0.

    Returns:
        One mean per example, (batch,).
    """
    axes = tuple(range(1, values.ndim))
    if weights is None:
        # a mean over no axes would be the mean over all of them
        return values.mean(axes) if axes else values
    weights = weights.expand_as(values)
    total = weights.sum(axes) if axes else weights
    weighted = weights * values
    summed = weighted.sum(axes) if axes else weighted
    return summed / torch.where(total > 0, total, torch.ones_like(total))


def observed_examples(
    x: Tensor, mask: Tensor | None, weights: Tensor | None = None
) -> Tensor | None:
    """How much every example counts: not at all where nothing of it was observed.

    Args:
        x: The data, for its shape.
        mask: As for :func:`element_weights`.
        weights: As for :func:`element_weights`. One number per example is its weight among the
            examples; of several numbers per example only the proportions matter, and the
            example counts as one if any is positive.

    Returns:
        Weights (batch,), None where neither was given.
    """
    dtype = torch.float32
    elements = element_weights(x, mask, weights, dtype)
    if elements is None:
        return None
    elements = elements.flatten(1).amax(1) if elements.ndim > 1 else elements
    weights = _per_example(x, weights)
    if weights is not None and weights[:1].numel() == 1:
        return elements
    return (elements > 0).to(dtype)


def _per_example(x: Tensor, value: Tensor | None) -> Tensor | None:
    """One number per example as a tensor with the axes of `x`; anything else unchanged."""
    if isinstance(value, Tensor) and value.ndim == 1 < x.ndim and value.shape == x.shape[:1]:
        return value.reshape(-1, *[1] * (x.ndim - 1))
    return value


def _check_against(x: Tensor, value: Tensor, name: str) -> None:
    fits = value.ndim == x.ndim and all(
        size in (1, full) for size, full in zip(value.shape, x.shape, strict=True)
    )
    if not fits:
        # trailing-axis broadcasting would take a (batch,) vector for one over the width
        raise ValueError(
            f"`{name}` must have the shape of `x`, {tuple(x.shape)}, where any axis may have "
            f"size 1, got {tuple(value.shape)}"
        )
