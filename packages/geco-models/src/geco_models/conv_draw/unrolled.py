r"""ConvDraw's training pass, arranged for a device that is bound by launches.

The formulas are those of `geco_models.conv_draw.step`; only the order of the work differs.

- Within step :math:`t` nothing needs :math:`p(z_t | z_{<t})`: the prior's heads and the KL are
  computed after the loop, for all steps at once.
- The decoder at step :math:`t` and the prior at step :math:`t + 1` both read :math:`z_t`, and
  nothing of each other: they advance together, as two groups of one convolution, with one set
  of pointwise operations. The prior's first step, which sees no latent, is computed once for the
  whole batch.
- The first step stands apart, its states being the same for all examples; the following ones
  share their weights (`geco_models.conv_draw.convolutions`), whose gradients are made behind all.
- States have the type that the gates are computed in, half precision under autocast; the canvas
  and the latents stay in the weights' type at least.
- In half precision channels are padded with zeros to multiples of 8, as matrix units want them:
  what is made of zeros stays zero, and nothing of it is returned.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from geco_models.conv_draw.alignment import widened, working_type
from geco_models.conv_draw.conv_lstm import advance_in_place, traced
from geco_models.conv_draw.convolutions import Convolution, SharedConvolution, shared
from geco_models.conv_draw.network import DrawNetwork
from geco_models.conv_draw.statistics import draw, kl_of_path
from geco_models.conv_draw.step import DrawCore, Offsets, Sources
from geco_models.gaussian import LOG_VARIANCE_BOUND

__all__ = ["Carry", "Prepared", "StepParts", "finish", "prepare", "unrolled_step"]

Factors = tuple[Tensor, Tensor] | None
Applied = Convolution | SharedConvolution


class StepParts(NamedTuple):
    """What one step applies, packed, in the type that convolutions run in."""

    read: Applied
    """To the posterior's gates; in its offset are image, context and bias."""

    head: Applied
    """The posterior's head, divided by the bound of log-variances."""

    pair: Applied
    """The gates of decoder and next prior, two groups; of the last step the decoder's alone."""

    write: Applied
    """From decoder and prior to the canvas: zero where it meets the prior's state."""

    readout: Convolution | None
    """From a canvas of its own to the picture."""

    posterior_factors: Factors
    """What the tolerance does to the posterior's hidden state before its head reads it."""

    pair_factors: Factors
    """The same for the hidden states of decoder and prior."""

    last: bool
    """Whether no prior follows."""


class Carry(NamedTuple):
    """What a step hands to the next; a batch size of 1 stands for "the same for all examples"."""

    canvas: Tensor
    latent: Tensor
    posterior: tuple[Tensor, Tensor]
    pair: tuple[Tensor, Tensor]
    """Hidden and cell states of decoder and prior, (batch, 2, hidden, h, w); after the last step
    those of the decoder alone, (batch, hidden, h, w)."""


def unrolled_step(
    carry: Carry, parts: StepParts, noise: Tensor
) -> tuple[Carry, Tensor, Tensor, Tensor]:
    """One step: posterior, latent, decoder with the next prior, canvas.

    Args:
        carry: The state before it.
        parts: What this step applies.
        noise: Standard normal noise, (batch, latent channels, h, w).

    Returns:
        The next state; the posterior's means and squashed log-variances over the bound; the
        latent; and what prior head and canvas read of the states of prior and decoder.
    """
    kind = carry.latent.dtype
    canvas = carry.canvas.to(kind)
    planes = [canvas, carry.latent, carry.posterior[0]]
    if parts.readout is not None:
        planes.insert(1, parts.readout.apply(canvas))
    gates = parts.read.apply(torch.cat(planes, dim=1))
    posterior = advance_in_place(gates, carry.posterior[1])

    raw = parts.head.apply(_tuned(posterior[0], parts.posterior_factors))
    statistics, z = draw(raw.to(torch.promote_types(raw.dtype, torch.float32)), noise)

    latent = z.to(kind)
    fill = carry.latent.shape[1] - latent.shape[1]
    if fill:
        latent = functional.pad(latent, (0, 0, 0, 0, 0, fill))
    hidden, cell = carry.pair
    if parts.last:
        hidden, cell = hidden[:, :1], cell.select(1, 0)
    gates = _pair_gates(latent, hidden, parts.pair)
    pair = advance_in_place(gates if parts.last else _in_two(gates), cell)
    shown = _tuned(pair[0], parts.pair_factors)
    shown = shown.flatten(1, 2) if shown.dim() == 5 else shown
    canvas = carry.canvas + parts.write.apply(shown)
    return Carry(canvas, latent, posterior, pair), statistics, z, shown


