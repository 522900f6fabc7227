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
from typing import Any, NamedTuple

import torch
from torch import Tensor

from geco_core.constraints.patches import (
    box_mean,
    box_spread,
    check_patches,
    patch_shape,
    rounding_floor,
)
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

_LEAST = 1e-15  # of a deviation in units of the example: its square has no rounding yet
_EXPONENT = {
    torch.float32: (torch.int32, 0x7F800000),
    torch.float64: (torch.int64, 0x7FF0000000000000),
}


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
        weights: Tensor | None = None
        if observed is not None:
            full = observed.expand(-1, -1, *a.shape[2:])
            weights = box_mean(full.mean(1), size, stride)
        missing = _missing_correlations(a, b, observed, weights, (self.eps, size, stride))
        if self.per_channel:
            missing = missing.reshape(*x.shape[:2], *missing.shape[1:])
            if weights is not None:
                weights = weights.reshape(missing.shape)
        return mean_per_example(missing, weights) - self.scale

    def example_weights(
        self, x: Tensor, reconstruction: Tensor, *, mask: Tensor | None = None, **batch: Any
    ) -> Tensor | None:
        """0 for examples of which nothing was observed."""
        return observed_examples(x, mask)

    def extra_repr(self) -> str:
        """The tolerance, the constant of flat patches and the reduction."""
        return f"kappa={self.kappa:g}, eps={self.eps:g}, reduction={self.reduction!r}"


class _Patches(NamedTuple):
    """The patches of two images; the first axis of each field is that of the images."""

    missing: Tensor
    """1 less the correlations, (batch, *locations)."""

    correlations: Tensor
    """The correlations, which rounding may have carried beyond 1."""

    centred: Tensor
    """Every example less its mean, in its unit, (2, batch, channels, *space)."""

    means: Tensor
    """The means of the patches, (2, batch, *locations)."""

    inverse: Tensor
    """One over the standard deviations of the patches, (2, batch, *locations)."""

    scale: Tensor
    """One over the units of the examples, (2, batch)."""


def _missing_correlations(
    a: Tensor,
    b: Tensor,
    observed: Tensor | None,
    weights: Tensor | None,
    settings: tuple[float, tuple[int, ...], tuple[int, ...]],
) -> Tensor:
    """1 less the correlation of corresponding patches, (batch, *locations).

    Args:
        a: Images, (batch, channels, *space).
        b: Other images.
        observed: 1 where an element was observed, 0 elsewhere; None for all.
        weights: The share of every patch that was observed, (batch, *locations).
        settings: The deviation of a flat patch, the size of patches and their stride.
    """
    if torch.compiler.is_compiling():  # a compiler derives as good a gradient
        return _patches(a, b, observed, weights, *settings).missing
    missing: Tensor = _MissingCorrelations.apply(a, b, observed, weights, settings)[0]  # type: ignore[no-untyped-call]
    return missing


def _patches(
    a: Tensor,
    b: Tensor,
    observed: Tensor | None,
    weights: Tensor | None,
    eps: float,
    size: tuple[int, ...],
    stride: tuple[int, ...],
) -> _Patches:
    """The module's formula, for both images in one go: few calls, each of many maps."""
    both = torch.stack((a, b))
    # shift and unit cancel in every correlation, so their gradient is 0 and not needed
    constant = both.detach()
    if observed is not None:
        constant = torch.where(observed > 0, constant, 0.0)
    scale = _unit(constant).reciprocal()
    axes = (*scale.shape, *[1] * (both.ndim - 2))
    scaled = both * scale.reshape(axes)
    seen = None if observed is None else observed.unsqueeze(0).expand_as(both).flatten(0, 1)
    constant = scaled.detach() if observed is None else constant * scale.reshape(axes)
    centred = scaled - mean_per_example(constant.flatten(0, 1), seen).reshape(axes)
    if observed is not None:
        centred = torch.where(observed > 0, centred, 0.0)
    # channels first: the maps that follow have one
    products = (centred.unsqueeze(1) * centred).mean(3)
    maps = torch.cat((centred.mean(2), products.flatten(0, 1)))
    moments = box_mean(maps, size, stride)
    if weights is not None:
        moments = moments / torch.where(weights > 0, weights, 1.0)
    means, seconds = moments[:2], moments[2:].reshape(2, 2, *moments.shape[1:])
    covariances = torch.addcmul(seconds, means.unsqueeze(1), means, value=-1).flatten(0, 1)
    # away from 0, also where eps in units of large images is small: half of what a flat patch has
    # for a variance, and what its variance cannot resolve
    least = (eps * scale).clamp(min=_LEAST).reshape(*scale.shape, *[1] * (means.ndim - 2))
    half = torch.addcmul(rounding_floor(moments[2::3], 0.5), least, least, value=0.5)
    # no less, where rounding made a variance negative; not variance.clamp(0): the covariance of
    # equal patches has the same rounding, unclamped
    inverse = torch.maximum(torch.add(covariances[::3], half, alpha=2), half).rsqrt()
    root = half.sqrt()
    raised = torch.addcmul(covariances[1], root[0], root[1], value=2)
    correlations = raised * inverse[0] * inverse[1]
    missing = 1 - correlations.clamp(-1, 1)  # rounding only
    return _Patches(missing, correlations, centred, means, inverse, scale)


