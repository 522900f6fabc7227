"""The frozen classifiers that the constraints CLA and FRE look through.

A classifier is trained once for a dataset, from seeds of its own, so that runs with different
seeds are judged by the same one. It is kept in the folder of runs, in `classifiers/`.
"""

import hashlib
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from geco_experiments.config import RunConfig
from geco_experiments.datasets import Dataset, SplitName
from geco_experiments.runtime.atomic import remove_leftovers, replacing, writing
from geco_experiments.runtime.distributed import Ranks
from geco_experiments.runtime.errors import RunError
from geco_models import SmallCNN, SmallResNet, accuracy, train_classifier

__all__ = ["FEATURE_LAYERS", "FOLDER", "Judge", "frozen_classifier", "needs_classifier"]

FOLDER = "classifiers"
FEATURE_LAYERS = {"SmallCNN": "conv2", "SmallResNet": "stage2"}
BATCH = 128
SEED = 1810


class Judge(NamedTuple):
    """A trained classifier and the share of held-out images that it gets right."""

    model: Any
    accuracy: float


def needs_classifier(config: RunConfig) -> bool:
    """Whether the run's constraint looks through a classifier."""
    objective = config.objective
    if objective.name != "geco":
        return False
    return objective.constraint == "cla" or (
        objective.constraint == "fre" and objective.features == "classifier"
    )


def frozen_classifier(
    config: RunConfig, data: Dataset, out: Path, ranks: Ranks, device: torch.device
) -> Judge | None:
    """The classifier for a run: read if it is there, else trained and kept.

    Args:
        config: The run.
        data: Its dataset.
        out: The folder of runs.
        ranks: The processes of the run; the first one trains.
        device: Where to compute.

    Returns:
        The classifier on `device`; None if the run needs none.

    Raises:
        RunError: if the dataset has no labels, or the kept file is damaged or cannot be written.
    """
    if not needs_classifier(config):
        return None
    if data.classes is None:
        raise RunError(
            f"the constraint {config.objective.constraint} needs a classifier, but {data.name} "
            "has no labels: choose re, pncc or fre with features moments"
        )
    path = out / FOLDER / f"{data.name}-{_digest(config, data)}.pt"
    model = ranks.from_main_first(lambda: _load(path, data) or _train(config, data, path, device))
    model = model.to(device)
    return Judge(model, accuracy(model, *_pairs(data, "test")))


def _digest(config: RunConfig, data: Dataset) -> str:
    key = [asdict(config.dataset), config.objective.classifier_steps, data.fingerprint()]
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:8]


def _class(data: Dataset) -> Any:
    return SmallCNN if data.shape[0] == 1 else SmallResNet


def _load(path: Path, data: Dataset) -> Any:
    if not path.exists():
        return None
    try:
        return _class(data).load(path)
    except ValueError as error:
        raise RunError(f"{error}: move {path} away to train it again") from error


def _train(config: RunConfig, data: Dataset, path: Path, device: torch.device) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = _class(data)(data.shape, data.classes)
    images, labels = _pairs(data, "train")
    train_classifier(
        model.to(device),
        images,
        labels,
        epochs=math.ceil(config.objective.classifier_steps * BATCH / len(images)),
        batch_size=BATCH,
        generator=torch.Generator().manual_seed(SEED),
    )
    with writing("the classifier", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        with replacing(path) as part:
            model.save(part)
    return model


def _pairs(data: Dataset, split: SplitName) -> tuple[Tensor, Tensor]:
    batch = data.batch(split, torch.arange(len(data.split(split))))
    if batch.labels is None:
        raise RunError(f"{data.name} has no labels for a classifier")
    return batch.images, batch.labels
