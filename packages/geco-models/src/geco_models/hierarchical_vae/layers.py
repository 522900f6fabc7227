r"""The parts of a hierarchical VAE: residual blocks, the paths up and down, a stochastic layer.

A stochastic layer reads the state :math:`h` of the path down. With the features :math:`f` that the
path up has made of the data at the same resolution,

.. math::
    p(z_l | z_{<l}) = N(\mu_p(h), \sigma_p(h)), \qquad
    q(z_l | x, z_{<l}) = N(\mu_q(h, f), \sigma_q(h, f)), \qquad
    h' = B(h + r(h) + W z_l)

where :math:`r` is the residual that the prior's block also makes and :math:`B` a residual block.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from geco_models.gaussian import DiagonalGaussian
from geco_models.tolerance import modulated, modulations

__all__ = ["Ascent", "Expansion", "ResidualBlock", "StochasticLayer"]


class ResidualBlock(nn.Module):
    """Two convolutions around a bottleneck-free hidden layer, added to the input.

    Args:
        channels: The channels that enter and leave.
        share: The factor on the last convolution's first weights: small where many blocks add up.
        tolerance: The range of tolerances that modulate the hidden layer; None for none.
    """

    def __init__(
        self, channels: int, share: float, tolerance: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.last = nn.Conv2d(channels, channels, 1)
        self.modulations = modulations((channels,), tolerance)
        with torch.no_grad():
            self.last.weight.mul_(share)

    def forward(self, x: Tensor, kappa: Tensor | None = None) -> Tensor:
        """From (batch, channels, h, w) to the same shape."""
        hidden = modulated(self.modulations, 0, self.first(functional.silu(x)), kappa)
        result: Tensor = x + self.last(functional.silu(hidden))
        return result


class Ascent(nn.Module):
    """The path up: from data to features at every resolution below the data's.

    Args:
        channels: The channels of the data.
        width: The channels of the features.
        stages: How often the planes are halved.
        share: The factor on the blocks' first weights.
        tolerance: The range of tolerances that modulate the blocks; None for none.
        centred: Whether the data lie around 0 already; data in [0, 1] are moved to [-1, 1].
    """

    def __init__(
        self,
        channels: int,
        width: int,
        stages: int,
        share: float,
        tolerance: Sequence[float] | None,
        centred: bool,
    ) -> None:
        super().__init__()
        self.centred = centred
        self.halve = nn.ModuleList(
            nn.Conv2d(width if index else channels, width, 3, stride=2, padding=1)
            for index in range(stages)
        )
        self.blocks = nn.ModuleList(ResidualBlock(width, share, tolerance) for _ in range(stages))

    def forward(self, x: Tensor, kappa: Tensor | None = None) -> list[Tensor]:
        """The features, each (batch, width, h, w), the finest first."""
        hidden = x if self.centred else 2 * x - 1
        found = []
        for halve, block in zip(self.halve, self.blocks, strict=True):
            hidden = block(halve(hidden), kappa)
            found.append(hidden)
        return found


class Expansion(nn.Module):
    """One stage of the path down: the planes grown to a given size, then a residual block.

    Args:
        channels: The channels that enter and leave.
        size: The height and width that leave.
        share: The factor on the block's first weights.
        tolerance: The range of tolerances that modulate the block; None for none.
    """

    def __init__(
        self,
        channels: int,
        size: Sequence[int],
        share: float,
        tolerance: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.size = list(size)
        self.block = ResidualBlock(channels, share, tolerance)

    def forward(self, hidden: Tensor, kappa: Tensor | None = None) -> Tensor:
        """From (batch, channels, h, w) to (batch, channels, *size)."""
        if list(hidden.shape[2:]) != self.size:
            hidden = functional.interpolate(hidden, self.size, mode="nearest")
        result: Tensor = self.block(hidden, kappa)
        return result


class StochasticLayer(nn.Module):
    """One layer of latents between two stretches of the path down (the module's formulas).

    Args:
        latents: The channels of the layer's latents.
        width: The channels of state and features.
        share: The factor on the blocks' first weights.
        tolerance: The range of tolerances that modulate the blocks; None for none.
    """

    def __init__(
        self,
        latents: int,
        width: int,
        share: float,
        tolerance: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.latents = latents
        self.prior_block = ResidualBlock(width, share, tolerance)
        self.prior_head = nn.Conv2d(width, width + 2 * latents, 1)
        self.joint = nn.Conv2d(2 * width, width, 1)
        self.posterior_block = ResidualBlock(width, share, tolerance)
        self.posterior_head = nn.Conv2d(width, 2 * latents, 1)
        self.merge = nn.Conv2d(latents, width, 1)
        self.out_block = ResidualBlock(width, share, tolerance)
        with torch.no_grad():  # both Gaussians start near N(0, I): a fresh model's KL is small
            self.prior_head.weight.mul_(0.1)
            self.posterior_head.weight.mul_(0.1)

    def prior(
        self, hidden: Tensor, kappa: Tensor | None = None
    ) -> tuple[DiagonalGaussian, Tensor]:
        """The prior of this layer's latents, and the state with the prior's residual."""
        raw = self.prior_head(functional.silu(self.prior_block(hidden, kappa)))
        statistics, residual = raw.split([2 * self.latents, hidden.shape[1]], dim=1)
        return DiagonalGaussian.from_raw(statistics), hidden + residual

    def posterior(
        self, hidden: Tensor, features: Tensor, kappa: Tensor | None = None
    ) -> DiagonalGaussian:
        """The posterior of this layer's latents, from the state that the prior has read."""
        joint = self.joint(torch.cat((hidden, features.to(hidden.dtype)), dim=1))
        raw = self.posterior_head(functional.silu(self.posterior_block(joint, kappa)))
        return DiagonalGaussian.from_raw(raw)

    def forward(self, hidden: Tensor, z: Tensor, kappa: Tensor | None = None) -> Tensor:
        """The state after the latents have entered it."""
        result: Tensor = self.out_block(hidden + self.merge(z.to(self.merge.weight.dtype)), kappa)
        return result
