"""Frozen copies of a user's networks, shared between constraints, and what comes out of them."""

import copy
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from geco_core.held import Held

__all__ = [
    "Frozen",
    "FrozenMetric",
    "check_differentiable",
    "frozen",
    "is_metric",
    "outputs_of",
]

# by the module that was copied: the copies that are in use
_COPIES: "weakref.WeakKeyDictionary[nn.Module, weakref.WeakSet[nn.Module]]" = (
    weakref.WeakKeyDictionary()
)


class Frozen(nn.Module):
    """Calls a frozen copy of a network: evaluation mode always, no gradient for its parameters.

    The copy is no submodule: its parameters are not among those of whoever holds it, nor is it
    in their state. It follows them to another device or dtype. Constraints that were given the
    same network share one copy.

    Args:
        network: The copy, as :func:`frozen` makes it.
        call: Calls it with images; by default, the network itself.
        in_state: Whether its weights belong to the state.
    """

    def __init__(
        self,
        network: nn.Module,
        call: Callable[[nn.Module, Tensor], Any] | None = None,
        *,
        in_state: bool = False,
    ) -> None:
        super().__init__()
        self.in_state = in_state
        self._call = call
        self._hold(network)

    @property
    def network(self) -> nn.Module:
        """The frozen copy."""
        return self._held[0]

    def forward(self, images: Tensor) -> Any:
        """Calls the network with images in the dtype of its parameters."""
        network = self.network
        for parameter in network.parameters():
            if parameter.is_floating_point():
                images = images.to(parameter.dtype)
                break
        return network(images) if self._call is None else self._call(network, images)

    def size(self) -> float:
        """The sum of the magnitudes of all that the network holds; NaN if that cannot be read."""
        tensors = [*self.network.parameters(), *self.network.buffers()]
        if any(type(t) not in (Tensor, nn.Parameter) or t.is_meta for t in tensors):
            return float("nan")
        total = sum(t.detach().double().abs().sum().item() for t in tensors)
        return float(min(total, 1e30))

    def _hold(self, network: nn.Module) -> None:
        # a tuple, because a module that is an attribute becomes a submodule
        self._held = (network,)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        network = self.network
        first = next((p for p in (*network.parameters(), *network.buffers())), None)
        if first is not None:
            probe = fn(torch.empty(1, dtype=first.dtype, device=first.device))
            if first.is_meta and not probe.is_meta:
                raise RuntimeError(
                    f"the frozen {type(network).__name__} was built on the meta device and has no "
                    f"values; build the constraint from a network that has its weights"
                )
            if (probe.dtype, probe.device) != (first.dtype, first.device):
                # others may hold the same copy: it stays where it is
                self._hold(_moved(network, fn))
        return self

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        if self.in_state:
            for key, value in self.network.state_dict(keep_vars=keep_vars).items():
                destination[prefix + key] = value

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        """Takes over a network that was saved, as states of the first version always were."""
        *_, errors = args
        saved = {key[len(prefix) :]: v for key, v in state_dict.items() if key.startswith(prefix)}
        if not saved:
            return
        if all(key.startswith("module.") for key in saved):  # of a method, in the first version
            saved = {key.removeprefix("module."): value for key, value in saved.items()}
        duplicate = copy.deepcopy(self.network)
        try:
            duplicate.load_state_dict(saved)
        except RuntimeError as error:
            errors.append(f"the saved network does not fit: {error}")
            return
        if not _equal(duplicate, self.network):
            self._hold(duplicate)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Frozen":
        """Copies share the network, which nothing changes."""
        return Frozen(self.network, self._call, in_state=self.in_state)


def frozen(function: Any, name: str, *, in_state: bool = False) -> Callable[..., Any]:
    """A frozen copy of a module: evaluation mode, no parameter that needs a gradient.

    The module itself stays as it is, and what happens to it later has no effect on the copy. A
    method of a module becomes that method of a frozen copy. Any other callable
    is called as it is.

    Args:
        function: A module, a method of one, or any other callable.
        name: The parameter's name, for the errors.
        in_state: Whether the weights of a module belong to the state of whoever holds it.

    Raises:
        TypeError: If `function` is not callable, or a class instead of an instance.
        RuntimeError: If the module cannot be copied.
    """
    if not callable(function) or isinstance(function, type):
        raise TypeError(
            f"`{name}` must be a torch.nn.Module or another callable (images) -> tensors, got "
            f"{function!r}"
        )
    if isinstance(function, nn.Module) and any(isinstance(m, Frozen) for m in function.modules()):
        return function  # frozen already
    owner = getattr(function, "__self__", None)
    if isinstance(owner, nn.Module):
        method = _Method(function.__name__)
        return Frozen(frozen_copy(owner, name), method, in_state=in_state)
    if not isinstance(function, nn.Module):
        return Held(function, f"the function `{name}`: define it at the top of a module")
    return Frozen(frozen_copy(function, name), in_state=in_state)


