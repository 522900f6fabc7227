"""A perceptual constraint: the features of a frozen network, beside a loose squared error.

The network here is random and small, to run anywhere; any network of timm or transformers takes
its place. Run with `python perceptual_constraint.py` (seconds on a CPU).
"""

import torch
from torch import nn

from geco_core import GECO, FeatureReconstructionError, NetworkFeatures, ReconstructionError


def stripes(number: int, generator: torch.Generator) -> torch.Tensor:
    """Images of 8 x 8 with one wave of random phase and direction."""
    phase, angle = (6.2832 * torch.rand(number, 1, 1, generator=generator) for _ in range(2))
    axis = torch.arange(8.0)
    along = axis[:, None] * angle.cos() + axis * angle.sin()
    return (0.5 + 0.5 * torch.sin(along + phase)).unsqueeze(1)


def main(kappa: float = 0.1, steps: int = 1500) -> dict[str, float]:
    """Trains, prints both constraints and returns what they reached."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten()
        )
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 16))
        decoder = nn.Sequential(nn.Linear(8, 128), nn.ReLU(), nn.Linear(128, 64))
    features = NetworkFeatures(network, layers=["1", "3"], mean=0.5, std=0.35)
    objective = GECO(
        {
            "features": FeatureReconstructionError(kappa, features),
            "pixels": ReconstructionError(0.3),
        }
    )
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 2e-3)
    for _ in range(steps):
        x = stripes(64, generator)
        mean, log_variance = encoder(x).chunk(2, 1)
        z = mean + torch.randn(64, 8, generator=generator) * (0.5 * log_variance).exp()
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
        objective(kl, x, decoder(z).unflatten(1, (1, 8, 8))).backward()
        optimizer.step()
        optimizer.zero_grad()
        objective.step()
    print(objective.report())
    average = objective.info.moving_average
    return {
        "features": (float(average["features"]) + kappa**2) ** 0.5,
        "pixels": (float(average["pixels"]) + 0.3**2) ** 0.5,
    }


if __name__ == "__main__":
    main()
