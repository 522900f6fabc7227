"""What all models share: configuration, checks of the input, saving and loading."""

import copy
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from geco_models import checkpoint
from geco_models.output import ModelOutput, Posterior
from geco_models.validation import as_shape

__all__ = ["AbstractVAE"]


class AbstractVAE(nn.Module, ABC):
    """A latent-variable model with a Gaussian decoder: the parts that every family shares.

    A subclass passes its constructor arguments as `config` and writes `forward`, `sample`,
    `posterior` and `prior_log_prob`, calling the `check_` methods on what it is given. Checks
    read shapes and types only, never values: they cost nothing on a device and compile away.

    Args:
        shape: The shape of one example, without the batch dimension.
        config: The constructor arguments from which `type(self)(**config)` builds the same
            model; lists, numbers, strings, booleans and None only.
        context_shape: The shape of one example's context, planes (C, H, W) or a vector (F,);
            None for an unconditional model.
    """

    def __init__(
        self,
        shape: Sequence[int],
        config: Mapping[str, Any],
        context_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.shape = as_shape(shape)
        self.context_shape = (
            None if context_shape is None else as_shape(context_shape, "context_shape", (1, 3))
        )
        self._config = {key: _plain(value) for key, value in config.items()}

    @property
    def config(self) -> dict[str, Any]:
        """The constructor arguments, ready for JSON: `type(model)(**model.config)`."""
        return copy.deepcopy(self._config)

    @abstractmethod
    def forward(
        self, x: Tensor, context: Tensor | None = None, generator: torch.Generator | None = None
    ) -> ModelOutput:
        """Encodes, draws one latent per example, and decodes.

        Args:
            x: The data, (batch, *shape), floating point; images in [0, 1].
            context: The context, (batch, *context_shape), for a conditional model only.
            generator: The source of randomness; the global one if None.

        Returns:
            Reconstruction, KL in nats per example, and latents.

        Raises:
            TypeError: If `x` or `context` is not floating point.
            ValueError: If a shape is wrong, or the context is missing or superfluous.
        """

    @abstractmethod
    def sample(
        self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draws from the model: latents from the prior, through the decoder; no gradients.

        Args:
            n: The number of draws.
            context: The context, (n, *context_shape) or one for all, (1, *context_shape); for a
                conditional model only.
            generator: The source of randomness; the global one if None.

        Returns:
            The decoder's means, (n, *shape).

        Raises:
            TypeError: If `n` is not an integer.
            ValueError: If `n` is not positive, or the context is missing or superfluous.
        """

    @abstractmethod
    def posterior(self, x: Tensor, context: Tensor | None = None) -> Posterior:
        """The approximate posterior of each example, as an object that samples and evaluates.

        Args:
            x: The data, (batch, *shape).
            context: The context, for a conditional model only.

        Returns:
            The posteriors; those of Gaussian models also have `mean` and `log_variance`.
        """

    @abstractmethod
    def prior_log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """The log-density of the prior.

        Args:
            z: Latents, (batch, ...), as in `ModelOutput.latents`.
            context: The context, for a conditional model only.

        Returns:
            The log-densities in nats, (batch,).
        """

    def check_input(self, x: Tensor) -> Tensor:
        """The data, once their type and shape are right.

        Args:
            x: What was passed as data.

        Returns:
            The same tensor.

        Raises:
            TypeError: If it is not a floating-point tensor.
            ValueError: If its shape is not (batch, *shape).
        """
        return self._check_tensor(x, "x", self.shape)

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
        return self._check_tensor(z, "z", tuple(latent_shape))

    def check_context(self, context: Tensor | None, batch: int) -> Tensor | None:
        """The context, once it is there exactly if the model wants one, and of the right shape.

        Args:
            context: What was passed as context.
            batch: The number of examples; a context of one row serves all of them.

        Returns:
            The context with `batch` rows, or None for an unconditional model.

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
        self._check_tensor(context, "context", self.context_shape)
        if context.shape[0] == batch:
            return context
        if context.shape[0] != 1:
            msg = f"`context` must have {batch} rows (one per example) or 1, got {len(context)}"
            raise ValueError(msg)
        return context.expand(batch, *self.context_shape)

    def _check_tensor(self, x: Tensor, name: str, shape: tuple[int, ...]) -> Tensor:
        owner = type(self).__name__
        if not isinstance(x, Tensor):
            raise TypeError(f"`{name}` must be a torch.Tensor, got {type(x).__name__}")
        if not x.is_floating_point():
            msg = f"`{name}` must be floating point, got {x.dtype}: 8-bit images need `x / 255`"
            raise TypeError(msg)
        if tuple(x.shape[1:]) != shape or x.dim() != len(shape) + 1:
            wanted = ", ".join(map(str, shape))
            msg = f"`{name}` must be (batch, {wanted}) for this {owner}, got {tuple(x.shape)}"
            raise ValueError(msg)
        return x

    def reference(self) -> Tensor:
        """A parameter, whose device and type new tensors take."""
        return next(self.parameters())

    def like_weights(self, x: Tensor) -> Tensor:
        """The tensor in the weights' type: latents are float32 at least, weights may be half.

        Args:
            x: Any floating-point tensor.

        Returns:
            The same values in the weights' type.
        """
        return x.to(self.reference().dtype)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes class name, configuration and weights to one file, whole or not at all.

        Args:
            path: The file; an existing one is replaced.
        """
        checkpoint.save(self, path)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        map_location: str | torch.device = "cpu",
    ) -> Self:
        """Builds a model of this class from a file written by `save`.

        Args:
            path: The file.
            map_location: The device to load to.

        Returns:
            The model, with the saved weights in their saved types.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is not a checkpoint of this class.
        """
        return checkpoint.load_as(cls, path, map_location)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Like `torch.nn.Module.load_state_dict`, but a wrong configuration is one clear sentence.

        Args:
            state_dict: Parameters and buffers by name.
            strict: Whether names must match exactly; sizes always must.
            assign: Whether to take over the tensors instead of copying their values.

        Returns:
            The missing and unexpected names, as torch returns them.

        Raises:
            ValueError: If the weights are of a model with another configuration.
        """
        own = self.state_dict()
        name = type(self).__name__
        for key, value in state_dict.items():
            if key in own and own[key].shape != value.shape:
                msg = (
                    f"`state_dict` is of another configuration: {key} is {tuple(value.shape)} in "
                    f"it and {tuple(own[key].shape)} in this {name}; build the model with the "
                    "saved configuration, or use `geco_models.load`"
                )
                raise ValueError(msg)
        odd = sorted(own.keys() ^ state_dict.keys())
        if strict and odd:
            msg = (
                f"`state_dict` is of another configuration: {odd[0]} is only in "
                f"{'this ' + name if odd[0] in own else 'it'} ({len(odd)} such names); build the "
                "model with the saved configuration, or use `geco_models.load`"
            )
            raise ValueError(msg)
        return super().load_state_dict(state_dict, strict=strict, assign=assign)

    def extra_repr(self) -> str:
        """The configuration and the number of parameters."""
        items = [f"{key}={_readable(value)}" for key, value in self._config.items()]
        return ", ".join([*items, f"parameters={_count(self):,}"])


def _count(module: nn.Module) -> int:
    return sum(math.prod(p.shape) for p in module.parameters())


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def _readable(value: Any) -> str:
    return repr(tuple(value)) if isinstance(value, list) else repr(value)
