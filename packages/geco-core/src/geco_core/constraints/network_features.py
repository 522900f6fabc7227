"""Features from any network: layers by name, normalisation of the images, autocast."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from geco_core.constraints.frozen import Frozen, frozen_copy
from geco_core.validation import finite, positive

__all__ = ["NetworkFeatures"]


class NetworkFeatures(nn.Module):
    r"""The outputs of some layers of a frozen network, for the feature reconstruction error.

    Takes any module that is called with images, those of timm, torchvision and transformers
    among them. A frozen copy is kept as in :class:`~geco_core.FeatureReconstructionError`;
    constraints that are given the same network share it.

    Args:
        network: The network.
        layers: The names of the layers whose outputs are the features, as in
            `network.named_modules()`; one name or several. None takes what the network returns.
        mean: What is subtracted from the images before the network sees them, one number or one
            per channel (axis 1), in the units of the images.
        std: What they are divided by afterwards, likewise.
        autocast: The dtype in which the network computes where autocast applies; False to
            switch autocast off around it; None to do as the surrounding code does.
        in_state: Whether the weights of the network belong to the `state_dict`.

    Raises:
        TypeError: If `network` is not a module, or a number is none.
        ValueError: If there is no such layer, or `std` is not positive.
        RuntimeError: If the network cannot be copied.

    Example:
        >>> import torch
        >>> network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
        >>> features = NetworkFeatures(network, layers="0", mean=[0.5] * 3, std=[0.2] * 3)
        >>> [tuple(f.shape) for f in features(torch.rand(2, 3, 8, 8))]
        [(2, 4, 6, 6)]
    """

    def __init__(
        self,
        network: nn.Module,
        layers: str | Sequence[str] | None = None,
        *,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        autocast: torch.dtype | bool | None = None,
        in_state: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(network, nn.Module):
            raise TypeError(
                f"`network` must be a torch.nn.Module, got {type(network).__name__}; pass any "
                f"other callable to the constraint itself"
            )
        if autocast is True or not (
            autocast in (None, False) or isinstance(autocast, torch.dtype)
        ):
            raise TypeError(f"`autocast` must be a dtype, False or None, got {autocast!r}")
        self.layers = (layers,) if isinstance(layers, str) else tuple(layers or ())
        names = [name for name, _ in network.named_modules() if name]
        for layer in self.layers:
            if layer not in names:
                raise ValueError(
                    f"`layers` has {layer!r}, which is not among the layers of this "
                    f"{type(network).__name__}: {', '.join(names[:40])}"
                )
        self.mean = _numbers("mean", mean)
        self.std = _numbers("std", std)
        for value in self.std:
            positive("std", value)
        self.autocast = autocast
        self.network = Frozen(
            frozen_copy(network, "network"), _Layers(self.layers), in_state=in_state
        )
        self._constants: dict[tuple[Any, ...], Tensor] = {}

    def forward(self, images: Tensor) -> Any:
        r"""Computes the features.

        Args:
            images: Images :math:`(B, C, *)`.

        Returns:
            The outputs of the layers in the order of their names, or what the network returns.

        Raises:
            RuntimeError: If a layer was not called.
        """
        if self.mean:
            images = images - self._constant(self.mean, images)
        if self.std:
            images = images / self._constant(self.std, images)
        if self.autocast is None:
            return self.network(images)
        dtype = self.autocast if isinstance(self.autocast, torch.dtype) else None
        with torch.autocast(images.device.type, dtype=dtype, enabled=dtype is not None):
            return self.network(images)

    def _constant(self, values: tuple[float, ...], like: Tensor) -> Tensor:
        if torch.compiler.is_compiling() or type(like) is not Tensor:
            flat = torch.tensor(values, dtype=like.dtype, device=like.device)
        else:
            key = (values, like.dtype, like.device)
            if key not in self._constants:
                self._constants[key] = torch.tensor(values, dtype=like.dtype, device=like.device)
            flat = self._constants[key]
        return flat.reshape(-1, *[1] * (like.ndim - 2)) if len(values) > 1 else flat

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles make their own constants."""
        return {**self.__dict__, "_constants": {}}

    def extra_repr(self) -> str:
        """The layers and what is done to the images."""
        return f"layers={list(self.layers)}, mean={self.mean}, std={self.std}"


class _Layers:
    """Calls a network and returns what some of its layers gave; a class, to be pickled."""

    def __init__(self, layers: tuple[str, ...]) -> None:
        self.layers = layers

    def __call__(self, network: nn.Module, images: Tensor) -> Any:
        if not self.layers:
            return network(images)
        found: dict[str, Any] = {}

        def keep(name: str) -> Any:
            def hook(module: nn.Module, inputs: Any, output: Any) -> None:
                found[name] = output

            return hook

        handles = [
            network.get_submodule(name).register_forward_hook(keep(name)) for name in self.layers
        ]
        try:
            network(images)
        finally:
            for handle in handles:
                handle.remove()
        missing = [name for name in self.layers if name not in found]
        if missing:
            raise RuntimeError(
                f"the layers {missing} were not called by {type(network).__name__}; choose layers "
                f"that its forward pass goes through"
            )
        return tuple(found[name] for name in self.layers)


def _numbers(name: str, value: Any) -> tuple[float, ...]:
    if value is None:
        return ()
    many = value.tolist() if hasattr(value, "tolist") else value
    return tuple(
        finite(name, one) for one in (many if isinstance(many, (list, tuple)) else [many])
    )
