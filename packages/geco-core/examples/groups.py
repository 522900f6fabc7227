"""One multiplier per sensor: each is reconstructed well enough, not only both on average.

Run with `python groups.py` (seconds on a CPU).
"""

import torch
from torch import nn

from geco_core import GECO, PerGroup, ReconstructionError

RARE = 0.1  # the share of the first sensor's examples


def main(
    kappa: float = 0.2, steps: int = 3000, *, together: bool = False
) -> dict[str, list[float]]:
    """Trains with a multiplier per sensor, or one for both; returns errors and multipliers."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder, decoder = nn.Linear(6, 8), nn.Linear(6, 4)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 5e-3)
    error = ReconstructionError(kappa)
    objective = GECO(error if together else PerGroup(error, groups=2))
    seen = []
    for step in range(steps):
        sensor = (torch.rand(256, generator=generator) > RARE).long()
        x = torch.randn(256, 4, generator=generator)
        x = torch.where(sensor[:, None] == 0, x, x.cumsum(1) / 2)
        known = nn.functional.one_hot(sensor, 2).float()
        mean, log_variance = encoder(torch.cat([x, known], 1)).chunk(2, 1)
        z = mean + torch.randn(256, 4, generator=generator) * (0.5 * log_variance).exp()
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
        reconstruction = decoder(torch.cat([z, known], 1))
        objective(kl, x, reconstruction, groups=sensor).backward()
        optimizer.step()
        optimizer.zero_grad()
        objective.step()
        if step >= steps - 200:
            squares = (x - reconstruction.detach()).square().mean(1)
            seen.append(torch.stack([squares[sensor == s].mean() for s in (0, 1)]))
    errors = torch.stack(seen).mean(0).sqrt().tolist()
    multipliers = objective.info.multiplier.reshape(-1).tolist()
    print(f"errors {errors[0]:.3f}, {errors[1]:.3f} (asked: {kappa}); multipliers {multipliers}")
    return {"errors": errors, "multipliers": multipliers}


if __name__ == "__main__":
    main()
    main(together=True)
