"""Models with the tolerance as an input, for `benchmarks/one_run.py`."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from geco_core import GECO, ReconstructionError, ToleranceRange
from geco_models import MLPVAE, ConvVAE


class Along:
    """A GECO objective over a range, used as anybody would.

    Args:
        ends: The range.
        at: The tolerances at which the multipliers are told.
    """

    def __init__(self, ends: Sequence[float], at: Sequence[float]) -> None:
        self.objective = GECO(ReconstructionError(kappa=ToleranceRange(*ends)))
        self.at, self.kappa = torch.tensor(at), torch.tensor(())

    def draw(self, count: int) -> Tensor:
        """The tolerances of a batch."""
        self.kappa = self.objective.draw_tolerance(count)
        return self.kappa

    def loss(self, kl: Tensor, x: Tensor, reconstruction: Tensor) -> Tensor:
        """The objective's loss."""
        return self.objective(kl, x, reconstruction, kappa=self.kappa)

    def step(self) -> None:
        """The ascent."""
        self.objective.step()

    def multiplier(self) -> list[float]:
        """The relative multipliers."""
        found: Tensor = self.objective.multiplier_at(self.at)  # type: ignore[assignment]
        return [float(value) for value in found * self.at**2]


def conv_run(
    data: Tensor,
    seed: int,
    steps: int,
    kappas: Sequence[float],
    ends: Sequence[float] | None = None,
) -> NDArray[np.float64]:
    """Trains a ConvVAE: over a range, or at the one tolerance that is given.

    Returns:
        RMS error, KL and relative multiplier at the tolerances, (3, kappas).
    """
    torch.manual_seed(seed)
    model = ConvVAE(tuple(data.shape[1:]), 32, width=24, tolerance=ends)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    tolerance = kappas[0] if ends is None else ToleranceRange(*ends)
    objective = GECO(ReconstructionError(kappa=tolerance))
    generator = torch.Generator().manual_seed(seed)
    batch = 64
    batches = len(data) // batch
    for step in range(steps):
        if step % batches == 0:
            order = torch.randperm(len(data), generator=generator)
        start = (step % batches) * batch
        x = data[order[start : start + batch]]
        given: dict[str, Any] = {}
        if ends is not None:
            given["kappa"] = objective.draw_tolerance(len(x), generator)
        output = model(x, **given)
        objective(output.kl, x, output.reconstruction, **given).backward()
        optimizer.step()
        optimizer.zero_grad()
        objective.step()
    values = np.empty((3, len(kappas)))
    model.eval()
    for i, kappa in enumerate(kappas):
        given = {} if ends is None else {"kappa": kappa}
        squares = kl = 0.0
        with torch.no_grad():
            for part in data.split(250):
                output = model(part, **given)
                squares += float((output.reconstruction - part).square().flatten(1).mean(1).sum())
                kl += float(output.kl.sum())
        if ends is None:
            relative = float(objective.info.relative_multiplier)  # type: ignore[arg-type]
        else:
            relative = float(objective.multiplier_at(kappa)) * kappa**2  # type: ignore[arg-type]
        values[:, i] = (squares / len(data)) ** 0.5, kl / len(data), relative
    return values


class Calls(TorchDispatchMode):
    """Counts the operations that are called."""

    count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Counts one and calls it."""
        self.count += 1
        return func(*args, **(kwargs or {}))


def stepper(model: nn.Module, ends: Sequence[float] | None, x: Tensor) -> Callable[[], None]:
    """One training step: with a range, or the plain one in its middle."""
    tolerance = ToleranceRange(*ends) if ends else 0.12
    objective = GECO(ReconstructionError(kappa=tolerance))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)

    def step() -> None:
        given = {"kappa": objective.draw_tolerance(len(x))} if ends else {}
        output = model(x, **given)
        objective(output.kl, x, output.reconstruction, **given).backward()
        optimizer.step()
        optimizer.zero_grad()
        objective.step()

    return step


def measure_cost(
    ends: Sequence[float], conv_ends: Sequence[float], settings: dict[str, Any]
) -> list[str]:
    """The one run's step over the plain one's: a table."""
    lines = [
        "| model | floating-point operations | operations called | CPU seconds |",
        "|---|---|---|---|",
    ]
    builds: tuple[tuple[str, Any, Sequence[float], tuple[int, ...]], ...] = (
        ("MLPVAE (64, 64)", lambda **o: MLPVAE((196,), **settings, **o), ends, (196,)),
        ("ConvVAE 28 x 28", lambda **o: ConvVAE((1, 28, 28), 32, width=24, **o), conv_ends,
         (1, 28, 28)),
    )  # fmt: skip
    for name, build, own, shape in builds:
        x = torch.rand(64, *shape)
        plain, along = stepper(build(), None, x), stepper(build(tolerance=own), own, x)
        flops, calls = [], []
        for step in (plain, along):
            for _ in range(3):
                step()
            with FlopCounterMode(display=False) as counter:
                step()
            flops.append(counter.get_total_flops())
            with Calls() as counted:
                step()
            calls.append(counted.count)
        rounds = 60 if shape == (196,) else 20
        seconds = np.zeros((rounds, 2))
        for i in range(rounds):
            for j, step in enumerate((plain, along)):
                start = time.process_time()
                for _ in range(5):
                    step()
                seconds[i, j] = time.process_time() - start
        ratio = float(np.median(seconds[:, 1] / seconds[:, 0]))
        lines.append(
            f"| {name} | {flops[1] / flops[0]:.3f} | {calls[1]} for {calls[0]} | {ratio:.2f} |"
        )
    return lines
