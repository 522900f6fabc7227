"""GECO in a plain PyTorch loop: ask for a reconstruction error, get it at the lowest KL.

Run it as a script; it takes a few seconds on a CPU.
"""

import torch
from torch import Tensor, nn

from geco_core import GECO, ReconstructionError


class VAE(nn.Module):
    """A small Gaussian VAE that returns the reconstruction and the KL of every example."""

    def __init__(self, elements: int, latents: int = 8, hidden: int = 128) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(elements, hidden), nn.ReLU(), nn.Linear(hidden, 2 * latents)
        )
        self.decoder = nn.Sequential(
            nn.Linear(latents, hidden), nn.ReLU(), nn.Linear(hidden, elements)
        )

    def forward(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Encodes, samples, decodes."""
        mean, log_variance = self.encoder(x.flatten(1)).chunk(2, dim=1)
        noise = torch.randn(mean.shape, generator=generator)
        reconstruction = self.decoder(mean + noise * (log_variance / 2).exp())
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
        return reconstruction.reshape(x.shape), kl


def blobs(count: int, generator: torch.Generator) -> Tensor:
    """Images 8x8 of one bright spot at a random place, with a little noise."""
    axis = torch.linspace(-1, 1, 8)
    centre = torch.rand(count, 2, 1, 1, generator=generator) - 0.5
    distance = (axis[:, None] - centre[:, 0]).square() + (axis - centre[:, 1]).square()
    noise = torch.randn(count, 8, 8, generator=generator)
    return ((-distance / 0.2).exp() + 0.03 * noise).unsqueeze(1)


def main(kappa: float = 0.1, steps: int = 1200) -> dict[str, float]:
    """Trains, prints what was reached and returns it."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    data = blobs(2048, generator)
    model = VAE(64)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, 3e-5)

    objective = GECO(ReconstructionError(kappa=kappa))
    for _ in range(steps):
        x = data[torch.randint(len(data), (128,), generator=generator)]
        reconstruction, kl = model(x, generator)
        loss = objective(kl, x, reconstruction)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        objective.step()

    with torch.no_grad():
        reconstruction, kl = model(data, generator)
    error = (data - reconstruction).square().mean().sqrt().item()
    result = {"kappa": kappa, "error": error, "kl": kl.mean().item()}
    print(f"asked for an error of {kappa}, got {error:.4f} at {result['kl']:.2f} nats")
    print(objective.report())
    return result


if __name__ == "__main__":
    main()
