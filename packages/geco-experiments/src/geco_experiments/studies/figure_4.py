"""Figure 4: the information plane of three models under three objectives, with its limits."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from geco_experiments.config import RunConfig
from geco_experiments.results.findings import Claim, Table
from geco_experiments.runtime.words import counted, named
from geco_experiments.studies.common.final_values import final_values, select, spread
from geco_experiments.studies.common.information_plane import draw_limits, margins, with_limits
from geco_experiments.studies.common.profiles import (
    KAPPAS,
    Profile,
    annealed,
    elbo,
    geco,
    run_config,
    seeds,
    sigma_vae,
)
from geco_experiments.studies.common.study import Drawing, Runs, Study
from geco_experiments.studies.common.style import (
    BASELINES,
    COLORS,
    LABELS,
    MARKERS,
    MODELS,
    SMALL,
    new_figure,
    place_legend_below,
)
from geco_experiments.studies.common.verdicts import EQUAL, by_share

__all__ = ["InformationPlane"]

# an ELBO whose decoder has the variance of a tolerance in the paper's range, beside the one of
# unit variance, which on small images encodes next to nothing
SIGMAS = (1.0, 0.1)
# the pairs whose tolerances are run over the seeds; two cores have no time for ConvDraw's
SPREAD = {
    "laptop": [("nvp-vae", "mnist")],
    "paper": [("nvp-vae", "mnist"), ("conv-draw", "mnist")],
}


class InformationPlane(Study):
    """Every model by every objective on every dataset; lines join the tolerances."""

    name = "figure-4"
    title = "Information plane: GECO, ELBO, a hand-annealed beta and the sigma-VAE"
    source = "Figure 4 [paper]; datasets, sizes and the two limiting curves [ours]"
    look_for = (
        "The blue line runs through the tolerances from right to left at rising KL, in the same "
        "order for every model and dataset, and no point lies in the grey region, where no VAE "
        "can be."
    )
    order = 4
    in_smoke = False
    bounded = True

    def cases(self, profile: Profile) -> Iterator[tuple[str, str]]:
        """The pairs of model and dataset of a profile."""
        if profile.name == "smoke" or profile.dataset is not None:
            dataset = profile.pick("digits", "mnist")
            for model in ("conv-vae", "nvp-vae", "conv-draw"):
                yield model, dataset
            return
        yield "nvp-vae", "mnist"
        yield "nvp-vae", "fashion-mnist"
        yield "conv-draw", "mnist"
        yield "conv-draw", "mnist-rotate"
        yield "conv-draw", "color-mnist"
        yield "conv-draw", "cifar-10"
        if profile.name == "paper":
            yield "conv-draw", "fashion-mnist"
            yield "nvp-vae", "cifar-10"

    def configs(self, profile: Profile) -> list[RunConfig]:
        """Five tolerances, two ELBOs, the schedule and the sigma-VAE for every pair.

        The tolerances of the pairs in `SPREAD` are run over the seeds, the rest once.
        """
        spread_over = SPREAD.get(profile.name, [])
        return [
            run_config(profile, dataset, model, objective, seed=seed)
            for model, dataset in self.cases(profile)
            for objective in (
                *map(geco, KAPPAS),
                *(elbo(sigma=sigma) for sigma in SIGMAS),
                annealed(profile, model),
                sigma_vae(),
            )
            for seed in (
                seeds(profile)
                if (model, dataset) in spread_over and objective.name == "geco"
                else [0]
            )
        ]

    def measure(
        self, runs: Runs, profile: Profile, *, data_home: Path | None = None
    ) -> xr.Dataset:
        """Final values of every run, and the two limits of every dataset that has them."""
        return with_limits(final_values(runs), runs, profile, data_home)

    def draw(self, data: xr.Dataset) -> list[Drawing]:
        """One panel for every pair of model and dataset."""
        pairs = list(dict.fromkeys(zip(data["model"].values, data["dataset"].values, strict=True)))
        columns = 2 if len(pairs) == 4 else min(3, len(pairs))
        rows = math.ceil(len(pairs) / columns)
        figure, axes = new_figure(rows, columns, width=10.2, height=3.6 * rows)
        for panel, (model, dataset) in zip(axes, pairs, strict=False):
            self._panel(panel, data, str(model), str(dataset))
        for panel in axes[len(pairs) :]:
            panel.set_visible(False)
        place_legend_below(figure, axes[0], 3)
        return [
            Drawing(
                "information-plane",
                figure,
                "Training set. GECO at κ = "
                + ", ".join(f"{kappa:g}" for kappa in KAPPAS)
                + ", joined by a line for each seed; ELBO with decoder standard deviations "
                + " and ".join(f"{sigma:g}" for sigma in SIGMAS)
                + "; the hand-annealed schedule; the σ-VAE, whose decoder variance is the error "
                "of the batch. Numbers: the κ asked for; open circles: runs that ended more than "
                "2% off it. Grey: no VAE can be there (D9). Dashed: the best linear VAE (D7); "
                "below it a model uses more than the data's covariance.",
                "KL against RMS error per pixel for each model and dataset",
            )
        ]

    def _panel(self, panel: Axes, data: xr.Dataset, model: str, dataset: str) -> None:
        part = select(data, model=model, dataset=dataset)
        top = 1.15 * float(part["final_kl"].sel(split="train").max())
        draw_limits(panel, data, dataset)
        for objective, seed in _lines(part):
            chosen = select(part, objective=objective, seed=seed)
            chosen = chosen.sortby("kappa" if objective == "geco" else "sigma")
            panel.plot(
                chosen["final_rms_error"].sel(split="train"),
                chosen["final_kl"].sel(split="train"),
                color=COLORS[objective],
                marker=MARKERS[objective],
                linestyle="-" if objective == "geco" else "none",
                linewidth=1,
                markersize=4,
                label=LABELS[objective],
            )
            if objective == "geco":
                _mark(panel, chosen, named=seed == _lines(part)[0][1])
        errors = part["final_rms_error"].sel(split="train").values
        panel.set(
            title=f"{MODELS[model]} on {dataset}",
            xlabel="RMS error per pixel",
            ylabel="KL (nats)",
            xlim=(0.85 * min(errors.min(), KAPPAS[0]), 1.1 * errors.max()),
            ylim=(-0.02 * top, top),
        )

    def tables(self, data: xr.Dataset) -> list[Table]:
        """Every run."""
        rows = []
        for index in range(data.sizes["run"]):
            run = data.isel(run=index)
            kappa = float(run["kappa"])
            sigma = float(run["sigma"])
            bound = float(run["least_kl_at_run"])
            rows.append(
                (
                    MODELS[str(run["model"].item())],
                    str(run["dataset"].item()),
                    LABELS[str(run["objective"].item())],
                    str(int(run["seed"])),
                    _setting(kappa, sigma),
                    f"{float(run['final_rms_error'].sel(split='train')):.4f}",
                    f"{float(run['final_rms_error'].sel(split='test')):.4f}",
                    f"{float(run['final_kl'].sel(split='train')):.2f}",
                    f"{bound:.2f}" if math.isfinite(bound) else "",
                )
            )
        columns = (
            "model", "dataset", "objective", "seed", "set to", "RMS, training", "RMS, held out",
            "KL (nats)", "least KL (D9)",
        )  # fmt: skip
        return [Table("All points of the figure.", columns, tuple(rows))]

    def claims(self, data: xr.Dataset) -> list[Claim]:
        """Kappa orders the runs; no point lies below the bound."""
        geco_runs = select(data, objective="geco")
        labels = (geco_runs[name].values for name in ("model", "dataset", "seed"))
        lines = list(dict.fromkeys(zip(*labels, strict=True)))
        unordered, rises, falls = [], [], []
        for model, dataset, seed in lines:
            part = select(geco_runs, model=model, dataset=dataset, seed=seed).sortby("kappa")
            error = part["final_rms_error"].sel(split="train").values
            kl = part["final_kl"].sel(split="train").values
            if not ((np.diff(error) > 0).all() and (np.diff(kl) < 0).all()):
                unordered.append(f"{MODELS[str(model)]} on {dataset}, seed {seed}")
            rises += list(100 * (error[1:] / error[:-1] - 1))
            falls += list(100 * (kl[1:] / kl[:-1] - 1))
        ordered = len(lines) - len(unordered)
        return [
            Claim(
                "κ orders the runs in the same way on every model and dataset",
                "over the five κ the error rises and the KL falls strictly, for every model, "
                "dataset and seed",
                f"{ordered} of {counted(len(lines), 'line')} strictly ordered"
                f"{named('not', unordered)}; from one κ to the next the error changes by "
                f"{spread(xr.DataArray(rises), 2)} %, the KL by "
                f"{spread(xr.DataArray(falls), 2)} %",
                by_share(ordered, len(lines)),
            )
        ]

    def notes(self, data: xr.Dataset) -> list[str]:
        """How the bound was checked."""
        margin = margins(data)
        if np.isnan(margin).all():
            return []
        return [
            f"Smallest distance of a run above the bound: {np.nanmin(margin):.2f} nats "
            "(a negative one would mean a wrong KL or a wrong error)."
        ]


def _mark(panel: Axes, runs: xr.Dataset, *, named: bool) -> None:
    """The tolerance beside each point, and an open circle where it was missed."""
    error = runs["final_rms_error"].sel(split="train").values
    kl, kappa = runs["final_kl"].sel(split="train").values, runs["kappa"].values
    missed = np.abs(error / kappa - 1) > EQUAL
    panel.plot(
        error[missed], kl[missed], "o", color=COLORS["geco"], markerfacecolor="white",
        markersize=4, zorder=3,
    )  # fmt: skip
    if named:
        for x, y, value in zip(error, kl, kappa, strict=True):
            panel.annotate(
                f"{value:g}", (x, y), xytext=(4, 3), textcoords="offset points", fontsize=SMALL
            )


def _setting(kappa: float, sigma: float) -> str:
    """What a run was set to."""
    if math.isfinite(kappa):
        return f"κ = {kappa:g}"
    return f"σ = {sigma:g}" if math.isfinite(sigma) else "σ fitted"


def _lines(part: xr.Dataset) -> list[tuple[str, int]]:
    """Each objective with each of its seeds."""
    return [
        (objective, int(seed))
        for objective in ("geco", *BASELINES)
        for seed in np.unique(select(part, objective=objective)["seed"].values)
    ]
