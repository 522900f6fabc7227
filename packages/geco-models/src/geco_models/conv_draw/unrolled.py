r"""ConvDraw's training pass, arranged for a device that is bound by launches.

The formulas are those of `geco_models.conv_draw.step`; only the order of the work differs.

- Within step :math:`t` nothing needs :math:`p(z_t | z_{<t})`: the prior's heads and the KL are
  computed after the loop, for all steps at once.
- The decoder at step :math:`t` and the prior at step :math:`t + 1` both read :math:`z_t`, and
  nothing of each other: they advance together, as two groups of one convolution, with one set
  of pointwise operations. The prior's first step, which sees no latent, is computed once for the
  whole batch.
- Constant parts and biases of the posterior's gates are added once a step, as one tensor.
- Each step has a view of the weights of its own: their gradients are then summed over the steps by
  one operation, not added step by step.
- States have the type that the gates are computed in, half precision under autocast; the canvas
  and the latents stay in the weights' type at least.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from geco_models.conv_draw.conv_lstm import advance_in_place, traced
from geco_models.conv_draw.network import DrawNetwork
from geco_models.conv_draw.step import DrawCore, Offsets, Sources
from geco_models.gaussian import LOG_VARIANCE_BOUND, DiagonalGaussian

__all__ = ["Carry", "Prepared", "StepOffsets", "StepWeights", "finish", "prepare", "unrolled_step"]

Factors = tuple[Tensor, Tensor] | None


class StepWeights(NamedTuple):
    """The weights that one step uses, packed, in the type that convolutions run in."""

    read: Tensor
    """Of the posterior's gates, (4 hidden, inputs + hidden, k, k)."""

    head: Tensor
    """Of the posterior's head; the rows of the log-variances are divided by their bound."""

    head_bias: Tensor | None

    pair: Tensor
    """Of the gates of decoder and next prior, two groups; of the last step the decoder's alone."""

    write: Tensor
    """From decoder and prior to the canvas: zero where it meets the prior's state."""

    readout: Tensor | None
    """From a canvas of its own to the picture."""

    readout_bias: Tensor | None


class StepOffsets(NamedTuple):
    """What is added in every step."""

    posterior: Tensor
    """To the posterior's gates: image, context and bias."""

    pair: Tensor
    """To the gates of decoder and prior: context and bias; a bias alone is one-dimensional."""

    posterior_factors: Factors
    """What the tolerance does to the posterior's hidden state before its head reads it."""

    pair_factors: Factors
    """The same for the hidden states of decoder and prior."""


class Carry(NamedTuple):
    """What a step hands to the next; a batch size of 1 stands for "the same for all examples"."""

    canvas: Tensor
    latent: Tensor
    posterior: tuple[Tensor, Tensor]
    pair: tuple[Tensor, Tensor]
    """Hidden and cell states of decoder and prior, (batch, 2, hidden, h, w); after the last step
    those of the decoder alone, (batch, hidden, h, w)."""


