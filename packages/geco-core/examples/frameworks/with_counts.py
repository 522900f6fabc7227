"""GECO for count data (single cells, words, events): a likelihood that is asked for, in nats.

The model is that of scvi-tools in small: a negative binomial whose mean is a share of the row's
total. It needs torch only; put your own data and decoder in.
"""

import torch
from torch import Tensor, nn
from torch.distributions import NegativeBinomial

from geco_core import GECO, NegativeLogLikelihood


class CountVAE(nn.Module):
    """A VAE for rows of counts."""

    def __init__(self, genes: int, latents: int = 4) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(genes, 2 * latents), nn.Linear(latents, genes)
        self.log_dispersion = nn.Parameter(torch.zeros(genes))

    def forward(self, x: Tensor) -> tuple[Tensor, NegativeBinomial]:
        mean, log_variance = self.encoder(torch.log1p(x)).chunk(2, dim=1)
        z = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1)
        log_mean = self.decoder(z).log_softmax(dim=1) + x.sum(1, keepdim=True).log()
        # total_count is the inverse dispersion; the logits make the mean what it is meant to be
        inverse = self.log_dispersion.exp()
        logits = log_mean - self.log_dispersion
        return kl, NegativeBinomial(inverse.expand_as(logits), logits=logits)


def cells(count: int, genes: int) -> Tensor:
    """Four kinds of cells, (count, genes)."""
    kinds = torch.randn(4, genes)[torch.randint(4, (count,))]
    rate = 200 * kinds.softmax(dim=1)
    return torch.poisson(rate * torch.distributions.Gamma(5.0, 5.0).sample(rate.shape))


def main(at_most: float = 110.0, steps: int = 3000) -> GECO:
    """Trains; `at_most` is the negative log-likelihood of a row, in nats."""
    torch.manual_seed(0)
    data = cells(2000, genes=50)
    model, objective = CountVAE(50), GECO(NegativeLogLikelihood(at_most=at_most))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(steps):
        x = data[torch.randint(len(data), (128,))]
        kl, distribution = model(x)
        loss = objective(kl, x, distribution)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        objective.step()
    return objective


if __name__ == "__main__":
    print(main().report())
