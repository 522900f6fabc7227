"""From a dataset's configuration to its data, by name or from somebody's own files."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from geco_experiments import registry
from geco_experiments.config import DatasetConfig, ModelConfig, RunConfig
from geco_experiments.datasets.arrays import from_arrays, read_arrays
from geco_experiments.datasets.base import Dataset
from geco_experiments.datasets.home import DataHome
from geco_experiments.datasets.pictures import read_pictures
from geco_experiments.datasets.spec import DatasetSpec
from geco_experiments.runtime.errors import DataError, MissingDataError

LEAST_SIDE = 8  # pixels: the smallest image of the convolutional models
__all__ = [
    "choose_model",
    "has_context",
    "identify",
    "load",
    "locate",
    "needs",
    "require",
    "spec_of",
]


def spec_of(name: str) -> DatasetSpec:
    """What stands behind a dataset's name.

    Raises:
        ValueError: if there is no such dataset, or what another package offers is none.
    """
    spec = registry.load("datasets", name)
    if not isinstance(spec, DatasetSpec):
        raise ValueError(f"the dataset {name!r} must be a DatasetSpec; it is {spec!r}")
    return spec


def load(config: DatasetConfig, home: DataHome) -> Dataset:
    """Read a dataset into memory.

    Raises:
        DataError: if its files are missing (the message names them, the folders searched and
            what to do), damaged, or no longer hold what they held when the run was started. No
            other dataset is ever taken instead.
    """
    whole = _read(config, home)
    data = whole.limited(config.train_limit, config.test_limit)
    if config.fingerprint is not None and whole.fingerprint() != config.fingerprint:
        raise DataError(
            f"{config.path or config.name} no longer holds the data of this run: put the old "
            "data back, or start a new run on the new ones by their name"
        )
    return data


def _read(config: DatasetConfig, home: DataHome) -> Dataset:
    if not config.looks_like_path:
        try:
            spec = spec_of(config.name)
        except ValueError as error:
            raise DataError(str(error)) from error
        return spec.load(config, home)
    path = _place(config)
    if not path.exists():
        raise MissingDataError(f"there is no file or folder {path}: give the path of your data")
    arrays = read_pictures(path, home) if path.is_dir() else read_arrays(path)
    return from_arrays(arrays, config, str(path), config.label)


def _place(config: DatasetConfig) -> Path:
    text = config.path or config.name
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise DataError(f"the path {text!r} names a user who does not exist") from error


def locate(name: str, home: DataHome) -> list[Path]:
    """The files of a dataset with a name, without reading them; none for digits.

    Raises:
        MissingDataError: if some are not there; the message names them, the folders searched and
            what to do.
    """
    return spec_of(name).locate(home)


def needs(name: str) -> str:
    """What a dataset with a name needs, in one line for `geco data check`."""
    spec = spec_of(name)
    return spec.needs or ", ".join(source.path for source in spec.downloads)


def require(configs: Iterable[DatasetConfig], home: DataHome) -> None:
    """Make sure that the files of all datasets are there before any work starts.

    Raises:
        MissingDataError: one message with a line for each dataset that is missing.
    """
    lines: list[str] = []
    for config in {(c.path, c.name): c for c in configs}.values():
        try:
            if not config.looks_like_path:
                locate(config.name, home)
            elif not _place(config).exists():
                lines.append(f"there is no file or folder {config.path or config.name}")
        except MissingDataError as error:
            lines.append(str(error))
    if lines:
        raise MissingDataError("\n".join(lines))


def has_context(config: DatasetConfig, home: DataHome) -> bool:
    """Whether models are given a context beside the data."""
    if config.looks_like_path or not registry.is_built_in("datasets", config.name):
        return load(config, home).context_shape is not None
    return spec_of(config.name).has_context(config)


def identify(config: RunConfig, home: DataHome) -> RunConfig:
    """The configuration with its data named by their content, and its model chosen.

    Datasets of this package are known by their names. Those of somebody else, and files that bear
    a known name but hold something else, are read and get a fingerprint, so that a run can never
    go on with other data, nor be taken for a run on other data.

    Raises:
        DataError: if own data are missing or cannot be used.
    """
    dataset = config.dataset
    if dataset.fingerprint is not None or _is_known(dataset, home):
        return config
    data = _read(dataset, home)
    path = dataset.path
    if dataset.looks_like_path:
        path = str(_place(dataset).absolute())
    name = dataset.label  # a path's last part, or the known name
    dataset = dataclasses.replace(dataset, name=name, path=path, fingerprint=data.fingerprint())
    model = choose_model(config.model, data)
    return dataclasses.replace(config, dataset=dataset, model=model)


def choose_model(config: ModelConfig, data: Dataset) -> ModelConfig:
    """The model family where it was left open: conv-vae for images, mlp-vae for other data.

    The default of a configuration, conv-vae, gives way too where there is nothing to convolve:
    vectors, and images of less than 8 pixels. A dense model knows no context; data with one get
    nvp-vae.
    """
    sides = data.shape[1:]
    convolves = len(sides) > 0 and min(sides) >= LEAST_SIDE
    if config.name not in ("auto", "conv-vae") or (config.name == "conv-vae" and convolves):
        return config
    if convolves and len(sides) == 2:
        return dataclasses.replace(config, name="conv-vae")
    name = "mlp-vae" if data.context_shape is None else "nvp-vae"
    return dataclasses.replace(config, name=name)


def _is_known(dataset: DatasetConfig, home: DataHome) -> bool:
    if not dataset.is_built_in:
        return False
    try:
        return spec_of(dataset.name).is_original(home)
    except MissingDataError:  # said when the files are needed; a finished run needs none
        return True
