"""The schema of `run.nc`: every variable with its dimensions, unit and meaning.

`docs/runs.md` of this package is the same table in prose; a test keeps the two together.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from geco_experiments.runtime.errors import SchemaError

__all__ = [
    "ALONG_KAPPA",
    "LABELS",
    "SCHEMA",
    "VARIABLES",
    "VERSION",
    "Variable",
    "check",
    "describe",
]

SCHEMA = "geco-experiments run"
VERSION = 1


@dataclass(frozen=True)
class Variable:
    """One variable of the schema: dimensions, unit (UDUNITS or `nat`) and meaning."""

    dims: tuple[str, ...]
    units: str
    long_name: str


LABELS = ("dataset", "model", "objective", "kappa", "seed")
_STEP, _SPLIT = ("step",), ("split",)
_IMAGE = ("channel", "row", "column")
VARIABLES: dict[str, Variable] = {
    # coordinates
    "step": Variable(_STEP, "1", "optimizer step, counted from 1"),
    "split": Variable(_SPLIT, "1", "part of the dataset"),
    "draw_step": Variable(("draw_step",), "1", "recurrent step of the model, counted from 1"),
    "dataset": Variable((), "1", "name of the dataset"),
    "model": Variable((), "1", "name of the model"),
    "objective": Variable((), "1", "what was minimised, in a word"),
    "kappa": Variable(
        (), "1", "tolerance that was asked for, NaN where there is none; of a range its tolerances"
    ),
    "seed": Variable((), "1", "seed of the run"),
    "knot": Variable(("knot",), "1", "tolerance of each knot of a range"),
    # one step's batch
    "loss": Variable(_STEP, "1", "value that was minimised, mean over the batch"),
    "kl": Variable(_STEP, "nat", "KL(q(z|x) || prior), mean over the batch"),
    "kl_steps": Variable(("step", "draw_step"), "nat", "KL of each recurrent step, batch mean"),
    "rms_error": Variable(
        _STEP, "1", "root mean squared error per element over the batch, pixels in [0, 1]"
    ),
    "constraint": Variable(_STEP, "1", "mean violation of the constraint over the batch"),
    "moving_average": Variable(_STEP, "1", "moving average of the violation"),
    "multiplier": Variable(_STEP, "1", "multiplier lambda of KL + lambda C, after the ascent"),
    "relative_multiplier": Variable(_STEP, "1", "multiplier of the violation relative to scale"),
    "beta": Variable(
        _STEP, "1", "KL weight of the equivalent beta-VAE (Gaussian decoder of unit variance)"
    ),
    "feasible": Variable(_STEP, "1", "1 where the moving average is <= 2% of the scale, else 0"),
    "saturated": Variable(_STEP, "1", "1 where the multiplier is at its bound and C > 0, else 0"),
    "skipped": Variable(_STEP, "1", "ascents skipped so far because a violation was not finite"),
    "knot_multiplier": Variable(("step", "knot"), "1", "multiplier at each knot of a range"),
    "learning_rate": Variable(_STEP, "1", "rate of the optimizer"),
    # the finished model on whole splits
    "images": Variable(_SPLIT, "1", "number of images evaluated"),
    "final_rms_error": Variable(
        _SPLIT, "1", "root mean squared error per element over all images, pixels in [0, 1]"
    ),
    "final_mse": Variable(_SPLIT, "1", "mean squared error per element over all images"),
    "final_constraint": Variable(_SPLIT, "1", "mean violation of the constraint, all images"),
    "final_kl": Variable(_SPLIT, "nat", "KL(q(z|x) || prior), mean over all images"),
    "final_kl_error": Variable(_SPLIT, "nat", "standard error of final_kl over images"),
    "final_kl_steps": Variable(
        ("split", "draw_step"), "nat", "KL of each recurrent step, mean over all images"
    ),
    "final_nll": Variable(
        _SPLIT, "nat", "-ln p(x|z) per image, Gaussian decoder of unit variance"
    ),
    "final_nll_fitted": Variable(
        _SPLIT, "nat", "-ln p(x|z) per image, decoder variance = training mean squared error"
    ),
    "marginal_kl": Variable(_SPLIT, "nat", "KL(q(z) || prior) of the aggregate posterior"),
    "marginal_kl_error": Variable(_SPLIT, "nat", "standard error of marginal_kl over samples"),
    "mutual_information": Variable(_SPLIT, "nat", "I(x; z) under the aggregate, at most ln n"),
    "mutual_information_error": Variable(_SPLIT, "nat", "standard error of mutual_information"),
    "active_latents": Variable(
        _SPLIT, "1", "latent dimensions in use, by their KL or by their posterior means"
    ),
    "marginal_posteriors": Variable(
        _SPLIT, "1", "number n of posteriors in the aggregate; 0: not measured"
    ),
    "final_beta": Variable((), "1", "beta at the last step"),
    "final_multiplier": Variable((), "1", "multiplier lambda at the last step"),
    "elements": Variable((), "1", "elements d of one image"),
    "parameters": Variable((), "1", "parameters of the model"),
    "seconds": Variable((), "s", "time in the training loop, over all its starts"),
    # to look at
    "inputs": Variable(("split", "example", *_IMAGE), "1", "first images, 0..255"),
    "reconstructions": Variable(
        ("split", "example", *_IMAGE), "1", "their reconstructions, 0..255"
    ),
    "samples": Variable(("example", *_IMAGE), "1", "samples of the model, 0..255"),
}


ALONG_KAPPA = frozenset(
    name
    for name in VARIABLES
    if name.startswith(("final_", "marginal_", "mutual_")) or name == "active_latents"
)
"""The variables that have the dimension `kappa` before their own in runs over a range."""


def describe(data: dict[str, Any], coordinates: dict[str, Any]) -> xr.Dataset:
    """A dataset of the schema from arrays by name, with units and long names.

    Raises:
        SchemaError: for a name that the schema lacks or an array of other dimensions.
    """
    over_range = np.ndim(coordinates.get("kappa", 0)) == 1

    def variable(name: str, value: Any) -> xr.Variable:
        spec = VARIABLES.get(name)
        array = np.asarray(value)
        dims = None if spec is None else spec.dims
        if dims is not None and over_range and (name == "kappa" or name in ALONG_KAPPA):
            dims = ("kappa", *dims)
        if spec is None or dims is None or array.ndim != len(dims):
            raise SchemaError(
                f"`{name}` with {array.ndim} dimensions is not in the schema of runs"
            )
        return xr.Variable(dims, array, {"units": spec.units, "long_name": spec.long_name})

    return xr.Dataset(
        {name: variable(name, value) for name, value in data.items()},
        coords={name: variable(name, value) for name, value in coordinates.items()},
    )


def check(dataset: xr.Dataset, source: str) -> None:
    """Make sure that a dataset is a run of a schema that this version reads.

    Raises:
        SchemaError: if it is something else or of a newer schema.
    """
    if dataset.attrs.get("schema") != SCHEMA:
        raise SchemaError(f"{source} is no result of a run: move it away")
    try:
        version = int(dataset.attrs.get("schema_version", 0))
    except (TypeError, ValueError) as error:
        raise SchemaError(f"{source} has no readable schema version: move it away") from error
    if version > VERSION:
        raise SchemaError(
            f"{source} has schema version {version}, this release reads up to {VERSION}: "
            "update geco-experiments to read it"
        )
