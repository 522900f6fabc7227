r"""Decoder likelihoods :math:`p(x | z)`: distributions of `torch.distributions` over one example.

Each turns the decoder's raw numbers into a distribution over whole examples, whose `log_prob(x)`
is (batch,) in nats. Bits per dimension are :math:`-\ln p(x | z) / (D \ln 2)` for D numbers an
example; of a density they refer to the units of the data, of 8-bit levels they are absolute.
"""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, Normal
from torch.nn import functional

from geco_models.discretized_logistic import DiscretizedLogistic
from geco_models.standardisation import Standardisation

__all__ = [
    "Likelihood",
    "LikelihoodName",
    "Output",
    "activate",
    "as_output",
    "bits_per_dimension",
]

LikelihoodName = Literal["bernoulli", "gaussian", "heteroscedastic", "logistic"]
"""Probabilities of binary data; one learned variance; a variance for each number of an example;
8-bit levels under a logistic density."""

Output = Literal["identity", "sigmoid"]
"""What follows the decoder's last layer: nothing, or a sigmoid for data in [0, 1]."""

LEAST_SCALE = 1e-3
"""The least standard deviation of a decoder, in the networks' units: without a floor the density
of pixels that never change grows without bound."""


def as_output(value: str) -> Output:
    """The name of an output activation.

    Args:
        value: What was passed as `output`.

    Returns:
        The same name.

    Raises:
        ValueError: If there is no such activation.
    """
    if value not in get_args(Output):
        raise ValueError(f"`output` must be 'identity' or 'sigmoid', got {value!r}")
    return value  # type: ignore[return-value]


def activate(raw: Tensor, output: Output) -> Tensor:
    """Applies an output activation.

    Args:
        raw: The decoder's last layer.
        output: The activation's name.

    Returns:
        The reconstruction in the networks' units.
    """
    return torch.sigmoid(raw) if output == "sigmoid" else raw


class Likelihood(nn.Module):
    r"""Turns a decoder's raw numbers into the distribution of one example.

    - "bernoulli": the numbers are logits; data in [0, 1], read as probabilities where not binary.
    - "gaussian": :math:`N(g(z), \sigma^2)` with one learned :math:`\sigma` for everything.
    - "heteroscedastic": :math:`N(g(z), \sigma^2(z))`, a standard deviation for each number.
    - "logistic": `DiscretizedLogistic` around :math:`g(z)` with a scale for each number.

    Standard deviations and scales are :math:`s (\varepsilon + \operatorname{softplus}(r))` with
    the data's scale :math:`s` and the floor :math:`\varepsilon` = `LEAST_SCALE`.

    Args:
        name: One of the names above.

    Raises:
        ValueError: If there is no such likelihood.

    Attributes:
        numbers: How many numbers the decoder makes for each number of an example.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        if name not in get_args(LikelihoodName):
            known = ", ".join(repr(known) for known in get_args(LikelihoodName))
            raise ValueError(f"`likelihood` must be None or one of {known}, got {name!r}")
        self.name = name
        self.numbers = 2 if name in ("heteroscedastic", "logistic") else 1
        self.raw_scale = nn.Parameter(torch.zeros(())) if name == "gaussian" else None

    def forward(
        self, raw: Tensor, output: Output, units: Standardisation
    ) -> tuple[Tensor, Distribution]:
        """The decoder's mean and its distribution, in the units of the data.

        Args:
            raw: The decoder's numbers, (batch, numbers * C, ...); means before scales.
            output: What follows the decoder's means.
            units: The units of the data.

        Returns:
            The means, (batch, C, ...), of the type of `raw`, and the distribution, in float32 at
            least.
        """
        middle = raw if self.numbers == 1 else raw.chunk(2, dim=1)[0]
        exact = torch.promote_types(raw.dtype, torch.float32)
        dims = raw.dim() - 1
        if self.name == "bernoulli":
            bernoulli = Bernoulli(logits=middle.to(exact), validate_args=False)
            return torch.sigmoid(middle), _whole(bernoulli, dims)
        mean = units.inverse(activate(middle, output))
        spread = raw.chunk(2, dim=1)[1] if self.raw_scale is None else self.raw_scale
        scale = units.stretch(LEAST_SCALE + functional.softplus(spread.to(exact)))
        scale = scale.expand_as(mean)
        if self.name == "logistic":
            logistic = DiscretizedLogistic(mean.to(exact), scale, validate_args=False)
            return mean, _whole(logistic, dims)
        normal = Normal(mean.to(exact), scale, validate_args=False)
        return mean, _whole(normal, dims)

    def extra_repr(self) -> str:
        """The name, as `repr` shows it."""
        return repr(self.name)


def bits_per_dimension(log_prob: Tensor, shape: Sequence[int]) -> Tensor:
    r"""Nats per example as bits per number of an example: :math:`-\ln p / (D \ln 2)`.

    Args:
        log_prob: Log-probabilities of whole examples in nats, (batch,); an ELBO gives a bound.
        shape: The shape of one example, of :math:`D` numbers.

    Returns:
        Bits per dimension, (batch,).
    """
    return -log_prob / (math.prod(shape) * math.log(2))


def _whole(distribution: Distribution, dims: int) -> Distribution:
    return Independent(distribution, dims, validate_args=False)
