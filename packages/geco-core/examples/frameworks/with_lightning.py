"""GECO in Lightning: the objective is a submodule, and a callback makes the ascent."""

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from geco_core import GECO, ReconstructionError
from geco_core.integrations.lightning import GECOCallback


class VAE(lightning.LightningModule):
    """A VAE with 8 latents for vectors of 64 numbers."""

    def __init__(self, kappa: float = 0.1) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(64, 16), nn.Linear(8, 64)
        self.objective = GECO(ReconstructionError(kappa))

    def training_step(self, x: Tensor, index: int) -> Tensor:
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        z = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1)
        return self.objective(kl, x, self.decoder(z))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


def main(resume: str | None = None, **options: object) -> VAE:
    """Trains; `options` are those of `lightning.Trainer`."""
    lightning.seed_everything(0)
    data = list(torch.rand(2048, 4) @ torch.rand(4, 64))
    options = {"max_epochs": 40, "callbacks": [GECOCallback()]} | options
    vae, trainer = VAE(), lightning.Trainer(**options)
    trainer.fit(vae, DataLoader(data, batch_size=64, shuffle=True), ckpt_path=resume)
    return vae


if __name__ == "__main__":
    print(main().objective.report())