def frozen_copy(module: nn.Module, name: str) -> nn.Module:
    """The frozen copy of a module; one that is in use already, if the module has not changed.

    Raises:
        RuntimeError: If the module cannot be copied, or has parameters without a size yet.
    """
    for key, value in (*module.named_parameters(), *module.named_buffers()):
        if is_lazy(value):
            raise RuntimeError(
                f"`{name}` is kept as a frozen copy, but {key} of this {type(module).__name__} "
                f"has no size yet; call it once with a batch before you hand it over"
            )
    copies = _COPIES.setdefault(module, weakref.WeakSet())
    for known in copies:
        if _equal(module, known):
            return known
    # what a forward pass has left on the module, as weight_norm does, has a graph behind it
    left = {
        id(value): value.detach().clone()
        for part in module.modules()
        for value in vars(part).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    try:
        duplicate = copy.deepcopy(module, left)
    except Exception as error:
        raise RuntimeError(
            f"`{name}` is kept as a frozen copy, but this {type(module).__name__} cannot be "
            f"copied; freeze it yourself and pass a function that calls it"
        ) from error
    duplicate = duplicate.eval().requires_grad_(False)
    copies.add(duplicate)
    return duplicate


class FrozenMetric(Frozen):
    """Calls a network that compares two things, as it stands: no copy, evaluation mode."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network.eval())

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the network."""
        return self.network(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> "FrozenMetric":
        """Copies share the network, which nothing changes."""
        return FrozenMetric(self.network)


def is_metric(function: Any) -> bool:
    """Whether it is a module with parameters of which none is to be trained."""
    if not isinstance(function, nn.Module):
        return False
    parameters = list(function.parameters())
    trained = function.training and any(p.requires_grad for p in parameters)
    return bool(parameters) and not trained


class _Method:
    """Calls a method of a module; a class, so that it can be pickled."""

    def __init__(self, method: str) -> None:
        self.method = method

    def __call__(self, network: nn.Module, images: Tensor) -> Any:
        return getattr(network, self.method)(images)


def _moved(network: nn.Module, fn: Callable[[Tensor], Tensor]) -> nn.Module:
    """A copy elsewhere, or in another dtype; the same for all who hold the network."""
    copies = _COPIES.setdefault(network, weakref.WeakSet())
    duplicate = copy.deepcopy(network)._apply(fn)  # type: ignore[no-untyped-call]
    for known in copies:
        if _equal(duplicate, known):
            return known
    copies.add(duplicate)
    return duplicate  # type: ignore[no-any-return]


def _equal(one: nn.Module, other: nn.Module) -> bool:
    """Whether two modules hold the same values; False where that cannot be read."""
    ours = [*one.named_parameters(), *one.named_buffers()]
    theirs = [*other.named_parameters(), *other.named_buffers()]
    if not ours or len(ours) != len(theirs):
        return False
    for ours_, theirs_ in zip(one.modules(), other.modules(), strict=True):
        if _settings(ours_) != _settings(theirs_):
            return False
    for (name, a), (key, b) in zip(ours, theirs, strict=True):
        readable = all(type(t) in (Tensor, nn.Parameter) and not t.is_meta for t in (a, b))
        same = name == key and a.dtype == b.dtype and a.device == b.device and a.shape == b.shape
        if not (readable and same and torch.equal(a, b)):
            return False
    return True


def _settings(module: nn.Module) -> dict[str, Any]:
    """The plain values among the attributes of a module, which may change what it computes."""
    plain = (bool, int, float, str, tuple)
    found = {key: value for key, value in vars(module).items() if isinstance(value, plain)}
    return {key: value for key, value in found.items() if key != "training"}


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
        # outputs of transformers are mappings in which what was not asked for is None
        outputs = tuple(value for value in outputs.values() if value is not None)
    tensors = tuple(_flattened(outputs))
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


def _flattened(outputs: Any) -> Any:
    if isinstance(outputs, (tuple, list)):
        for output in outputs:
            yield from _flattened(output)
    else:
        yield outputs


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
