"""Stopping and resuming: the second half of a run, from a file, is bit for bit the same.

Run with `python resume.py` (a few seconds on a CPU).
"""

import tempfile
from pathlib import Path
from typing import Any

import torch
from plain_loop import VAE, blobs

from geco_core import GECO, BestFeasible, ReconstructionError


class Run:
    """Everything that a run consists of, and that its checkpoint must hold."""

    def __init__(self, kappa: float) -> None:
        torch.manual_seed(0)
        self.data = blobs(2048, torch.Generator().manual_seed(0))
        self.model = VAE(64)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=3e-3)
        self.objective = GECO(ReconstructionError(kappa=kappa))
        self.best = BestFeasible(tolerance=0.05)
        self.generator = torch.Generator().manual_seed(1)

    def train(self, first: int, last: int) -> None:
        """Makes the steps from `first` up to `last`."""
        for step in range(first, last):
            pick = torch.randint(len(self.data), (128,), generator=self.generator)
            reconstruction, kl = self.model(self.data[pick], self.generator)
            loss = self.objective(kl, self.data[pick], reconstruction)
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.objective.step()
            if step % 50 == 49:
                self.best.offer(self.model, self.objective, step=step)

    def save(self, path: Path) -> None:
        """Writes the checkpoint."""
        state: dict[str, Any] = {name: part.state_dict() for name, part in self._parts().items()}
        torch.save({**state, "generator": self.generator.get_state()}, path)

    def load(self, path: Path) -> None:
        """Reads it again."""
        state = torch.load(path, weights_only=True)
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.generator.set_state(state["generator"])

    def _parts(self) -> dict[str, Any]:
        names = ("model", "optimizer", "objective", "best")
        return {name: getattr(self, name) for name in names}


def main(kappa: float = 0.12, half: int = 300) -> tuple[Run, Run]:
    """Trains once without and once with a stop, and returns both runs."""
    straight, first, second = Run(kappa), Run(kappa), Run(kappa)
    straight.train(0, 2 * half)
    first.train(0, half)
    with tempfile.TemporaryDirectory() as folder:
        first.save(Path(folder) / "checkpoint.pt")
        second.load(Path(folder) / "checkpoint.pt")
    second.train(half, 2 * half)
    same = all(
        torch.equal(one, two)
        for one, two in zip(straight.model.parameters(), second.model.parameters(), strict=True)
    )
    print(f"weights identical: {same}")
    print(f"multipliers: {straight.objective.info.multiplier} {second.objective.info.multiplier}")
    if second.best.found:
        print(f"best feasible: step {second.best.best.step}, {second.best.best.kl:.2f} nats")
    return straight, second


if __name__ == "__main__":
    main()
