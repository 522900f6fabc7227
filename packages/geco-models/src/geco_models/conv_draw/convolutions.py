r"""Convolutions of ConvDraw's training pass: of one step, or shared by several steps.

A weight that :math:`n` steps apply has the gradient
:math:`\sum_t \partial L / \partial y_t \star p_t`, with the planes :math:`p_t` that it met and
what it made of them, :math:`y_t`. Differentiated step by step that is :math:`n` convolutions and
as many additions. Here the terms are added at once, or, deferred, one convolution over the planes
of all steps makes the sum, behind the last of them: fewer kernels for a device that is bound by
launches, for the memory of planes and gradients that are kept until then.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Convolution", "SharedConvolution", "shared"]


class Convolution(NamedTuple):
    """A convolution that keeps the size: called with planes, it adds bias and offset."""

    weight: Tensor
    bias: Tensor | None = None
    offset: Tensor | None = None
    """Planes, (batch, channels, h, w) or what broadcasts to them."""

    groups: int = 1

    def apply(self, planes: Tensor) -> Tensor:
        """The convolution of planes, (batch, channels, h, w)."""
        padding = self.weight.shape[-1] // 2
        made = functional.conv2d(
            planes, self.weight, self.bias, padding=padding, groups=self.groups
        )
        return made if self.offset is None else made + self.offset


@dataclass(frozen=True)
class SharedConvolution:
    """One of several uses of a convolution; see `shared`."""

    convolution: Convolution
    """The convolution, detached."""

    slot: Tensor
    """A stand-in of what this use makes: it takes the gradient to the weight. Never read."""

    use: int
    met: dict[int, tuple[Tensor | None, ...]] = field(repr=False)
    """From the backward pass of each use to that of the weight: the planes if its gradient is
    deferred, else its terms of the gradients of weight and bias."""

    defer: bool
    offset: Tensor | None
    """What is added with an ordinary gradient: kept gradients cost a CPU more than additions."""

    def apply(self, planes: Tensor) -> Tensor:
        """The convolution of planes, (batch, channels, h, w)."""
        made: Tensor = _Use.apply(planes, self.slot, self)  # type: ignore[no-untyped-call]
        return made if self.offset is None else made + self.offset


def shared(
    convolution: Convolution, uses: int, batch: int, size: tuple[int, int], defer: bool
) -> list[SharedConvolution]:
    """The uses of one convolution, whose weight, bias and offset get their gradients once.

    There are no gradients of these gradients.

    Args:
        convolution: The convolution.
        uses: How many planes it will meet, each once.
        batch: The batch size of those planes.
        size: Their height and width.
        defer: Whether the gradient of the weight is one convolution, behind all uses.
    """
    met: dict[int, tuple[Tensor | None, ...]] = {}
    added = None if defer else convolution.offset
    if not defer:
        convolution = convolution._replace(offset=None)
    shape = (batch, convolution.weight.shape[0], *size)
    slots: tuple[Tensor, ...] = _Slots.apply(  # type: ignore[no-untyped-call]
        uses, shape, met, defer, convolution.groups, *convolution[:3]
    )
    bias, offset = convolution.bias, convolution.offset
    detached = Convolution(
        convolution.weight.detach(),
        None if bias is None else bias.detach(),
        None if offset is None else offset.detach(),
        convolution.groups,
    )
    return [
        SharedConvolution(detached, slot, use, met, defer, added) for use, slot in enumerate(slots)
    ]


class _Use(torch.autograd.Function):
    """Convolves; hands the gradient of the result to the slot and keeps the planes for it."""

    @staticmethod
    def forward(ctx: Any, planes: Tensor, slot: Tensor, one: SharedConvolution) -> Tensor:
        ctx.save_for_backward(planes, one.convolution.weight)
        ctx.one = one
        return one.convolution.apply(planes)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, None]:
        planes, weight = ctx.saved_tensors
        one: SharedConvolution = ctx.one
        bias, groups = one.convolution.bias, one.convolution.groups
        learns = ctx.needs_input_grad[1]
        now = learns and not one.defer
        wanted = (ctx.needs_input_grad[0], now, now and bias is not None)
        sizes = None if bias is None else list(bias.shape)
        before = None
        if any(wanted):
            before, *terms = _gradients(grad, planes, weight, sizes, groups, wanted)
        if learns:  # with its history what is kept would keep itself alive
            one.met[one.use] = (planes.detach(),) if one.defer else tuple(terms)
        # a stand-in where nothing needs the numbers: they need not be kept
        kept = grad if one.defer else grad.new_empty(()).expand(grad.shape)
        return before, kept, None


class _Slots(torch.autograd.Function):
    """Stand-ins for what the uses make; their gradients are those of the results."""

    @staticmethod
    def forward(
        ctx: Any,
        uses: int,
        shape: tuple[int, ...],
        met: dict[int, tuple[Tensor | None, ...]],
        defer: bool,
        groups: int,
        weight: Tensor,
        bias: Tensor | None,
        offset: Tensor | None,
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(weight)
        ctx.met, ctx.defer, ctx.groups = met, defer, groups
        ctx.bias = None if bias is None else list(bias.shape)
        ctx.offset = None if offset is None else offset.shape
        ctx.set_materialize_grads(False)
        nothing = weight.new_empty(())  # no memory whatever the shape
        return tuple(nothing.expand(shape) for _ in range(uses))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        used = [(ctx.met.pop(i), grad) for i, grad in enumerate(grads) if grad is not None]
        found: list[Tensor | None] = [None, None, None]
        if not used:
            return (None,) * 8
        _, of_weight, of_bias, of_offset = ctx.needs_input_grad[4:]
        met = [one for one, _ in used]
        if ctx.defer:
            planes, joined = torch.cat([one[0] for one in met]), torch.cat([g for _, g in used])
            wanted = (False, of_weight, of_bias)
            found[:2] = _gradients(joined, planes, weight, ctx.bias, ctx.groups, wanted)[1:]
            if of_offset:
                whole = joined.view(len(used), -1, *joined.shape[1:]).sum(0)
                found[2] = whole.sum_to_size(ctx.offset)
        else:
            for place, wanted in enumerate((of_weight, of_bias)):
                if wanted:
                    found[place] = torch.stack([one[place] for one in met]).sum(0)
        return (None,) * 5 + tuple(found)


def _gradients(
    grad: Tensor,
    planes: Tensor,
    weight: Tensor,
    bias: list[int] | None,
    groups: int,
    wanted: tuple[bool, bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Of planes, weight and bias; those that are not wanted are None."""
    padding = [weight.shape[-1] // 2] * 2
    found: tuple[Tensor | None, Tensor | None, Tensor | None] = (
        torch.ops.aten.convolution_backward(
            grad, planes, weight, bias, [1, 1], padding, [1, 1], False, [0, 0], groups, wanted
        )
    )
    return found
