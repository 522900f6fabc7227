"""Solved temperatures as a dataset with units."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from geco_theory.solutions import Solution

SAMPLED = "from a sample of the data: a lower estimate of ln S, not a bound on the error of F"


def path_dataset(solutions: Mapping[float, Solution], unit: float) -> xr.Dataset:
    """The path over `temperature`, ascending.

    Args:
        solutions: Solved temperatures, in standard units, by temperature in the user's units.
        unit: The user's temperature that is 1 in standard units.
    """
    temperatures = sorted(solutions)
    rows = [solutions[t] for t in temperatures]
    dim = "temperature"
    dataset = xr.Dataset(
        {
            "distortion": (dim, np.array([s.distortion for s in rows]) * unit),
            "rate": (dim, np.array([s.rate for s in rows])),
            "free_energy": (dim, np.array([s.free_energy for s in rows]) * unit),
            "n_clusters": (dim, np.array([s.mixture.size for s in rows], dtype=np.int64)),
            "certificate": (dim, np.array([s.certificate for s in rows])),
            "converged": (dim, np.array([s.converged for s in rows], dtype=bool)),
        },
        coords={dim: np.array(temperatures)},
    )
    squared = "(data unit)^2"
    attributes = {
        "temperature": (squared, "temperature T = beta sigma^2"),
        "distortion": (squared, "RE: expected squared error, summed over the elements"),
        "rate": ("nat", "KL: expected divergence of the posterior from the prior"),
        "free_energy": (squared, "F = RE/2 + T KL"),
        "n_clusters": ("1", "K: number of distinct decoder values"),
        "certificate": ("1", "ln S: F is at most T ln S above the global optimum (D9)"),
        "converged": ("1", "whether the tolerance was reached"),
    }
    for name, (units, long_name) in attributes.items():
        dataset[name].attrs = {"units": units, "long_name": long_name}
    if any(s.sampled for s in rows):
        dataset["certificate"].attrs["search"] = SAMPLED
    return dataset
