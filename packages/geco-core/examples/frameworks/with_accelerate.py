"""GECO with accelerate: the ascent after each real optimizer step, the state in `save_state`."""

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
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


def main(epochs: int = 40, save: str | None = None, load: str | None = None, **options) -> GECO:
    """Trains; `options` are those of `Accelerator`."""
    accelerator = Accelerator(**options)
    set_seed(0)
    data = list(torch.rand(2048, 4) @ torch.rand(4, 64))
    model, loader = VAE(), DataLoader(data, batch_size=64)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    objective = GECO(ReconstructionError(kappa=0.1)).to(accelerator.device)
    accelerator.register_for_checkpointing(objective)
    optimizer.optimizer.register_step_post_hook(lambda *_: objective.step())
    if load:
        accelerator.load_state(load)
    for _ in range(epochs):
        for x in loader:
            with accelerator.accumulate(model):
                kl, reconstruction = model(x)
                loss = objective(kl, x, reconstruction)
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
    if save:
        accelerator.save_state(save)
    accelerator.print(objective.report())
    return objective


if __name__ == "__main__":
    main()
