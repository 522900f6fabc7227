r"""PNCC, the patch normalised cross-correlation.

:math:`C(x, g(z)) = \text{mean}_i (\kappa - \psi(x, i)^T \psi(g(z), i))`, where
:math:`\psi(\cdot, i)` is the patch of fixed size at location :math:`i`, with zero mean and unit
norm. The form is the paper's; what a constant patch is, is this project's choice: each patch gets
one more coordinate, equal to `eps` (times the root of the patch's size), before it is normalised.
:math:`\psi` then has unit norm always, equal images correlate to exactly 1 even where they are
flat, and a flat patch against a textured one correlates to almost 0.

With :math:`v_x, v_g` the variances within a patch and :math:`c` the covariance,

.. math:: \psi(x, i)^T \psi(g, i) = \frac{c + \epsilon_x \epsilon_g}
   {\sqrt{(v_x + \epsilon_x^2)(v_g + \epsilon_g^2)}}

and all of them are means over boxes of images that were first centred: without that,
:math:`E[x^2] - E[x]^2` loses every digit for an image far from 0. What is lost nevertheless, for a
patch far from the image's own mean, is added to :math:`\epsilon^2`.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from geco_core.constraints.patches import box_mean, check_patches, patch_shape, rounding_floor
from geco_core.constraints.reductions import (
    element_weights,
    mean_per_example,
    observed_examples,
)
from geco_core.constraints.tolerance import ComplementTolerance
from geco_core.constraints.tolerance_range import ToleranceRange
from geco_core.precision import accumulation_dtype
from geco_core.validation import check_images, positive

__all__ = ["PatchCrossCorrelation"]

_LEAST = 1e-30  # of a variance in units of the example: its square root has no rounding yet


class PatchCrossCorrelation(ComplementTolerance):
    r"""PNCC: the mean correlation of corresponding patches is at least :math:`\kappa`.

    .. math:: C(x, g) = \text{mean}_i\bigl(\kappa - \psi(x, i)^T \psi(g, i)\bigr)
       \in [\kappa - 1, \kappa + 1]

    It asks for structure and leaves brightness and contrast free: :math:`a g + b` with
    :math:`a > 0` has the correlation of :math:`g` (as long as contrasts are well above `eps`).
    Its value relative to `scale`, :math:`(1 - \psi^T \psi) / (1 - \kappa) - 1`, compares the
    correlation that is missing with what may be missing, and :math:`1 - \psi(x)^T \psi(g)` is
    half of a squared error, that of the normalised patches.

    Args:
        kappa: The mean correlation that is asked for, between 0 and 1.
        patch_size: The size of a patch, one number or one per axis of space. All channels of a
            location belong to its patch.
        stride: The step between locations, one number or one per axis of space.
        per_channel: Normalise every channel's patch by itself; then the brightness and contrast
            of each channel are free, else only those of the image.
        eps: The standard deviation, in the units of the data, of a patch that counts as flat.
            Raise it where noise in flat areas should not matter.

    Raises:
        TypeError: If an argument has another type than the one described.
        ValueError: If an argument is out of its range.

    Example:
        >>> import torch
        >>> constraint = PatchCrossCorrelation(kappa=0.75, patch_size=4)
        >>> x = torch.arange(64).remainder(3).float().reshape(1, 1, 8, 8)
        >>> constraint(x, x / 2 + 5)  # another contrast and brightness
        tensor([-0.2500])
        >>> constraint(x, -x)  # the negative
        tensor([1.7500])
    """

    keywords = frozenset({"mask"})

    def __init__(
        self,
        kappa: float | ToleranceRange,
        patch_size: int | Sequence[int] = 8,
        stride: int | Sequence[int] = 1,
        *,
        per_channel: bool = False,
        eps: float = 1e-3,
    ) -> None:
        super().__init__(kappa)
        self.patch_size = patch_shape(patch_size, "patch_size")
        self.stride = patch_shape(stride, "stride")
        if math.prod(self.patch_size) < 2:
            raise ValueError(
                f"`patch_size` must hold at least 2 elements, since a single one has no "
                f"contrast, got {patch_size!r}"
            )
        self.per_channel = bool(per_channel)
        self.eps = positive("eps", eps)
        self.reduction = (
            f"mean over patches of {self.patch_size} at stride {self.stride}, "
            f"{'each channel by itself' if self.per_channel else 'all channels together'}"
        )

    def forward(
        self, x: Tensor, reconstruction: Tensor, *, mask: Tensor | None = None, **batch: Any
    ) -> Tensor:
        r"""Computes the violations.

        Args:
            x: The data, :math:`(B, C, *)` with one or more axes of space, floating-point.
            reconstruction: The decoder's output, of the same shape.
            mask: Boolean, True where an element was observed. Of the shape of `x`, where any
                axis may have size 1. Patches are normalised and compared over what was observed
                of them, and count in proportion to it. Elements that were not may hold
                anything, NaN included.
            batch: Ignored.

        Returns:
            The violations, :math:`(B,)`, float32 or wider. An example of which nothing was
            observed has no missing correlation.

        Raises:
            TypeError: If a dtype is not the one described.
            ValueError: If a shape is not the one described, or a patch does not fit.
        """
        check_images(x, reconstruction)
        size, stride = check_patches(x, self.patch_size, self.stride)
        dtype = accumulation_dtype(x, reconstruction)
        observed = element_weights(x, mask, None, dtype)
        a, b = x.to(dtype), reconstruction.to(dtype)
        if self.per_channel:
            if observed is not None:
                observed = observed.expand_as(x).flatten(0, 1).unsqueeze(1)
            a, b = a.flatten(0, 1).unsqueeze(1), b.flatten(0, 1).unsqueeze(1)
        (a, unit_a), (b, unit_b) = _normalised(a, observed), _normalised(b, observed)

        fraction: Tensor | None = None
        divisor: Tensor | None = None
        if observed is not None:
            full = observed.expand(-1, -1, *a.shape[2:])
            fraction = box_mean(full.mean(1), size, stride)
            divisor = torch.where(fraction > 0, fraction, torch.ones_like(fraction))

        # channels first, and all five in one go: the maps have one channel and few calls
        maps = torch.stack([m.mean(1) for m in (a, b, a.square(), b.square(), a * b)])
        moments = box_mean(maps, size, stride)
        if divisor is not None:
            moments = moments / divisor
        mean_a, mean_b, second_a, second_b, second_ab = moments.unbind(0)
        covariance = second_ab - mean_a * mean_b
        flat_a, flat_b = (
            self._flat_variance(second, unit.reshape(-1, *[1] * (second.ndim - 1)))
            for second, unit in ((second_a, unit_a), (second_b, unit_b))
        )
        inverse_a = _positive(second_a - mean_a.square(), flat_a).rsqrt()
        inverse_b = _positive(second_b - mean_b.square(), flat_b).rsqrt()
        correlation = (covariance + flat_a.sqrt() * flat_b.sqrt()) * inverse_a * inverse_b
        missing = 1 - correlation.clamp(-1, 1)  # rounding only
        if self.per_channel:
            missing = missing.reshape(*x.shape[:2], *missing.shape[1:])
            if fraction is not None:
                fraction = fraction.reshape(missing.shape)
        return mean_per_example(missing, fraction) - self.scale

    def example_weights(
        self, x: Tensor, reconstruction: Tensor, *, mask: Tensor | None = None, **batch: Any
    ) -> Tensor | None:
        """0 for examples of which nothing was observed."""
        return observed_examples(x, mask)

    def _flat_variance(self, second_moment: Tensor, unit: Tensor) -> Tensor:
        # away from 0, also where the square of eps in units of large images underflows
        flat = (self.eps / unit).square().clamp(min=_LEAST)
        return flat + rounding_floor(second_moment)

    def extra_repr(self) -> str:
        """The tolerance, the constant of flat patches and the reduction."""
        return f"kappa={self.kappa:g}, eps={self.eps:g}, reduction={self.reduction!r}"


def _positive(variance: Tensor, flat: Tensor) -> Tensor:
    """The sum of both, away from 0 where rounding made a variance negative."""
    # not variance.clamp(0): the covariance of equal patches has the same rounding, unclamped
    return torch.maximum(variance + flat, flat / 2)


def _normalised(values: Tensor, observed: Tensor | None) -> tuple[Tensor, Tensor]:
    """Every example less its mean, in a unit of its own where its values are large.

    The unit is a power of 2 and at least 1, so that images up to the range of their type have
    squares within it and small ones stay as they are, bit for bit.

    Returns:
        The values, and the unit of every example, (batch,).
    """
    # shift and unit cancel in every correlation, so their gradient is 0 and not needed
    constant = values.detach()
    if observed is not None:
        constant = torch.where(observed > 0, constant, 0.0)
    peak = (
        constant.flatten(1).abs().amax(1) if constant.numel() else constant.new_ones(len(values))
    )
    unit = peak.clamp(min=1.0).log2().floor().exp2()
    axes = (-1, *[1] * (values.ndim - 1))
    scale = unit.reshape(axes)
    shifted = values / scale
    shifted = shifted - mean_per_example(constant / scale, observed).reshape(axes)
    return shifted if observed is None else torch.where(observed > 0, shifted, 0.0), unit
