"""Who takes part in `benchmarks/frontier.py`: a loss and an ascent each."""

import math
from collections.abc import Callable, Sequence

from contestants import Contestant, Cooper, Geco, HumanCompatible, Relative
from torch import Tensor

from geco_core import PaperUpdate, RobustUpdate


class Fixed(Geco):
    """A fixed relative multiplier, with the loss divided by its weights or not."""

    def __init__(
        self, kappa: float, multiplier: float, *, rescale: bool = True, kl_unit: float = 1.0
    ) -> None:
        update = RobustUpdate(rate=0.0, gain=0.0, initial=multiplier * kl_unit, rescale=rescale)
        super().__init__(kappa, kl_unit=kl_unit, update=update)


class OptimalSigma(Relative):
    r"""The optimal-sigma VAE: sigma^2 is the batch's error, beta 1; it has no tolerance."""

    def loss(self, kl: Tensor, x: Tensor, reconstruction: Tensor) -> Tensor:
        """KL + (d / 2) ln MSE."""
        error = (x - reconstruction).square().mean()
        self.relative = 0.5 * x[0].numel() * self.kappa**2 / float(error.detach())
        return kl.mean() + 0.5 * x[0].numel() * error.log()

    def step(self) -> None:
        """Nothing moves."""

    def multiplier(self) -> float:
        """Half of d times kappa^2 over the error."""
        return self.relative


class BetaPI(Relative):
    r"""ControlVAE's controller, with the error as its set-point: PI on the KL's weight.

    :math:`\beta = K_p / (1 + e^{-e}) + I` with :math:`e = -c` the relative error that is left,
    :math:`I` the sum of :math:`K_i e`, in [0, 1]; the loss is
    :math:`(d / 2) MSE / \kappa^2 + \beta KL`.
    """

    def __init__(self, kappa: float, rate: float) -> None:
        super().__init__(kappa)
        self.rate, self.integral, self.beta, self.seen, self.elements = rate, 0.0, 0.0, 0.0, 1

    def loss(self, kl: Tensor, x: Tensor, reconstruction: Tensor) -> Tensor:
        """The weighted sum."""
        c = self.violation(x, reconstruction)
        self.seen, self.elements = float(c.detach()), x[0].numel()
        return 0.5 * self.elements * (c + 1) + self.beta * kl.mean()

    def step(self) -> None:
        """The controller's step."""
        error = max(-50.0, min(50.0, -self.seen))
        self.integral = min(max(self.integral + self.rate * error, 0.0), 10.0)
        self.beta = 0.01 / (1 + math.exp(-error)) + self.integral

    def multiplier(self) -> float:
        """Half of d over beta."""
        return 0.5 * self.elements / max(self.beta, 1e-9)


# name -> the settings to try, and how one is built
CONTESTANTS: dict[str, tuple[Sequence[float], Callable[[float, float], Contestant]]] = {
    "ours": ((math.nan,), lambda kappa, _: Geco(kappa)),
    "paper": ((0.1, 1.0, 10.0), lambda kappa, rate: Geco(kappa, update=PaperUpdate(rate=rate))),
    "cooper": ((0.01, 0.1, 1.0), Cooper),
    "humancompatible": ((0.01, 0.1, 1.0), HumanCompatible),
    "optimal-sigma": ((math.nan,), lambda kappa, _: OptimalSigma(kappa)),
    "beta-pi": ((1e-4, 1e-3, 1e-2), BetaPI),
}