def unrolled_step(
    carry: Carry, weights: StepWeights, offsets: StepOffsets, noise: Tensor
) -> tuple[Carry, Tensor, Tensor, Tensor]:
    """One step: posterior, latent, decoder with the next prior, canvas.

    Args:
        carry: The state before it.
        weights: The weights of this step.
        offsets: What is added to its gates.
        noise: Standard normal noise, (batch, latent channels, h, w).

    Returns:
        The next state; the posterior's raw statistics, log-variances divided by their bound; and
        what prior head and canvas read of the states of prior and decoder.
    """
    kind = weights.read.dtype
    canvas = carry.canvas.to(kind)
    planes = [canvas, carry.latent, carry.posterior[0]]
    if weights.readout is not None:
        planes.insert(1, functional.conv2d(canvas, weights.readout, weights.readout_bias))
    gates = _convolved(torch.cat(planes, dim=1), weights.read) + offsets.posterior
    posterior = advance_in_place(gates, carry.posterior[1])

    raw = functional.conv2d(
        _tuned(posterior[0], offsets.posterior_factors), weights.head, weights.head_bias
    )
    raw = raw.to(torch.promote_types(raw.dtype, torch.float32))
    mean, bounded = raw.chunk(2, dim=1)
    z = torch.addcmul(mean, torch.exp(0.5 * LOG_VARIANCE_BOUND * torch.tanh(bounded)), noise)

    latent = z.to(kind)
    hidden, cell = carry.pair
    alone = weights.pair.shape[0] == 4 * hidden.shape[2]  # the last step: no prior follows
    if alone:
        hidden, cell = hidden[:, :1], cell.select(1, 0)
    gates = _pair_gates(latent, hidden, weights.pair, offsets.pair)
    if not alone:
        gates = _in_two(gates)
    pair = advance_in_place(gates, cell)
    shown = _tuned(pair[0], offsets.pair_factors)
    shown = shown.flatten(1, 2) if shown.dim() == 5 else shown
    canvas = carry.canvas + _convolved(shown, weights.write)
    return Carry(canvas, latent, posterior, pair), raw, z, shown


class Prepared(NamedTuple):
    """What stands before the loop."""

    carry: Carry
    weights: list[StepWeights]
    offsets: list[StepOffsets]
    first_prior: Tensor
    """The raw statistics of the first step's prior, of batch size 1 without context."""


def prepare(network: DrawNetwork, sources: Sources, steps: int) -> Prepared:
    """Packs weights and constant parts, and advances the prior to the first step.

    Args:
        network: The model's networks.
        sources: What enters every step unchanged.
        steps: The number of steps.
    """
    core = network.core(0)
    kind = _working_type(core.write.weight)
    start = network.start()
    shared = network.offsets(sources)
    first = core.offsets(sources) if shared is None else shared
    latent = start.latent.to(kind)
    hidden, cell = core.prior_cell((latent,), start.prior, first.prior)
    first_prior = core.prior_head(_tuned(hidden, _factors(first, 0)))
    batch = hidden.shape[0]
    decoder = (state.expand(batch, *state.shape[1:]).to(kind) for state in start.decoder)
    pair = [
        _in_two(torch.cat((one, other), dim=1))
        for one, other in zip(decoder, (hidden, cell), strict=True)
    ]
    carry = Carry(
        start.canvas,
        latent,
        (start.posterior[0].to(kind), start.posterior[1].to(kind)),
        (pair[0], pair[1]),
    )
    if shared is None:
        cores = [network.core(step) for step in range(steps)]
        parts = [first, *(core.offsets(sources) for core in cores[1:])]
        following: list[DrawCore | None] = [*cores[1:], None]
        weights = [
            _pack(network, now, then, kind) for now, then in zip(cores, following, strict=True)
        ]
        offsets = [
            _pack_offsets(cores[step : step + 2], parts[step : step + 2], kind)
            for step in range(steps)
        ]
        return Prepared(carry, weights, offsets, first_prior)
    weights = _shared_weights(network, core, steps, kind)
    offsets = [_pack_offsets([core], [shared], kind)]
    if steps > 1:
        most = _pack_offsets([core, core], [shared, shared], kind)
        most = most._replace(posterior=offsets[0].posterior)
        offsets = [*([most] * (steps - 1)), *offsets]
    return Prepared(carry, weights, offsets, first_prior)


