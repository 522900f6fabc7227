r"""The limits that theory puts on every model, for the very data that a study trains on.

Two curves for the information plane (RMS error per element against KL in nats):

- the best linear VAE (D7), from the eigenvalues of the data's covariance: what a nonlinear model
  has to beat on data that are not Gaussian;
- the bound :math:`F^*` (D9): every VAE has
  :math:`\mathrm{RE}/2 + T\,\mathrm{KL} \ge F^*(T)` at every :math:`T` on the data that it is
  evaluated on (RE summed over elements), hence
  :math:`\mathrm{KL} \ge \max_T (F^*(T) - \mathrm{RE}/2) / T`.

Of more than 2,000 images the bound is taken from eight random blocks of 500: the decoder values
that are best for all images are at most as good on a block as the block's own, so that the mean
of :math:`F^*` over random blocks is in expectation at most that of the whole set. Three standard
errors of the mean are taken off [derived].

Neither holds for conditional models, whose context carries information about the image.
"""

import math
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from geco_experiments.config import DatasetConfig
from geco_experiments.datasets import load
from geco_experiments.datasets.home import DataHome
from geco_experiments.results.store import write_dataset
from geco_theory import PhaseTransitions, free_energy_bound, linear_vae_optimum

__all__ = ["LARGEST", "data_limits", "kept_limits", "least_kl", "training_matrix", "with_limits"]

LARGE = 2000
COMPONENTS = 50
BLOCK, BLOCKS = 500, 8
ERRORS = 3.0
TOLERANCE = 1e-3  # of the certificate; F* - T ln S is what bounds, so that none is lost but this
COLDEST = 0.1  # of the stability temperature
LARGEST = 4096  # elements; the eigenvalues of larger data are not a matter of seconds


def training_matrix(config: DatasetConfig, home: DataHome) -> NDArray[np.float32]:
    """The training images as a model sees them, one row each (n, C*H*W), in [0, 1].

    Raises:
        ValueError: the images are drawn anew at every step (mnist-rotate), so that there is no
            fixed set of them to bound.
    """
    data = load(config, home)
    if not data.is_fixed:
        msg = f"`{config.name}` draws its images anew at every step: it has no fixed training set"
        raise ValueError(msg)
    rows = torch.arange(len(data.train))
    parts = [data.batch("train", part).images.flatten(1) for part in torch.split(rows, 5000)]
    return torch.cat(parts).numpy()


