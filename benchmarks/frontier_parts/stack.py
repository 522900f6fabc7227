"""Many small models of one shape trained at once: their weights are stacked, their data are not.

Adam works element by element, so that one optimizer over stacked weights makes the same steps as
one optimizer per model. The models are geco-models' own, mapped by `torch.func`.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from contestants import Contestant
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from geco_models import MLPVAE


def build(shape: Sequence[int], seeds: Sequence[int], settings: dict[str, Any]) -> Any:
    """Models of the given seeds with their weights stacked, and a function that maps them."""
    models = []
    for seed in seeds:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            models.append(MLPVAE(tuple(shape), **settings))
    parameters, buffers = stack_module_state(models)  # type: ignore[arg-type]
    base = models[0].to("meta")

    def call(
        p: dict[str, Tensor], b: dict[str, Tensor], x: Tensor, *kappa: Tensor
    ) -> tuple[Tensor, Tensor]:
        output = functional_call(base, (p, b), (x,), {"kappa": kappa[0]} if kappa else {})
        return output.kl, output.reconstruction

    mapped = vmap(call, randomness="different")
    return parameters, lambda x, *kappa: mapped(parameters, buffers, x, *kappa)


class Trace:
    """What was measured of every run: RMS error, KL and multiplier at some steps."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.rows: list[NDArray[np.float64]] = []

    def add(self, step: int, rms: Tensor, kl: Tensor, multipliers: Sequence[float]) -> None:
        """One look at all runs."""
        self.steps.append(step)
        self.rows.append(np.stack([rms.numpy(), kl.numpy(), np.array(multipliers)]))

    @property
    def values(self) -> NDArray[np.float64]:
        """RMS error, KL and multiplier by look and run, (looks, 3, runs).

        With tolerances as an input they have one more axis in the end, for the tolerances.
        """
        return np.stack(self.rows)


@torch.no_grad()
def evaluate(
    forward: Any, data: Tensor, runs: int, count: int, kappa: float | None = None
) -> tuple[Tensor, Tensor]:
    """RMS error and KL of every run on `count` images that lie evenly over the training set."""
    chosen = data[:: max(1, len(data) // count)][:count]
    squares, kls = torch.zeros(runs), torch.zeros(runs)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for part in chosen.split(500):
            inputs = () if kappa is None else (torch.full((runs, len(part)), kappa),)
            kl, reconstruction = forward(part.expand(runs, *part.shape), *inputs)
            squares += (reconstruction - part).square().flatten(2).mean(2).sum(1)
            kls += kl.sum(1)
    return (squares / len(chosen)).sqrt(), kls / len(chosen)


def train(
    data: Tensor,
    seeds: Sequence[int],
    contestants: Sequence[Contestant],
    *,
    steps: int,
    settings: dict[str, Any],
    batch: int = 64,
    learning_rate: float = 1e-3,
    optimizer: str = "adam",
    every: int = 100,
    schedule: Any = None,
    clip: float | None = None,
    decay: float = 0.0,
    at: Sequence[float] = (),
) -> Trace:
    """Trains one model per contestant; runs of the same seed see the same batches.

    Args:
        data: The training set, (examples, *shape).
        seeds: The seed of every run.
        contestants: What minimises, one per run.
        steps: Optimizer steps.
        settings: The models' settings.
        batch: Examples per batch.
        learning_rate: The optimizer's rate.
        optimizer: "adam" (with `decay` as AdamW's weight decay) or "sgd" (momentum 0.9).
        every: Steps between two looks, on 2,000 images; the last one sees the whole set.
        schedule: The learning rate's factor as a function of the step.
        clip: The norm to which every run's gradient is clipped.
        decay: Weight decay.
        at: The tolerances to look at, for models with the tolerance as an input; their
            contestants have a method `draw`.
    """
    runs = len(seeds)
    parameters, forward = build(data.shape[1:], seeds, settings)
    weights = list(parameters.values())
    rule: torch.optim.Optimizer
    if optimizer == "sgd":
        rule = torch.optim.SGD(weights, learning_rate, momentum=0.9)
    else:
        rule = torch.optim.AdamW(weights, learning_rate, weight_decay=decay)
    unique = sorted(set(seeds))
    generators = {seed: torch.Generator().manual_seed(seed) for seed in unique}
    place = torch.tensor([unique.index(seed) for seed in seeds])
    batches = len(data) // batch
    trace = Trace()
    torch.manual_seed(0)
    for step in range(steps):
        if step % batches == 0:
            orders = [torch.randperm(len(data), generator=generators[seed]) for seed in unique]
        start = (step % batches) * batch
        x = torch.stack([data[order[start : start + batch]] for order in orders])[place]
        if schedule is not None:
            for group in rule.param_groups:
                group["lr"] = learning_rate * schedule(step)
        inputs = (torch.stack([c.draw(batch) for c in contestants]),) if at else ()  # type: ignore[attr-defined]
        kl, reconstruction = forward(x, *inputs)
        losses = [
            contestant.loss(kl[i], x[i], reconstruction[i])
            for i, contestant in enumerate(contestants)
        ]
        torch.stack(losses).sum().backward()
        if clip is not None:
            norms = sum(w.grad.square().flatten(1).sum(1) for w in weights)  # type: ignore[union-attr, misc]
            factors = (clip / norms.sqrt().clamp(min=1e-12)).clamp(max=1.0)
            for w in weights:
                w.grad.mul_(factors.view(-1, *[1] * (w.ndim - 1)))  # type: ignore[union-attr]
        rule.step()
        rule.zero_grad()
        for contestant in contestants:
            contestant.step()
        last = step + 1 == steps
        if last or (step + 1) % every == 0:
            count = len(data) if last else 2000
            if at:
                seen = [evaluate(forward, data, runs, count, kappa) for kappa in at]
                rms, kls = (torch.stack(one, 1) for one in zip(*seen, strict=True))
            else:
                rms, kls = evaluate(forward, data, runs, count)
            trace.add(step + 1, rms, kls, [c.multiplier() for c in contestants])
    return trace


def steps_to_stay(steps: Sequence[int], rms: NDArray[Any], kappa: float) -> float:
    """The step from which the error stays within 2% of the tolerance; infinity if never."""
    inside = np.abs(rms / kappa - 1) <= 0.02
    if not inside[-1]:
        return math.inf
    outside = np.flatnonzero(~inside)
    return float(steps[outside[-1] + 1] if outside.size else steps[0])
