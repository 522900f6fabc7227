"""An analysis as one dataset: collected, and written so that no half of it is ever seen."""

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from geco_theory._typing import Array
from geco_theory.advice import advise
from geco_theory.linalg import covariance_eigenvalues, principal_axes
from geco_theory.linear_vae import linear_vae_optimum
from geco_theory.phase_transitions import PhaseTransitions
from geco_theory.rate_distortion import rate_distortion_curve
from geco_theory.report.reading import Table

__all__ = ["collect", "part"]

CURVE_POINTS = 120
# which variables of the one dataset make up each part: prefix -> dimensions renamed
PARTS: dict[str, dict[str, str]] = {
    "path": {},
    "transition": {},
    "curve": {"curve_kappa": "kappa"},
    "advice": {"advice_kappa": "kappa"},
    "tree": {"tree_cluster": "cluster"},
}


def collect(
    table: Table,
    analysis: PhaseTransitions,
    version: str,
    *,
    complete: bool,
    kappa: ArrayLike | None = None,
) -> xr.Dataset:
    """Bring everything that an analysis says into one dataset.

    Args:
        table: the samples.
        analysis: fitted on them, or interrupted while it was.
        version: of this package.
        complete: whether the analysis was not interrupted.
        kappa: tolerances to advise on; None means those of `advise`.

    Returns:
        The parts `path`, `transition`, `curve`, `advice` and `tree`, as far as they are there;
        take them out again with `part`.
    """
    centred = table.X - table.X.mean(axis=0)
    path = analysis.path_
    total = float(np.square(centred).sum() / table.X.shape[0])
    attrs: dict[str, object] = {
        "source": table.name,
        "notes": "\n".join(table.notes),
        "n_samples": table.X.shape[0],
        "n_features": table.X.shape[1],
        "total_variance": total,
        "masses": analysis.masses,
        "complete": int(complete),
        "geco_theory_version": version,
    }
    if hasattr(analysis, "stability_temperature_"):
        attrs["stability_temperature"] = float(analysis.stability_temperature_)
    critical = np.asarray(getattr(analysis, "critical_temperatures_", ()), dtype=np.float64)
    if critical.size:
        attrs["top_critical_temperature"] = float(critical.max())
        attrs["n_critical"] = int(critical.size)
    attrs["detected"] = np.asarray(
        getattr(analysis, "detected_temperatures_", ()), dtype=np.float64
    )
    parts = {"path": path, "tree": _tree(analysis, table.X)}
    if hasattr(analysis, "transitions_"):
        parts["transition"] = analysis.transitions_.reset_coords()
    if np.isfinite(path["certificate"].values).any():
        parts["curve"] = _curve(table.X, path, total)
        parts["advice"] = advise(
            table.X, kappa, analysis=analysis, extend=complete, forecast=complete
        ).reset_coords()
    variables = {}
    for name, dataset in parts.items():
        renamed = {new: old for old, new in PARTS[name].items()}
        for key, variable in dataset.variables.items():
            if key == "temperature" and name in ("path", "tree"):
                continue
            dims = tuple(renamed.get(str(d), str(d)) for d in variable.dims)
            variables[f"{name}_{key}"] = (dims, variable.values, variable.attrs)
    heat = path["temperature"]
    return xr.Dataset(variables, {"temperature": ("temperature", heat.values, heat.attrs)}, attrs)


def part(results: xr.Dataset, name: str) -> xr.Dataset | None:
    """One part of the collected results with its own names; None if it is not there."""
    prefix = f"{name}_"
    keys = [str(k) for k in results.variables if str(k).startswith(prefix)]
    if not keys:
        return None
    found = results[keys].rename({key: key.removeprefix(prefix) for key in keys})
    dims = {old: new for old, new in PARTS[name].items() if old in found.dims}
    return found.rename(dims)


def _curve(X: Array, path: xr.Dataset, total: float) -> xr.Dataset:
    """The rate-distortion curve on an even grid of tolerances, beside the linear optimum."""
    features = X.shape[1]
    kappa = np.linspace(0.0, 1.05 * np.sqrt(total / features), CURVE_POINTS + 1)[1:]
    curve = rate_distortion_curve(path, kappa, n_features=features)
    spectrum = covariance_eigenvalues(X)
    rates = [linear_vae_optimum(spectrum, k, n_features=features).rate for k in kappa]
    curve["linear_rate"] = (
        "kappa", np.array(rates), {"long_name": "rate of the best linear VAE", "units": "nat"},
    )  # fmt: skip
    return curve.reset_coords()


def _tree(analysis: PhaseTransitions, X: Array) -> xr.Dataset:
    """The decoder values at every temperature, on the first principal axis of the data."""
    axis, mean = principal_axes(X)[0][:, 0], X.mean(axis=0)
    solved = [analysis.decoder_values(float(t)) for t in analysis.path_["temperature"].values]
    widest = max(s.sizes["cluster"] for s in solved)
    position = np.full((len(solved), widest), np.nan)
    mass = np.full((len(solved), widest), np.nan)
    for i, values in enumerate(solved):
        size = values.sizes["cluster"]
        position[i, :size] = (values["value"].values - mean) @ axis
        mass[i, :size] = values["mass"].values
    return xr.Dataset(
        {
            "position": (("temperature", "cluster"), position, {"units": "data unit"}),
            "mass": (("temperature", "cluster"), mass, {"units": "1"}),
        },
        {"temperature": analysis.path_["temperature"].values},
    )
