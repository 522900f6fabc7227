"""Frozen copies of a user's networks, and what comes out of them."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["FrozenMethod", "check_differentiable", "frozen", "in_its_dtype", "outputs_of"]


def frozen(function: Any, name: str) -> Callable[..., Any]:
    """A frozen copy of a module: evaluation mode, no parameter that needs a gradient.

    The module itself stays as it is, and what happens to it later has no effect on the copy. A
    method of a module becomes that method of a frozen copy. Any other callable is returned
    unchanged.

    Args:
        function: A module, a method of one, or any other callable.
        name: The parameter's name, for the errors.

    Raises:
        TypeError: If `function` is not callable, or a class instead of an instance.
        RuntimeError: If the module cannot be copied.
    """
    if not callable(function) or isinstance(function, type):
        raise TypeError(
            f"`{name}` must be a torch.nn.Module or another callable (images) -> tensors, got "
            f"{function!r}"
        )
    owner = getattr(function, "__self__", None)
    if isinstance(owner, nn.Module):
        return FrozenMethod(_copied(owner, name), function.__name__)
    return _copied(function, name) if isinstance(function, nn.Module) else function


class FrozenMethod(nn.Module):
    """Calls a method of a module, as a module of its own.

    Args:
        module: The module.
        method: The name of its method.
    """

    def __init__(self, module: nn.Module, method: str) -> None:
        super().__init__()
        self.module = module
        self.method = method

    def forward(self, images: Tensor) -> Any:
        """Calls the method."""
        return getattr(self.module, self.method)(images)


def _copied(module: nn.Module, name: str) -> nn.Module:
    try:
        duplicate = copy.deepcopy(module)
    except Exception as error:
        raise RuntimeError(
            f"`{name}` is kept as a frozen copy, but this {type(module).__name__} cannot be "
            f"copied; freeze it yourself and pass a function that calls it"
        ) from error
    return duplicate.eval().requires_grad_(False)


def in_its_dtype(function: Callable[..., Any], images: Tensor) -> Tensor:
    """Images in the dtype of a module's parameters; unchanged for anything without."""
    if isinstance(function, nn.Module):
        for parameter in function.parameters():
            if parameter.is_floating_point():
                return images.to(parameter.dtype)
    return images


def outputs_of(outputs: Any, batch: int, name: str) -> tuple[Tensor, ...]:
    """The tensors in what a network returned: one, several in a sequence, or a mapping's.

    Args:
        outputs: What the network returned.
        batch: The number of examples.
        name: The parameter's name, for the errors.

    Raises:
        TypeError: If `outputs` is or holds anything but floating-point tensors.
        ValueError: If there is no tensor, or the first axis of one is not the batch.
    """
    if isinstance(outputs, Mapping):
        outputs = tuple(outputs.values())
    tensors = tuple(outputs) if isinstance(outputs, (tuple, list)) else (outputs,)
    if not tensors:
        raise ValueError(f"`{name}` must return at least one tensor, got none")
    for tensor in tensors:
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            given = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise TypeError(
                f"`{name}` must return floating-point tensors, one or several in a tuple, list "
                f"or mapping, got {given}"
            )
        if tensor.ndim < 1 or tensor.shape[0] != batch:
            raise ValueError(
                f"`{name}` must keep the batch of {batch} examples as the first axis, but "
                f"returned shape {tuple(tensor.shape)}"
            )
    return tensors


def check_differentiable(images: Tensor, outputs: tuple[Tensor, ...], name: str) -> None:
    """Checks that gradients can pass from the outputs of a network to its input.

    Raises:
        RuntimeError: If the input needs a gradient and no output does.
    """
    needed = images.requires_grad and torch.is_grad_enabled()
    if needed and not any(output.requires_grad for output in outputs):
        raise RuntimeError(
            f"`{name}` stops the gradient of the reconstruction; it must be differentiable in "
            f"its input, so remove torch.no_grad, detach or argmax from it"
        )
