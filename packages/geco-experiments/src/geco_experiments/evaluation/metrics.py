"""What a finished model reaches on a whole split: errors, KL, likelihoods, marginal KL."""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from geco_experiments.builders.models import forward_of, model_input, takes_generator
from geco_experiments.config import RunConfig
from geco_experiments.datasets import Batch, Dataset, SplitName
from geco_experiments.evaluation.marginal_kl import MarginalKL, marginal_kl
from geco_experiments.runtime.distributed import Ranks
from geco_experiments.runtime.random_streams import stream_seed
from geco_models import ModelOutput, active_units

__all__ = ["Evaluation", "drawing", "evaluate", "facts", "gaussian_nll", "squared_errors"]

PAIRWISE = 100
"""Posteriors in the marginal KL of models without a closed-form density matrix."""


@dataclass(frozen=True)
class Evaluation:
    """Means over one split with fresh latents for every image.

    Attributes:
        images: Number of images.
        elements: Elements per image.
        mse: Mean squared error per element; its root is the RMS error that kappa speaks of.
        kl: Mean KL per image, nats.
        kl_error: Standard error of that mean over images, nats.
        kl_steps: The KL of each recurrent step, nats, or None.
        violations: Mean violation of each of the constraints, in their order.
        marginal: The marginal KL, or None where it is not defined or not asked for.
        active: Number of latent dimensions whose mean KL is above 0.01 nats; of models whose KL
            does not split over dimensions, those whose posterior mean has a variance above 0.01
            over the first images; NaN where neither is known.
    """

    images: int
    elements: int
    mse: float
    kl: float
    kl_error: float
    kl_steps: tuple[float, ...] | None
    violations: tuple[float, ...]
    marginal: MarginalKL | None
    active: float

    @property
    def rms_error(self) -> float:
        """Root mean squared error per element."""
        return math.sqrt(self.mse)

    @property
    def constraint(self) -> float:
        """Mean violation of the run's own constraint, or NaN."""
        return self.violations[0] if self.violations else math.nan


def gaussian_nll(mse: float, elements: int, variance: float = 1.0) -> float:
    r"""Negative log-likelihood per image in nats of a Gaussian decoder.

    :math:`\frac d2 \ln(2 \pi \sigma^2) + \frac{d \cdot MSE}{2 \sigma^2}`.
    """
    return 0.5 * elements * (math.log(2 * math.pi * variance) + mse / variance)


def facts(batch: Batch) -> dict[str, Tensor | None]:
    """What constraints may ask about a batch beside the data themselves."""
    return {"labels": batch.labels} if batch.mask is None else {
        "labels": batch.labels, "mask": batch.mask,
    }  # fmt: skip


def squared_errors(batch: Batch, reconstruction: Tensor) -> Tensor:
    """Mean squared error per element of every example (batch,), over what was observed."""
    squares = (batch.images - reconstruction).double().square()
    if batch.mask is None:
        return squares.flatten(1).mean(1)
    observed = batch.mask.flatten(1)
    return (squares.flatten(1) * observed).sum(1) / observed.sum(1).clamp(min=1)


@contextlib.contextmanager
def drawing(model: nn.Module, device: torch.device, seed: int) -> Iterator[None]:
    """A block in which a model that takes no generator draws from a seed of its own.

    The caller's random state is put back after it.
    """
    if takes_generator(model):
        yield
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


