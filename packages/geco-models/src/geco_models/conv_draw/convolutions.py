r"""Convolutions of ConvDraw's training pass: of one step, or shared by several steps.

A weight that :math:`n` steps apply has the gradient
:math:`\sum_t \partial L / \partial y_t \star p_t`, with the planes :math:`p_t` that it met and
what it made of them, :math:`y_t`. Differentiated step by step that is :math:`n` convolutions and
their sum; here it is one convolution over the planes of all steps, behind the last of them.
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
    met: dict[int, Tensor] = field(repr=False)
    """The planes of each use, from the backward pass of that use to that of the weight."""

    def apply(self, planes: Tensor) -> Tensor:
        """The convolution of planes, (batch, channels, h, w)."""
        made: Tensor = _Use.apply(planes, self.slot, self)  # type: ignore[no-untyped-call]
        return made


def shared(
    convolution: Convolution, uses: int, batch: int, size: tuple[int, int]
) -> list[SharedConvolution]:
    """The uses of one convolution, whose weight, bias and offset get their gradients once.

    There are no gradients of these gradients.

    Args:
        convolution: The convolution.
        uses: How many planes it will meet, each once.
        batch: The batch size of those planes.
        size: Their height and width.
    """
    met: dict[int, Tensor] = {}
    shape = (batch, convolution.weight.shape[0], *size)
    slots: tuple[Tensor, ...] = _Slots.apply(  # type: ignore[no-untyped-call]
        uses, shape, met, convolution.groups, *convolution[:3]
    )
    bias, offset = convolution.bias, convolution.offset
    detached = Convolution(
        convolution.weight.detach(),
        None if bias is None else bias.detach(),
        None if offset is None else offset.detach(),
        convolution.groups,
    )
    return [SharedConvolution(detached, slot, use, met) for use, slot in enumerate(slots)]


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
        if ctx.needs_input_grad[1]:
            one.met[one.use] = planes.detach()  # with its history it would keep itself alive
        before = None
        if ctx.needs_input_grad[0]:
            before = _gradients(
                grad, planes, weight, None, one.convolution.groups, (True, False, False)
            )[0]
        return before, grad, None


class _Slots(torch.autograd.Function):
    """Stand-ins for what the uses make; their gradients are those of the results."""

    @staticmethod
    def forward(
        ctx: Any,
        uses: int,
        shape: tuple[int, ...],
        met: dict[int, Tensor],
        groups: int,
        weight: Tensor,
        bias: Tensor | None,
        offset: Tensor | None,
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(weight)
        ctx.met, ctx.groups = met, groups
        ctx.bias = None if bias is None else list(bias.shape)
        ctx.offset = None if offset is None else offset.shape
        ctx.set_materialize_grads(False)
        nothing = weight.new_empty(())  # no memory whatever the shape
        return tuple(nothing.expand(shape) for _ in range(uses))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        found = [(ctx.met.pop(i), grad) for i, grad in enumerate(grads) if grad is not None]
        if not found:
            return (None,) * 7
        planes, made = (torch.cat(list(each)) for each in zip(*found, strict=True))
        wanted = (False, ctx.needs_input_grad[4], ctx.needs_input_grad[5])
        _, of_weight, of_bias = _gradients(made, planes, weight, ctx.bias, ctx.groups, wanted)
        of_offset = None
        if ctx.needs_input_grad[6]:
            of_offset = made.view(len(found), -1, *made.shape[1:]).sum(0).sum_to_size(ctx.offset)
        return None, None, None, None, of_weight, of_bias, of_offset


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