class _MissingCorrelations(torch.autograd.Function):
    r"""The formula with its gradient written by hand.

    With :math:`i = (v + \epsilon^2)^{-1/2}`, where a patch holds a pixel,

    .. math:: \partial C / \partial b = i_a i_b (a - m_a) - C\, i_b^2 (b - m_b)

    which is three maps spread over the boxes. There is a gradient of the gradient: that of the
    formula itself.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        a: Tensor, b: Tensor, observed: Tensor | None, weights: Tensor | None, settings: Any
    ) -> tuple[Tensor, ...]:
        return tuple(_patches(a, b, observed, weights, *settings))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.settings = inputs[-1]
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*inputs[:4], *output[1:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        a, b, observed, weights, *kept = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:2]
        found: list[Tensor | None] = [None] * 5
        if torch.is_grad_enabled():
            inputs = [one for one, want in zip((a, b), wanted, strict=True) if want]
            missing = _patches(a, b, observed, weights, *ctx.settings).missing
            gradients = iter(torch.autograd.grad(missing, inputs, gradient, create_graph=True))
            found[:2] = [next(gradients) if want else None for want in wanted]
            return tuple(found)
        for which, want in enumerate(wanted):
            if want:
                found[which] = _gradient(
                    gradient, weights, _Patches(a, *kept), ctx.settings, which
                )
                if observed is not None:
                    found[which] = found[which] * observed
        return tuple(found)


def _gradient(
    gradient: Tensor, weights: Tensor | None, patches: _Patches, settings: Any, which: int
) -> Tensor:
    """From that of the missing correlations to that of one image."""
    _, correlations, centred, means, inverse, scale = patches
    _, size, stride = settings
    other = 1 - which
    channels, *space = centred.shape[2:]
    upstream = gradient * (scale[which] / -channels).reshape(-1, *[1] * (gradient.ndim - 1))
    if weights is not None:
        upstream = upstream / torch.where(weights > 0, weights, 1.0)
    both = upstream * inverse[which] * inverse
    across, along = both[other], both[which] * correlations
    constant = torch.addcmul(along * means[which], across, means[other], value=-1)
    spread = box_spread(torch.stack((constant, across, along)), tuple(space), size, stride)
    constant, across, along = spread.unsqueeze(2).unbind(0)
    result = torch.addcmul(constant, across, centred[other])
    return torch.addcmul(result, along, centred[which], value=-1)


def _unit(values: Tensor) -> Tensor:
    """A power of 2, at least 1, of the size of every example's largest value.

    Images up to the range of their type then have squares within it, and small ones stay as they
    are, bit for bit.

    Args:
        values: (2, batch, channels, *space).

    Returns:
        The units, (2, batch).
    """
    if not values.numel():
        return values.new_ones(values.shape[:2])
    axes = tuple(range(2, values.ndim))
    peak = values.abs().amax(axes).clamp(min=1.0)
    # of a number of at least 1 the exponent's bits alone
    integer, bits = _EXPONENT[peak.dtype]
    unit: Tensor = (peak.view(integer) & bits).view(peak.dtype)
    return unit
