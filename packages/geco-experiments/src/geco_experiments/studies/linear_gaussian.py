"""GECO on a linear VAE against the exact optimum (D7): an absolute test, not a comparison."""

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from geco_experiments.config import RunConfig
from geco_experiments.datasets.home import DataHome
from geco_experiments.evaluation.bounds import training_matrix
from geco_experiments.results.findings import Claim, Table
from geco_experiments.runtime.words import counted, named
from geco_experiments.studies.common.final_values import final_values
from geco_experiments.studies.common.information_plane import draw_limits, with_limits
from geco_experiments.studies.common.profiles import KAPPAS, Profile, geco, run_config, seeds
from geco_experiments.studies.common.study import Drawing, Runs, Study
from geco_experiments.studies.common.style import COLORS, new_figure, place_legend_below
from geco_experiments.studies.common.verdicts import by_share
from geco_theory import linear_vae_optimum

__all__ = ["LinearOptimum"]

MODEL = "linear-vae"
BANDS = {"error": 0.02, "kl": 0.02, "multiplier": 0.05}


class LinearOptimum(Study):
    """Error, KL and multiplier of a linear VAE over the tolerances, beside the closed form."""

    name = "linear-gaussian"
    title = "A linear VAE against the exact optimum"
    source = "The closed form D7 [derived]; the test is this project's [ours]"
    look_for = (
        "The points are single runs with the default settings; each must lie on the line, which "
        "is computed from the eigenvalues of the data's covariance alone."
    )
    order = 8
    bounded = True

    def configs(self, profile: Profile) -> list[RunConfig]:
        """A linear VAE at the five tolerances, over the seeds."""
        dataset = profile.pick("digits", "mnist")
        return [
            run_config(profile, dataset, MODEL, geco(kappa), seed=seed)
            for kappa in KAPPAS
            for seed in seeds(profile)
        ]

    def measure(
        self, runs: Runs, profile: Profile, *, data_home: Path | None = None
    ) -> xr.Dataset:
        """Final values beside the exact optimum of the same data."""
        table = with_limits(final_values(runs), runs, profile, data_home)
        config = next(iter(runs)).dataset
        images = training_matrix(config, DataHome.resolve(data_home)).astype(np.float64)
        images -= images.mean(axis=0)
        spectrum = np.linalg.eigvalsh(images.T @ images / len(images)).clip(min=0.0)
        exact = [linear_vae_optimum(spectrum, float(kappa)) for kappa in table["kappa"].values]
        line = np.geomspace(0.9 * KAPPAS[0], 1.1 * KAPPAS[-1], 60)
        curve = [linear_vae_optimum(spectrum, float(kappa)) for kappa in line]
        return table.assign_coords(line=line).assign(
            exact_kl=("run", [one.rate for one in exact], {"units": "nat"}),
            exact_multiplier=("run", [one.multiplier for one in exact]),
            active_dimensions=("run", [one.active_dimensions for one in exact]),
            line_kl=("line", [one.rate for one in curve], {"units": "nat"}),
            line_multiplier=("line", [one.multiplier for one in curve]),
        )

    def draw(self, data: xr.Dataset) -> list[Drawing]:
        """KL and multiplier against kappa; the error's deviation."""
        figure, (kl, multiplier, error) = new_figure(1, 3, width=10.2, height=3.3)
        dots: dict[str, Any] = {
            "color": COLORS["geco"],
            "marker": "o",
            "markersize": 4.5,
            "linestyle": "none",
        }
        line: dict[str, Any] = {"color": COLORS["linear"], "label": "exact optimum (D7)"}
        draw_limits(kl, data, str(data["dataset"].values[0]), linear=False)
        kl.plot(data["line"], data["line_kl"], **line)
        kl.plot(data["kappa"], data["final_kl"].sel(split="train"), label="GECO, one run", **dots)
        multiplier.plot(data["line"], data["line_multiplier"], **line)
        multiplier.plot(data["kappa"], data["final_multiplier"], **dots)
        error.axhspan(-2, 2, color="#e8f0f7")
        error.plot(data["kappa"], 100 * deviations(data)["error"], **dots)
        kl.set(
            title="Rate",
            xlabel="κ (RMS error per pixel)",
            ylabel="KL (nats)",
            xlim=(data["line"][0], data["line"][-1]),
            ylim=(0, 1.1 * max(float(data["line_kl"].max()), float(data["final_kl"].max()))),
        )
        multiplier.set(title="Multiplier", xlabel="κ (RMS error per pixel)", ylabel="λ")
        multiplier.set_yscale("log")
        error.set(
            title="Error against the target", xlabel="κ (RMS error per pixel)", ylabel="off κ (%)"
        )
        reach = max(3.0, 110 * float(np.abs(deviations(data)["error"]).max()))
        error.set_ylim(-reach, reach)
        place_legend_below(figure, kl, 3)
        return [
            Drawing(
                "optimum",
                figure,
                f"Linear VAE on {data['dataset'].values[0]}, training set; runs at each κ: "
                f"{len(np.unique(data['seed'].values))}. "
                "Line: reverse water-filling of the covariance's eigenvalues. Grey: no VAE, "
                "linear or not, can be there (D9). Band: 2%.",
                "KL, multiplier and error over kappa beside the exact optimum",
            )
        ]

    def tables(self, data: xr.Dataset) -> list[Table]:
        """Deviation from the optimum, the worst seed at each tolerance."""
        off = deviations(data)
        rows = []
        for kappa in KAPPAS:
            rows_of = np.flatnonzero(np.isclose(data["kappa"].values, kappa))
            worst = [100 * max(off[name][rows_of], key=abs) for name in BANDS]
            rows.append(
                (
                    f"{kappa:g}",
                    f"{int(data['active_dimensions'].values[rows_of[0]])}",
                    f"{float(data['exact_kl'].values[rows_of[0]]):.2f}",
                    f"{float(data['exact_multiplier'].values[rows_of[0]]):.4g}",
                    *(f"{value:+.1f}%" for value in worst),
                )
            )
        columns = (
            "κ", "active dimensions", "exact KL (nats)", "exact λ", "error off", "KL off", "λ off",
        )  # fmt: skip
        return [
            Table("Exact optimum, and the largest deviation over the seeds.", columns, tuple(rows))
        ]

    def claims(self, data: xr.Dataset) -> list[Claim]:
        """The optimum is reached without tuning."""
        off = deviations(data)
        inside = np.ones(data.sizes["run"], dtype=bool)
        for name, band in BANDS.items():
            inside &= np.abs(off[name]) <= band
        missed = [
            f"κ = {float(data['kappa'][row]):g}, seed {int(data['seed'][row])}: "
            + " and ".join(
                f"{name} {100 * off[name][row]:+.1f}%"
                for name, band in BANDS.items()
                if not abs(off[name][row]) <= band
            )
            for row in np.flatnonzero(~inside)
        ]
        worst = ", ".join(f"{name} {100 * np.abs(off[name]).max():.1f}%" for name in BANDS)
        return [
            Claim(
                "The constrained optimum itself is reached, error, KL and multiplier [ours]",
                "RMS error within 2%, KL within 2% and multiplier within 5% of the exact optimum "
                "in every run",
                f"{int(inside.sum())} of {counted(inside.size, 'run')}{named('not', missed)}; "
                f"largest deviations: {worst}",
                by_share(int(inside.sum()), inside.size),
            )
        ]


def deviations(data: xr.Dataset) -> dict[str, np.ndarray]:
    """Relative deviations of error, KL and multiplier from the exact optimum, run by run."""
    train = data.sel(split="train")
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "error": (train["final_rms_error"] / data["kappa"]).values - 1,
            "kl": (train["final_kl"] / data["exact_kl"]).values - 1,
            "multiplier": (data["final_multiplier"] / data["exact_multiplier"]).values - 1,
        }
