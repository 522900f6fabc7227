"""The Olivetti faces: 40 people, ten pictures each, 64 x 64 grey pixels."""

import hashlib
import io
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from scipy.io import loadmat

from geco_experiments.datasets.base import Dataset, Split
from geco_experiments.datasets.files import read_bytes
from geco_experiments.datasets.home import DataHome
from geco_experiments.datasets.sources import OLIVETTI_FILES
from geco_experiments.datasets.spec import DatasetSpec
from geco_experiments.runtime.errors import DataError

__all__ = ["OLIVETTI", "load", "locate", "wanted"]

FOLDERS = ("scikit_learn_data", "olivetti", "olivetti_faces", ".")
# a .pkz is a pickle: only files whose content is known are opened
KNOWN_PKZ = {"47398b319d88c78459514b30b87c562313aad345b5c6a387b678d7f8177be4ba"}


def wanted() -> list[tuple[str, ...]]:
    """The places where the one file may be, in either format."""
    names = ("olivettifaces.mat", "olivetti_py3.pkz")
    return [tuple(f"{folder}/{name}" for folder in FOLDERS for name in names)]


def locate(home: DataHome) -> list[Path]:
    """The one file.

    Raises:
        MissingDataError: if it is not there.
    """
    return home.require("olivetti", wanted(), "get it with `geco data fetch olivetti`")


def load(home: DataHome) -> Dataset:
    """Read 360 training pictures and, of each person, the last one held out.

    Raises:
        DataError: if the file is missing, damaged or a pickle of unknown content.
    """
    (path,) = locate(home)
    faces = _mat(path) if path.suffix == ".mat" else _pkz(path)
    images = torch.from_numpy(faces.reshape(400, 64, 64).transpose(0, 2, 1).copy())[:, None]
    labels = torch.arange(400) // 10
    held_out = torch.arange(400) % 10 == 9
    return Dataset(
        name="olivetti",
        train=Split(images[~held_out], labels[~held_out]),
        test=Split(images[held_out], labels[held_out]),
        classes=40,
        preprocessing="the last of each person's ten pictures held out",
    )


def _mat(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    content: Any = io.BytesIO(read_bytes(path))
    try:
        faces = np.asarray(loadmat(content)["faces"])
    except Exception as error:
        raise DataError(f"{path} cannot be read ({error}): replace or remove it") from error
    if faces.shape != (4096, 400) or faces.dtype != np.uint8:
        raise DataError(f"{path} holds {faces.dtype} {faces.shape}, not the faces: replace it")
    return faces.T


def _pkz(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    content = read_bytes(path)
    if hashlib.sha256(content).hexdigest() not in KNOWN_PKZ:
        raise DataError(
            f"{path} is a pickle of unknown content, which could run code, so it is not opened: "
            "remove it and get the original with `geco data fetch olivetti`"
        )
    # the very bytes that were compared: the file may have been replaced since
    faces: np.ndarray[tuple[int, ...], np.dtype[np.uint8]] = joblib.load(io.BytesIO(content))
    return faces


OLIVETTI = DatasetSpec(
    load=lambda config, home: load(home), locate=locate, downloads=OLIVETTI_FILES
)
