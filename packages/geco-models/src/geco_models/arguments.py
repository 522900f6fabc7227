"""What users pass to a model: the options that every model takes, and the checks of arguments."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

from torch import Tensor
from torch.distributions import Distribution

from geco_models.checkpoint import ConfiguredModule
from geco_models.likelihoods import Likelihood, LikelihoodName, Output, activate, as_output
from geco_models.standardisation import Numbers, Standardisation
from geco_models.tolerance import as_range, check_tolerance
from geco_models.validation import as_shape, check_tensor

__all__ = ["CheckedModule", "Condition", "Options"]

_PLAIN: dict[str, Any] = {
    "input_mean": 0.0,
    "input_scale": 1.0,
    "likelihood": None,
    "tolerance": None,
}


class Options(TypedDict, total=False):
    """Keyword arguments that every model takes."""

    input_mean: Numbers
    """What is subtracted from the data before the networks see them and added to what they make,
    in the units of the data: a number, or one for each channel (of vectors: feature). 0 if left
    out."""

    input_scale: Numbers
    """What the data are then divided by, likewise, positive; 1 if left out."""

    likelihood: LikelihoodName | None
    """The family of `ModelOutput.distribution`, "bernoulli", "gaussian", "heteroscedastic" or
    "logistic" (`geco_models.likelihoods`); None for a decoder of means alone."""

    tolerance: tuple[float, float] | None
    """The range (low, high) of the tolerance kappa that the model takes as an input; None for a
    model without."""


class Condition(NamedTuple):
    """What a model reads beside data or latents, checked, with one row for each example."""

    context: Tensor | None
    """The context, or what a network made of it."""

    kappa: Tensor | None
    """The tolerances, (batch,)."""


class CheckedModule(ConfiguredModule):
    """A module that knows the shapes and units of its data, and checks what it is given.

    Checks read shapes and types only, never values on a device: they cost nothing there and
    compile away.

    Args:
        shape: The shape of one example, without the batch dimension.
        config: The constructor arguments from which `type(self)(**config)` builds the same
            model; lists, numbers, strings, booleans and None only. Those of `Options` are added.
        context_shape: The shape of one example's context, planes (C, H, W) or a vector (F,);
            None for an unconditional model.
        input_mean: See `Options`, as the following ones.
        input_scale: The data's scale.
        likelihood: The decoder's distribution.
        tolerance: The range of the tolerance as an input.
    """

    def __init__(
        self,
        shape: Sequence[int],
        config: Mapping[str, Any],
        context_shape: Sequence[int] | None = None,
        *,
        input_mean: Numbers = 0.0,
        input_scale: Numbers = 1.0,
        likelihood: LikelihoodName | None = None,
        tolerance: Sequence[float] | None = None,
    ) -> None:
        shape = as_shape(shape)
        units = Standardisation(input_mean, input_scale, shape)
        limits = None if tolerance is None else as_range(tolerance)
        options = {
            "input_mean": units.mean,
            "input_scale": units.scale,
            "likelihood": likelihood,
            "tolerance": limits,
        }
        # options at their defaults are left out: such files are read by releases without them
        given = {name: value for name, value in options.items() if value != _PLAIN[name]}
        super().__init__({**config, **given})
        self.shape = shape
        self.context_shape = (
            None if context_shape is None else as_shape(context_shape, "context_shape", (1, 3))
        )
        self.units = units
        self.likelihood = None if likelihood is None else Likelihood(likelihood)
        self.tolerance = limits
        self.output: Output = "identity"

    @property
    def decoded_shape(self) -> tuple[int, ...]:
        """The shape of the numbers that the decoder makes of one example, channels first."""
        numbers = 1 if self.likelihood is None else self.likelihood.numbers
        return (numbers * self.shape[0], *self.shape[1:])

    def check_input(self, x: Tensor) -> Tensor:
        """The data, once their type and shape are right, in the type of the weights.

        Args:
            x: What was passed as data.

        Returns:
            The data; the same tensor if it is of the weights' type.

        Raises:
            TypeError: If it is not a floating-point tensor.
            ValueError: If its shape is not (batch, *shape).
        """
        return self.like_weights(check_tensor(x, "x", self.shape, type(self).__name__))

    def check_latents(self, z: Tensor, latent_shape: Sequence[int]) -> Tensor:
        """Latents, once their type and shape are right.

        Args:
            z: What was passed as latents.
            latent_shape: The shape of one example's latents.

        Returns:
            The same tensor.

        Raises:
            TypeError: If it is not a floating-point tensor.
            ValueError: If its shape is not (batch, *latent_shape).
        """
        return check_tensor(z, "z", latent_shape, type(self).__name__)

    def check_context(self, context: Tensor | None, batch: int) -> Tensor | None:
        """The context, once it is there exactly if the model wants one, and of the right shape.

        Args:
            context: What was passed as context.
            batch: The number of examples; a context of one row serves all of them.

        Returns:
            The context with `batch` rows in the type of the weights, or None for an unconditional
            model.

        Raises:
            TypeError: If it is not a floating-point tensor.
            ValueError: If it is missing, superfluous or of a wrong shape.
        """
        name = type(self).__name__
        if self.context_shape is None:
            if context is not None:
                msg = (
                    f"`context` was given, but this {name} is unconditional (`context_shape=None`)"
                )
                raise ValueError(msg)
            return None
        if context is None:
            wanted = ", ".join(map(str, self.context_shape))
            raise ValueError(f"`context` is missing: this {name} needs (batch, {wanted})")
        context = self.like_weights(check_tensor(context, "context", self.context_shape, name))
        if context.shape[0] == batch:
            return context
        if context.shape[0] != 1:
            msg = f"`context` must have {batch} rows (one per example) or 1, got {len(context)}"
            raise ValueError(msg)
        return context.expand(batch, *self.context_shape)

    def check_kappa(self, kappa: Tensor | float | None, batch: int) -> Tensor | None:
        """The tolerances, once they are there exactly if the model wants them, and in its range.

        Args:
            kappa: What was passed as tolerances: a number, or a tensor () or (batch,).
            batch: The number of examples.

        Returns:
            The tolerances, (batch,), or None for a model without a `tolerance`.

        Raises:
            TypeError: If they are not numbers.
            ValueError: If they are missing, superfluous, of a wrong shape or outside the range.
        """
        name = type(self).__name__
        if self.tolerance is None:
            if kappa is not None:
                raise ValueError(f"`kappa` was given, but this {name} has no `tolerance`")
            return None
        if kappa is None:
            low, high = self.tolerance
            msg = f"`kappa` is missing: this {name} needs a number or (batch,) in [{low}, {high}]"
            raise ValueError(msg)
        return check_tolerance(kappa, self.tolerance, batch, self.reference(), name)

    def as_output(self, output: str) -> None:
        """Sets what follows the decoder's last layer.

        Args:
            output: "identity" or "sigmoid".

        Raises:
            ValueError: If there is no such activation.
        """
        self.output = as_output(output)

    def observe(self, raw: Tensor) -> tuple[Tensor, Distribution | None]:
        """The decoder's mean and its distribution, in the units of the data.

        Args:
            raw: The decoder's numbers, (batch, *decoded_shape).

        Returns:
            The means, (batch, *shape), and the distribution, None without a `likelihood`.
        """
        if self.likelihood is None:
            return self.units.inverse(activate(raw, self.output)), None
        mean, distribution = self.likelihood(raw, self.output, self.units)
        return mean, distribution

    def like_weights(self, x: Tensor) -> Tensor:
        """The tensor in the weights' type: latents are float32 at least, weights may be half.

        Args:
            x: Any floating-point tensor.

        Returns:
            The same values in the weights' type.
        """
        return x.to(self.reference().dtype)