class Prepared(NamedTuple):
    """What stands before the loop."""

    carry: Carry
    parts: list[StepParts]
    first_prior: Tensor
    """The raw statistics of the first step's prior, of batch size 1 without context."""


def prepare(network: DrawNetwork, sources: Sources, steps: int, share: bool = False) -> Prepared:
    """Packs weights and constant parts, and advances the prior to the first step.

    Args:
        network: The model's networks.
        sources: What enters every step unchanged; an image among it.
        steps: The number of steps.
        share: Whether the gradients of weights that several steps use are added at once, after
            all steps, elsewhere than on a CPU made by one convolution: then there are no gradients
            of gradients, and the gradients of gates are kept until then.
    """
    kind = working_type(network.core(0).write.weight)
    start = network.start()
    common = network.offsets(sources, biased=True)
    cores = [network.core(step) for step in range(steps)]
    known = [core.offsets(sources, biased=True) if common is None else common for core in cores]
    gates = cores[0].prior_cell.gates((start.latent.to(kind), start.prior[0]))
    gates = gates if known[0].prior is None else gates + known[0].prior
    hidden, cell = advance_in_place(gates, start.prior[1].to(gates.dtype))
    first_prior = cores[0].prior_head(_tuned(hidden, _factors(known[0], 0)))
    pair = [
        _in_two(torch.cat([widened(_like(s, hidden), 1, s.shape[1:2]) for s in two], dim=1))
        for two in zip(start.decoder, (hidden, cell), strict=True)
    ]
    canvas, latent, *posterior = (
        widened(plane.to(kind), 1, plane.shape[1:2])
        for plane in (start.canvas, start.latent, *start.posterior)
    )
    carry = Carry(
        canvas.to(start.canvas.dtype),
        latent,
        (posterior[0], posterior[1]),
        (pair[0], pair[1]),
    )
    if common is None:
        following = [*zip(cores[1:], known[1:], strict=True), None]
        parts = [
            StepParts(**_reading(network, *now, kind), **_writing(*now, then, kind))
            for now, then in zip(zip(cores, known, strict=True), following, strict=True)
        ]
        return Prepared(carry, parts, first_prior)

    reading = _reading(network, cores[0], common, kind)
    parts = [StepParts(**reading, **_writing(cores[0], common, None, kind))]
    if steps > 1:
        writing = _writing(cores[0], common, (cores[0], common), kind)
        parts = [*[StepParts(**reading, **writing)] * (steps - 1), *parts]
    if share and sources.image is not None:
        _share(parts, sources.image.shape[0], network.size)
    return Prepared(carry, parts, first_prior)


def _share(parts: list[StepParts], batch: int, size: tuple[int, int]) -> None:
    """Lets the steps behind the first share what they have in common, in place."""
    for name, end in (("read", None), ("head", None), ("pair", -1), ("write", -1)):
        places = range(len(parts))[1:end]
        if len(places) > 1:
            one = getattr(parts[1], name)
            uses = shared(one, len(places), batch, size, one.weight.device.type != "cpu")
            for place, use in zip(places, uses, strict=True):
                changed: dict[str, Any] = {name: use}
                parts[place] = parts[place]._replace(**changed)


def finish(
    network: DrawNetwork,
    prepared: Prepared,
    statistics: Sequence[Tensor],
    shown: Sequence[Tensor],
    batch: int,
) -> Tensor:
    """The KL of all steps, once the loop is done.

    Args:
        network: The model's networks.
        prepared: What `prepare` made.
        statistics: The posterior's statistics of each step.
        shown: What canvas and prior head read of the states of each step.
        batch: The number of examples.

    Returns:
        The KL of each latent in nats, (steps * batch, latent channels, h, w).
    """
    steps = len(statistics)
    first = prepared.first_prior
    found = [first.expand(batch, *first.shape[1:])]
    one = len(network.cores) == 1
    groups = [list(shown[:-1])] if one and steps > 1 else [[each] for each in shown[:-1]]
    for step, group in enumerate(groups, start=1):
        head = network.core(step).prior_head
        # the decoder's half of the states meets zeros
        half = group[0].shape[1] // 2
        weight = functional.pad(head.weight, (0, 0, 0, 0, half, half - head.in_channels))
        found.append(functional.conv2d(torch.cat(group), weight, head.bias))
    prior = torch.cat(found)
    prior = prior.to(torch.promote_types(prior.dtype, torch.float32))
    return kl_of_path(torch.cat(list(statistics)), prior)