@torch.no_grad()
def evaluate(
    model: Any,
    constraints: Mapping[str, Callable[..., Tensor]],
    data: Dataset,
    split: SplitName,
    config: RunConfig,
    ranks: Ranks,
    autocast: Any,
    kappa: float | None = None,
) -> Evaluation:
    """Evaluate a model on a whole split.

    Batches are of fixed size with seeds of their own, so that the result does not depend on how
    many processes share the work, up to the order of sums.

    Args:
        model: The trained model.
        constraints: Those whose violations are measured, by name: `(x, reconstruction, *, labels)`
            to one number per example.
        data: The dataset.
        split: Which part.
        config: The run.
        ranks: The processes that share the work.
        autocast: A context manager factory for the forward pass.
        kappa: The tolerance that the model is given, for one that takes it.
    """
    count = len(data.split(split))
    device = data.split(split).images.device
    size = config.training.evaluation_batch_size
    which = 0 if split == "train" else 1
    generator = torch.Generator(device)
    sums: Tensor | None = None
    elements = recurrent = 0
    measured = list(constraints.values())
    forward = forward_of(model)
    for index, start in enumerate(range(0, count, size)):
        if index % ranks.world != ranks.rank:
            continue
        seed = stream_seed(config.seed, 3, which, index)
        generator.manual_seed(seed)
        rows = torch.arange(start, min(start + size, count))
        batch = data.batch(split, rows)
        x = batch.images
        with autocast(), drawing(model, device, seed):
            out = forward(model, model_input(config.model, x), batch.context, generator, kappa)
        reconstruction = out.reconstruction.float().reshape(x.shape)
        elements = x[0].numel()
        kl = out.kl.double()
        parts = [
            squared_errors(batch, reconstruction).sum()[None],
            kl.sum()[None],
            kl.square().sum()[None],
        ]
        for constraint in measured:
            violation = constraint(x, reconstruction, **facts(batch))
            parts.append(violation.double().sum()[None])
        if getattr(out, "kl_steps", None) is not None:
            parts.append(out.kl_steps.double().sum(0))
        recurrent = sum(len(part) for part in parts)
        if getattr(out, "kl_per_dimension", None) is not None:
            parts.append(out.kl_per_dimension.double().sum(0).flatten())
        total = torch.cat(parts)
        sums = total if sums is None else sums + total
    sums, (elements, recurrent) = _joined(sums, (elements, recurrent), ranks, device)
    average = sums / count
    means = average.tolist()
    mse, kl_mean, kl_square = means[:3]
    steps = means[3 + len(measured) : recurrent]
    marginal, by_means = _over_first(model, data, split, config, which, kappa)
    return Evaluation(
        images=count,
        elements=elements,
        mse=mse,
        kl=kl_mean,
        kl_error=math.sqrt(max(kl_square - kl_mean**2, 0.0) / count),
        kl_steps=tuple(steps) or None,
        violations=tuple(means[3 : 3 + len(measured)]),
        marginal=marginal,
        active=_active(average[recurrent:]) if len(average) > recurrent else by_means,
    )


def _active(kl_per_dimension: Tensor) -> float:
    """How many latent dimensions are in use, by the mean KL of each over a split."""
    nothing = kl_per_dimension.new_empty(0)
    mean = ModelOutput(nothing, nothing, nothing, kl_per_dimension=kl_per_dimension[None])
    return float(mean.active_units().sum())


def _joined(
    sums: Tensor | None, sizes: tuple[int, int], ranks: Ranks, device: torch.device
) -> tuple[Tensor, tuple[int, int]]:
    # a rank without a batch of its own must still take part, with zeros of the right length
    if ranks.world > 1:
        length = torch.tensor([0 if sums is None else len(sums), *sizes], device=device)
        torch.distributed.all_reduce(length, op=torch.distributed.ReduceOp.MAX)
        if sums is None:
            sums = torch.zeros(int(length[0]), dtype=torch.float64, device=device)
        sizes = int(length[1]), int(length[2])
    if sums is None:
        raise ValueError("the split must hold at least one image; got none")
    return ranks.sum(sums), sizes


def _over_first(
    model: Any,
    data: Dataset,
    split: SplitName,
    config: RunConfig,
    which: int,
    kappa: float | None,
) -> tuple[MarginalKL | None, float]:
    """What is measured on the first images alone: the marginal KL, and the active latents."""
    wanted = min(config.training.marginal_samples, len(data.split(split)))
    if wanted == 0 or not (hasattr(model, "posterior") and hasattr(model, "prior_log_prob")):
        return None, math.nan
    at = {} if kappa is None else {"kappa": kappa}
    device = data.split(split).images.device
    generator = torch.Generator(device).manual_seed(stream_seed(config.seed, 4, which))
    batch = data.batch(split, torch.arange(wanted))
    x = model_input(config.model, batch.images)
    first = None if batch.context is None else batch.context[:1]
    gaussian = model.posterior(x[:1], first, **at)
    active = math.nan
    if hasattr(gaussian, "mean") and hasattr(gaussian, "log_variance"):
        if wanted > 1:
            active = float(active_units(model.posterior(x, batch.context, **at).mean).sum())
    else:
        batch = data.batch(split, torch.arange(min(wanted, PAIRWISE)))
        x = model_input(config.model, batch.images)
    return marginal_kl(model, batch, x, generator, kappa), active
