"""Figure 5: the same reconstruction error at a lower KL: ELBO first, then GECO at its error."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from geco_experiments.config import RunConfig
from geco_experiments.results.findings import Claim, Table
from geco_experiments.runtime.words import counted, named
from geco_experiments.studies.common.final_values import final_values, select, spread
from geco_experiments.studies.common.profiles import Profile, elbo, geco, run_config, seeds
from geco_experiments.studies.common.study import Drawing, Runs, Study
from geco_experiments.studies.common.style import COLORS, LABELS, new_figure, place_legend
from geco_experiments.studies.common.verdicts import EQUAL, by_sign
from geco_experiments.studies.target import smooth

__all__ = ["SameError"]

MODEL = "conv-draw"
SIGMA = 0.1
MARGIN = 0.01


class SameError(Study):
    """ELBO to its end, then the same architecture with GECO set to the error that it reached."""

    name = "figure-5"
    title = "The same error at a lower KL?"
    source = (
        "Figure 5 [paper]: CIFAR-10, MSE 0.00029 there; decoder variance, sizes and lengths [ours]"
    )
    look_for = (
        "Both curves must end at the same error; the question is whether the blue one ends at a "
        "lower KL. An ELBO that has converged is on the same trade-off curve, so that any gain "
        "must come from the way of training."
    )
    order = 5
    in_smoke = False
    growth = 2.0

    def configs(self, profile: Profile) -> list[RunConfig]:
        """The ELBO runs."""
        dataset = profile.pick("digits", "cifar-10", "cifar-10")
        return [
            run_config(profile, dataset, MODEL, elbo(sigma=SIGMA), seed=seed)
            for seed in seeds(profile)
        ]

    def follow_up(
        self, runs: Runs, profile: Profile, *, data_home: Path | None = None
    ) -> list[RunConfig]:
        """GECO at the training-set error of the ELBO run of the same seed."""
        return [
            run_config(
                profile, config.dataset.name, MODEL, geco(round(_error(runs[config]), 6)),
                seed=config.seed,
            )
            for config in runs
            if config.objective.name == "elbo"
        ]  # fmt: skip

    def measure(
        self, runs: Runs, profile: Profile, *, data_home: Path | None = None
    ) -> xr.Dataset:
        """Final values, and the curves of the first seed."""
        first = [config for config in runs if config.seed == 0]
        curves = xr.concat(
            [runs[config][["rms_error", "kl"]] for config in first],
            dim="curve",
            combine_attrs="override",
        ).assign_coords(curve=[config.objective.name for config in first])
        return xr.merge([final_values(runs), curves], combine_attrs="drop_conflicts")

    def draw(self, data: xr.Dataset) -> list[Drawing]:
        """KL and error against the step."""
        figure, (kl, error) = new_figure(1, 2, width=9.0, height=3.4)
        for name in data["curve"].values:
            curve = data.sel(curve=name)
            style: dict[str, Any] = {
                "color": COLORS[str(name)],
                "label": LABELS[str(name)],
                "linewidth": 1.3,
            }
            kl.plot(curve["step"], smooth(curve["kl"].values), **style)
            error.plot(curve["step"], smooth(curve["rms_error"].values), **style)
        kappa = float(select(data, objective="geco", seed=0)["kappa"][0])
        error.axhline(kappa, color=COLORS["kappa"], linestyle=":", label=f"κ = {kappa:.4f}")
        kl.set(title="Compression", xlabel="step", ylabel="KL (nats)")
        error.set(title="Reconstruction", xlabel="step", ylabel="RMS error per pixel")
        place_legend(kl)
        place_legend(error)
        return [
            Drawing(
                "curves",
                figure,
                f"ConvDraw on {data['dataset'].values[0]}, ELBO (decoder standard deviation "
                f"{SIGMA:g}) and GECO at the error that it reached; one seed, moving mean.",
                "KL and error over steps for ELBO and GECO",
            )
        ]

    def tables(self, data: xr.Dataset) -> list[Table]:
        """Both objectives, seed by seed."""
        rows = []
        for seed, change in zip(np.unique(data["seed"].values), relative_kl(data), strict=True):
            old = select(data, objective="elbo", seed=seed).isel(run=0).sel(split="train")
            new = select(data, objective="geco", seed=seed).isel(run=0).sel(split="train")
            rows.append(
                (
                    str(seed),
                    f"{float(old['final_rms_error']):.4f}",
                    f"{float(new['final_rms_error']):.4f}",
                    f"{float(old['final_kl']):.2f}",
                    f"{float(new['final_kl']):.2f}",
                    f"{100 * change:+.1f}%" if math.isfinite(change) else "none: errors differ",
                )
            )
        columns = ("seed", "RMS, ELBO", "RMS, GECO", "KL, ELBO", "KL, GECO", "change of KL")
        return [Table("Training set.", columns, tuple(rows))]

    def claims(self, data: xr.Dataset) -> list[Claim]:
        """Lower KL at equal error."""
        effects, seeds_of = xr.DataArray(relative_kl(data)), np.unique(data["seed"].values)
        same = np.isfinite(effects.values)
        return [
            Claim(
                "GECO reaches the error of a converged ELBO at a lower KL",
                f"the KL is lower by more than {100 * MARGIN:.0f}% in every seed whose errors "
                f"agree within {100 * EQUAL:.0f}%, at least three",
                f"errors agree in {same.sum()} of {counted(effects.size, 'seed')}"
                + named("not", [f"seed {seed}" for seed in seeds_of[~same]])
                + (f"; KL there changes by {spread(100 * effects, 2)} %" if same.any() else ""),
                by_sign(effects.values, MARGIN),
            )
        ]


def relative_kl(data: xr.Dataset) -> list[float]:
    """The relative change of the KL from ELBO to GECO, seed by seed; NaN at unequal errors."""
    changes = []
    for seed in np.unique(data["seed"].values):
        runs = [
            select(data, objective=name, seed=seed).sel(split="train") for name in ("elbo", "geco")
        ]
        kl = [float(run["final_kl"][0]) for run in runs]
        error = [float(run["final_rms_error"][0]) for run in runs]
        same = abs(error[1] / error[0] - 1) <= EQUAL
        changes.append(kl[1] / kl[0] - 1 if same else math.nan)
    return changes


def _error(run: xr.Dataset) -> float:
    return float(run["final_rms_error"].sel(split="train"))
