r"""What a finished run's reconstructions keep, by all four constraints of the paper at once.

Each is measured on the whole training and held-out sets, with the latents that the run's own final
evaluation drew, whichever constraint the run was trained under:

- `rms_error`: root mean squared error per element, the :math:`\kappa` of RE;
- `feature_error`: root mean squared error of the local means and standard deviations, that of FRE;
- `class_probability`: what a frozen classifier gives the right class, that of CLA;
- `class_accuracy`: the share of reconstructions whose most probable class is the right one;
- `patch_correlation`: mean correlation of normalised patches, that of PNCC.
"""

import contextlib
import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

import geco_core
import geco_models
from geco_experiments import datasets
from geco_experiments.builders.classifiers import frozen_classifier
from geco_experiments.config import RunConfig
from geco_experiments.datasets import Dataset, SplitName
from geco_experiments.datasets.home import DataHome
from geco_experiments.evaluation.metrics import Evaluation, evaluate
from geco_experiments.results.store import write_dataset
from geco_experiments.runtime.distributed import Ranks

__all__ = ["MEASURES", "measure_run"]

MEASURES: dict[str, tuple[str, str]] = {
    "rms_error": ("1", "root mean squared error per element, pixels in [0, 1]"),
    "feature_error": ("1", "root mean squared error of local means and standard deviations"),
    "class_probability": ("1", "mean probability that a frozen classifier gives the right class"),
    "class_accuracy": ("1", "share of reconstructions that it puts in the right class"),
    "patch_correlation": ("1", "mean correlation of patches of zero mean and unit norm"),
}
SPLITS: tuple[SplitName, SplitName] = ("train", "test")
# where the constraints are evaluated; the measures do not depend on it
LEVEL = 0.5


def measure_run(config: RunConfig, path: Path, folder: Path, home: DataHome) -> xr.Dataset:
    """All measures of one run, over `split`.

    Args:
        config: the run.
        path: its `run.nc`, with `model.pt` beside it, in the folder of runs.
        folder: where the result is kept under the run's name; a second call reads it from there.
        home: where the dataset's files lie.

    Returns:
        The variables of `MEASURES` over `split` with units and long names; `original_probability`
        and `original_accuracy`, what the classifier reaches on the images themselves; and
        `label_entropy` in nats, the entropy of the labels of each split.

    Raises:
        RunError: the dataset has no labels for the classifier, or a file cannot be written.
    """
    kept = folder / f"{config.name}.nc"
    if kept.exists():
        return xr.load_dataset(kept, engine="h5netcdf")
    data = datasets.load(config.dataset, home)
    judge = _judge(config, data, path.parent.parent)
    model: Any = geco_models.load(path.with_name("model.pt"))
    model.eval()
    parts = {split: _evaluate(config, model, judge, data, split) for split in SPLITS}
    columns = {name: [parts[split][name] for split in SPLITS] for name in MEASURES}
    result = xr.Dataset(
        {
            name: ("split", values, dict(zip(("units", "long_name"), MEASURES[name], strict=True)))
            for name, values in columns.items()
        },
        coords={"split": list(SPLITS)},
    )
    originals = [_originals(judge, data, split) for split in SPLITS]
    for index, name in enumerate(("original_probability", "original_accuracy")):
        about = {"units": "1", "long_name": f"{MEASURES[f'class_{name[9:]}'][1]}: the originals"}
        result[name] = ("split", [found[index] for found in originals], about)
    entropy = {"units": "nat", "long_name": "entropy of the labels"}
    result["label_entropy"] = ("split", [_entropy(data, split) for split in SPLITS], entropy)
    folder.mkdir(parents=True, exist_ok=True)
    write_dataset(result, kept)
    return result


def _judge(config: RunConfig, data: Dataset, runs: Path) -> Any:
    """The very classifier that runs under CLA on the same data look through."""
    objective = dataclasses.replace(config.objective, name="geco", constraint="cla", kappa=LEVEL)
    asking = dataclasses.replace(config, objective=objective)
    judge = frozen_classifier(asking, data, runs, Ranks(), torch.device("cpu"))
    if judge is None:
        raise RuntimeError("a run under cla must have a classifier")
    return judge.model


def _evaluate(
    config: RunConfig, model: Any, judge: Any, data: Dataset, split: SplitName
) -> dict[str, float]:
    def right(x: Tensor, reconstruction: Tensor, *, labels: Tensor) -> Tensor:
        guess: Tensor = judge(reconstruction).argmax(1)
        return (guess == labels).double()

    patch = config.objective.patch_size
    constraints: dict[str, Any] = {
        "fre": geco_core.FeatureReconstructionError(LEVEL, geco_core.LocalMoments(patch)),
        "cla": geco_core.ClassificationAccuracy(LEVEL, judge),
        "pncc": geco_core.PatchCrossCorrelation(LEVEL, patch),
        "right": right,
    }
    training = dataclasses.replace(config.training, marginal_samples=0)
    found: Evaluation = evaluate(
        model, constraints, data, split,
        dataclasses.replace(config, training=training), Ranks(), contextlib.nullcontext,
    )  # fmt: skip
    fre, cla, pncc, accuracy = found.violations
    return {
        "rms_error": found.rms_error,
        "feature_error": math.sqrt(max(fre + LEVEL**2, 0.0)),
        "class_probability": LEVEL - cla,
        "class_accuracy": accuracy,
        "patch_correlation": LEVEL - pncc,
    }


@torch.no_grad()
def _originals(judge: Any, data: Dataset, split: SplitName) -> tuple[float, float]:
    """The classifier's mean probability of the right class and its accuracy on the images."""
    probability = accuracy = 0.0
    rows = torch.arange(len(data.split(split)))
    for part in torch.split(rows, 500):
        batch = data.batch(split, part)
        labels = _labels(data, split)[part]
        logits = judge(batch.images)
        chances = logits.softmax(1).gather(1, labels[:, None])
        probability += float(chances.double().sum())
        accuracy += float((logits.argmax(1) == labels).double().sum())
    return probability / len(rows), accuracy / len(rows)


def _entropy(data: Dataset, split: SplitName) -> float:
    counts = np.bincount(_labels(data, split).cpu().numpy()).astype(float)
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def _labels(data: Dataset, split: SplitName) -> Tensor:
    labels = data.split(split).labels
    if labels is None:
        raise RuntimeError(f"{data.name} has no labels, yet a classifier was trained on it")
    return labels
