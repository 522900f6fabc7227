"""One run over a range of tolerances beside one run for each: does it serve all of them?"""

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from geco_experiments.config import RunConfig
from geco_experiments.results.findings import Claim, Table
from geco_experiments.runtime.words import counted, named
from geco_experiments.studies.common.final_values import final_values, rows_of, select, spread
from geco_experiments.studies.common.information_plane import draw_limits, with_limits
from geco_experiments.studies.common.profiles import (
    KAPPAS,
    Profile,
    geco,
    over_range,
    run_config,
    seeds,
)
from geco_experiments.studies.common.study import Drawing, Runs, Study
from geco_experiments.studies.common.style import COLORS, MODELS, new_figure, place_legend_below
from geco_experiments.studies.common.verdicts import EQUAL, by_share

__all__ = ["OneRun"]

RANGE = (0.06, 0.2)
MODEL = {"smoke": "mlp-vae", "laptop": "nvp-vae", "paper": "nvp-vae"}
MORE = 0.05  # of the single runs' KL
# times the steps of a single run; the smoke profile has no time for the single runs themselves
LENGTHS = {"smoke": (len(KAPPAS),), "laptop": (1, len(KAPPAS)), "paper": (1, len(KAPPAS))}
LOOKS: dict[int, dict[str, Any]] = {
    1: {"color": COLORS["kappa"], "marker": "^", "markerfacecolor": "white"},
    len(KAPPAS): {"color": COLORS["kappa"], "marker": "D"},
}


