"""Somebody's own data and model, passed from Python, and the run's name for them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from geco_experiments import datasets
from geco_experiments.builders.models import architecture
from geco_experiments.config import DatasetConfig, RunConfig
from geco_experiments.datasets import Dataset
from geco_experiments.datasets.arrays import from_arrays
from geco_experiments.datasets.home import DataHome
from geco_experiments.runtime.errors import DataError, RunError

__all__ = ["as_dataset", "named"]


def as_dataset(data: Any, config: DatasetConfig) -> Dataset:
    """Data of any usual kind as a dataset; `training.run` lists the kinds.

    Raises:
        DataError: for something else, or arrays that do not fit together.
    """
    if isinstance(data, Dataset):
        return data
    name = "data"
    if isinstance(data, Mapping):
        arrays = {str(key): _array(value) for key, value in data.items()}
    elif isinstance(data, tuple | list) and len(data) == 2 and not np.isscalar(data[0]):
        arrays = {"x_train": _array(data[0]), "x_test": _array(data[1])}
    elif isinstance(data, np.ndarray | Tensor):
        arrays = {"x": _array(data)}
    elif hasattr(data, "__len__") and hasattr(data, "__getitem__"):
        arrays = _items(data)
    elif hasattr(data, "__array__"):
        arrays = {"x": _array(data)}
    else:
        raise DataError(
            f"`data` must be a Dataset, an array, a pair or dictionary of arrays, or a torch "
            f"dataset of known length; got {type(data).__name__}"
        )
    return from_arrays(arrays, config, "`data`", name)


def _array(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu().numpy()
    return np.asanyarray(value)


def _items(data: Any) -> dict[str, Any]:
    """The items of a torch dataset: inputs, or pairs of an input and a label."""
    try:
        items = [data[index] for index in range(len(data))]
        pairs = bool(items) and isinstance(items[0], tuple | list)
        inputs = [item[0] if pairs else item for item in items]
        arrays = {"x": np.stack([_array(item) for item in inputs])}
        if pairs and len(items[0]) > 1 and np.ndim(_array(items[0][1])) == 0:
            arrays["labels"] = np.array([_array(item[1]) for item in items])
    except Exception as error:  # whatever somebody's dataset raises
        raise DataError(
            f"the items of `data` ({type(data).__name__}) cannot be stacked to one array: {error}"
        ) from error
    return arrays


def named(
    config: RunConfig, data: Dataset | None, model: nn.Module | None, home: DataHome
) -> RunConfig:
    """The configuration with what was passed from Python named by its content.

    Raises:
        DataError: if own data that the configuration names are missing or cannot be used.
        RunError: if the model is none.
    """
    if data is not None:
        dataset = dataclasses.replace(
            config.dataset, name=data.name, path=None, fingerprint=data.fingerprint()
        )
        chosen = datasets.choose_model(config.model, data)
        config = dataclasses.replace(config, dataset=dataset, model=chosen)
    else:
        config = datasets.identify(config, home)
    if model is None:
        return config
    if not isinstance(model, nn.Module):
        raise RunError(f"`model` must be a torch.nn.Module; got {type(model).__name__}")
    own = dataclasses.replace(
        config.model, name=type(model).__name__, fingerprint=architecture(model)
    )
    return dataclasses.replace(config, model=own)
