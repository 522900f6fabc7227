"""How many runs it takes to hit a target: bisection over beta against GECO's one run."""

import math
from pathlib import Path

import numpy as np
import xarray as xr

from geco_experiments.config import RunConfig
from geco_experiments.results.findings import Claim, Table
from geco_experiments.runtime.words import counted
from geco_experiments.studies.common.final_values import final_values, select
from geco_experiments.studies.common.profiles import Profile, elbo, geco, run_config
from geco_experiments.studies.common.study import Drawing, Runs, Study
from geco_experiments.studies.common.style import COLORS, new_figure, place_legend
from geco_experiments.studies.common.verdicts import by_sign

__all__ = ["CostOfATarget", "next_beta"]

MODEL = "mlp-vae"
KAPPA = 0.125
WITHIN = 0.01
MOST = 12
START = 1.0
STRIDE = 10.0
SEEDS = range(3)  # a sign needs three


class CostOfATarget(Study):
    """A bisection in log beta, as a person would do it, until the error is within 1%."""

    name = "cost"
    title = "What a target costs: a search over beta, or one run"
    source = "The abstract's parameter sweeps [paper]; the search and its start [ours]"
    look_for = (
        "Each green point is one full training run of the search; the blue line is GECO's only "
        "run with its error."
    )
    order = 9
    growth = 5.0

    def configs(self, profile: Profile) -> list[RunConfig]:
        """The first guess of the search, and GECO's run."""
        return [
            run_config(profile, self._dataset(profile), MODEL, objective, seed=seed)
            for seed in SEEDS
            for objective in (elbo(START), geco(KAPPA))
        ]

    def follow_up(
        self, runs: Runs, profile: Profile, *, data_home: Path | None = None
    ) -> list[RunConfig]:
        """The next beta of every search that is not over."""
        further = []
        for seed in SEEDS:
            tried = {
                config.objective.beta: float(runs[config]["final_rms_error"].sel(split="train"))
                for config in runs
                if config.seed == seed and config.objective.name == "elbo"
            }
            beta = next_beta(tried)
            if beta is not None:
                further.append(
                    run_config(profile, self._dataset(profile), MODEL, elbo(beta), seed=seed)
                )
        return further

    def measure(
        self, runs: Runs, profile: Profile, *, data_home: Path | None = None
    ) -> xr.Dataset:
        """All runs of all searches, in the order in which they were made."""
        return final_values(runs)

    def draw(self, data: xr.Dataset) -> list[Drawing]:
        """Error against the number of runs made."""
        figure, (axes,) = new_figure(width=6.4, height=3.5)
        train = data.sel(split="train")
        for seed in np.unique(data["seed"].values):
            search = select(train, objective="elbo", seed=seed)
            single = select(train, objective="geco", seed=seed)
            error = search["final_rms_error"].values
            axes.plot(
                np.arange(1, error.size + 1),
                100 * (error / KAPPA - 1),
                color=COLORS["elbo"],
                marker="s",
                markersize=4,
                linewidth=0.9,
                label="search over β",
            )
            axes.plot(
                [1],
                100 * (single["final_rms_error"].values / KAPPA - 1),
                color=COLORS["geco"],
                marker="o",
                markersize=7,
                linestyle="none",
                label="GECO",
            )
        axes.axhspan(-100 * WITHIN, 100 * WITHIN, color="#e8f0f7", label="within 1%")
        axes.set_yscale("symlog", linthresh=1)
        axes.set(
            title="Runs to a target",
            xlabel="training runs made",
            ylabel="error off the target (%)",
        )
        place_legend(axes)
        return [
            Drawing(
                "cost",
                figure,
                f"Target: RMS error {KAPPA:g} per pixel on the training set of "
                f"{data['dataset'].values[0]}. The search starts at β = {START:g}, moves by a "
                f"factor of {STRIDE:g} until the target is bracketed, then bisects in log β.",
                "Deviation from the target against the number of training runs",
            )
        ]

    def tables(self, data: xr.Dataset) -> list[Table]:
        """Runs needed, seed by seed."""
        rows = []
        for seed in np.unique(data["seed"].values):
            search = select(data, objective="elbo", seed=seed).sel(split="train")
            single = select(data, objective="geco", seed=seed).sel(split="train")
            last = float(search["final_rms_error"][-1] / KAPPA - 1)
            off = float(single["final_rms_error"][0] / KAPPA - 1)
            rows.append(
                (
                    str(seed),
                    str(search.sizes["run"]),
                    f"{100 * last:+.2f}%",
                    f"{float(search['training_beta'][-1]):.3g}",
                    f"{100 * off:+.2f}%",
                )
            )
        columns = ("seed", "runs of the search", "it ended at", "with β", "GECO's one run")
        return [Table("Error off the target, training set.", columns, tuple(rows))]

    def claims(self, data: xr.Dataset) -> list[Claim]:
        """GECO spares the sweep."""
        saved, hits = [], 0
        for seed in np.unique(data["seed"].values):
            search = select(data, objective="elbo", seed=seed)
            single = select(data, objective="geco", seed=seed).sel(split="train")
            hit = abs(float(single["final_rms_error"][0] / KAPPA - 1)) <= WITHIN
            hits += hit
            saved.append(float(1 - search.sizes["run"]) if hit else 0.0)
        counts = [int(1 - value) if value else 0 for value in saved]
        shown = ", ".join(str(count) for count in counts if count) or "no seed"
        return [
            Claim(
                "One run instead of a sweep over beta",
                "GECO's run is within 1% of the target and the search needs more than one run, in "
                "every seed",
                f"GECO within 1% in {hits} of {counted(len(saved), 'seed')}; the search there "
                f"took {shown} runs",
                by_sign(saved, 0.5),
            )
        ]

    def _dataset(self, profile: Profile) -> str:
        return profile.pick("digits", "mnist")


def next_beta(tried: dict[float, float]) -> float | None:
    """The next beta of the search, from the errors of those already tried.

    Args:
        tried: training-set RMS error by beta; the error rises with beta.

    Returns:
        The geometric middle of the bracket, or a step outwards while there is none; None once
        an error is within 1% of the target or the search has made its last run.
    """
    if len(tried) >= MOST or any(abs(e / KAPPA - 1) <= WITHIN for e in tried.values()):
        return None
    low = max((beta for beta, error in tried.items() if error < KAPPA), default=None)
    high = min((beta for beta, error in tried.items() if error > KAPPA), default=None)
    if low is None:
        return min(tried) / STRIDE
    if high is None:
        return max(tried) * STRIDE
    # rounded, so that equal searches ask for equal runs
    return float(f"{math.sqrt(low * high):.6g}")