class OneRun(Study):
    """The curve of one run over the range, as long as one single run and as long as all five."""

    name = "one-run"
    title = "One run for every tolerance"
    source = (
        "The tolerances are those of Figure 4 [paper]; the tolerance as an input of the model and "
        "multipliers that depend on it [ours]"
    )
    look_for = (
        "The orange points are one model, asked for one tolerance after the other; filled: "
        "trained for as many steps as five runs, open: for as many as one. Where there are blue "
        "points, trained for one tolerance each, the orange ones should lie on them."
    )
    order = 4
    bounded = True

    def configs(self, profile: Profile) -> list[RunConfig]:
        """One run for each tolerance over the seeds, and the run over the range.

        The smoke profile makes the run over the range alone.
        """
        dataset, model = profile.pick("digits", "mnist"), MODEL[profile.name]
        single = [
            run_config(profile, dataset, model, geco(kappa), seed=seed)
            for kappa in KAPPAS
            for seed in seeds(profile)
        ]
        ranged = [
            run_config(profile, dataset, model, over_range(*RANGE), longer=longer)
            for longer in LENGTHS[profile.name]
        ]
        return ranged if profile.name == "smoke" else [*single, *ranged]

    def measure(
        self, runs: Runs, profile: Profile, *, data_home: Path | None = None
    ) -> xr.Dataset:
        """Final values, a row for each tolerance of the one run; its length beside them."""
        table = final_values(runs)
        steps = np.array([config.training.steps for config, _ in rows_of(runs)])
        one = steps.max() // max(LENGTHS[profile.name])
        table = table.assign_coords(
            steps=("run", steps, {"long_name": "optimizer steps"}),
            longer=("run", steps // one, {"long_name": "steps over those of a single run"}),
        )
        return with_limits(table, runs, profile, data_home)

    def draw(self, data: xr.Dataset) -> list[Drawing]:
        """The plane, the deviation from the tolerances, the KL beside the single runs'."""
        single = select(data, objective="geco")
        seeds_of = np.unique(single["seed"].values)
        columns = 3 if seeds_of.size else 2
        figure, (plane, off, *rest) = new_figure(1, columns, width=3.6 * columns, height=3.7)
        dataset = str(data["dataset"].values[0])
        draw_limits(plane, data, dataset)
        off.axhspan(-100 * EQUAL, 100 * EQUAL, color="#e8f0f7")
        for seed in seeds_of:
            look: dict[str, Any] = {
                "color": COLORS["geco"],
                "marker": "o",
                "label": "one run for each κ",
            }
            _line(plane, off, select(single, seed=seed), look)
        for longer in lengths(data):
            run = ranged(data, longer)
            look = {**LOOKS[longer], "label": f"one run, {_times(longer)}"}
            _line(plane, off, run, look)
            for more in rest:
                more.plot(
                    run["kappa"], 100 * more_kl(data, longer), linewidth=1, markersize=5, **look
                )
        kl = data["final_kl"].sel(split="train").values
        errors = data["final_rms_error"].sel(split="train").values
        plane.set(
            title=f"{MODELS[str(data['model'].values[0])]} on {dataset}",
            xlabel="RMS error per pixel",
            ylabel="KL (nats)",
            xlim=(0.9 * errors.min(), 1.08 * errors.max()),
            ylim=(0, 1.15 * kl.max()),
        )
        off.set(title="Error against the target", xlabel="κ", ylabel="off κ (%)")
        for more in rest:
            more.axhspan(-100 * MORE, 100 * MORE, color="#e8f0f7", zorder=0)
            more.set(title="KL against the single runs", xlabel="κ", ylabel="more nats (%)")
        beside = (
            f", beside one run for each κ (blue, {counted(seeds_of.size, 'seed')})"
            if seeds_of.size
            else ""
        )
        place_legend_below(figure, plane, 3)
        return [
            Drawing(
                "curve",
                figure,
                "Training set. One model that takes κ as an input, trained once over "
                f"{RANGE[0]:g} to {RANGE[1]:g} and asked for each κ (orange){beside}. Bands: "
                f"{100 * EQUAL:.0f}% of κ"
                + (f"; {100 * MORE:.0f}% of the single runs' KL" if rest else "")
                + ". Grey: no VAE can be there (D9). Dashed: the best linear VAE (D7).",
                "KL against error for one run and for five; deviation from κ; KL against theirs",
            )
        ]

    def tables(self, data: xr.Dataset) -> list[Table]:
        """Errors and nats by tolerance; then what each way costs."""
        rows = []
        lines = {longer: ranged(data, longer).sel(split="train") for longer in lengths(data)}
        single = select(data, objective="geco")
        for index, kappa in enumerate(KAPPAS):
            cells = [f"{kappa:g}"]
            if single.sizes["run"]:
                part = select(single, kappa=kappa).sel(split="train")
                cells += [_off(part), spread(part["final_kl"], 3)]
            for line in lines.values():
                one = line.isel(run=[index])
                cells += [_off(one), f"{float(one['final_kl'][0]):.3g}"]
            rows.append(tuple(cells))
        count = len(np.unique(single["seed"].values))
        columns = ["κ", *(["single runs, off κ", "KL (nats)"] if count else [])]
        for longer in lengths(data):
            columns += [f"one run, {_times(longer)}: off κ", "KL (nats)"]
        costs = []
        if count:
            costs = [("one run for each κ", single["steps"].sum(), single["seconds"].sum(), count)]
        for longer in lengths(data):
            line = ranged(data, longer)
            costs.append((f"one run, {_times(longer)}", line["steps"][0], line["seconds"][0], 1))
        caption = "Training set" + ("; single runs: mean and range over seeds." if count else ".")
        shown = tuple(
            (name, f"{int(steps) // each}", f"{float(seconds) / each:.0f}")
            for name, steps, seconds, each in costs
        )
        return [
            Table(
                caption,
                tuple(columns),
                tuple(rows),
            ),
            Table(
                "What all five tolerances cost.", ("way", "steps", "seconds of training"), shown
            ),
        ]

    def claims(self, data: xr.Dataset) -> list[Claim]:
        """Every tolerance is met, at hardly more nats."""
        missed, total = [], 0
        for longer in lengths(data):
            line = ranged(data, longer).sel(split="train")
            off = (line["final_rms_error"] / line["kappa"]).values - 1
            total += off.size
            missed += [
                f"{_times(longer)}, κ = {kappa:g}: {100 * value:+.1f}%"
                for kappa, value in zip(line["kappa"].values, off, strict=True)
                if abs(value) > EQUAL
            ]
        reached = Claim(
            "One model that takes κ as an input meets every κ of its range [ours]",
            f"training-set RMS error within {100 * EQUAL:.0f}% of κ at each of the five κ, for "
            "runs of every length",
            f"{total - len(missed)} of {total} within {100 * EQUAL:.0f}%{named('not', missed)}",
            by_share(total - len(missed), total),
        )
        if not select(data, objective="geco").sizes["run"]:
            return [reached]
        return [reached, *(_kl_claim(data, longer) for longer in reversed(lengths(data)))]

    def notes(self, data: xr.Dataset) -> list[str]:
        """Where the comparison is, if it is not here."""
        if select(data, objective="geco").sizes["run"]:
            return []
        return [
            "Whether single runs need fewer nats is decided in the laptop profile: "
            f"geco reproduce --profile laptop --study {self.name}."
        ]


def _kl_claim(data: xr.Dataset, longer: int) -> Claim:
    more = more_kl(data, longer)
    equal = np.isfinite(more)
    above = [
        f"κ = {kappa:g}: {100 * value:+.1f}%"
        for kappa, value in zip(KAPPAS, more, strict=True)
        if value > MORE
    ]
    unequal = [f"κ = {kappa:g}" for kappa, same in zip(KAPPAS, equal, strict=True) if not same]
    words = {1: "each of them", len(KAPPAS): "all of them together"}[longer]
    compared = int(equal.sum())
    return Claim(
        f"One run needs hardly more nats than one run for each κ, as long as {words} [ours]",
        f"the KL at most {100 * MORE:.0f}% above that of the single runs (mean over seeds) at "
        f"each of the five κ where both errors are within {100 * EQUAL:.0f}% of κ, at least three",
        f"{compared - len(above)} of {compared} κ{named('more', above)}"
        f"{named('errors differ at', unequal)}"
        + (f"; KL differs by {spread(xr.DataArray(100 * more), 2)} %" if compared else ""),
        by_share(compared - len(above), compared) if compared >= 3 else "not decided",
    )


def lengths(data: xr.Dataset) -> list[int]:
    """How many times a single run's steps the runs over the range have, ascending."""
    return [int(one) for one in np.unique(select(data, objective="geco-range")["longer"].values)]


def ranged(data: xr.Dataset, longer: int) -> xr.Dataset:
    """The rows of the one run of a length, by rising tolerance."""
    return select(data, objective="geco-range", longer=longer).sortby("kappa")


def more_kl(data: xr.Dataset, longer: int) -> np.ndarray:
    """The KL of the one run relative to the single runs', less 1; NaN where errors differ."""
    run = ranged(data, longer).sel(split="train")
    more = []
    for index, kappa in enumerate(KAPPAS):
        one = run.isel(run=[index])
        single = select(data, objective="geco", kappa=kappa).sel(split="train")
        same = all(
            (abs(part["final_rms_error"] / kappa - 1) <= EQUAL).all() for part in (one, single)
        )
        ratio = float(one["final_kl"][0]) / float(single["final_kl"].mean())
        more.append(ratio - 1 if same else np.nan)
    return np.array(more)


def _line(plane: Axes, off: Axes, runs: xr.Dataset, look: dict[str, Any]) -> None:
    part = runs.sel(split="train").sortby("kappa")
    error = part["final_rms_error"].values
    style = {"linewidth": 1, "markersize": 4.5, **look}
    plane.plot(error, part["final_kl"], **style)
    off.plot(part["kappa"], 100 * (error / part["kappa"].values - 1), **style)


def _off(part: xr.Dataset) -> str:
    off = 100 * ((part["final_rms_error"] / part["kappa"]).values - 1)
    low, high = f"{off.min():+.1f}%", f"{off.max():+.1f}%"
    return low if low == high else f"{low} to {high}"


def _times(longer: int) -> str:
    return "as long as one of them" if longer == 1 else "as long as all of them"