def finish(
    network: DrawNetwork,
    prepared: Prepared,
    raws: Sequence[Tensor],
    shown: Sequence[Tensor],
    batch: int,
) -> Tensor:
    """The KL of all steps, once the loop is done.

    Args:
        network: The model's networks.
        prepared: What `prepare` made.
        raws: The posterior's raw statistics of each step.
        shown: What canvas and prior head read of the states of each step.
        batch: The number of examples.

    Returns:
        The KL of each latent in nats, (steps, batch, latent channels, h, w).
    """
    steps = len(raws)
    first = prepared.first_prior
    found = [first.expand(batch, *first.shape[1:])]
    shared = len(network.cores) == 1
    groups = [list(shown[:-1])] if shared and steps > 1 else [[one] for one in shown[:-1]]
    for step, group in enumerate(groups, start=1):
        head = network.core(step).prior_head
        # the decoder's half of the states meets zeros
        weight = functional.pad(head.weight, (0, 0, 0, 0, head.in_channels, 0))
        found.append(functional.conv2d(torch.cat(group), weight, head.bias))
    prior = DiagonalGaussian.from_raw(torch.cat(found))
    mean, bounded = torch.cat(list(raws)).chunk(2, dim=1)
    posterior = DiagonalGaussian(mean, LOG_VARIANCE_BOUND * torch.tanh(bounded))
    kl = posterior.kl_per_dimension(prior)
    return kl.view(steps, batch, *kl.shape[1:])


def _shared_weights(
    network: DrawNetwork, core: DrawCore, steps: int, kind: torch.dtype
) -> list[StepWeights]:
    """A view of the same weights for each step; only the last advances the decoder alone."""
    most = _pack(network, core, core if steps > 1 else None, kind)
    if steps == 1:
        return [most]
    views = {name: _views(weight, steps) for name, weight in most._asdict().items()}
    for name, last in (("pair", core.decoder_cell.weight), ("write", core.write.weight)):
        views[name] = [*_views(getattr(most, name), steps - 1), last.to(kind)]
    return [StepWeights(*fields) for fields in zip(*views.values(), strict=True)]


def _views(weight: Tensor | None, steps: int) -> Sequence[Tensor | None]:
    """The same weight once for each step, whose gradients are then summed by one operation."""
    if weight is None:
        return [None] * steps
    if weight.dim() == 1:
        return weight.expand(steps, -1).unbind(0)
    last = weight.permute(0, 2, 3, 1)  # dense in this order: gradients keep the weights' layout
    return [view.permute(0, 3, 1, 2) for view in last.expand(steps, *last.shape).unbind(0)]


def _pack(
    network: DrawNetwork, core: DrawCore, following: DrawCore | None, kind: torch.dtype
) -> StepWeights:
    head, readout = core.posterior_head, network.readout
    pair: Tensor = core.decoder_cell.weight
    write: Tensor = core.write.weight
    if following is not None:
        pair = torch.cat((pair, following.prior_cell.weight))
        write = functional.pad(write, (0, 0, 0, 0, 0, write.shape[1]))
    return StepWeights(
        core.posterior_cell.weight.to(kind),
        _row_scaled(head.weight).to(kind),
        None if head.bias is None else _row_scaled(head.bias).to(kind),
        pair.to(kind),
        write.to(kind),
        None if readout is None else readout.weight.to(kind),
        None if readout is None or readout.bias is None else readout.bias.to(kind),
    )


def _pack_offsets(
    cores: Sequence[DrawCore], parts: Sequence[Offsets], kind: torch.dtype
) -> StepOffsets:
    """Of a step's core and, where there is one, the next step's."""
    core, part = cores[0], parts[0]
    bias = core.posterior_cell.bias.to(kind).view(1, -1, 1, 1)
    posterior = bias if part.posterior is None else part.posterior.to(kind) + bias
    biases: list[Tensor] = [core.decoder_cell.bias, *(one.prior_cell.bias for one in cores[1:])]
    pair = (torch.cat(biases) if len(biases) > 1 else biases[0]).to(kind)
    planes = [part.decoder, *(one.prior for one in parts[1:])]
    if part.decoder is not None:
        joined = torch.cat([one for one in planes if one is not None], dim=1)
        pair = joined.to(kind) + pair.view(1, -1, 1, 1)
    factors = _factors(part, 2)
    if factors is not None and len(parts) > 1:
        others = _factors(parts[1], 0)
        if others is not None:
            scale, shift = (torch.stack(two, dim=1) for two in zip(factors, others, strict=True))
            factors = scale, shift
    return StepOffsets(posterior, pair, _factors(part, 1), factors)