def data_limits(
    config: DatasetConfig,
    home: DataHome,
    folder: Path,
    *,
    temperatures: int = 12,
) -> xr.Dataset:
    r"""The linear optimum and the free-energy bound of a dataset's training images.

    Args:
        config: the dataset; its `train_limit` matters, since the bound is one for these images.
        home: where its files lie.
        folder: where the result is kept, under a name that holds the data's identity; a second
            call reads it from there.
        temperatures: how many temperatures :math:`F^*` is solved at; more of them make the
            bound tighter, never wrong.

    Returns:
        `PhaseTransitions.path_` of the images (or of their blocks, `free_energy` then the bound),
        with `linear_kl(rms)` beside it. The attribute `components` tells how many principal
        components were kept: the projection can only lower RE, so the bound stays one.
    """
    path = folder / f"{_stem(config)}-{temperatures}.nc"
    if path.exists():
        return xr.load_dataset(path, engine="h5netcdf")
    images = training_matrix(config, home).astype(np.float64)
    images -= images.mean(axis=0)
    count, features = images.shape
    spectrum, axes = np.linalg.eigh(images.T @ images / count)
    spectrum = np.clip(spectrum, 0.0, None)
    kappas = np.geomspace(0.1, 1.0, 60) * math.sqrt(spectrum.sum() / features)
    linear = [linear_vae_optimum(spectrum, kappa).rate for kappa in kappas]

    components = features if count <= LARGE else min(COMPONENTS, features)
    points = images @ axes[:, -components:]
    top = float(spectrum[-1])
    path_ = _bound(points, np.geomspace(COLDEST * top, top, temperatures))
    limits = path_.assign(linear_kl=("rms", np.asarray(linear), {"units": "nat"}))
    limits["converged"] = limits["converged"].astype(np.int8)  # netCDF has no booleans
    limits = limits.assign_coords(
        rms=("rms", kappas, {"long_name": "RMS error per element", "units": "1"})
    )
    limits.attrs.update(
        {
            "dataset": config.label,
            "images": count,
            "features": features,
            "components": components,
            "blocks": int(limits.attrs["blocks"]),
            "stability_temperature": top,
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_dataset(limits, path)
    return limits


def kept_limits(config: DatasetConfig, folder: Path) -> xr.Dataset | None:
    """The limits of a dataset that `data_limits` left in a folder; None if there are none."""
    stem = _stem(config)
    found = {}
    for path in folder.glob("*.nc"):
        name, _, temperatures = path.stem.rpartition("-")
        if name == stem and temperatures.isdigit():
            found[int(temperatures)] = path
    return xr.load_dataset(found[max(found)], engine="h5netcdf") if found else None


def _stem(config: DatasetConfig) -> str:
    content = "" if config.fingerprint is None else f"-{config.fingerprint[:8]}"
    limit = "" if config.train_limit is None else f"-{config.train_limit}"
    return f"{config.label}{content}{limit}"


def with_limits(curve: xr.Dataset, limits: xr.Dataset) -> xr.Dataset:
    """A trade-off curve with what theory says of its errors.

    Args:
        curve: what `geco_experiments.curve` returned.
        limits: what `data_limits` returned for the same data.

    Returns:
        The curve with `linear_rate`, the rate of the best linear VAE (D7), and `least_rate`, below
        which no VAE can be (D9), both in nats at the error over the training set.
    """
    error = curve["rms_error"].sel(split="train", drop=True)
    known = limits["rms"].values
    linear = np.interp(error.values, known, limits["linear_kl"].values, left=np.nan, right=np.nan)
    least = np.full(error.shape, np.nan)
    reached = np.isfinite(error.values)
    least[reached] = least_kl(limits, error.values[reached])
    units = {"units": "nat"}
    return curve.assign(
        linear_rate=(
            error.dims,
            linear,
            {**units, "long_name": "rate of the best linear VAE (D7)"},
        ),
        least_rate=(
            error.dims,
            least,
            {**units, "long_name": "no VAE below: F* of the data (D9)"},
        ),
    )


def least_kl(limits: xr.Dataset, rms: NDArray[np.float64] | float) -> NDArray[np.float64]:
    r"""The least KL that any VAE can have at an RMS error per element, by D9.

    Args:
        limits: what `data_limits` returned.
        rms: errors, any shape.

    Returns:
        :math:`\max(0, \max_T (F^*(T) - \mathrm{RE}/2)/T)` in nats, same shape as `rms`, with
        RE = features * rms**2.
    """
    wanted = np.asarray(rms, dtype=np.float64)
    error = limits.attrs["features"] * np.square(wanted.ravel())
    bound = free_energy_bound(limits, error)["rate"].values
    return np.asarray(bound, dtype=np.float64).reshape(wanted.shape)


def _bound(points: NDArray[np.float64], temperatures: NDArray[np.float64]) -> xr.Dataset:
    """The free energy over temperature, of all points or, where they are many, from blocks."""
    count = len(points)
    if count <= LARGE:
        blocks = [points]
    else:
        order = np.random.default_rng(0).permutation(count)
        blocks = [points[rows] for rows in order[: BLOCKS * BLOCK].reshape(BLOCKS, BLOCK)]
    paths = [
        PhaseTransitions(
            masses="free", temperatures=temperatures, tolerance=TOLERANCE, n_transitions=0
        )
        .fit(block)
        .path_
        for block in blocks
    ]
    if len(paths) == 1:
        return paths[0].assign_attrs(blocks=1)
    joined = xr.concat(paths, dim="block", combine_attrs="override")
    floor = joined["free_energy"] - joined["temperature"] * joined["certificate"].clip(min=0)
    error = floor.std("block", ddof=1) / math.sqrt(len(paths))
    mean = joined.mean("block", keep_attrs=True)
    return mean.assign(
        free_energy=(floor.mean("block") - ERRORS * error).assign_attrs(mean["free_energy"].attrs),
        certificate=xr.zeros_like(mean["certificate"]),
    ).assign_attrs(blocks=len(paths))
