"""The trade-off that fixed multipliers reach: the lower envelope of KL over error."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

#: Relative multipliers at kappa = 0.12; the first row with the loss divided by its weights.
RESCALED = (5.0, 10.0, 16.0, 25.0, 40.0, 63.0, 100.0, 160.0, 250.0, 400.0, 800.0, 1600.0)
PLAIN = (10.0, 25.0, 63.0, 160.0, 400.0)
UNIT = 0.12


class Frontier:
    """Fixed multipliers' end points of one seed, and what lies between them.

    Args:
        rms: Their RMS errors.
        kl: Their KLs.
    """

    def __init__(self, rms: Sequence[float], kl: Sequence[float]) -> None:
        points = sorted(zip(rms, kl, strict=True))
        best: list[tuple[float, float]] = []
        for error, nats in points:
            if not best or nats < best[-1][1]:
                best.append((error, nats))
        self.points: NDArray[np.float64] = np.array(best)

    @property
    def least_error(self) -> float:
        """The smallest error that any of them reached."""
        return float(self.points[0, 0])

    def kl(self, rms: float) -> float:
        """The KL at an error, log-log between neighbours; NaN below the smallest error."""
        if not rms >= self.least_error:
            return float("nan")
        logs = np.log(self.points)
        return float(np.exp(np.interp(np.log(rms), logs[:, 0], logs[:, 1])))
