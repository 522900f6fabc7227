"""Run the Python examples of a README, as a reader would who pastes them one after the other.

    python tools/readme.py packages/geco-core/README.md

READMEs speak of the reader's own model and data (`model`, `loader`); small ones stand in for them.
"""

import os
import re
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[str]:
    """The Python blocks of a page."""
    return BLOCK.findall(page.read_text("utf-8"))


def training() -> dict[str, Any]:
    """What the reader of geco-core has: a VAE, an optimizer, batches, a classifier."""
    import torch
    from torch import nn

    class VAE(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = nn.Linear(64, 16), nn.Linear(8, 64)

        def forward(self, x: torch.Tensor) -> SimpleNamespace:
            mean, log_variance = self.encoder(x).chunk(2, dim=1)
            z = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
            kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1)
            return SimpleNamespace(reconstruction=self.decoder(z), kl=kl)

    model = VAE()
    batches = [torch.rand(16, 64) for _ in range(20)]
    return {
        "model": model,
        "optimizer": torch.optim.Adam(model.parameters(), lr=3e-3),
        "batches": batches,
        "loader": batches,
        "x": batches[0],
        "y": torch.arange(16) % 10,
        "classifier": nn.Linear(64, 10),
    }


def images() -> dict[str, Any]:
    """What the reader of geco-models has: a batch of images."""
    import torch

    return {"x": torch.rand(4, 1, 28, 28)}


def arrays() -> dict[str, Any]:
    """What the reader of geco-theory has: an array of samples."""
    import numpy as np

    return {"X": np.random.default_rng(0).normal(size=(60, 3))}


STAND_INS = {
    "geco-core": training,
    "geco-models": images,
    "geco-theory": arrays,
    "geco-experiments": dict,
}


def run(page: Path) -> int:
    """Run the examples of a page in one namespace, in an empty folder; returns how many."""
    found = blocks(page)
    namespace = STAND_INS.get(page.parent.name, training)()
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as empty:
        os.chdir(empty)
        try:
            for number, block in enumerate(found, 1):
                if "flow.log_prob(x)" in block:  # the README's second example is about vectors
                    namespace["x"] = namespace["x"].flatten(1)[:, :64]
                exec(compile(block, f"{page.name}, example {number}", "exec"), namespace)
        finally:
            os.chdir(before)
    return len(found)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(f"{name}: {run(Path(name).resolve())} examples ran")
