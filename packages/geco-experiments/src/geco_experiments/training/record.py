"""A finished run as a dataset of the schema: history, final metrics, pictures, provenance."""

import math
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from geco_experiments.builders.models import forward_of, model_input
from geco_experiments.datasets import SplitName
from geco_experiments.evaluation.metrics import Evaluation, drawing, evaluate, gaussian_nll
from geco_experiments.results import schema
from geco_experiments.results.provenance import provenance
from geco_experiments.runtime.random_streams import stream_seed
from geco_experiments.training.history import FIELDS
from geco_experiments.training.loop import Loop, learning_rate
from geco_models import AbstractVAE

__all__ = ["EXAMPLES", "finished_run"]

EXAMPLES = 16
SPLITS: tuple[SplitName, SplitName] = ("train", "test")


def finished_run(loop: Loop) -> xr.Dataset:
    """Evaluate the model of a finished loop and lay everything out as in `schema`.

    All processes of the run must call it together.
    """
    model = loop.model.eval()
    loop.objective.eval()
    config = loop.config
    kappas = config.objective.tolerances if loop.over_range else (None,)
    evaluated = [_evaluated(loop, model, kappa) for kappa in kappas]
    coordinates: dict[str, Any] = {
        "step": loop.history.steps,
        "split": list(SPLITS),
        "dataset": config.dataset.label,
        "model": config.model.name,
        "objective": config.objective_label,
        "kappa": list(kappas) if loop.over_range else config.kappa,
        "seed": config.seed,
    }
    finals = [_final(parts) for parts in evaluated]
    data = _history(loop) | finals[0] | _pictures(loop)
    draw_values = loop.history.draw_values
    if draw_values is not None:
        data["kl_steps"] = draw_values.cpu().numpy()
        for final, parts in zip(finals, evaluated, strict=True):
            final["final_kl_steps"] = [part.kl_steps for part in parts]
        data |= finals[0]
        coordinates["draw_step"] = np.arange(1, draw_values.shape[1] + 1)
    data["final_beta"] = data["beta"][-1]
    data["final_multiplier"] = data["multiplier"][-1]
    if loop.over_range:
        data |= {
            name: np.array([final[name] for final in finals])
            for name in finals[0]
            if name in schema.ALONG_KAPPA
        }
        data |= _over_range(loop, coordinates)
    data["parameters"] = sum(p.numel() for p in model.parameters())
    data["seconds"] = loop.seconds
    dataset = schema.describe(data, coordinates)
    dataset.attrs = attributes(loop)
    return dataset


def _evaluated(loop: Loop, model: Any, kappa: float | None) -> list[Evaluation]:
    """The model on both splits, at one tolerance of a range if there is one."""
    constraints = dict(loop.objective.constraints)
    if kappa is not None:
        constraints = {name: one.at(kappa) for name, one in constraints.items()}
    return [
        evaluate(
            model,
            constraints,
            loop.data,
            split,
            loop.config,
            loop.ranks,
            loop.autocast,
            kappa,
        )
        for split in SPLITS
    ]


def _over_range(loop: Loop, coordinates: dict[str, Any]) -> dict[str, Any]:
    """The multipliers of a range, at its knots over the steps and at the tolerances at the end."""
    kappas = torch.tensor(coordinates["kappa"], device=loop.device)
    multiplier = loop.objective.multiplier_at(kappas)
    (constraint,) = loop.objective.constraints.values()
    shape = torch.empty((1, *loop.data.shape), device="meta")
    coordinates["knot"] = loop.objective.curve().kappa.cpu().numpy()
    recorded = loop.history.knot_values
    if recorded is None:
        raise RuntimeError("a run over a range must have recorded its multipliers")
    return {
        "knot_multiplier": recorded.cpu().numpy(),
        "final_multiplier": multiplier.cpu().numpy(),
        "final_beta": constraint.equivalent_beta(multiplier, shape).cpu().numpy(),
    }