def _reading(
    network: DrawNetwork, core: DrawCore, known: Offsets, kind: torch.dtype
) -> dict[str, Any]:
    """From the canvas to the posterior's head."""
    cell, readout = core.posterior_cell, network.readout
    canvas, pixels = network.first_canvas.shape[1], core.write.weight.shape[0]
    columns = [canvas, network.latent_channels, cell.hidden]
    if readout is not None:
        pixels = readout.weight.shape[0]
        columns.insert(1, pixels)
    rows = [cell.hidden] * 4
    head = core.posterior_head
    return {
        "read": _convolution(cell.weight, None, known.posterior, kind, rows, columns),
        "head": Convolution(
            widened((head.weight / LOG_VARIANCE_BOUND).to(kind), 1, columns[-1:]),
            None if head.bias is None else (head.bias / LOG_VARIANCE_BOUND).to(kind),
        ),
        "readout": None
        if readout is None
        else _convolution(readout.weight, readout.bias, None, kind, [pixels], [canvas]),
        "posterior_factors": _widened_factors(_factors(known, 1), kind),
    }


def _writing(
    core: DrawCore, known: Offsets, following: tuple[DrawCore, Offsets] | None, kind: torch.dtype
) -> dict[str, Any]:
    """From the latent to the canvas, and the next step's prior where there is one."""
    cell, write = core.decoder_cell, core.write.weight
    cells, offsets, factors = [cell], [known.decoder], _factors(known, 2)
    if following is not None:
        cells.append(following[0].prior_cell)
        offsets.append(following[1].prior)
        write = functional.pad(write, (0, 0, 0, 0, 0, write.shape[1]))
        others = _factors(following[1], 0)
        if factors is not None and others is not None:
            scale, shift = (torch.stack(two, dim=1) for two in zip(factors, others, strict=True))
            factors = scale, shift
    rows, columns = [cell.hidden] * 4 * len(cells), [cell.inputs, cell.hidden]
    planes = [one for one in offsets if one is not None]
    pair = _convolution(
        _joined_rows([one.weight for one in cells]),
        _joined_rows([one.bias for one in cells]),
        torch.cat(planes, dim=1) if planes else None,
        kind,
        rows,
        columns,
    )
    return {
        "pair": pair._replace(groups=len(cells)),
        "write": _convolution(
            write, None, None, kind, [write.shape[0]], [cell.hidden] * len(cells)
        ),
        "pair_factors": _widened_factors(factors, kind),
        "last": following is None,
    }


def _joined_rows(tensors: list[Tensor]) -> Tensor:
    return torch.cat(tensors) if len(tensors) > 1 else tensors[0]


def _convolution(
    weight: Tensor,
    bias: Tensor | None,
    offset: Tensor | None,
    kind: torch.dtype,
    rows: Sequence[int],
    columns: Sequence[int],
) -> Convolution:
    """In the working type, groups of rows and columns widened."""
    return Convolution(
        widened(widened(weight.to(kind), 0, rows), 1, columns),
        None if bias is None else widened(bias.to(kind), 0, rows),
        None if offset is None else widened(offset.to(kind), 1, rows),
    )


def _widened_factors(factors: Factors, kind: torch.dtype) -> Factors:
    if factors is None:
        return None
    axis = factors[0].dim() - 3  # of one state, or of two
    scale, shift = (widened(one.to(kind), axis, one.shape[axis : axis + 1]) for one in factors)
    return scale, shift


def _like(state: Tensor, other: Tensor) -> Tensor:
    """A state in the batch size and type of another."""
    return state.expand(other.shape[0], *state.shape[1:]).to(other.dtype)


def _factors(offsets: Offsets, index: int) -> Factors:
    return None if offsets.factors is None else offsets.factors[index]


def _tuned(hidden: Tensor, factors: Factors) -> Tensor:
    """A hidden state as a head reads it: scaled and shifted by the tolerance, if there is one."""
    if factors is None:
        return hidden
    scale, shift = factors
    return torch.addcmul(shift.to(hidden.dtype), hidden, scale.to(hidden.dtype))


def _pair_gates(latent: Tensor, hidden: Tensor, pair: Applied) -> Tensor:
    """The gates of decoder and prior, or of the decoder alone, as groups of one convolution."""
    if hidden.shape[0] == latent.shape[0]:
        return pair.apply(_joined(latent, hidden))
    # the first step's states are the same for all examples: convolved once, not once for each.
    # Not as groups: torch 2.13 gets the gradient of grouped weights wrong where a batch of one
    # lies with strides of its own
    if not isinstance(pair, Convolution):
        raise TypeError("the first step shares its weights with no other")
    of_latent, of_state = torch.split(pair.weight, [latent.shape[1], hidden.shape[2]], dim=1)
    states = [
        Convolution(part).apply(state)
        for state, part in zip(hidden.unbind(1), of_state.chunk(pair.groups), strict=True)
    ]
    constant = states[0] if len(states) == 1 else torch.cat(states, dim=1)
    gates = Convolution(of_latent, pair.bias, constant).apply(latent)
    return gates if pair.offset is None else gates + pair.offset


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
