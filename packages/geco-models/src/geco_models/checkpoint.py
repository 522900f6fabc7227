"""Models in files: class name, configuration and weights, read back without running code."""

import os
import pickle
import uuid
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch

if TYPE_CHECKING:
    from geco_models.base import AbstractVAE

__all__ = ["Configured", "load", "load_as", "read", "save"]

FORMAT = "geco-models"
VERSION = 1

M = TypeVar("M", bound="AbstractVAE")


class Configured(Protocol):
    """A module that can be built again from its configuration."""

    @property
    def config(self) -> dict[str, Any]:
        """The constructor arguments, ready for JSON."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Parameters and buffers by name."""
        ...


def save(model: Configured, path: str | os.PathLike[str]) -> None:
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


def load(path: str | os.PathLike[str], map_location: str | torch.device = "cpu") -> "AbstractVAE":
    """Builds the model that a file written by `save` holds, whatever its class.

    Args:
        path: The file.
        map_location: The device to load to.

    Returns:
        The model, with the saved weights in their saved types.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not a checkpoint of this package, or its configuration and
            its weights do not belong together.
    """
    return _build(Path(path), map_location, _classes())


def load_as(
    cls: type[M], path: str | os.PathLike[str], map_location: str | torch.device = "cpu"
) -> M:
    """Like `load`, for one class only.

    Args:
        cls: The class that the file must hold.
        path: The file.
        map_location: The device to load to.

    Returns:
        The model.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not a checkpoint of this class.
    """
    # the class itself is known here, so that subclasses from outside this package load too
    model = _build(Path(path), map_location, {**_classes(), cls.__name__: cls})
    if not isinstance(model, cls):
        held = type(model).__name__
        msg = f"{path} holds a {held}, not a {cls.__name__}: use {held}.load or geco_models.load"
        raise ValueError(msg)
    return model


def _build(
    path: Path, map_location: str | torch.device, classes: dict[str, type["AbstractVAE"]]
) -> "AbstractVAE":
    content = read(path, map_location)
    name, config, state = content["model"], content["config"], content["state"]
    if name not in classes:
        known = ", ".join(sorted(classes))
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


def read(path: str | os.PathLike[str], map_location: str | torch.device) -> dict[str, Any]:
    """The content of a file written by `save`: `model`, `config` and `state`.

    Args:
        path: The file.
        map_location: The device to load to.

    Returns:
        Class name, configuration and weights.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not a checkpoint of this package.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint file {path}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about foreign files, which end in the error below
            content = torch.load(path, map_location=map_location, weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, ValueError) as error:
        msg = f"{path} is not a model checkpoint, or it is damaged: {error}".splitlines()[0]
        raise ValueError(msg) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path} is not a checkpoint written by a model's `save`")
    if content.get("version") != VERSION:
        msg = f"{path} has format version {content.get('version')}, this release reads {VERSION}"
        raise ValueError(msg)
    return content


def _classes() -> dict[str, type["AbstractVAE"]]:
    import geco_models
    from geco_models.base import AbstractVAE

    exported = (getattr(geco_models, name) for name in geco_models.__all__)
    return {
        item.__name__: item
        for item in exported
        if isinstance(item, type) and issubclass(item, AbstractVAE)
    }
