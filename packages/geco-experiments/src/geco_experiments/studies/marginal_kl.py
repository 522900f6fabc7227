"""The marginal KL at equal error: does GECO cover the prior better?"""

from pathlib import Path

import numpy as np
import xarray as xr

from geco_experiments.config import RunConfig
from geco_experiments.results.findings import Claim, Table
from geco_experiments.runtime.words import counted, named
from geco_experiments.studies.common.final_values import final_values, select, spread
from geco_experiments.studies.common.information_plane import draw_limits, with_limits
from geco_experiments.studies.common.profiles import (
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
    new_figure,
    place_legend_below,
)
from geco_experiments.studies.common.verdicts import EQUAL, by_sign

__all__ = ["MarginalStudy"]

MODEL = "nvp-vae"
SIGMA = 0.1
MARGIN = 0.01


class MarginalStudy(Study):
    """ELBO, hand-annealed beta and sigma-VAE, then GECO at the error that each of them reached."""

    name = "marginal-kl"
    title = "Marginal KL at equal error"
    source = "The paper's headline [second-hand]; estimator and sizes [ours]"
    look_for = (
        "Each pair of joined points has the same error; the claim says that the blue one lies "
        "lower, nearer to the prior as a whole."
    )
    order = 7
    in_smoke = False
    bounded = True
    growth = 2.0

    def configs(self, profile: Profile) -> list[RunConfig]:
        """The baselines over the seeds."""
        dataset = profile.pick("digits", "mnist")
        return [
            run_config(profile, dataset, MODEL, objective, seed=seed)
            for objective in (elbo(sigma=SIGMA), annealed(profile, MODEL), sigma_vae())
            for seed in seeds(profile)
        ]

    def follow_up(
        self, runs: Runs, profile: Profile, *, data_home: Path | None = None
    ) -> list[RunConfig]:
        """GECO at the training-set error of every baseline run."""
        return [
            run_config(
                profile,
                config.dataset.name,
                MODEL,
                geco(_target(runs[config])),
                seed=config.seed,
            )
            for config in runs
            if config.objective.name != "geco"
        ]

    def measure(
        self, runs: Runs, profile: Profile, *, data_home: Path | None = None
    ) -> xr.Dataset:
        """Final values; `partner` is the row of the GECO run at the same error."""
        table = final_values(runs)
        partner = np.full(table.sizes["run"], -1)
        for index, config in enumerate(runs):
            if config.objective.name == "geco":
                continue
            kappa = _target(runs[config])
            match = (table["objective"].values == "geco") & (table["seed"].values == config.seed)
            match &= np.isclose(table["kappa"].values, kappa)
            partner[index] = int(np.flatnonzero(match)[0])
        posteriors = {int(runs[config]["marginal_posteriors"].max()) for config in runs}
        data = with_limits(table, runs, profile, data_home).assign(partner=("run", partner))
        data.attrs["posteriors"] = max(posteriors)
        return data

    def draw(self, data: xr.Dataset) -> list[Drawing]:
        """Marginal KL and mean KL against the error."""
        figure, panels = new_figure(1, 2, width=9.0, height=3.5)
        train = data.sel(split="train")
        for axes, name, title in (
            (panels[0], "marginal_kl", "Marginal KL(q(z) ‖ π)"),
            (panels[1], "final_kl", "Mean KL(q(z|x) ‖ π)"),
        ):
            for index, other in pairs(data):
                axes.plot(
                    train["final_rms_error"].values[[index, other]],
                    train[name].values[[index, other]],
                    color="#b8bfca",
                    linewidth=1,
                    zorder=1,
                )
            for objective in ("geco", *BASELINES):
                part = select(train, objective=objective)
                axes.plot(
                    part["final_rms_error"],
                    part[name],
                    color=COLORS[objective],
                    marker=MARKERS[objective],
                    linestyle="none",
                    markersize=5,
                    label=LABELS[objective],
                )
            axes.set(title=title, xlabel="RMS error per pixel", ylabel="nats")
        errors, top = train["final_rms_error"].values, 1.15 * float(train["final_kl"].max())
        draw_limits(panels[1], data, str(data["dataset"].values[0]))
        panels[1].set(xlim=(0.9 * errors.min(), 1.1 * errors.max()), ylim=(0, top))
        place_legend_below(figure, panels[1], 3)
        return [
            Drawing(
                "marginal",
                figure,
                f"VAE+NVP on {data['dataset'].values[0]}, training set, "
                f"{counted(len(np.unique(data['seed'].values)), 'seed')}. Monte Carlo over the "
                f"aggregate of n = {data.attrs['posteriors']} posteriors. The limits on the right "
                "are for the mean KL; the marginal KL has none but zero.",
                "Marginal KL and mean KL against the error, baselines joined to GECO runs",
            )
        ]

    def tables(self, data: xr.Dataset) -> list[Table]:
        """Pair by pair."""
        train = data.sel(split="train")
        rows = tuple(
            (
                LABELS[str(train["objective"].values[index])],
                str(train["seed"].values[index]),
                f"{float(train['final_rms_error'][index]):.4f}",
                f"{float(train['final_rms_error'][other]):.4f}",
                f"{float(train['marginal_kl'][index]):.2f} ± "
                f"{float(train['marginal_kl_error'][index]):.2f}",
                f"{float(train['marginal_kl'][other]):.2f} ± "
                f"{float(train['marginal_kl_error'][other]):.2f}",
            )
            for index, other in pairs(data)
        )
        columns = (
            "baseline", "seed", "RMS, baseline", "RMS, GECO", "marginal KL, baseline",
            "marginal KL, GECO",
        )  # fmt: skip
        return [Table("Training set; ± one standard error.", columns, rows)]

    def claims(self, data: xr.Dataset) -> list[Claim]:
        """A lower marginal KL at the same error."""
        values = data["marginal_kl"].sel(split="train").values
        error = data["final_rms_error"].sel(split="train").values
        same = [(i, j) for i, j in pairs(data) if abs(error[j] / error[i] - 1) <= EQUAL]
        unequal = [
            f"{LABELS[str(data['objective'].values[i])]}, seed {int(data['seed'].values[i])}"
            for i, j in pairs(data)
            if (i, j) not in same
        ]
        changes = [values[other] - values[index] for index, other in same]
        scale = [MARGIN * abs(values[index]) for index, _ in same]
        effects = [change / max(unit, 1e-12) for change, unit in zip(changes, scale, strict=True)]
        return [
            Claim(
                "GECO has a lower marginal KL at the same reconstruction error",
                f"lower by more than {100 * MARGIN:.0f}% in every pair of runs whose errors agree "
                f"within {100 * EQUAL:.0f}%, at least three",
                f"errors agree in {len(same)} of {counted(len(pairs(data)), 'pair')}"
                + named("not", unequal)
                + (
                    f"; marginal KL there changes by {spread(xr.DataArray(changes), 2)} nats"
                    if changes
                    else ""
                ),
                by_sign(effects, 1.0),
            )
        ]

    def notes(self, data: xr.Dataset) -> list[str]:
        """What n does to the estimate."""
        return [
            "The mutual information under the aggregate of n posteriors is at most ln n = "
            f"{np.log(data.attrs['posteriors']):.2f} nats, so at a mean KL far above that the "
            "marginal KL is the mean KL less ln n, whatever the model: compare at equal n only."
        ]


def pairs(data: xr.Dataset) -> list[tuple[int, int]]:
    """Rows of the baselines with those of their GECO partners."""
    partner = data["partner"].values
    return [(index, int(other)) for index, other in enumerate(partner) if other >= 0]


def _target(run: xr.Dataset) -> float:
    return round(float(run["final_rms_error"].sel(split="train")), 6)
