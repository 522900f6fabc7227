"""Not a VAE: the smallest weights that fit the data well enough, by GECO and in closed form.

minimise ||w||^2 / 2 subject to mean (y - X w)^2 <= kappa^2 has the solution of a ridge
regression whose penalty nobody knows beforehand; bisection finds it here, to compare with.
Run with `python any_loss.py` (a few seconds on a CPU).
"""

import torch
from torch import Tensor

from geco_core import GECO, ReconstructionError


def ridge(inputs: Tensor, targets: Tensor, multiplier: float) -> Tensor:
    """The minimum of ||w||^2 / 2 + multiplier * mean (y - X w)^2."""
    factor = 2 * multiplier / len(inputs)
    gram = factor * inputs.T @ inputs + torch.eye(inputs.shape[1], dtype=inputs.dtype)
    return torch.linalg.solve(gram, factor * inputs.T @ targets)


def exact(inputs: Tensor, targets: Tensor, kappa: float) -> tuple[Tensor, float]:
    """The constrained solution and its multiplier, by bisection."""
    low, high = 1e-6, 1e6
    for _ in range(100):
        middle = (low * high) ** 0.5
        error = (targets - inputs @ ridge(inputs, targets, middle)).square().mean()
        low, high = (middle, high) if error > kappa**2 else (low, middle)
    return ridge(inputs, targets, high), high


def main(kappa: float = 0.5, steps: int = 2000) -> dict[str, float]:
    """Solves both ways, prints the comparison and returns it."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(200, 20, generator=generator)
    true = torch.randn(20, generator=generator) * torch.logspace(0, -2, 20)
    targets = inputs @ true + 0.3 * torch.randn(200, generator=generator)

    weights = torch.zeros(20, requires_grad=True)
    optimizer = torch.optim.Adam([weights], lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, 1e-4)
    objective = GECO(ReconstructionError(kappa=kappa))
    for _ in range(steps):
        cost = weights.square().sum() / 2
        # what is minimised is one value per example: here all examples share it
        loss = objective(cost.expand(len(targets)), targets, inputs @ weights)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        objective.step()

    solution, multiplier = exact(inputs.double(), targets.double(), kappa)
    result = {
        "error": (targets - inputs @ weights).square().mean().sqrt().item(),
        "norm": weights.norm().item(),
        "exact_norm": solution.norm().item(),
        "multiplier": float(objective.info.multiplier),
        "exact_multiplier": multiplier,
    }
    print(f"error {result['error']:.4f} (asked: {kappa})")
    print(f"norm {result['norm']:.4f}, exact {result['exact_norm']:.4f}")
    print(f"multiplier {result['multiplier']:.3f}, exact {multiplier:.3f}")
    return result


if __name__ == "__main__":
    main()
