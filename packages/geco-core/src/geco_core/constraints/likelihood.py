r"""The negative log-likelihood of any distribution, as a constraint.

:math:`C = -\ln p(x|z) - N` for :math:`N` nats per example that are allowed. The multiplier of the
likelihood in nats is :math:`\lambda = 1 / \beta`: the run ends where a beta-VAE of that decoder
does, with the beta that no one had to choose (D1, D9).
"""

import math
from typing import Any, Literal

import torch
from torch import Tensor
from torch.distributions import Distribution

from geco_core.constraints.base import Constraint
from geco_core.constraints.reductions import element_weights, mean_per_example, observed_examples
from geco_core.precision import at_least_float32
from geco_core.text_state import facts_of, tensor_of
from geco_core.validation import finite

__all__ = ["NegativeLogLikelihood"]

UNITS = ("nats", "bits per dim")


class NegativeLogLikelihood(Constraint):
    r"""The mean negative log-likelihood of the data is at most what is asked for.

    .. math:: C(x, p) = -\sum_j \ln p(x_j) - N \quad \text{(nats)}, \qquad
       C(x, p) = -\frac{1}{d \ln 2} \sum_j \ln p(x_j) - N \quad \text{(bits per dim)}

    with :math:`d` the elements of an example. The reconstruction is a
    `torch.distributions.Distribution`: Bernoulli, categorical, normal, negative binomial,
    :class:`~geco_core.DiscretizedLogistic`, mixtures of them.

    A violation of 100% is :math:`d / 2` nats. For a normal distribution of fixed standard
    deviation :math:`\kappa` this is the relative violation of
    :class:`~geco_core.ReconstructionError`, :math:`\text{MSE} / \kappa^2 - 1`, if :math:`N` is
    the likelihood at an error of :math:`\kappa`.

    Args:
        at_most: :math:`N`, in the unit. It may be negative where densities exceed 1. May be set
            later, for a schedule.
        unit: "nats" per example, or "bits per dim".

    Raises:
        TypeError: If `at_most` is not a number.
        ValueError: If it is not finite, or `unit` is something else.

    Example:
        >>> import torch
        >>> from torch.distributions import Bernoulli
        >>> constraint = NegativeLogLikelihood(at_most=1.0, unit="bits per dim")
        >>> constraint(torch.ones(2, 4), Bernoulli(torch.full((2, 4), 0.25)))
        tensor([1., 1.])
    """

    keywords = frozenset({"mask"})

    def __init__(self, at_most: float, *, unit: Literal["nats", "bits per dim"] = "nats") -> None:
        super().__init__()
        if unit not in UNITS:
            raise ValueError(f"`unit` must be 'nats' or 'bits per dim', got {unit!r}")
        self.unit = unit
        self.at_most = at_most
        # known from the first batch on: what a nat is worth depends on it
        self._elements = 1
        self.reduction = (
            "sum over the elements of an example"
            if unit == "nats"
            else "mean over the elements of an example"
        )

    @property
    def at_most(self) -> float:
        """The largest mean negative log-likelihood. Setting it acts from the next call."""
        return self._at_most

    @at_most.setter
    def at_most(self, value: float) -> None:
        self._at_most = finite("at_most", value)

    @property
    def scale(self) -> float:
        """Half a nat per element, in the unit: d / 2, or 1 / (2 ln 2)."""
        return 0.5 * self._elements if self.unit == "nats" else 0.5 / math.log(2)

    def forward(
        self, x: Tensor, reconstruction: Distribution, *, mask: Tensor | None = None, **batch: Any
    ) -> Tensor:
        r"""Computes the violations.

        Args:
            x: The data, :math:`(B, *)`, in the support of the distribution.
            reconstruction: The distribution, of batch and event shape :math:`(B, *)` together.
            mask: Boolean, True where an element was observed. Of the shape of `x`, where any
                axis may have size 1; only for distributions over single elements. The likelihood
                is then that of :math:`d` elements which are like those that were observed. The
                rest of `x` may hold anything.
            batch: Ignored.

        Returns:
            The violations, :math:`(B,)`, float32 or wider.

        Raises:
            TypeError: If `reconstruction` is no distribution or `x` no tensor.
            ValueError: If a shape does not fit, or `x` is outside of the support.
        """
        if not isinstance(reconstruction, Distribution):
            raise TypeError(
                f"`reconstruction` must be a torch.distributions.Distribution, got "
                f"{type(reconstruction).__name__}"
            )
        if not isinstance(x, Tensor):
            raise TypeError(f"`x` must be a torch.Tensor, got {type(x).__name__}")
        shape = (*reconstruction.batch_shape, *reconstruction.event_shape)
        if tuple(x.shape) != shape or x.ndim < 1:
            raise ValueError(
                f"`x` must have the shape of the distribution, {shape}, batch first, got "
                f"{tuple(x.shape)}; nothing is broadcast here"
            )
        self._elements = elements = math.prod(x.shape[1:])
        observed = None
        if mask is not None:
            if reconstruction.event_shape:
                raise ValueError(
                    f"`mask` needs a distribution over single elements, but the events of this "
                    f"one have shape {tuple(reconstruction.event_shape)}"
                )
            observed = element_weights(x, mask, None, torch.float32)
            x = torch.where(mask, x, _harmless(reconstruction).to(x))
        nats = -at_least_float32(reconstruction.log_prob(x))
        if observed is None:
            total = nats.flatten(1).sum(1) if nats.ndim > 1 else nats
        else:
            total = elements * mean_per_example(nats, observed.to(nats.dtype))
        per_unit = total if self.unit == "nats" else total / (elements * math.log(2))
        return per_unit - self._at_most

    def example_weights(
        self, x: Any, reconstruction: Any, *, mask: Tensor | None = None, **batch: Any
    ) -> Tensor | None:
        """0 for examples of which nothing was observed."""
        return observed_examples(x, mask)

    def elements(self, x: Any) -> float | None:
        """The elements of an example."""
        return math.prod(x.shape[1:]) if isinstance(x, Tensor) else None

    def equivalent_beta(self, multiplier: Tensor, x: Any) -> Tensor:
        r""":math:`\beta = 1 / \lambda` for the likelihood in nats."""
        nats = 1.0 if self.unit == "nats" else 1 / (self._elements * math.log(2))
        return 1 / (multiplier * nats)

    def get_extra_state(self) -> Tensor:
        """What is allowed, for `state_dict`."""
        facts = {"kind": "NegativeLogLikelihood", "unit": self.unit, "elements": self._elements}
        return tensor_of(facts, at_most=self._at_most)

    def set_extra_state(self, state: Any) -> None:
        """Takes over what was allowed, for `load_state_dict`.

        Raises:
            ValueError: If the state belongs to something else.
        """
        saved = facts_of(state)
        if saved is None or (saved.get("kind"), saved.get("unit")) != (
            "NegativeLogLikelihood",
            self.unit,
        ):
            raise ValueError(
                f"the state must be that of a NegativeLogLikelihood in {self.unit}, got "
                f"{saved or state!r}"
            )
        self.at_most, self._elements = saved["at_most"], saved["elements"]

    def extra_repr(self) -> str:
        """What is allowed, and its unit."""
        return f"at_most={self._at_most:g}, unit={self.unit!r}"


def _harmless(distribution: Distribution) -> Tensor:
    """A value in the support, to stand where nothing was observed."""
    support = distribution.support
    for value in (0.0, 1.0, 0.5):
        inside: Any = True
        if support is not None:
            inside = support.check(torch.tensor(value))  # type: ignore[no-untyped-call]
        if not isinstance(inside, Tensor) or inside.ndim or inside.tolist():
            return torch.tensor(value)
    return torch.tensor(0.0)
