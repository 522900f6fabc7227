"""What a multiplier costs per training step: plain training against ours and two libraries.

An MLP VAE 784-400-20, batch 128, Adam, float32, one thread. All variants train copies of one
model in one process; in each round every variant does one step, in an order drawn anew, and is
compared with the plain step of the same round. The plain step minimises KL + 100 MSE; the others
the same two terms with a multiplier that moves. "plain again" is the noise floor. All clear their
gradients before the forward pass, as Cooper does. Denormal numbers are flushed to zero: moments of
dead units decay into them, they cost a CPU a hundred times the cycles, and which variant has more
dead units is not what is measured here.

    python benchmarks/overhead.py --rounds 2000
"""

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import trange

from geco_core import GECO, ReconstructionError
from geco_models import MLPVAE

KAPPA = 0.1
BATCH = 128


def plain(model: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[Tensor], None]:
    """KL and squared error with a fixed weight."""

    def step(x: Tensor) -> None:
        optimizer.zero_grad()
        output = model(x)
        loss = output.kl.mean() + 100.0 * (x - output.reconstruction).square().mean()
        loss.backward()
        optimizer.step()

    return step


def ours(model: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[Tensor], None]:
    """GECO as anybody would use it."""
    objective = GECO(ReconstructionError(KAPPA))

    def step(x: Tensor) -> None:
        optimizer.zero_grad()
        output = model(x)
        loss = objective(output.kl, x, output.reconstruction)
        loss.backward()
        optimizer.step()
        objective.step()

    return step


def cooper(model: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[Tensor], None]:
    """Cooper's simultaneous optimizer with SGD on the multiplier."""
    import cooper as library

    multiplier = library.multipliers.DenseMultiplier(init=torch.ones(1))

    class Problem(library.ConstrainedMinimizationProblem):
        def __init__(self) -> None:
            super().__init__()
            self.constraint = library.Constraint(
                constraint_type=library.ConstraintType.INEQUALITY, multiplier=multiplier
            )

        def compute_cmp_state(self, x: Tensor) -> Any:
            output = model(x)
            violation = (x - output.reconstruction).square().mean() / KAPPA**2 - 1
            state = library.ConstraintState(violation=violation.reshape(1))
            return library.CMPState(
                loss=output.kl.mean(), observed_constraints={self.constraint: state}
            )

    problem = Problem()
    dual = torch.optim.SGD(problem.dual_parameters(), lr=1e-2, maximize=True)
    both = library.optim.SimultaneousOptimizer(
        cmp=problem, primal_optimizers=optimizer, dual_optimizers=dual
    )

    def step(x: Tensor) -> None:
        both.roll(compute_cmp_state_kwargs={"x": x})

    return step


def humancompatible(
    model: nn.Module, optimizer: torch.optim.Optimizer
) -> Callable[[Tensor], None]:
    """humancompatible-train's augmented Lagrangian method."""
    from humancompatible.train.dual_optim import ALM

    dual = ALM(m=1, lr=1e-2, is_ineq=True)

    def step(x: Tensor) -> None:
        optimizer.zero_grad()
        output = model(x)
        violation = (x - output.reconstruction).square().mean() / KAPPA**2 - 1
        dual.forward_update(output.kl.mean(), violation.reshape(1)).backward()
        optimizer.step()

    return step


VARIANTS = {
    "plain": plain,
    "plain again": plain,
    "ours": ours,
    "Cooper": cooper,
    "humancompatible-train": humancompatible,
}


def build(device: str) -> dict[str, Callable[[Tensor], None]]:
    """Every variant's step, all from the same weights."""
    torch.manual_seed(0)
    reference = MLPVAE((784,), 20, (400,), output="sigmoid")
    steps = {}
    for name, make in VARIANTS.items():
        model = MLPVAE((784,), 20, (400,), output="sigmoid").to(device)
        model.load_state_dict(reference.state_dict())
        steps[name] = make(model, torch.optim.Adam(model.parameters(), 1e-3))
    return steps


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--warmup", type=int, default=50)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    steps = build(args.device)
    generator = torch.Generator(args.device).manual_seed(1)
    x = torch.rand(BATCH, 784, generator=generator, device=args.device)
    order, shuffle = list(steps), random.Random(2)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in trange(args.warmup + args.rounds, file=sys.stderr):
        shuffle.shuffle(order)
        for name in order:
            if args.device != "cpu":
                torch.cuda.synchronize()
            start = time.perf_counter()
            steps[name](x)
            if args.device != "cpu":
                torch.cuda.synchronize()
            if turn >= args.warmup:
                times[name].append(time.perf_counter() - start)
    base = statistics.median(times["plain"])
    print(f"plain step: median {1e3 * base:.3f} ms over {args.rounds} rounds on {args.device}\n")
    print("| variant | paired difference, median (us) | of the plain step | of Cooper's |")
    print("|---|---|---|---|")
    difference = {
        name: statistics.median(b - a for a, b in zip(times["plain"], values, strict=True))
        for name, values in times.items()
    }
    for name in [name for name in times if name != "plain"]:
        print(
            f"| {name} | {1e6 * difference[name]:.1f} | {difference[name] / base:.2%} "
            f"| {difference[name] / difference['Cooper']:.2f} |"
        )


if __name__ == "__main__":
    main()
