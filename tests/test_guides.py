"""The Python examples of the guides run, with small things in the place of the reader's own."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
import readme
import torch
from sources import ROOT
from torch import nn

import geco_core
import geco_models


def batch():
    """What every guide of geco-core speaks of: a batch, what a model made of it, an objective."""
    names = readme.training() | {name: getattr(geco_core, name) for name in geco_core.__all__}
    names |= {"torch": torch, "Bernoulli": torch.distributions.Bernoulli, "step": 50}
    output = names["model"](names["x"])
    names |= {"kl": output.kl, "reconstruction": output.reconstruction}
    names["objective"] = geco_core.GECO(geco_core.ReconstructionError(0.1))
    names["objective"](output.kl, names["x"], output.reconstruction)
    names["objective"].step()
    return names


def constraints():
    shape = (16, 3, 8, 8)
    x = torch.rand(shape).round()  # images of 0 and 1: all likelihoods allow them
    logits = torch.zeros(shape, requires_grad=True)
    network = nn.Sequential()
    network.add_module("layer2", nn.Conv2d(3, 4, 3))
    network.add_module("layer3", nn.Conv2d(4, 4, 3))
    return batch() | {
        "x": x,
        "reconstruction": logits.sigmoid(),
        "logits": logits,
        "mean": logits.sigmoid(),
        "scale": torch.full(shape, 0.1),
        "squared_errors": (x - logits.sigmoid()).square().flatten(1).sum(1),
        "labels": torch.arange(16) % 10,
        "classifier": nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 10)),
        "network": network,
        "held_out_kl": 3.0,
        "mse": 0.01,
        "kappa": 0.1,
    }


def models():
    names = {name: getattr(geco_models, name) for name in geco_models.__all__}
    return names | {"torch": torch, "x": torch.rand(2, 3, 32, 32)}


def classifiers():
    return models() | {"images": torch.rand(256, 1, 28, 28), "labels": torch.arange(256) % 10}


def kappa():
    x = torch.rand(100, 6)
    return {
        "x": x,
        "repeated_measurements": x[0] + 0.01 * torch.randn(20, 6),
        "X": np.random.default_rng(0).normal(size=(60, 3)),
    }


def one_run():
    return batch() | models() | {"batches": [torch.rand(16, 1, 28, 28) for _ in range(4)]}


def moments():
    return batch() | {"mean": torch.zeros(16, 8), "log_variance": torch.zeros(16, 8)}


def loggers():
    writer = SimpleNamespace(add_scalar=lambda name, value, step: float(value))
    log = SimpleNamespace(log=lambda values, step: list(map(float, values.values())))
    mlflow = SimpleNamespace(log_metrics=lambda values, step: list(map(float, values.values())))
    return batch() | {"writer": writer, "wandb": log, "mlflow": mlflow}


def runs():
    """Four finished runs of ten steps in the folder `runs`."""
    import geco_experiments as ge

    for tolerance in (0.1, 0.2):
        for seed in (0, 1):
            config = ge.RunConfig(
                dataset=ge.DatasetConfig(train_limit=200, test_limit=50),
                objective=ge.ObjectiveConfig(kappa=tolerance),
                training=ge.TrainingConfig(steps=10, batch_size=50, marginal_samples=0),
                seed=seed,
            )
            ge.run(config, "runs")
    return {}


#: what stands in for the reader's own, by page
GUIDES = {
    "docs/index.md": batch,
    "docs/frameworks.md": batch,
    "docs/choosing-kappa.md": kappa,
    "docs/faq.md": moments,
    "docs/one-run.md": one_run,
    "docs/constraints.md": constraints,
    "docs/logging.md": loggers,
    "docs/models.md": models,
    "docs/conv-draw.md": classifiers,
    "docs/results-xarray.md": runs,
    "docs/theory/geometry.md": dict,
}
#: these name runs that take hours, or data of the reader's own
NOT_RUN = {
    "packages/geco-experiments/docs/extending.md",
    "packages/geco-experiments/docs/runs.md",
}
#: pages of results, which explain no name
MEASURED = {"frontier", "linear-gaussian", "results"}


def test_every_guide_is_tried():
    pages = [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("packages/*/docs/*.md")]
    found = {
        str(page.relative_to(ROOT))
        for page in pages
        if "_build" not in page.parts and readme.blocks(page)
    }
    assert found == set(GUIDES) | NOT_RUN


@pytest.mark.parametrize("page", GUIDES)
def test_the_examples_of_a_guide_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.environ.setdefault("MPLBACKEND", "Agg")
    names = GUIDES[page]()
    found = readme.blocks(ROOT / page)
    assert found
    for number, block in enumerate(found, 1):
        exec(compile(block, f"{page}, example {number}", "exec"), names)


@pytest.mark.parametrize(
    "page",
    [
        page
        for page in sorted(
            [*(ROOT / "docs").glob("*.md"), *(ROOT / "docs/experiments").glob("*.md")]
        )
        if page.stem not in {"index", "changes", "citing", "contributing", "symbols"}
        and page.stem not in MEASURED
    ],
    ids=lambda page: page.stem,
)
def test_a_guide_leads_to_the_reference(page):
    assert "reference/geco_" in page.read_text("utf-8")
