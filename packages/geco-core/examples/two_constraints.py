"""Two constraints at once: a rough reconstruction in which a classifier still sees the class.

Run with `python two_constraints.py` (some ten seconds on a CPU).
"""

import torch
from plain_loop import VAE, blobs
from torch import Tensor, nn

from geco_core import GECO, ClassificationAccuracy, ReconstructionError


def labelled(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Bright spots with a faint texture, one of four, that a mean squared error hardly sees."""
    labels = torch.randint(4, (count,), generator=generator)
    rows = torch.arange(8)[:, None].expand(8, 8)
    textures = torch.stack([rows % 2, rows.T % 2, (rows + rows.T) % 2, (rows + rows.T) // 2 % 2])
    return blobs(count, generator) + 0.2 * (textures[labels] - 0.5).unsqueeze(1), labels


def train_classifier(x: Tensor, labels: Tensor, generator: torch.Generator) -> nn.Module:
    """Fits a small classifier."""
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
    optimizer = torch.optim.Adam(classifier.parameters(), lr=3e-3)
    for _ in range(300):
        pick = torch.randint(len(x), (128,), generator=generator)
        nn.functional.cross_entropy(classifier(x[pick]), labels[pick]).backward()
        optimizer.step()
        optimizer.zero_grad()
    return classifier


def main(error: float = 0.12, accuracy: float = 0.9, steps: int = 1500) -> dict[str, float]:
    """Trains, prints what was reached and returns it."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    data, labels = labelled(4096, generator)
    classifier = train_classifier(data, labels, generator)
    model = VAE(64)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, 3e-5)

    constraints = {
        "RE": ReconstructionError(kappa=error),
        "CLA": ClassificationAccuracy(accuracy, classifier),  # keeps a frozen copy
    }
    objective = GECO(constraints)
    for _ in range(steps):
        pick = torch.randint(len(data), (128,), generator=generator)
        reconstruction, kl = model(data[pick], generator)
        loss = objective(kl, data[pick], reconstruction, labels=labels[pick])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        objective.step()

    with torch.no_grad():
        reconstruction, kl = model(data, generator)
        right = classifier(reconstruction).softmax(1).gather(1, labels[:, None]).mean().item()
    reached = (data - reconstruction).square().mean().sqrt().item()
    result = {"error": reached, "accuracy": right, "kl": kl.mean().item()}
    print(f"error {reached:.4f} (asked: {error}), accuracy {right:.3f} (asked: {accuracy})")
    print(objective.report())
    return result


if __name__ == "__main__":
    main()
