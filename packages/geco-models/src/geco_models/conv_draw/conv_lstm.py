r"""The convolutional LSTM cell, its four gates computed as one convolution.

With the inputs :math:`x_t`, the hidden state :math:`h_{t-1}` and the cell state :math:`c_{t-1}`
(all planes), one step is

.. math::
    (a_i, a_f, a_o, a_g) &= W * [x_t, h_{t-1}] + b + s \\
    c_t &= \sigma(a_f) \odot c_{t-1} + \sigma(a_i) \odot \tanh(a_g) \\
    h_t &= \sigma(a_o) \odot \tanh(c_t)

where :math:`*` is a convolution that keeps the size and :math:`s` is an optional offset: the part
of the gates that does not change from step to step. The gates are linear in their inputs, so
whoever calls the cell may compute the convolution of a constant input once and hand it in as
:math:`s`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["ConvLSTMCell", "advance", "advance_in_place", "traced"]


class ConvLSTMCell(nn.Module):
    r"""Creates a convolutional LSTM cell (the module's formula; no peephole connections).

    The gates lie along the channels in the order input, forget, output, candidate. The bias of
    the forget gates starts at 1: a fresh cell remembers.

    References:
        Convolutional LSTM Network: A Machine Learning Approach for Precipitation Nowcasting
        (Shi et al., 2015), https://arxiv.org/abs/1506.04214

    Args:
        inputs: The number of input channels :math:`C` (0 for a cell that is driven by its state
            and the offset alone).
        hidden: The number of channels :math:`H` of the hidden and of the cell state.
        kernel: The odd side of the convolution.

    Raises:
        ValueError: If a number of channels is too small or `kernel` is even.

    Attributes:
        weight: :math:`(4 H, C + H, k, k)`, the columns of the inputs before those of the state.
        bias: :math:`(4 H)`.
    """

    def __init__(self, inputs: int, hidden: int, kernel: int = 3) -> None:
        super().__init__()
        if inputs < 0:
            raise ValueError(f"`inputs` must be a channel count >= 0, but got {inputs}.")
        if hidden < 1:
            raise ValueError(f"`hidden` must be a channel count >= 1, but got {hidden}.")
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"`kernel` must be odd and >= 1 to keep the size, but got {kernel}.")

        self.inputs, self.hidden, self.kernel = inputs, hidden, kernel
        self.weight = nn.Parameter(torch.empty(4 * hidden, inputs + hidden, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(4 * hidden))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws fresh weights (Xavier) and sets the biases: 1 for the forget gates, else 0."""
        nn.init.xavier_uniform_(self.weight.view(4, self.hidden, -1).transpose(0, 1))
        with torch.no_grad():
            self.bias.zero_()
            self.bias[self.hidden : 2 * self.hidden] = 1.0

    def extra_repr(self) -> str:
        """The sizes, as `repr` shows them."""
        return f"{self.inputs}, {self.hidden}, kernel={self.kernel}"

    def contribution(self, planes: Tensor, first: int = 0) -> Tensor:
        r"""The part of the gates that some of the input channels make: no bias, no other channel.

        Args:
            planes: The channels `first`, `first + 1`, ... of the input, :math:`(B, K, H, W)`.
            first: The place of the first of them among the inputs (the state follows the inputs).

        Returns:
            The part of the gates, :math:`(B, 4 H, H, W)`.
        """
        weight = self.weight[:, first : first + planes.shape[1]]
        return functional.conv2d(planes, weight, padding=self.kernel // 2)

    def gates(self, planes: Sequence[Tensor]) -> Tensor:
        r"""The gates before their nonlinearities: :math:`W * [x_t, h_{t-1}] + b`.

        Planes of batch size 1 stand for every example. They are convolved once, not once for
        each example: at the first step of a sequence, where the states are the same for the
        whole batch, that is most of the work.

        Args:
            planes: The inputs and, last, the hidden state; their channels add up to
                :math:`C + H`.
        """
        batch = max(plane.shape[0] for plane in planes)
        if all(plane.shape[0] == batch for plane in planes):
            joined = torch.cat(tuple(planes), dim=1) if len(planes) > 1 else planes[0]
            return functional.conv2d(joined, self.weight, self.bias, padding=self.kernel // 2)

        total = self.bias.view(1, -1, 1, 1)
        first = 0
        group: list[Tensor] = []
        for index, plane in enumerate(
            planes
        ):  # neighbours of one batch size are convolved together
            group.append(plane)
            if index + 1 == len(planes) or planes[index + 1].shape[0] != plane.shape[0]:
                joined = torch.cat(group, dim=1)
                total = total + self.contribution(joined, first)
                first += joined.shape[1]
                group = []
        return total

    def forward(
        self,
        inputs: Sequence[Tensor],
        state: tuple[Tensor, Tensor],
        offset: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        r"""Advances by one step.

        Args:
            inputs: Planes whose channels add up to :math:`C`, each :math:`(B, *, H, W)` or, where
                all examples share them, :math:`(1, *, H, W)`.
            state: :math:`(h_{t-1}, c_{t-1})`, each :math:`(B, H, H, W)` or :math:`(1, H, H, W)`.
            offset: :math:`s`, added to the gates; broadcast against :math:`(B, 4 H, H, W)`.

        Returns:
            :math:`(h_t, c_t)`, of batch size 1 only if everything that entered is.
        """
        hidden, cell = state
        gates = self.gates((*inputs, hidden))
        if offset is not None:
            gates = gates + offset
        return advance(gates, cell)


def advance(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    r"""The states after gates: the cell's formulas without its convolution.

    Args:
        gates: The gates before their nonlinearities, (..., 4 H, h, w), in the order input, forget,
            output, candidate.
        cell: :math:`c_{t-1}`, (..., H, h, w).

    Returns:
        :math:`(h_t, c_t)`, in the type of the gates.
    """
    remember_new, remember_old, show, candidate, _ = _opened(gates)
    # not addcmul, whose backward multiplies by its factor 1 twice
    cell = remember_old * cell.to(gates.dtype) + remember_new * candidate
    return show * torch.tanh(cell), cell


def advance_in_place(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Like `advance`, with a backward pass that writes into one tensor of the gates' layout.

    For inner loops: it spares the joining of four gradients, which costs copies where the gates'
    channels lie last. There are no gradients of its gradients.

    Args:
        gates: The gates before their nonlinearities, (..., 4 H, h, w).
        cell: The cell state before, (..., H, h, w), in the type of the gates.

    Returns:
        Hidden and cell state after.
    """
    if traced():
        return advance(gates, cell)
    hidden, cell = _Advance.apply(gates, cell)  # type: ignore[no-untyped-call]
    return hidden, cell


def traced() -> bool:
    """Whether a compiler or a functional transform looks on, which want the plain formulas."""
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()


def _opened(gates: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gates after their nonlinearities: input, forget, output, candidate; and the first three
    as one tensor.
    """
    size = gates.shape[-3] // 4
    # two splits, whose backward is one copy each: slices would each fill all gates with zeros
    opening, candidate = torch.split(gates, [3 * size, size], dim=-3)
    opening = torch.sigmoid(opening)
    remember_new, remember_old, show = opening.chunk(3, dim=-3)
    return remember_new, remember_old, show, torch.tanh(candidate), opening


class _Advance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        remember_new, remember_old, show, candidate, opening = _opened(gates)
        new = torch.addcmul(remember_old * cell, remember_new, candidate)
        squashed = torch.tanh(new)
        ctx.save_for_backward(opening, candidate, cell, squashed)
        ctx.set_materialize_grads(False)
        ctx.layout = gates.shape, gates.stride()
        return show * squashed, new

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any, grad_hidden: Tensor | None, grad_cell: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        opening, candidate, cell, squashed = ctx.saved_tensors
        remember_new, remember_old, show = opening.chunk(3, dim=-3)
        size = candidate.shape[-3]
        # empty_strided: gates of one batch size and a cell of another keep the gates' layout
        gates = torch.empty_strided(*ctx.layout, dtype=opening.dtype, device=opening.device)
        grad_opening, grad_candidate = torch.split(gates, [3 * size, size], dim=-3)
        grad_new, grad_old, grad_show = grad_opening.chunk(3, dim=-3)
        total = grad_cell
        if grad_hidden is None:
            grad_show.zero_()
        else:
            torch.mul(grad_hidden, squashed, out=grad_show)
            inner = torch.ops.aten.tanh_backward(grad_hidden * show, squashed)
            total = inner if grad_cell is None else inner.add_(grad_cell)
        if total is None:
            return gates.zero_(), torch.zeros_like(cell)
        torch.mul(total, candidate, out=grad_new)
        torch.mul(total, cell, out=grad_old)
        torch.ops.aten.sigmoid_backward(grad_opening, opening, grad_input=grad_opening)
        torch.mul(total, remember_new, out=grad_candidate)
        torch.ops.aten.tanh_backward(grad_candidate, candidate, grad_input=grad_candidate)
        before = total * remember_old
        return gates, before.sum_to_size(cell.shape)
