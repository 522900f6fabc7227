"""GECO in the transformers Trainer: the model returns the loss, a callback makes the ascent."""

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments, set_seed

from geco_core import GECO, ReconstructionError
from geco_core.integrations.transformers import GECOCallback


class VAE(nn.Module):
    """A VAE with 8 latents for vectors of 64 numbers."""

    def __init__(self, kappa: float = 0.1) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(64, 16), nn.Linear(8, 64)
        self.objective = GECO(ReconstructionError(kappa))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        z = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1)
        reconstruction = self.decoder(z)
        return {"loss": self.objective(kl, x, reconstruction), "reconstruction": reconstruction}


def main(folder: str = "vae", resume: bool = False, **options: object) -> Trainer:
    """Trains; `options` are those of `TrainingArguments`."""
    set_seed(0)
    data = [{"x": x} for x in torch.rand(2048, 4) @ torch.rand(4, 64)]
    defaults = {"num_train_epochs": 40, "per_device_train_batch_size": 64, "learning_rate": 3e-3}
    args = TrainingArguments(folder, **defaults | options)
    trainer = Trainer(VAE(), args, train_dataset=data, callbacks=[GECOCallback()])
    trainer.train(resume_from_checkpoint=resume or None)
    return trainer


if __name__ == "__main__":
    print(main().model.objective.report())
