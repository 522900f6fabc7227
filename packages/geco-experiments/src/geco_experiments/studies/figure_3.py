"""Figure 3: one GECO run's way through the information plane, its beta and its pixel error."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from geco_experiments.config import RunConfig
from geco_experiments.results.findings import Claim, Table
from geco_experiments.runtime.words import counted
from geco_experiments.studies.common.information_plane import draw_limits, with_limits
from geco_experiments.studies.common.profiles import Profile, geco, run_config, seeds
from geco_experiments.studies.common.study import Drawing, Runs, Study
from geco_experiments.studies.common.style import COLORS, new_figure, place_legend
from geco_experiments.studies.common.verdicts import by_share

__all__ = ["Trajectory"]

MODEL = "conv-draw"
KAPPA = 0.1
RISE = 1.05


class Trajectory(Study):
    """NLL against KL, beta and pixel error over the steps of one run, coloured by step."""

    name = "figure-3"
    title = "The way of one run through the information plane"
    source = (
        "Figure 3 [paper], there conditional ConvDraw on MNIST-rotate; the data here are named "
        "under the figure; κ and sizes [ours]"
    )
    look_for = (
        "While the error lies above κ, beta falls and the run moves towards small errors at "
        "rising KL; once the moving average meets κ, beta turns upwards and the KL is given back."
    )
    order = 3
    bounded = True

    def configs(self, profile: Profile) -> list[RunConfig]:
        """One run for each seed; the first is drawn."""
        dataset = profile.pick("digits", "mnist-rotate")
        return [
            run_config(profile, dataset, MODEL, geco(KAPPA), seed=seed) for seed in seeds(profile)
        ]

    def measure(
        self, runs: Runs, profile: Profile, *, data_home: Path | None = None
    ) -> xr.Dataset:
        """The histories of the runs, the NLL of each step, and what beta did."""
        names = ["rms_error", "kl", "beta", "moving_average"]
        histories = [runs[config][names] for config in runs]
        data = xr.concat(histories, dim="seed", combine_attrs="override").assign_coords(
            seed=[config.seed for config in runs]
        )
        (config, *_) = runs
        elements = float(runs[config]["elements"])
        data["nll"] = nll_of(data["rms_error"], elements).assign_attrs(
            units="nat", long_name="NLL at unit variance"
        )
        turning = [turn(data.isel(seed=index)) for index in range(data.sizes["seed"])]
        for name in ("step_met", "beta_start", "beta_met", "beta_end"):
            data[name] = ("seed", [found[name] for found in turning])
        data.attrs |= {"dataset": config.dataset.name, "kappa": KAPPA, "elements": elements}
        return with_limits(data, runs, profile, data_home)

    def draw(self, data: xr.Dataset) -> list[Drawing]:
        """Three panels, colour = step."""
        figure, (plane, beta, error) = new_figure(1, 3, width=10.4, height=3.5)
        run = data.isel(seed=0)
        steps = run["step"].values
        points: dict[str, Any] = {"c": np.log10(steps), "cmap": "viridis", "s": 5, "linewidths": 0}
        dataset, elements = data.attrs["dataset"], float(data.attrs["elements"])
        kl_top, nll = 1.1 * float(run["kl"].max()), run["nll"].values
        draw_limits(plane, data, dataset, position=lambda rms: nll_of(rms, elements))
        margin = 0.05 * float(nll.max() - nll.min())
        plane.set(xlim=(nll.min() - margin, nll.max() + margin), ylim=(-0.02 * kl_top, kl_top))
        drawn = plane.scatter(run["nll"], run["kl"], rasterized=True, **points)
        beta.scatter(steps, run["beta"], rasterized=True, **points)
        error.scatter(steps, run["rms_error"], rasterized=True, **points)
        error.axhline(KAPPA, color=COLORS["kappa"], linestyle=":", label=f"κ = {KAPPA:g}")
        met = float(run["step_met"])
        if math.isfinite(met):
            for axes in (beta, error):
                axes.axvline(met, color="#888888", linewidth=0.8)
        plane.set(title="Information plane", xlabel="NLL (nats)", ylabel="KL (nats)")
        beta.set(title="Equivalent beta", xlabel="step", ylabel="β at unit variance")
        error.set(title="Pixel error", xlabel="step", ylabel="RMS error per pixel")
        for axes in (beta, error):
            axes.set_xscale("log")
        beta.set_yscale("log")
        place_legend(error, loc="upper right")
        bar = figure.colorbar(drawn, ax=error, label="step", shrink=0.85)
        ticks = [tick for tick in range(6) if 10**tick <= steps[-1]]
        bar.set_ticks(ticks, labels=[f"$10^{tick}$" for tick in ticks])
        return [
            Drawing(
                "trajectory",
                figure,
                f"ConvDraw on {data.attrs['dataset']}, GECO at κ = {KAPPA:g}, one seed. Colour: "
                "step. Grey line: the moving average of the constraint first meets κ. NLL and "
                "beta are for a decoder of unit variance. "
                + (
                    "The context tells part of the image, so the limits D7 and D9 do not apply."
                    if data["least_kl"].isnull().all()
                    else "Grey: no VAE can be there in the mean over the training set (D9), "
                    "single batches can. Dashed: the best linear VAE (D7)."
                ),
                "Three panels: NLL against KL, beta against step, pixel error against step",
            )
        ]

    def tables(self, data: xr.Dataset) -> list[Table]:
        """Beta at the start, when the constraint is met, and at the end."""
        rows = tuple(
            (
                str(int(seed)),
                _step(float(data["step_met"].sel(seed=seed))),
                *(
                    f"{float(data[name].sel(seed=seed)):.3g}"
                    for name in ("beta_start", "beta_met", "beta_end")
                ),
            )
            for seed in data["seed"].values
        )
        columns = ("seed", "step at which κ is met", "β at step 1", "β when met", "β at the end")
        return [Table("The turn of beta.", columns, rows)]

    def claims(self, data: xr.Dataset) -> list[Claim]:
        """Beta falls while the constraint is violated and rises after it is met."""
        falls = (data["beta_met"] < data["beta_start"]).values
        rises = (data["beta_end"] > RISE * data["beta_met"]).values
        met = int(np.isfinite(data["beta_met"]).sum())
        hits = int((falls & rises).sum())
        return [
            Claim(
                "Beta falls while the constraint is violated and turns upwards once it is met",
                "in every seed β is lower when the moving average first meets κ than at the "
                f"start, and at the end at least {100 * (RISE - 1):.0f}% higher than there; "
                "runs that never meet κ decide nothing",
                f"κ is met in {met} of {counted(falls.size, 'seed')}; there "
                f"falls: {int(falls.sum())}, rises: {int(rises.sum())}, both: {hits}",
                by_share(hits, met),
            )
        ]


def _step(value: float) -> str:
    return f"{value:.0f}" if math.isfinite(value) else "never"


def nll_of(rms: Any, elements: float) -> Any:
    """NLL in nats of images with an RMS error per element, decoder of unit variance."""
    return elements / 2 * (rms**2 + math.log(2 * math.pi))


def turn(run: xr.Dataset) -> dict[str, float]:
    """When the moving average first is at most 0, and beta at the start, there and at the end."""
    beta = run["beta"].values
    met = np.flatnonzero(run["moving_average"].values <= 0)
    return {
        "step_met": float(run["step"].values[met[0]]) if met.size else math.nan,
        "beta_start": float(beta[0]),
        "beta_met": float(beta[met[0]]) if met.size else math.nan,
        "beta_end": float(beta[-1]),
    }