def _row_scaled(parameter: Tensor) -> Tensor:
    """The rows of the log-variances divided by their bound, those of the means as they are."""
    mean, log_variance = parameter.chunk(2)
    return torch.cat((mean, log_variance / LOG_VARIANCE_BOUND))


def _factors(offsets: Offsets, index: int) -> Factors:
    return None if offsets.factors is None else offsets.factors[index]


def _tuned(hidden: Tensor, factors: Factors) -> Tensor:
    """A hidden state as a head reads it: scaled and shifted by the tolerance, if there is one."""
    if factors is None:
        return hidden
    scale, shift = factors
    return torch.addcmul(shift.to(hidden.dtype), hidden, scale.to(hidden.dtype))


def _convolved(
    planes: Tensor, weight: Tensor, offset: Tensor | None = None, groups: int = 1
) -> Tensor:
    """A convolution that keeps the size, plus a bias or planes."""
    padding = weight.shape[-1] // 2
    if offset is None or offset.dim() == 1:
        return functional.conv2d(planes, weight, offset, padding=padding, groups=groups)
    return functional.conv2d(planes, weight, padding=padding, groups=groups) + offset


def _pair_gates(latent: Tensor, hidden: Tensor, weight: Tensor, offset: Tensor) -> Tensor:
    """The gates of decoder and prior, or of the decoder alone, as groups of one convolution."""
    groups = hidden.shape[1]
    if hidden.shape[0] == latent.shape[0]:
        return _convolved(_joined(latent, hidden), weight, offset, groups)
    # the first step's states are the same for all examples: convolved once, not once for each.
    # Not as groups: torch 2.13 gets the gradient of grouped weights wrong where a batch of one
    # lies with strides of its own
    seen = latent.shape[1]
    states = [
        _convolved(state, part)
        for state, part in zip(hidden.unbind(1), weight[:, seen:].chunk(groups), strict=True)
    ]
    constant = torch.cat(states, dim=1)
    constant = constant + (offset.view(1, -1, 1, 1) if offset.dim() == 1 else offset)
    return _convolved(latent, weight[:, :seen]) + constant


def _joined(latent: Tensor, hidden: Tensor) -> Tensor:
    """The latent before each of the states, (batch, groups * (latent channels + hidden), h, w)."""
    if traced():
        return _interleaved(latent, hidden)
    joined: Tensor = _Joined.apply(latent, hidden)  # type: ignore[no-untyped-call]
    return joined


def _interleaved(latent: Tensor, hidden: Tensor) -> Tensor:
    return torch.cat([part for state in hidden.unbind(1) for part in (latent, state)], dim=1)


class _Joined(torch.autograd.Function):
    """A concatenation whose gradients are views: those of the states are not stacked again."""

    @staticmethod
    def forward(ctx: Any, latent: Tensor, hidden: Tensor) -> Tensor:
        ctx.sizes = latent.shape[1], hidden.shape[1]
        return _interleaved(latent, hidden)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        seen, groups = ctx.sizes
        batch, channels, *size = grad.shape
        whole = grad.reshape(batch, groups, channels // groups, *size)
        first, *rest = (part[:, :seen] for part in whole.unbind(1))
        for part in rest:
            first = first + part
        return first, whole[:, :, seen:]


def _in_two(planes: Tensor) -> Tensor:
    """The channels as two groups, (batch, 2, channels / 2, h, w)."""
    batch, channels, *size = planes.shape
    return planes.view(batch, 2, channels // 2, *size)


def _working_type(weight: Tensor) -> torch.dtype:
    """The type that convolutions run in: autocast's where that is on, else the weights'."""
    device = weight.device.type
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return weight.dtype
