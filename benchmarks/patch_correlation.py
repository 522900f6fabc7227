"""PatchCrossCorrelation against unfolded patches and against pooling: time and kept memory.

Every contestant computes the same violations and their gradient, interleaved in one process; the
second column is the median of the paired ratios to ours, with quartiles. "kept" is what autograd
holds between forward and backward, in copies of the input.

    nox -s bench -- patch-correlation [--rounds N]
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, unfold

from geco_core import PatchCrossCorrelation

KAPPA, EPS = 0.8, 1e-3
CASES = [((128, 1, 28, 28), 8), ((64, 3, 32, 32), 8), ((16, 3, 64, 64), 11)]


def unfolded(x: Tensor, g: Tensor, size: int) -> Tensor:
    """By the definition: every patch is copied out."""
    a, b = unfold(x, size), unfold(g, size)
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    top = (a * b).mean(1) + EPS**2
    bottom = (a.square().mean(1) + EPS**2).sqrt() * (b.square().mean(1) + EPS**2).sqrt()
    return (KAPPA - top / bottom).mean(1)


def pooled(x: Tensor, g: Tensor, size: int) -> Tensor:
    """The same moments by average pooling."""

    def mean(values: Tensor) -> Tensor:
        return avg_pool2d(values.mean(1, keepdim=True), size, 1)

    centre = (x.mean((1, 2, 3), keepdim=True), g.detach().mean((1, 2, 3), keepdim=True))
    a, b = x - centre[0], g - centre[1]
    top = mean(a * b) - mean(a) * mean(b) + EPS**2
    bottom = [(mean(c.square()) - mean(c).square()).clamp_min(0) + EPS**2 for c in (a, b)]
    return (KAPPA - top * bottom[0].rsqrt() * bottom[1].rsqrt()).mean((1, 2, 3))


def kept(compute: Callable[[], Tensor], unit: int) -> float:
    """The memory that autograd holds, in units of the input."""
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = compute()  # alive until the sum, so that no address is used twice
    total = sum(sizes.values()) / unit
    del result
    return total


def main() -> None:
    """Prints one table per case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    for shape, size in CASES:
        torch.manual_seed(0)
        x, g = torch.rand(shape), torch.rand(shape, requires_grad=True)
        ours = PatchCrossCorrelation(KAPPA, size, eps=EPS)
        contestants: dict[str, Callable[[], Tensor]] = {
            "ours": lambda c=ours, x=x, g=g: c(x, g),
            "ours again": lambda c=ours, x=x, g=g: c(x, g),
            "unfold": lambda x=x, g=g, s=size: unfolded(x, g, s),
            "avg_pool2d": lambda x=x, g=g, s=size: pooled(x, g, s),
        }
        times: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(rounds + 2):
            for name, compute in contestants.items():
                start = time.perf_counter()
                torch.autograd.grad(compute().sum(), g)
                times[name].append(time.perf_counter() - start)
        print(f"images {shape}, patches of {size}, stride 1")
        for name, compute in contestants.items():
            ratios = [t / o for t, o in zip(times[name][2:], times["ours"][2:], strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4)
            gap = (compute() - ours(x, g)).abs().max().item()
            print(
                f"  {name:10s}  time {middle:5.1f} ({low:.1f} to {high:.1f}) of ours,  "
                f"kept {kept(compute, x.nbytes):5.1f} inputs,  differs by {gap:.0e}"
            )


if __name__ == "__main__":
    main()
