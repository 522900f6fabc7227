"""A rate that is named: the smallest squared error of a code of at most R nats.

For Gaussian data and a linear VAE the answer is reverse water-filling, to compare with.
Run with `python rate_constraint.py` (seconds on a CPU).
"""

import torch
from torch import nn

from geco_core import GECO, Rate

VARIANCES = torch.tensor([4.0, 1.0, 0.25])


def exact_distortion(rate: float) -> float:
    """The sum of squared errors at a rate in nats, by bisection on the water level."""
    low, high = 0.0, float(VARIANCES.max())
    for _ in range(100):
        level = (low + high) / 2
        nats = 0.5 * (VARIANCES / VARIANCES.clamp(max=level)).log().sum()
        low, high = (level, high) if nats > rate else (low, level)
    return float(VARIANCES.clamp(max=low).sum())


def main(rate: float = 1.5, steps: int = 3000) -> dict[str, float]:
    """Trains, prints the comparison and returns it."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder, decoder = nn.Linear(3, 6), nn.Linear(3, 3)
    parameters = [*encoder.parameters(), *decoder.parameters()]
    optimizer = torch.optim.Adam(parameters, 1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, 1e-4)
    objective = GECO(Rate(at_most=rate))
    kls, errors = [], []
    for step in range(steps):
        x = torch.randn(256, 3, generator=generator) * VARIANCES.sqrt()
        mean, log_variance = encoder(x).chunk(2, 1)
        z = mean + torch.randn(256, 3, generator=generator) * (0.5 * log_variance).exp()
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
        error = (x - decoder(z)).square().sum(1)
        # the error is what is minimised; the KL is passed on to the constraint
        objective(error, x, z, kl=kl).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        objective.step()
        if step >= steps - 200:
            kls.append(kl.mean().item())
            errors.append(error.mean().item())
    result = {
        "kl": sum(kls) / len(kls),
        "error": sum(errors) / len(errors),
        "exact_error": exact_distortion(rate),
        "beta": float(objective.info.beta),
    }
    print(f"KL {result['kl']:.3f} nats (asked: at most {rate})")
    print(f"squared error {result['error']:.3f}, exact {result['exact_error']:.3f}")
    print(f"beta {result['beta']:.3f}")
    return result


if __name__ == "__main__":
    main()
