"""Models in files: class name, configuration and weights, read back without running code."""

import copy
import math
import os
import pickle
import re
import uuid
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import nn

__all__ = ["ConfiguredModule", "load", "read", "save"]

FORMAT = "geco-models"
VERSION = 1

_WRAPPERS = re.compile(r"_orig_mod\.|_fsdp_wrapped_module\.|_checkpoint_wrapped_module\.")


class ConfiguredModule(nn.Module):
    """A module that its configuration and its weights describe wholly, and that files can hold.

    Args:
        config: The constructor arguments from which `type(self)(**config)` builds the same
            module; lists, numbers, strings, booleans and None only (tuples become lists).
    """

    _classes: ClassVar[dict[str, type["ConfiguredModule"]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__module__.partition(".")[0] == __name__.partition(".")[0]:
            ConfiguredModule._classes[cls.__name__] = cls

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self._config = {key: _plain(value) for key, value in config.items()}

    @property
    def config(self) -> dict[str, Any]:
        """The constructor arguments, ready for JSON: `type(model)(**model.config)`."""
        return copy.deepcopy(self._config)

    def reference(self) -> torch.Tensor:
        """A parameter, whose device and type new tensors take."""
        return next(self.parameters())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes class name, configuration and weights to one file, whole or not at all.

        Args:
            path: The file; an existing one is replaced.
        """
        save(self, path)

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
            ValueError: If the file is not a checkpoint of this class, or the device is not here.
        """
        # the class itself is known here, so that subclasses from outside this package load too
        model = _build(path, map_location, {**ConfiguredModule._classes, cls.__name__: cls})
        if not isinstance(model, cls):
            held = type(model).__name__
            msg = (
                f"{path} holds a {held}, not a {cls.__name__}: use {held}.load or geco_models.load"
            )
            raise ValueError(msg)
        return model

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Like `torch.nn.Module.load_state_dict`, but a wrong configuration is one clear sentence.

        Names that `torch.compile`, `DistributedDataParallel`, `FullyShardedDataParallel`,
        activation checkpointing or `AveragedModel` put a prefix before are understood.

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
        state_dict = _unwrapped(state_dict, own)
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
        parameters = sum(math.prod(p.shape) for p in self.parameters())
        return ", ".join([*items, f"parameters={parameters:,}"])


def save(model: ConfiguredModule, path: str | os.PathLike[str]) -> None:
    """Writes class name, configuration and weights to one file, whole or not at all.

    Args:
        model: The model.
        path: The file; an existing one is replaced only once the new one is complete.
    """
    path = Path(path)
    content = {
        "format": FORMAT,
        "version": VERSION,
        "model": type(model).__name__,
        "config": model.config,
        "state": dict(model.state_dict()),
    }
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with part.open("xb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def load(path: str | os.PathLike[str], map_location: str | torch.device = "cpu") -> Any:
    """Builds the model or classifier that a file written by `save` holds, whatever its class.

    Args:
        path: The file.
        map_location: The device to load to.

    Returns:
        The model, with the saved weights in their saved types.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not a checkpoint of this package, its configuration and its
            weights do not belong together, or the device is not here.
    """
    return _build(path, map_location, ConfiguredModule._classes)


def read(path: str | os.PathLike[str], map_location: str | torch.device) -> dict[str, Any]:
    """The content of a file written by `save`: `model`, `config` and `state`.

    Args:
        path: The file.
        map_location: The device to load to.

    Returns:
        Class name, configuration and weights.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not a checkpoint of this package, or the device is not here.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint file {path}")
    device = _present(map_location)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about foreign files, which end in the error below
            content = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, ValueError) as error:
        msg = f"{path} is not a model checkpoint, or it is damaged: {error}".splitlines()[0]
        raise ValueError(msg) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path} is not a checkpoint written by a model's `save`")
    if content.get("version") != VERSION:
        msg = f"{path} has format version {content.get('version')}, this release reads {VERSION}"
        raise ValueError(msg)
    return content


def _build(
    path: str | os.PathLike[str],
    map_location: str | torch.device,
    classes: Mapping[str, type[ConfiguredModule]],
) -> ConfiguredModule:
    content = read(path, map_location)
    name, config, state = content["model"], content["config"], content["state"]
    if name not in classes:
        known = ", ".join(sorted(key for key in classes if not key.startswith("Abstract")))
        raise ValueError(f"{path} holds a {name!r}, which is none of the models here: {known}")
    try:
        # on the meta device nothing is drawn or allocated; the saved tensors then take the places
        with torch.device("meta"):
            model = classes[name](**config)
        model.load_state_dict(state, assign=True)
    except (TypeError, ValueError) as error:
        msg = f"{path}: the configuration and the weights of this {name} do not fit: {error}"
        raise ValueError(msg) from error
    return model


def _present(map_location: str | torch.device) -> torch.device:
    """The device to load to, once it is known to be here."""
    try:
        device = torch.device(map_location)
    except (RuntimeError, TypeError) as error:
        msg = f"`map_location` must be a device such as 'cpu' or 'cuda:0', got {map_location!r}"
        raise ValueError(msg) from error
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        msg = (
            f"`map_location` is {str(device)!r}, which this machine (or this build of torch) does "
            "not have; the file itself was not read: use 'cpu' or a device that is here"
        )
        raise ValueError(msg) from error
    return device


def _unwrapped(state: Mapping[str, Any], own: Mapping[str, Any]) -> Mapping[str, Any]:
    """The state with each unknown name replaced by the model's own, wrappers' prefixes aside."""
    if state.keys() <= own.keys():
        return state
    bare = {_bare(key): key for key in own}
    averaged = {"n_averaged"} if any(key.startswith("module.") for key in state) else set()
    return {
        key if key in own else bare.get(_bare(key), key): value
        for key, value in state.items()
        if key not in averaged - own.keys()
    }


def _bare(key: str) -> str:
    """A name without what wrappers of the model or of its parts have put into it."""
    key = _WRAPPERS.sub("", key)
    while key.startswith("module."):
        key = key.removeprefix("module.")
    return key


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def _readable(value: Any) -> str:
    return repr(tuple(value)) if isinstance(value, list) else repr(value)
