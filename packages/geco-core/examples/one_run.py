"""One training for a whole range of tolerances, with a network of one's own.

The tolerance is an input of the network: `ToleranceModulation` of geco-models scales and shifts a
layer depending on it. The data are Gaussian, so that the bound is known: where the error kappa^2
is below all variances, R = 1/2 sum ln(variance / kappa^2) nats, of slope -dR/d(kappa^2) =
d / (2 kappa^2) (D7).

Run with `python one_run.py` (seconds on a CPU; needs geco-models).
"""

import torch
from torch import Tensor, nn

from geco_core import GECO, ReconstructionError, ToleranceRange
from geco_models import ToleranceModulation

VARIANCES = torch.tensor([4.0, 2.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25])
SIZE = len(VARIANCES)


class Channel(nn.Module):
    """A VAE with a modulated layer in its encoder and one in its decoder."""

    def __init__(self, tolerance: tuple[float, float]) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(SIZE, 2 * SIZE), nn.Linear(SIZE, SIZE)
        self.encoded = ToleranceModulation(2 * SIZE, tolerance)
        self.latents = ToleranceModulation(SIZE, tolerance)

    def forward(self, x: Tensor, kappa: Tensor | float, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The reconstruction, and the KL of every example."""
        mean, log_variance = self.encoded(self.encoder(x), kappa).chunk(2, dim=1)
        z = mean + noise * (0.5 * log_variance).exp()
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
        return self.decoder(self.latents(z, kappa)), kl


def main(low: float = 0.2, high: float = 0.5, steps: int = 2500) -> dict[str, list[float]]:
    """Trains once; returns errors, KLs, bounds and multipliers at some tolerances."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Channel((low, high))
    objective = GECO(ReconstructionError(kappa=ToleranceRange(low, high)))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [4 * steps // 5], 0.1)

    def draw(count: int) -> tuple[Tensor, Tensor]:
        noise = torch.randn(2, count, SIZE, generator=generator)
        return noise[0] * VARIANCES.sqrt(), noise[1]

    for _ in range(steps):
        x, noise = draw(256)
        kappa = objective.draw_tolerance(len(x), generator)
        reconstruction, kl = model(x, kappa, noise)
        objective(kl, x, reconstruction, kappa=kappa).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        objective.step()

    print(objective.report())
    found: dict[str, list[float]] = {"kappa": [low, 0.3, 0.4, high], "error": [], "kl": []}
    for asked in found["kappa"]:
        x, noise = draw(20_000)
        with torch.no_grad():
            reconstruction, kl = model(x, asked, noise)
        found["error"].append(float((x - reconstruction).square().mean().sqrt()))
        found["kl"].append(float(kl.mean()))
    chosen = torch.tensor(found["kappa"])
    found["bound"] = (0.5 * (VARIANCES / chosen[:, None] ** 2).log().sum(1)).tolist()
    found["slope"] = objective.multiplier_at(chosen).tolist()
    for row in zip(*found.values(), strict=True):
        print("kappa {}: error {:.3f}, {:.2f} nats (bound {:.2f}), slope {:.0f}".format(*row))
    return found


if __name__ == "__main__":
    main()
