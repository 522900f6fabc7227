"""The problems, and the training that all contestants share."""

import math
from dataclasses import dataclass

SPECTRUM = (4.0, 2.0, 1.0, 0.5, 0.25, 0.1, 0.05, 0.02)


@dataclass(frozen=True)
class Cell:
    """One problem and the training that all contestants share."""

    name: str
    spectrum: tuple[float, ...]
    distortion: float
    batch: int = 256
    learning_rate: float = 2e-2
    optimizer: str = "adam"
    steps: int = 4000
    latents: int = 8
    seed: int = 0

    @property
    def kappa(self) -> float:
        """The tolerance: D is the sum over the elements, kappa^2 the mean."""
        return math.sqrt(self.distortion / len(self.spectrum))


def grid(seed: int) -> list[Cell]:
    """The twelve cells."""
    return [
        Cell(
            f"D={d:g} scale={scale:g}",
            tuple(scale * mu for mu in SPECTRUM),
            d * scale,
            seed=seed + i,
        )
        for i, (scale, d) in enumerate(
            (scale, d) for scale in (0.01, 1.0, 100.0) for d in (0.1, 0.3, 1.0, 3.0)
        )
    ]


def hard(seed: int) -> list[Cell]:
    """Harder ones: high dimension, small and large batches, other optimizers, tight, loose."""
    power = tuple(1.0 / j for j in range(1, 65))
    total, total_power = sum(SPECTRUM), sum(power)
    cells = [
        Cell(f"64 dims, D={share:.0%} of total", power, share * total_power, latents=64)
        for share in (0.05, 0.2, 0.5)
    ]
    for batch in (32, 1024):
        cells += [Cell(f"D={d:g} batch={batch}", SPECTRUM, d, batch=batch) for d in (0.3, 1.0)]
    for rate in (3e-4, 1e-3, 3e-3, 1e-2):
        cells += [
            Cell(f"D={d:g} Adam {rate:g}", SPECTRUM, d, learning_rate=rate) for d in (0.3, 1.0)
        ]
    cells += [
        Cell(f"D={d:g} Adam {rate:g}, {steps} steps", SPECTRUM, d, learning_rate=rate, steps=steps)
        for rate, steps in ((1e-3, 16_000),)
        for d in (0.3, 1.0)
    ]
    cells += [
        Cell(f"D={d:g} SGD 0.02 momentum 0.9", SPECTRUM, d, learning_rate=0.02, optimizer="sgd")
        for d in (0.3, 1.0)
    ]
    cells.append(Cell("D=0.95 of total", SPECTRUM, 0.95 * total))
    cells.append(Cell("D=0.05 near the noise floor", SPECTRUM, 0.05))
    return [Cell(**{**vars(cell), "seed": seed + 100 + i}) for i, cell in enumerate(cells)]
