"""Every run of all studies at once: was the target hit, and does any point lie below the limit?"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.ticker import NullFormatter, ScalarFormatter

from geco_experiments.config import RunConfig
from geco_experiments.results.findings import Claim, Table
from geco_experiments.runtime.words import counted
from geco_experiments.studies.common.final_values import final_values, rows_of
from geco_experiments.studies.common.information_plane import margins, with_limits
from geco_experiments.studies.common.profiles import Profile
from geco_experiments.studies.common.study import Drawing, Runs, Study
from geco_experiments.studies.common.style import COLORS, MODELS, new_figure, place_legend_below
from geco_experiments.studies.common.verdicts import EQUAL, by_share

__all__ = ["AllRuns", "outcome"]

SHARE = 0.9
ERRORS = 4.0  # standard errors of a run's KL that a point may lie below the bound by chance
LOOKS = {
    "linear-vae": (COLORS["linear"], "D"),
    "mlp-vae": (COLORS["data"], "v"),
    "conv-vae": (COLORS["geco"], "o"),
    "nvp-vae": (COLORS["elbo"], "s"),
    "conv-draw": (COLORS["annealed-elbo"], "^"),
}


class AllRuns(Study):
    """The two checks that hold for every run, whatever study it was made for.

    Args:
        studies: the others, whose runs it reads.
    """

    name = "all-runs"
    title = "Every run: the target and the limit"
    source = "The target is the abstract's claim [paper]; the limit is D9 [derived]"
    look_for = (
        "Left, the filled points must lie in the band: the error over the training set is the one "
        "that was asked for. Right, no point may lie below zero."
    )
    order = 11
    bounded = True
    reads_all = True

    def __init__(self, studies: Sequence[Study]) -> None:
        self.studies = tuple(studies)

    def configs(self, profile: Profile) -> list[RunConfig]:
        """The first runs of all studies."""
        configs = [config for study in self.studies for config in study.configs(profile)]
        return list(dict.fromkeys(configs))

    def measure(
        self, runs: Runs, profile: Profile, *, data_home: Path | None = None
    ) -> xr.Dataset:
        """Final values, the bound at each run, and what became of each target."""
        data = with_limits(final_values(runs), runs, profile, data_home)
        rows = rows_of(runs)
        asked = [
            config.objective.name == "geco" and config.objective.constraint == "re"
            for config, _ in rows
        ]
        words = [
            outcome(row) if target else "" for (_, row), target in zip(rows, asked, strict=True)
        ]
        return data.assign(asked=("run", np.array(asked, dtype=np.int8)), outcome=("run", words))

    def draw(self, data: xr.Dataset) -> list[Drawing]:
        """Deviation from the target, and distance above the bound."""
        figure, (target, limit) = new_figure(1, 2, width=9.6, height=3.8)
        off = {split: 100 * deviation(data, split) for split in ("test", "train")}
        margin = margins(data)
        error = data["final_rms_error"].sel(split="train").values
        for name, (colour, marker) in LOOKS.items():
            rows = np.flatnonzero(data["model"].values == name)
            style: dict[str, Any] = {
                "color": colour, "marker": marker, "linestyle": "none", "markersize": 4.5,
            }  # fmt: skip
            if not rows.size:
                continue
            kappa = data["kappa"].values[rows]
            target.plot(kappa, off["test"][rows], markerfacecolor="none", alpha=0.6, **style)
            target.plot(kappa, off["train"][rows], **style)
            limit.plot(error[rows], margin[rows], label=MODELS[name], **style)
        target.axhspan(-100 * EQUAL, 100 * EQUAL, color="#e8f0f7", zorder=0)
        target.set_yscale("symlog", linthresh=4)
        target.set(
            title="Error against the target", xlabel="κ (RMS error per pixel)", ylabel="off κ (%)"
        )
        limit.axhline(0.0, color=COLORS["bound"], linewidth=1)
        limit.set_yscale("symlog", linthresh=1)
        limit.set_xscale("log")
        limit.xaxis.set_major_formatter(ScalarFormatter())
        limit.xaxis.set_minor_formatter(NullFormatter())
        limit.set_xticks([tick for tick in (0.05, 0.1, 0.2, 0.5, 1.0) if tick > error.min()])
        for axes in (target, limit):
            axes.margins(y=0.08)
        limit.set(
            title="Distance above the bound F*",
            xlabel="RMS error per pixel",
            ylabel="KL − least KL (nats)",
        )
        place_legend_below(figure, limit, len(LOOKS))
        return [
            Drawing(
                "all-runs",
                figure,
                "Left: every GECO run with a reconstruction constraint; filled: training set, "
                "open: held out; band: 2%. Right: every run, of any objective, whose data have a "
                "bound (D9), on the training set.",
                "Deviation from the tolerance for every run, and distance above the bound",
            )
        ]

    def tables(self, data: xr.Dataset) -> list[Table]:
        """The target by model and dataset; then each run that missed, and why."""
        off, held_out = deviation(data, "train"), deviation(data, "test")
        asked = np.isfinite(off)
        labels = list(zip(data["model"].values, data["dataset"].values, strict=True))
        counts = []
        for model, dataset in dict.fromkeys(labels[row] for row in np.flatnonzero(asked)):
            rows = [row for row in np.flatnonzero(asked) if labels[row] == (model, dataset)]
            counts.append(
                (
                    MODELS[str(model)],
                    str(dataset),
                    str(len(rows)),
                    str(int((np.abs(off[rows]) <= EQUAL).sum())),
                    f"{100 * np.median(np.abs(off[rows])):.2f}%",
                    f"{100 * np.median(np.abs(held_out[rows])):.2f}%",
                )
            )
        tables = [
            Table(
                "Runs within 2% of their target on the training set.",
                (
                    "model", "dataset", "runs", "within 2%", "median deviation, training",
                    "median deviation, held out",
                ),
                tuple(counts),
            )
        ]  # fmt: skip
        missed = [
            (
                str(data["name"].values[row]),
                f"{float(data['kappa'][row]):g}",
                f"{100 * off[row]:+.1f}%",
                f"{100 * held_out[row]:+.1f}%",
                str(data["outcome"].values[row]),
            )
            for row in np.flatnonzero(asked & ~(np.abs(off) <= EQUAL))
        ]
        if missed:
            columns = ("run", "κ", "off κ, training", "off κ, held out", "what happened")
            tables.append(Table("The others.", columns, tuple(missed)))
        return tables

    def claims(self, data: xr.Dataset) -> list[Claim]:
        """The target is hit; nothing lies below the bound."""
        off = deviation(data, "train")
        off = np.abs(off[np.isfinite(off)])
        hits = int((off <= EQUAL).sum())
        below, checked, least = below_bound(data)
        return [
            Claim(
                "The error of a finished GECO run is the one that was asked for",
                f"training-set RMS error within {100 * EQUAL:.0f}% of κ in at least "
                f"{100 * SHARE:.0f}% of all runs with that constraint, of every study",
                f"{hits} of {counted(off.size, 'run')} ({100 * hits / max(off.size, 1):.0f}%)",
                by_share(hits, off.size, enough=SHARE),
            ),
            Claim(
                "No model lies below the bound F* of its training data [derived, D9]",
                f"no run's KL is below the least KL at its error by more than {ERRORS:g} standard "
                "errors of the KL; else a KL or an error is wrong",
                f"below it: {below} of {counted(checked, 'run')} whose bound is above zero; the "
                f"nearest is {least:.2f} nats above",
                "not decided" if not checked else "does not hold here" if below else "holds",
            ),
        ]


def deviation(data: xr.Dataset, split: str) -> np.ndarray:
    """Relative deviation of each run's RMS error from its kappa; NaN for runs without one."""
    ratio = (data["final_rms_error"].sel(split=split) / data["kappa"]).values - 1
    return np.where(data["asked"].values == 1, ratio, math.nan)


