"""The project's own models at full size, one run each."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from frontier_parts.stack import steps_to_stay
from geco_core import GECO, ReconstructionError, RobustUpdate
from geco_models import NVPVAE, ConvDraw, ConvVAE, HierarchicalVAE


@dataclass(frozen=True)
class Problem:
    """A model on a dataset at a tolerance."""

    name: str
    model: str
    dataset: str
    kappa: float
    steps: int
    batch: int
    seeds: bool = False
    """Whether it is run for every seed."""

    multipliers: tuple[float, ...] = ()
    """The fixed relative multipliers of its frontier."""


def _draw(shape: tuple[int, ...]) -> nn.Module:
    return ConvDraw(shape, steps=3, latent_channels=4, hidden=16, stride=4)


BUILD: dict[str, Callable[[tuple[int, ...]], nn.Module]] = {
    "conv-vae": lambda shape: ConvVAE(shape, 32, width=24),
    "nvp-vae": lambda shape: NVPVAE(shape, 64, width=24),
    "conv-draw": _draw,
    "hierarchical": lambda shape: HierarchicalVAE(shape, (4, 2), width=16),
}
FIXED = (25.0, 40.0, 63.0, 100.0, 160.0, 250.0, 400.0)
MODELS = (
    Problem("conv-vae mnist 0.1", "conv-vae", "mnist", 0.1, 2500, 64),
    Problem("nvp-vae mnist 0.07", "nvp-vae", "mnist", 0.07, 2500, 64, seeds=True),
    Problem("nvp-vae mnist 0.06", "nvp-vae", "mnist", 0.06, 2500, 64),
    Problem("conv-draw mnist 0.06", "conv-draw", "mnist", 0.06, 3000, 32),
    Problem("conv-draw mnist 0.07", "conv-draw", "mnist", 0.07, 3000, 32, multipliers=FIXED),
    Problem("conv-draw cifar-10 0.09", "conv-draw", "cifar-10", 0.09, 3000, 32),
    Problem("conv-draw cifar-10 0.11", "conv-draw", "cifar-10", 0.11, 3000, 32, multipliers=FIXED),
    Problem("hierarchical mnist 0.09", "hierarchical", "mnist", 0.09, 2500, 64, multipliers=FIXED),
    Problem("hierarchical cifar-10 0.1", "hierarchical", "cifar-10", 0.1, 2500, 64),
)


@torch.no_grad()
def measure(model: nn.Module, data: Tensor, count: int) -> tuple[float, float]:
    """RMS error and KL on images that lie evenly over the training set."""
    model.eval()
    chosen = data[:: max(1, len(data) // count)][:count]
    squares = kl = 0.0
    for part in chosen.split(250):
        output = model(part)
        squares += float((output.reconstruction - part).square().flatten(1).mean(1).sum())
        kl += float(output.kl.sum())
    model.train()
    return math.sqrt(squares / len(chosen)), kl / len(chosen)


def train_one(
    problem: Problem, seed: int, data: Tensor, multiplier: float | None = None
) -> dict[str, Any]:
    """Trains once, Adam 1e-3, with the objective's defaults or with a fixed multiplier."""
    torch.manual_seed(seed)
    model = BUILD[problem.model](tuple(data.shape[1:]))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    fixed = None if multiplier is None else RobustUpdate(rate=0.0, gain=0.0, initial=multiplier)
    objective = GECO(ReconstructionError(problem.kappa), update=fixed)
    generator = torch.Generator().manual_seed(seed)
    batches = len(data) // problem.batch
    steps, errors, peak = [], [], 0.0
    for step in range(problem.steps):
        if step % batches == 0:
            order = torch.randperm(len(data), generator=generator)
        start = (step % batches) * problem.batch
        x = data[order[start : start + problem.batch]]
        output = model(x)
        loss = objective(output.kl, x, output.reconstruction)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        objective.step()
        peak = max(peak, float(objective.info.relative_multiplier))  # type: ignore[arg-type]
        if (step + 1) % 100 == 0:
            last = step + 1 == problem.steps
            rms, kl = measure(model, data, len(data) if last else 500)
            steps.append(step + 1)
            errors.append(rms)
    return {
        "rms": rms,
        "kl": kl,
        "peak": peak,
        "multiplier": float(objective.info.relative_multiplier),  # type: ignore[arg-type]
        "stays": steps_to_stay(steps, torch.tensor(errors).numpy(), problem.kappa),
    }
