"""GECO in ignite: one line in the update function, one entry in the checkpoint."""

import torch
from ignite.engine import Engine, Events
from ignite.handlers import Checkpoint, DiskSaver
from torch import Tensor, nn
from torch.utils.data import DataLoader

from geco_core import GECO, ReconstructionError


class VAE(nn.Module):
    """A VAE with 8 latents for vectors of 64 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(64, 16), nn.Linear(8, 64)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        z = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1)
        return kl, self.decoder(z)


def main(epochs: int = 40, folder: str = "vae", resume: str | None = None) -> GECO:
    """Trains, and saves a checkpoint after every epoch."""
    torch.manual_seed(0)
    data = list(torch.rand(2048, 4) @ torch.rand(4, 64))
    model, objective = VAE(), GECO(ReconstructionError(kappa=0.1))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    def update(engine: Engine, x: Tensor) -> float:
        kl, reconstruction = model(x)
        loss = objective(kl, x, reconstruction)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        objective.step()
        return loss.item()

    trainer = Engine(update)
    parts = {"trainer": trainer, "model": model, "optimizer": optimizer, "objective": objective}
    saver = Checkpoint(parts, DiskSaver(folder, require_empty=False), n_saved=1)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, saver)
    if resume:
        Checkpoint.load_objects(parts, torch.load(resume))
    trainer.run(DataLoader(data, batch_size=64), max_epochs=epochs)
    return objective


if __name__ == "__main__":
    print(main().report())
