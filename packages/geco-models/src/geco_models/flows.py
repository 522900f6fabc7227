r"""Affine coupling flows over vectors (RealNVP).

A coupling layer leaves one half :math:`a` of its input and maps the other half by
:math:`b' = b \odot e^{s(a, c)} + t(a, c)`; its inverse is :math:`b = (b' - t) \odot e^{-s}` and
its log-determinant :math:`\sum_j s_j`. The log-scale is bounded,
:math:`s = B \tanh(r / 2)`, so that no input can make a layer overflow or lose its inverse.

Directions have names throughout: `forward` goes from data to base (what a density needs),
`inverse` from base to data (what sampling needs). Each returns the log-determinant of its own map.

References:
    | Density estimation using Real NVP (Dinh et al., 2016)
    | https://arxiv.org/abs/1605.08803
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from geco_models.gaussian import standard_log_prob, standard_normal
from geco_models.validation import as_positive, as_shape

__all__ = ["LOG_SCALE_BOUND", "AffineCoupling", "RealNVP"]

LOG_SCALE_BOUND = 2.0
"""The bound B of one coupling's log-scale: it stretches by factors between 0.14 and 7.4."""

_LOG_2_PI = math.log(2 * math.pi)


class AffineCoupling(nn.Module):
    r"""One coupling layer on two separate halves, so that nothing is masked or gathered.

    Args:
        passive: The number of features :math:`a` that pass through.
        active: The number of features :math:`b` that are mapped.
        hidden: The sizes of the ReLU network's hidden layers.
        bound: The bound :math:`B` of the log-scale.
    """

    def __init__(
        self,
        passive: int,
        active: int,
        hidden: Sequence[int] = (128, 128),
        bound: float = LOG_SCALE_BOUND,
    ) -> None:
        super().__init__()
        self.bound = bound
        sizes = [passive, *hidden, 2 * active]
        # stored as (inputs, outputs), unlike nn.Linear: neither the product nor the gradient
        # of the weights is then a transposed view that has to be copied, a tenth of the time
        self.weights = nn.ParameterList(torch.empty(pair) for pair in pairwise(sizes))
        self.biases = nn.ParameterList(torch.empty(size) for size in sizes[1:])
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the weights anew: nearly the identity, yet with a gradient for every layer."""
        for weight, bias in zip(self.weights, self.biases, strict=True):
            width = weight.shape[0] ** -0.5
            nn.init.uniform_(weight, -width, width)
            nn.init.uniform_(bias, -width, width)
        with torch.no_grad():
            self.weights[-1].mul_(0.1)
            self.biases[-1].zero_()

    def forward(
        self, a: Tensor, b: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Maps the active half from data to base.

        Args:
            a: The passive half, (batch, passive).
            b: The active half, (batch, active).
            context: What the context adds to the first hidden layer, (batch, hidden[0]).

        Returns:
            The mapped half and the log-scales, both (batch, active).
        """
        shift, log_scale = self._parameters_at(a, b, context)
        return b * torch.exp(log_scale) + shift, log_scale

    def inverse(
        self, a: Tensor, b: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Maps the active half from base to data.

        Args:
            a: The passive half, (batch, passive).
            b: The active half, (batch, active).
            context: What the context adds to the first hidden layer, (batch, hidden[0]).

        Returns:
            The mapped half and the log-scales of `forward` at the same place.
        """
        shift, log_scale = self._parameters_at(a, b, context)
        return (b - shift) * torch.exp(-log_scale), log_scale

    def _parameters_at(
        self, a: Tensor, b: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        weights, biases = list(self.weights), list(self.biases)
        # latents are kept in float32 at least; weights may be in half precision
        hidden = torch.addmm(biases[0], a.to(weights[0].dtype), weights[0])
        if context is not None:
            hidden = hidden + context
        for weight, bias in zip(weights[1:], biases[1:], strict=True):
            hidden = torch.addmm(bias, hidden.relu_(), weight)
        shift, raw = hidden.to(b.dtype).chunk(2, dim=1)
        # B tanh(r / 2), written with the sigmoid, which costs a quarter of tanh on a CPU
        return shift, (torch.sigmoid(raw) - 0.5) * (2 * self.bound)

    def __repr__(self) -> str:
        sizes = [self.weights[0].shape[0], *(bias.shape[0] for bias in self.biases)]
        return f"AffineCoupling(network={'-'.join(map(str, sizes))}, bound={self.bound})"


class RealNVP(nn.Module):
    r"""A flow of alternating affine couplings over vectors, with base N(0, I).

    The features are split once, into a first and a second half; couplings map the second half
    given the first, then the first given the second, and so on.

    Args:
        features: The number of features, at least 2.
        couplings: The number of coupling layers.
        hidden: The sizes of each coupling network's hidden layers.
        context: The number of context features; 0 for an unconditional flow.
        bound: The bound of each coupling's log-scale.

    Raises:
        TypeError: If a size is not an integer.
        ValueError: If a size is too small, or `bound` not positive and finite.
    """

    def __init__(
        self,
        features: int,
        couplings: int = 8,
        hidden: Sequence[int] = (128, 128),
        *,
        context: int = 0,
        bound: float = LOG_SCALE_BOUND,
    ) -> None:
        super().__init__()
        self.features = as_positive(features, "features", minimum=2)
        couplings = as_positive(couplings, "couplings")
        hidden = as_shape(hidden, "hidden")
        context = as_positive(context, "context", minimum=0)
        if not 0 < bound < math.inf:
            raise ValueError(f"`bound` must be a positive finite number, got {bound}")
        self.halves = (self.features // 2, self.features - self.features // 2)
        self.couplings: Sequence[AffineCoupling] = nn.ModuleList(  # type: ignore[assignment]
            AffineCoupling(self.halves[i % 2], self.halves[1 - i % 2], hidden, float(bound))
            for i in range(couplings)
        )
        # what the context adds to every coupling's first layer, in one product
        self.context = nn.Linear(context, couplings * hidden[0], bias=False) if context else None

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        r"""From data to base.

        Args:
            x: Data, (batch, features).
            context: Contexts, (batch, context), for a conditional flow only.

        Returns:
            The base point :math:`u` and :math:`\ln |\det \partial u / \partial x|`, (batch,).

        Raises:
            TypeError: If `x` is not floating point.
            ValueError: If a shape is wrong, or the context is missing or superfluous.
        """
        u, log_scale = self._run(x, context, inverse=False)
        return u, log_scale.sum(1)

    def inverse(self, u: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        r"""From base to data.

        Args:
            u: Base points, (batch, features).
            context: Contexts, (batch, context), for a conditional flow only.

        Returns:
            The data point :math:`x` and :math:`\ln |\det \partial x / \partial u|`, (batch,).

        Raises:
            TypeError: If `u` is not floating point.
            ValueError: If a shape is wrong, or the context is missing or superfluous.
        """
        x, log_scale = self._run(u, context, inverse=True)
        return x, -log_scale.sum(1)

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        r"""The log-density :math:`\ln N(u(x) | 0, I) + \ln |\det \partial u / \partial x|`.

        Args:
            x: Data, (batch, features).
            context: Contexts, (batch, context), for a conditional flow only.

        Returns:
            The log-densities in nats, (batch,).

        Raises:
            TypeError: If `x` is not floating point.
            ValueError: If a shape is wrong, or the context is missing or superfluous.
        """
        u, log_scale = self._run(x, context, inverse=False)
        return (log_scale - 0.5 * (u * u)).sum(1) - 0.5 * _LOG_2_PI * self.features

    def sample_and_log_prob(
        self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draws with their log-densities in one pass; gradients reach every parameter.

        Args:
            n: The number of draws.
            context: Contexts, (n, context), for a conditional flow only.
            generator: The source of randomness; the global one if None.

        Returns:
            The draws, (n, features), and their log-densities in nats, (n,).

        Raises:
            TypeError: If `n` is not an integer.
            ValueError: If `n` is not positive, or the context is missing or superfluous.
        """
        like = self.couplings[0].biases[0]
        u = standard_normal((as_positive(n, "n"), self.features), like, generator)
        x, log_scale = self._run(u, context, inverse=True)
        return x, standard_log_prob(u) + log_scale.sum(1)

    @torch.no_grad()
    def sample(
        self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draws through the flow, without gradients.

        Args:
            n: The number of draws.
            context: Contexts, (n, context), for a conditional flow only.
            generator: The source of randomness; the global one if None.

        Returns:
            The draws, (n, features).

        Raises:
            TypeError: If `n` is not an integer.
            ValueError: If `n` is not positive, or the context is missing or superfluous.
        """
        return self.sample_and_log_prob(n, context, generator)[0]

    def _run(self, x: Tensor, context: Tensor | None, inverse: bool) -> tuple[Tensor, Tensor]:
        """The mapped features, and for each the sum of its log-scales over the couplings."""
        _check(x, "u" if inverse else "x", self.features)
        first, second = self.halves
        halves = [x.narrow(1, 0, first), x.narrow(1, first, second)]
        totals: list[Tensor | None] = [None, None]
        extras = self._contexts(context, x)
        count = len(self.couplings)
        for i in range(count - 1, -1, -1) if inverse else range(count):
            passive, active = i % 2, 1 - i % 2
            coupling = self.couplings[i]
            step = coupling.inverse if inverse else coupling
            halves[active], log_scale = step(halves[passive], halves[active], extras[i])
            before = totals[active]
            totals[active] = log_scale if before is None else before + log_scale
        # with a single coupling the first half is never mapped
        summed = [
            torch.zeros_like(half) if total is None else total
            for half, total in zip(halves, totals, strict=True)
        ]
        return torch.cat(halves, dim=1), torch.cat(summed, dim=1)

    def _contexts(self, context: Tensor | None, x: Tensor) -> Sequence[Tensor | None]:
        if self.context is None:
            if context is not None:
                raise ValueError("`context` was given, but this flow has `context=0`")
            return [None] * len(self.couplings)
        if context is None:
            size = self.context.in_features
            raise ValueError(f"`context` is missing: this flow needs (batch, {size})")
        _check(context, "context", self.context.in_features)
        if context.shape[0] != x.shape[0]:
            msg = f"`context` must have {x.shape[0]} rows, one per example, got {len(context)}"
            raise ValueError(msg)
        added: Tensor = self.context(context.to(self.context.weight.dtype))
        return added.chunk(len(self.couplings), dim=1)


def _check(x: Tensor, name: str, features: int) -> None:
    if not x.is_floating_point():
        raise TypeError(f"`{name}` must be floating point, got {x.dtype}")
    if x.dim() != 2 or x.shape[1] != features:
        raise ValueError(f"`{name}` must be (batch, {features}), got {tuple(x.shape)}")
