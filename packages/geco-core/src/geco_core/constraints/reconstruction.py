r"""RE, the reconstruction error.

:math:`C(x, g(z)) = \text{mean}_j (x_j - g(z)_j)^2 - \kappa^2`. The form is the paper's; the mean
over elements instead of a sum is this project's choice. With it :math:`\kappa` is the root mean
square error per element, in the units of the data, whatever the size of image and batch.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from geco_core.constraints.reductions import (
    element_weights,
    mean_per_example,
    observed_examples,
)
from geco_core.constraints.tolerance import SquaredTolerance
from geco_core.precision import accumulation_dtype
from geco_core.validation import check_images

__all__ = ["ReconstructionError"]


_mean_squared_error = torch.ops.aten.mse_loss.default


class ReconstructionError(SquaredTolerance):
    r"""RE: the mean squared error of an example is at most :math:`\kappa^2`.

    .. math:: C(x, g) = \frac{\sum_j w_j (x_j - g_j)^2}{\sum_j w_j} - \kappa^2

    with all :math:`w_j = 1` unless a mask or weights are passed. Its value relative to `scale`,
    :math:`\text{MSE} / \kappa^2 - 1`, is free of units.

    Args:
        kappa: The root mean square error per element that is asked for, in the units of the
            data.

    Raises:
        TypeError: If `kappa` is not a number.
        ValueError: If `kappa` is not positive and finite.

    Example:
        >>> import torch
        >>> constraint = ReconstructionError(kappa=0.1)
        >>> x = torch.zeros(2, 1, 4, 4)
        >>> constraint(x, x + 0.3)
        tensor([0.0800, 0.0800])
    """

    reduction = "mean over the elements of an example"
    keywords = frozenset({"mask", "weights"})

    def forward(
        self,
        x: Tensor,
        reconstruction: Tensor,
        *,
        mask: Tensor | None = None,
        weights: Tensor | None = None,
        **batch: Any,
    ) -> Tensor:
        r"""Computes the violations.

        Args:
            x: The data, :math:`(B, *)`, floating-point. Elements that are masked out or have
                weight 0 may hold anything, NaN included.
            reconstruction: The decoder's output, of the same shape.
            mask: Boolean, True where an element was observed and counts. Of the shape of `x`,
                where any axis may have size 1.
            weights: Non-negative weights of the elements, of such a shape too. Only their
                proportions within an example matter. One weight per example, :math:`(B,)` or
                :math:`(B, 1, \dots)`, is the weight of the example in the mean over the batch.
            batch: Ignored.

        Returns:
            The violations, :math:`(B,)`, float32 or wider. That of an example without a single
            element that counts is meaningless: it is left out of the mean over the batch.

        Raises:
            TypeError: If a dtype is not the one described.
            ValueError: If a shape is not the one described.
        """
        check_images(x, reconstruction)
        dtype = accumulation_dtype(x, reconstruction)
        x, reconstruction = x.to(dtype), reconstruction.to(dtype)
        elements = element_weights(x, mask, weights, dtype)
        if elements is None:
            squares = mse_loss(reconstruction, x, reduction="none")
        else:
            # not only the weight: 0 times NaN is NaN, in the gradient too
            squares = torch.where(elements > 0, x - reconstruction, 0.0).square()
        return mean_per_example(squares, elements) - self.scale

    def quick_mean(self, x: Tensor, reconstruction: Tensor, **batch: Any) -> Tensor | None:
        """The mean violation of a batch in one pass, where every element counts alike."""
        weighted = batch.get("mask") is not None or batch.get("weights") is not None
        # a subclass may have another `forward`, and hooks are to be called
        if weighted or type(self) is not ReconstructionError or self._forward_hooks:
            return None
        # the usual case is seen at a glance; this is the hot path of a training loop
        usual = type(x) is Tensor and type(reconstruction) is Tensor
        usual = usual and x.dtype is reconstruction.dtype is torch.float32
        if not (usual and x.shape == reconstruction.shape and x.numel() > 0):
            check_images(x, reconstruction)
            dtype = accumulation_dtype(x, reconstruction)
            x, reconstruction = x.to(dtype), reconstruction.to(dtype)
        # the function of torch.nn.functional would broadcast first, which costs more than the sum
        return _mean_squared_error(reconstruction, x) - self.scale  # type: ignore[no-any-return]

    def example_weights(
        self,
        x: Tensor,
        reconstruction: Tensor,
        *,
        mask: Tensor | None = None,
        weights: Tensor | None = None,
        **batch: Any,
    ) -> Tensor | None:
        """0 for examples without a single element that counts; the weight where one is given."""
        return observed_examples(x, mask, weights)

    def elements(self, x: Tensor) -> float | None:
        """The elements of an example, masked or not."""
        return math.prod(x.shape[1:])

    def equivalent_beta(self, multiplier: Tensor, x: Tensor) -> Tensor:
        r"""The weight of the KL of the beta-VAE with a Gaussian decoder of unit variance.

        Args:
            multiplier: The multiplier :math:`\lambda`, a scalar.
            x: A batch of data, for the number :math:`d` of elements per example.

        Returns:
            :math:`\beta = d / (2 \lambda)` (D1: only :math:`T = \beta \sigma^2` matters, and
            :math:`C` is the mean over :math:`d` elements).
        """
        return math.prod(x.shape[1:]) / (2 * multiplier)
