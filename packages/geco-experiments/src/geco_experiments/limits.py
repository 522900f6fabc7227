r"""The limits that theory puts on every model, for the very data that a study trains on.

Two curves for the information plane (RMS error per element against KL in nats):

- the best linear VAE (D7), from the eigenvalues of the data's covariance: what a nonlinear model
  has to beat on data that are not Gaussian;
- the bound :math:`F^*` (D9): every VAE has
  :math:`\mathrm{RE}/2 + T\,\mathrm{KL} \ge F^*(T)` at every :math:`T` on the data that it is
  evaluated on (RE summed over elements), hence
  :math:`\mathrm{KL} \ge \max_T (F^*(T) - \mathrm{RE}/2) / T`.

Neither holds for conditional models, whose context carries information about the image.
"""

import math
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from geco_experiments.config import DatasetConfig
from geco_experiments.data_home import DataHome
from geco_experiments.datasets import load
from geco_experiments.results import write_dataset
from geco_theory import PhaseTransitions, free_energy_bound, linear_vae_optimum

__all__ = ["data_limits", "least_kl", "training_matrix"]

LARGE = 6000
COMPONENTS = 50


def training_matrix(config: DatasetConfig, home: DataHome) -> NDArray[np.float32]:
    """The training images as a model sees them, one row each (n, C*H*W), in [0, 1].

    Raises:
        ValueError: the images are drawn anew at every step (mnist-rotate), so that there is no
            fixed set of them to bound.
    """
    data = load(config, home)
    if data.view.draws and not data.view.fixed:
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
    values: int = 400,
) -> xr.Dataset:
    r"""The linear optimum and the free-energy bound of a dataset's training images.

    Args:
        config: the dataset; its `train_limit` matters, since the bound is one for these images.
        home: where its files lie.
        folder: where the result is kept, under a name that holds the data's identity; a second
            call reads it from there.
        temperatures: how many temperatures :math:`F^*` is solved at; more of them make the
            bound tighter, never wrong.
        values: down to about how many decoder values the bound is solved.

    Returns:
        `PhaseTransitions.path_` of the images, with `linear_kl(rms)` beside it. The attribute
        `components` tells how many principal components were kept: the projection can only
        lower RE, so the bound stays one.
    """
    limit = "" if config.train_limit is None else f"-{config.train_limit}"
    path = folder / f"{config.name}{limit}-{temperatures}-{values}.nc"
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
    analysis = PhaseTransitions(
        masses="free", temperatures=_ladder(points, temperatures, values)
    ).fit(points)
    limits = analysis.path_.assign(linear_kl=("rms", np.asarray(linear), {"units": "nat"}))
    limits["converged"] = limits["converged"].astype(np.int8)  # netCDF has no booleans
    limits = limits.assign_coords(
        rms=("rms", kappas, {"long_name": "RMS error per element", "units": "1"})
    )
    limits.attrs.update(
        {
            "dataset": config.name,
            "images": count,
            "features": features,
            "components": components,
            "critical_temperature": float(analysis.critical_temperatures_[0]),
            "stability_temperature": float(analysis.stability_temperature_),
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_dataset(limits, path)
    return limits


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


def _ladder(points: NDArray[np.float64], count: int, values: int) -> list[float]:
    """Temperatures from just below the stability limit down to about `values` decoder values.

    On images the number of decoder values grows about like (top / T)^7 below the transition,
    which is all that is needed here: the bound is valid wherever it is solved.
    """
    top = float(np.linalg.eigvalsh(points.T @ points / len(points))[-1])
    return list(np.geomspace(top * values ** (-1 / 7), top, count))
