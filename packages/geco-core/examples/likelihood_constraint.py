"""A likelihood that is named: binary patterns to within 2 nats, with a Bernoulli decoder.

Run with `python likelihood_constraint.py` (seconds on a CPU).
"""

import torch
from torch import nn
from torch.distributions import Bernoulli

from geco_core import GECO, NegativeLogLikelihood


def patterns(number: int, generator: torch.Generator) -> torch.Tensor:
    """Eight bits: two of three independent ones, copied and flipped now and then."""
    bits = torch.rand(number, 3, generator=generator) < 0.5
    copies = bits[:, [0, 0, 0, 1, 1, 1, 2, 2]]
    flips = torch.rand(number, 8, generator=generator) < 0.02
    return (copies ^ flips).float()


def main(nats: float = 2.0, steps: int = 2000) -> dict[str, float]:
    """Trains, prints what was reached and returns it."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 6))
        decoder = nn.Sequential(nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, 8))
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 3e-3)
    objective = GECO(NegativeLogLikelihood(at_most=nats))
    for _ in range(steps):
        x = patterns(128, generator)
        mean, log_variance = encoder(x).chunk(2, 1)
        z = mean + torch.randn(128, 3, generator=generator) * (0.5 * log_variance).exp()
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
        objective(kl, x, Bernoulli(logits=decoder(z))).backward()
        optimizer.step()
        optimizer.zero_grad()
        objective.step()
    info = objective.info
    result = {"nll": float(info.moving_average) + nats, "kl": float(info.kl)}
    result["beta"] = float(info.beta)
    print(f"negative log-likelihood {result['nll']:.3f} nats (asked: at most {nats})")
    print(f"KL {result['kl']:.2f} nats, equivalent beta {result['beta']:.3f}")
    return result


if __name__ == "__main__":
    main()
