"""One training for a whole range of tolerances, with a network of one's own.

The tolerance is an input of the network: `ToleranceModulation` of geco-models scales and shifts a
layer depending on it. The data are Gaussian, so that the rate-distortion bound is known: reverse
water-filling (D7), -dR/dD = d / (2 D) nats per unit of the mean squared error where all d
components are active.

Run with `python one_run.py` (seconds on a CPU; needs geco-models).
"""

import math

import torch
from torch import Tensor, nn

from geco_core import GECO, ReconstructionError, ToleranceRange
from geco_models import ToleranceModulation

VARIANCES = torch.tensor([4.0, 2.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25])


class Channel(nn.Module):
    """A VAE with a modulated layer in its encoder and one in its decoder."""

    def __init__(self, features: int, tolerance: tuple[float, float]) -> None:
        super().__init__()
        self.encoder = nn.Linear(features, 2 * features)
        self.decoder = nn.Linear(features, features)
        # mean and log-variance of the latents, and the latents themselves
        self.encoded = ToleranceModulation(2 * features, tolerance)
        self.latents = ToleranceModulation(features, tolerance)

    def forward(self, x: Tensor, kappa: Tensor | float, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The reconstruction, and the KL of every example."""
        mean, log_variance = self.encoded(self.encoder(x), kappa).chunk(2, dim=1)
        z = mean + noise * (0.5 * log_variance).exp()
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
        return self.decoder(self.latents(z, kappa)), kl


def bound(kappa: float) -> float:
    """The least rate in nats at which Gaussian data can have this error per element."""
    low, high = 0.0, float(VARIANCES.max())
    for _ in range(60):
        level = (low + high) / 2
        enough = VARIANCES.clamp(max=level).mean() < kappa**2
        low, high = (level, high) if enough else (low, level)
    return float(0.5 * (VARIANCES / level).clamp(min=1).log().sum())


def main(low: float = 0.2, high: float = 0.6, steps: int = 2500) -> dict[str, list[float]]:
    """Trains once; returns tolerances, errors, KLs, bounds and multipliers."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Channel(len(VARIANCES), (low, high))
    objective = GECO(ReconstructionError(kappa=ToleranceRange(low, high)))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [4 * steps // 5], 0.1)

    def draw(count: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(count, len(VARIANCES), generator=generator) * VARIANCES.sqrt()
        return x, torch.randn(count, len(VARIANCES), generator=generator)

    for _ in range(steps):
        x, noise = draw(256)
        kappa = objective.draw_tolerance(len(x), generator)
        reconstruction, kl = model(x, kappa, noise)
        loss = objective(kl, x, reconstruction, kappa=kappa)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        objective.step()

    print(objective.report())
    chosen = [low, math.sqrt(low * high), 0.8 * high]  # any tolerance of the range
    found: dict[str, list[float]] = {"kappa": chosen, "error": [], "kl": [], "bound": []}
    with torch.no_grad():
        for kappa_ in chosen:
            x, noise = draw(20_000)
            reconstruction, kl = model(x, kappa_, noise)
            found["error"].append(float((x - reconstruction).square().mean().sqrt()))
            found["kl"].append(float(kl.mean()))
            found["bound"].append(bound(kappa_))
    found["multiplier"] = objective.multiplier_at(torch.tensor(chosen)).tolist()
    for row in zip(*found.values(), strict=True):
        print("kappa {:.3f}: error {:.3f}, {:.2f} nats (bound {:.2f}), slope {:.1f}".format(*row))
    return found


if __name__ == "__main__":
    main()
