r"""The trade-off curve as a product: what every error costs in nats, from one run or several.

Along `kappa` stand the error that was reached, the rate (the mean KL), the slope and how many
latents are in use. The slope of the rate-distortion curve is the multiplier,
:math:`\lambda = -dKL/dC` (D7); for squared errors
:math:`2 \lambda \kappa^2 = -dKL / d\ln\kappa` is the price in nats of an error that is smaller by
a factor of e, and :math:`\ln 10` times it that of the next digit.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import xarray as xr

from geco_experiments.results.store import config_of, find, open_run
from geco_experiments.runtime.errors import RunError

__all__ = ["curve"]

_FINALS = {
    "rate": ("final_kl", "nat", "KL(q(z|x) || prior), mean over all examples"),
    "rate_error": ("final_kl_error", "nat", "standard error of the rate over examples"),
    "rms_error": ("final_rms_error", "1", "root mean squared error per element"),
    "active_latents": ("active_latents", "1", "latent dimensions in use"),
    "slope": ("final_multiplier", "nat", "lambda = -dKL/dC, nats per unit of the constraint"),
}
_SQUARED = ("re", "fre")
_SHARED = ("dataset", "model")


def curve(source: str | Path | xr.Dataset | Iterable[xr.Dataset | str | Path]) -> xr.Dataset:
    """The trade-off curve of GECO runs on one dataset with one model.

    Args:
        source: One run over a range of tolerances, as its `run.nc` or opened; or several runs,
            with one tolerance each or a range; or a folder of them.

    Returns:
        A dataset over `kappa`, `split` and `seed`: `rms_error`, `rate` with `rate_error`, `slope`,
        `price` (of squared errors) and `active_latents`, with units. What was not run is NaN.

    Raises:
        RunError: if there is no run, one is not under GECO, they are not of one dataset, model and
            constraint, or two have the same tolerance and seed.
        SchemaError: if one is of a newer schema than this version reads.
    """
    runs = _opened(source)
    configs = [config_of(run) for run in runs]
    if not runs or any(config.objective.name != "geco" for config in configs):
        raise RunError(
            "a trade-off curve needs runs under GECO, which have a tolerance: make one with "
            "`geco run --kappa 0.06..0.2`"
        )
    kinds = {
        (config.dataset.label, config.model.name, config.objective.constraint)
        for config in configs
    }
    if len(kinds) > 1:
        told = "; ".join(", ".join(kind) for kind in sorted(kinds))
        raise RunError(f"a trade-off curve is of one dataset, model and constraint; got {told}")
    ((dataset, model, constraint),) = kinds
    seeds: dict[int, list[xr.Dataset]] = {}
    for run, config in zip(runs, configs, strict=True):
        seeds.setdefault(config.seed, []).append(_part(run, constraint))
    lines = []
    for seed, parts in seeds.items():
        line = xr.concat(parts, dim="kappa", combine_attrs="override").sortby("kappa")
        if len(np.unique(line["kappa"].values)) < line.sizes["kappa"]:
            raise RunError(f"two of these runs have the same tolerance and seed {seed}: take one")
        lines.append(line.assign_coords(seed=seed))
    joined = xr.concat(lines, dim="seed", join="outer", combine_attrs="override")
    joined["kappa"].attrs = {"units": "1", "long_name": "tolerance that was asked for"}
    joined.attrs = {
        "title": f"Trade-off curve of {model} on {dataset}",
        "dataset": dataset,
        "model": model,
        "constraint": constraint,
        "runs": ", ".join(config.name for config in configs),
    }
    return joined


def _opened(
    source: str | Path | xr.Dataset | Iterable[xr.Dataset | str | Path],
) -> list[xr.Dataset]:
    if isinstance(source, xr.Dataset):
        return [source]
    if isinstance(source, str | Path):
        path = Path(source)
        found = [path] if path.is_file() else find(path)
        return [open_run(one) for one in found]
    return [one if isinstance(one, xr.Dataset) else open_run(one) for one in source]


def _part(run: xr.Dataset, constraint: str) -> xr.Dataset:
    """One run over its tolerances, one or many."""
    over = run if "kappa" in run.dims else run.expand_dims("kappa")
    variables = {}
    for name, (final, units, words) in _FINALS.items():
        if final not in over:  # of a run of an earlier release
            continue
        values = over[final]
        values = values if "kappa" in values.dims else values.expand_dims(kappa=over["kappa"])
        variables[name] = values.astype(float).assign_attrs(units=units, long_name=words)
    if constraint in _SQUARED and "slope" in variables:
        price = 2 * variables["slope"] * over["kappa"] ** 2
        variables["price"] = price.assign_attrs(
            units="nat", long_name="-dKL/dln(kappa), nats for an error smaller by a factor of e"
        )
    keep = ["kappa", "split"]
    part = xr.Dataset(variables)
    return part.drop_vars([name for name in part.coords if name not in keep])