def attributes(loop: Loop) -> dict[str, Any]:
    """What was run, on which data, in which units, by what."""
    config, data = loop.config, loop.data
    constraints = list(loop.objective.constraints.values())
    attrs: dict[str, Any] = {
        "Conventions": "CF-1.11",
        "schema": schema.SCHEMA,
        "schema_version": schema.VERSION,
        "title": f"{config.objective_label} on {config.dataset.label} with {config.model.name}",
        "name": config.name,
        "config": config.to_json(),
        "dataset": config.dataset.label,
        "model": config.model.name,
        "objective": config.objective_label,
        "kappa": str(config.objective.kappa) if loop.over_range else config.kappa,
        "seed": config.seed,
        "data_sha256": data.fingerprint(),
        "data_scale": data.scale,
        "data_offset": data.offset,
        "data_shape": list(data.shape),
        "data_preprocessing": data.preprocessing,
        "data_view": data.view.note,
        "units": "pixels in [0, 1]; KL and likelihoods in nats per image",
        "processes": loop.ranks.world,
        "references": "Rezende and Viola, Taming VAEs, arXiv:1810.00597",
        **provenance(loop.device),
    }
    if constraints:
        attrs["constraint_reduction"] = str(constraints[0].reduction)
    if loop.over_range:
        attrs["pictures_kappa"] = _middle(loop)
    if loop.judge is not None:
        attrs["classifier_accuracy"] = loop.judge.accuracy
    return attrs


def _history(loop: Loop) -> dict[str, Any]:
    columns = loop.history.values.cpu().numpy()
    data = {name: columns[:, index] for index, name in enumerate(FIELDS)}
    data["rms_error"] = np.sqrt(data.pop("squared_error"))
    rates = [learning_rate(loop.config, int(step) - 1) for step in loop.history.steps]
    data["learning_rate"] = np.array(rates)
    return data


def _final(parts: list[Evaluation]) -> dict[str, Any]:
    variance = parts[0].mse
    data: dict[str, Any] = {
        "images": [part.images for part in parts],
        "elements": parts[0].elements,
        "final_mse": [part.mse for part in parts],
        "final_rms_error": [part.rms_error for part in parts],
        "final_constraint": [part.constraint for part in parts],
        "final_kl": [part.kl for part in parts],
        "final_kl_error": [part.kl_error for part in parts],
        "final_nll": [gaussian_nll(part.mse, part.elements) for part in parts],
        "final_nll_fitted": [gaussian_nll(part.mse, part.elements, variance) for part in parts],
        "active_latents": [part.active for part in parts],
        "marginal_posteriors": [
            part.marginal.posteriors if part.marginal else 0 for part in parts
        ],
    }
    for name in (
        "marginal_kl", "marginal_kl_error", "mutual_information", "mutual_information_error",
    ):  # fmt: skip
        data[name] = [getattr(part.marginal, name) if part.marginal else np.nan for part in parts]
    return data


def as_picture(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """The channels, rows and columns that data of a shape are stored with to be looked at."""
    if len(shape) == 3:
        return shape[0], shape[1], shape[2]
    return 1, math.prod(shape[:-1]), shape[-1]


def _middle(loop: Loop) -> float | None:
    """The tolerance that pictures are made at, the middle one of a range."""
    tolerances = loop.config.objective.tolerances
    return tolerances[len(tolerances) // 2] if loop.over_range else None


@torch.no_grad()
def _pictures(loop: Loop) -> dict[str, Any]:
    """The first images of both parts, their reconstructions, and samples of the model."""
    shape = loop.data.shape
    generator = torch.Generator(loop.device).manual_seed(stream_seed(loop.config.seed, 7))
    rows = torch.arange(min(EXAMPLES, *(len(loop.data.split(split)) for split in SPLITS)))
    inputs, reconstructions = [], []
    context: Tensor | None = None
    kappa = _middle(loop)
    for split in SPLITS:
        batch = loop.data.batch(split, rows)
        x = model_input(loop.config.model, batch.images)
        seed = stream_seed(loop.config.seed, 7, 0 if split == "train" else 1)
        with loop.autocast(), drawing(loop.model, loop.device, seed):
            out = forward_of(loop.model)(loop.model, x, batch.context, generator, kappa)
        inputs.append(_bytes(x, shape))
        reconstructions.append(_bytes(out.reconstruction, shape))
        context = batch.context
    pictures = {"inputs": np.stack(inputs), "reconstructions": np.stack(reconstructions)}
    if isinstance(loop.model, AbstractVAE):  # how others are sampled is not known
        with loop.autocast():
            at = {} if kappa is None else {"kappa": kappa}
            samples = loop.model.sample(len(rows), context, generator, **at)
        pictures["samples"] = _bytes(samples, shape)
    return pictures


def _bytes(images: Tensor, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Bytes (n, channel, row, column); vectors become one row, sequences one row a channel."""
    scaled = images.float().reshape(-1, *as_picture(shape)).clamp(0, 1).mul(255).round()
    array: NDArray[np.uint8] = scaled.to(torch.uint8).cpu().numpy()
    return array