def below_bound(data: xr.Dataset) -> tuple[int, int, float]:
    """How many runs lie below the bound, how many have one, and the smallest margin, nats.

    A bound of zero, at errors above those of the first transition, is one that cannot be broken:
    such runs are not counted.
    """
    margin = margins(data)
    known = np.isfinite(margin) & (data["least_kl_at_run"].values > 0)
    if not known.any():
        return 0, 0, math.nan
    below = margin[known] < -ERRORS * data["final_kl_error"].sel(split="train").values[known]
    return int(below.sum()), int(known.sum()), float(margin[known].min())


def outcome(run: xr.Dataset) -> str:
    """What a run's history says of its constraint: facts that can be read off, no guess.

    Args:
        run: a finished run with one constraint.
    """
    steps = run["step"].values
    if "knot" in run.dims:
        share = float((run["feasible"].values == 1).mean())
        return f"one run over a range, all of it met in {100 * share:.0f}% of the steps"
    met = np.flatnonzero(run["moving_average"].values <= 0)
    multiplier = run["multiplier"].values
    last = int(steps[-1])
    if met.size:
        peak, end = float(np.nanmax(multiplier)), float(multiplier[-1])
        words = f"met at step {int(steps[met[0]])} of {last}"
        return f"{words}; λ ended at {end / peak:.2g} of its peak"
    bound = np.flatnonzero(run["saturated"].values == 1)
    if bound.size:
        share = 100 * bound.size / steps.size
        return f"not met in {last} steps; λ at its bound for {share:.0f}% of them"
    return f"not met in {last} steps; λ was still rising"
