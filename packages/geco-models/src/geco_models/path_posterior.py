"""Posteriors over several maps or layers of latents, drawn one after the other."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from geco_models.base import AbstractVAE

__all__ = ["PathPosterior"]


class PathPosterior(ABC):
    r"""The batch of densities :math:`q(z_{1..n} | x) = \prod_i q(z_i | x, z_{<i})`.

    Made by `posterior` of a model. It keeps what was computed of the data, with its graph.

    Args:
        model: The model, whose `_noise(batch, generator)` is what `_walk` reads.
        batch: The number of examples.
    """

    def __init__(self, model: AbstractVAE, batch: int) -> None:
        # of whichever family; a subclass knows it
        self._model: Any = model
        self._batch = batch

    @abstractmethod
    def _walk(self, numbers: Any, drawn: bool) -> tuple[Tensor, Tensor]:
        """Along latents (`drawn`) or noise: the latents, and their log-densities, (batch,)."""

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One path of latents per example, with gradients.

        Args:
            generator: The source of randomness; the global one if None.

        Returns:
            The latents, (batch, *latents_shape).
        """
        return self._walk(self._model._noise(self._batch, generator), drawn=False)[0]

    def log_prob(self, z: Tensor) -> Tensor:
        """The log-density of each example at its latents.

        Args:
            z: Latents, (batch, *latents_shape), or one path for all examples (batch size 1).

        Returns:
            The log-densities in nats, (batch,).

        Raises:
            TypeError: If `z` is not floating point.
            ValueError: If the shape is wrong.
        """
        self._model.check_latents(z, self._model.latents_shape)
        if z.shape[0] not in (1, self._batch):
            msg = f"`z` must have {self._batch} rows (one per example) or 1, got {z.shape[0]}"
            raise ValueError(msg)
        return self._walk(z, drawn=True)[1]

    def __repr__(self) -> str:
        shape = self._model.latents_shape
        return f"{type(self).__name__}(batch={self._batch}, latents_shape={shape})"
