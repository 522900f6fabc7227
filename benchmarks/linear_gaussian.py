"""Linear VAEs on Gaussian data, where the constrained optimum is known exactly (D7).

Each cell is one problem: a covariance spectrum, a summed squared error D that is allowed, and
the training that everybody shares (optimizer, learning rate with a cosine to 1%, batch, steps).
The contestants only differ in what they minimise and in how their multiplier moves:

- ours: `GECO(ReconstructionError(kappa))`, nothing set;
- paper: Algorithm 1 as printed (`PaperUpdate`), the best of five rates in each cell;
- cooper, humancompatible: projected ascent on the relative constraint, the best of three rates;
- oracle: the plain Lagrangian with the multiplier fixed at its exact value from the start;
- rescaled-oracle: the same exact multiplier in our rescaled loss.

Reported, on the population and not on batches: RE/kappa^2, KL/R and multiplier/multiplier* at
the end, and the step from which they stay within 2%, 2% and 5%.

    python benchmarks/linear_gaussian.py --cells grid --out linear_gaussian.nc
"""

import argparse
import math
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from contestants import Contestant, train_step
from joblib import Parallel, delayed
from linear_gaussian_parts.cells import SPECTRUM, Cell, grid, hard
from linear_gaussian_parts.contestants import (
    ASCENT_RATES,
    CONTESTANTS,
    PAPER_RATES,
)
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from geco_models import LinearVAE, bound_log_variance
from geco_theory import linear_vae_optimum

TOLERANCES = {"RE/kappa^2": 0.02, "KL/R": 0.02, "multiplier/exact": 0.05}
EVERY = 20  # steps between two looks


class Problem:
    """The data of a cell, and the exact metrics of a model on their distribution."""

    def __init__(self, cell: Cell) -> None:
        rng = np.random.default_rng(cell.seed)
        d = len(cell.spectrum)
        rotation, _ = np.linalg.qr(rng.standard_normal((d, d)))
        mu = np.asarray(cell.spectrum)
        self.covariance = (rotation * mu) @ rotation.T
        self.root = torch.from_numpy((rotation * np.sqrt(mu)).T.copy()).float()
        self.scale = math.sqrt(mu.mean())
        self.optimum = linear_vae_optimum(cell.spectrum, cell.kappa)
        self.kappa = cell.kappa
        self.generator = torch.Generator().manual_seed(cell.seed)
        nodes, weights = np.polynomial.hermite_e.hermegauss(40)
        self.nodes, self.node_weights = nodes, weights / weights.sum()

    def batch(self, size: int) -> Tensor:
        """Draws data."""
        noise = torch.randn(size, len(self.root), generator=self.generator)
        return noise @ self.root

    def metrics(self, model: LinearVAE) -> tuple[float, float]:
        """RE/kappa^2 and KL/R on the population, by closed forms and quadrature."""
        k = model.latents
        weight = model.encoder.weight.detach().double().numpy() / self.scale
        bias = model.encoder.bias.detach().double().numpy()
        decoder = model.decoder.weight.detach().double().numpy() * self.scale
        offset = model.decoder.bias.detach().double().numpy() * self.scale
        spread = np.einsum("kd,de,ke->k", weight, self.covariance, weight)
        # the log-variance is a squashed affine map of Gaussian data: one dimension to integrate
        raw = bias[k:, None] + np.sqrt(np.maximum(spread[k:], 0))[:, None] * self.nodes
        log_variance = bound_log_variance(torch.from_numpy(raw)).numpy()
        variance = np.exp(log_variance) @ self.node_weights
        kl = 0.5 * np.sum(
            spread[:k] + bias[:k] ** 2 + variance - 1 - log_variance @ self.node_weights
        )
        residual = np.eye(len(self.covariance)) - decoder @ weight[:k]
        mean = decoder @ bias[:k] + offset
        error = (
            np.einsum("ij,jk,ik->", residual, self.covariance, residual)
            + mean @ mean
            + np.sum(variance * np.sum(decoder**2, 0))
        )
        error /= len(self.covariance)
        return error / self.kappa**2, kl / self.optimum.rate


def train(cell: Cell, build: Callable[[Cell, float], Contestant], rate: float) -> NDArray[Any]:
    """Trains once and returns the three ratios at every look, (looks, 3)."""
    torch.set_num_threads(1)
    problem = Problem(cell)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cell.seed)
        model = LinearVAE(len(cell.spectrum), cell.latents, scale=problem.scale)
        if cell.optimizer == "adam":
            optimizer: torch.optim.Optimizer = torch.optim.Adam(
                model.parameters(), cell.learning_rate
            )
        else:
            optimizer = torch.optim.SGD(model.parameters(), cell.learning_rate, momentum=0.9)
        contestant = build(cell, rate)
        looks = []
        for step in range(cell.steps):
            cosine = 0.5 * (1 + math.cos(math.pi * step / cell.steps))
            for group in optimizer.param_groups:
                group["lr"] = cell.learning_rate * (0.01 + 0.99 * cosine)
            train_step(contestant, model, optimizer, problem.batch(cell.batch))
            if (step + 1) % EVERY == 0:
                looks.append(
                    (
                        *problem.metrics(model),
                        contestant.multiplier() / problem.optimum.relative_multiplier,
                    )
                )
    return np.array(looks)


def steps_to_stay(trace: NDArray[Any]) -> float:
    """The step from which all three stay within their tolerances; infinity if never."""
    with np.errstate(invalid="ignore"):
        inside = np.all(np.abs(trace - 1) <= np.array(list(TOLERANCES.values())), axis=1)
    if not inside[-1]:
        return math.inf
    outside = np.flatnonzero(~inside)
    return float(EVERY * (outside[-1] + 2 if outside.size else 1))


def excess(trace: NDArray[Any]) -> float:
    """The largest final error in units of its tolerance; infinity if it is not finite."""
    value = np.max(np.abs(trace[-1] - 1) / np.array(list(TOLERANCES.values())))
    return float(value) if np.isfinite(value) else math.inf


def contest(cell: Cell, name: str) -> dict[str, Any]:
    """One contestant in one cell, at the best of its rates."""
    rates, build = CONTESTANTS[name]
    runs = [(rate, train(cell, build, rate)) for rate in rates]
    rate, trace = min(runs, key=lambda run: (steps_to_stay(run[1]), excess(run[1])))
    return {
        "cell": cell.name,
        "contestant": name,
        "ratios": trace[-1],
        "steps": steps_to_stay(trace),
        "rate": rate,
        "settings_tried": len(rates),
    }


def to_dataset(
    cells: Sequence[Cell], names: Sequence[str], rows: Sequence[dict[str, Any]]
) -> xr.Dataset:
    """The results by cell and contestant."""
    at = {(row["cell"], row["contestant"]): row for row in rows}
    table = [[at[cell.name, name] for name in names] for cell in cells]

    def pick(key: str) -> NDArray[Any]:
        return np.array([[row[key] for row in line] for line in table], dtype=float)

    dataset = xr.Dataset(
        {
            "ratio": (("cell", "contestant", "quantity"), pick("ratios")),
            "steps": (("cell", "contestant"), pick("steps")),
            "rate": (("cell", "contestant"), pick("rate")),
            "kappa": ("cell", np.array([cell.kappa for cell in cells])),
        },
        coords={
            "cell": [cell.name for cell in cells],
            "contestant": list(names),
            "quantity": list(TOLERANCES),
            "tolerance": ("quantity", list(TOLERANCES.values())),
        },
        attrs={
            "title": "Linear VAEs on Gaussian data against their exact optimum",
            "references": "D7 in docs; benchmarks/linear_gaussian.py",
            "torch": str(torch.__version__),  # a subclass of str, which NetCDF refuses
        },
    )
    dataset["steps"].attrs = {"long_name": "step from which all stay within tolerance"}
    return dataset


def markdown(dataset: xr.Dataset) -> Iterator[str]:
    """The table, and what it amounts to."""
    names = [str(name) for name in dataset.contestant.values]
    yield "| cell | " + " | ".join(names) + " |"
    yield "|---" * (len(names) + 1) + "|"
    for cell in dataset.cell.values:
        row = dataset.sel(cell=cell)
        entries = []
        for name in names:
            one = row.sel(contestant=name)
            steps = float(one.steps)
            ratios = " ".join(
                f"{float(v):.3g}" if abs(v) >= 10 else f"{float(v):.3f}" for v in one.ratio
            )
            entries.append(f"{ratios}; " + (f"**{steps:.0f}**" if math.isfinite(steps) else "-"))
        yield f"| {cell} | " + " | ".join(entries) + " |"
    yield ""
    reached = np.isfinite(dataset.steps).sum("cell")
    for name in names:
        yield f"- {name}: {int(reached.sel(contestant=name))} of {dataset.sizes['cell']} cells"
    for reference in ("oracle", "rescaled-oracle"):
        if {"ours", reference} <= set(names):
            ours = dataset.steps.sel(contestant="ours")
            both = ours / dataset.steps.sel(contestant=reference)
            both = both.where(np.isfinite(both) | np.isfinite(ours))
            yield (
                f"- steps of ours over those of the {reference}, median over the cells that "
                f"either reaches (infinite where only one does): {float(both.median()):.2f}"
            )


PAGE = """# The linear-Gaussian benchmark

Linear VAEs on Gaussian data with spectrum {spectrum} (times the scale), where the optimum under
a reconstruction constraint is known in closed form (D7): the three numbers of an entry,
RE/kappa^2, KL/R and multiplier/exact, are absolute facts and would be 1. They are computed for
the population, not for batches. The bold number is the step from which all three stay within 2%,
2% and 5%; a dash where they do not. Everybody trains alike: Adam 2e-2 with a cosine to 1%, batch
256, 4000 steps, unless the name of the cell says otherwise.

- **ours**: `GECO(ReconstructionError(kappa))`, nothing set.
- **oracle**: the plain Lagrangian, the multiplier fixed at its exact value from the first step.
- **rescaled-oracle**: the same multiplier in our rescaled loss.
- **paper**: Algorithm 1 as printed, the best of the rates {paper} in each cell.
- **cooper**, **humancompatible**: projected ascent on the relative constraint C/kappa^2, the
  best of the rates {ascent} in each cell.

Made by `{command}` on {date}, torch {torch}, seed {seed}.

{table}
"""


def page(dataset: xr.Dataset, seed: int) -> str:
    """The page of the documentation."""
    return PAGE.format(
        spectrum=", ".join(f"{mu:g}" for mu in SPECTRUM),
        paper=", ".join(f"{rate:g}" for rate in PAPER_RATES),
        ascent=", ".join(f"{rate:g}" for rate in ASCENT_RATES),
        command=" ".join(["benchmarks/linear_gaussian.py", *sys.argv[1:]]),
        date=datetime.now(UTC).date(),
        torch=torch.__version__,
        seed=seed,
        table="\n".join(markdown(dataset)),
    )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cells", choices=("grid", "hard", "all"), default="grid")
    parser.add_argument("--only", default="", help="cells whose name matches this pattern")
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=[*CONTESTANTS])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="cells at once")
    parser.add_argument("--out", type=Path, help="where the dataset goes (NetCDF)")
    parser.add_argument("--page", type=Path, help="where the page with the table goes (Markdown)")
    args = parser.parse_args()
    cells = [*(grid(args.seed) if args.cells != "hard" else [])]
    cells += hard(args.seed) if args.cells != "grid" else []
    cells = [cell for cell in cells if re.search(args.only, cell.name)]
    if not cells:
        parser.error(f"no cell has a name that matches {args.only!r}")
    jobs = [(cell, name) for cell in cells for name in args.contestants]
    runs = Parallel(n_jobs=args.jobs, return_as="generator")(
        delayed(contest)(cell, name) for cell, name in jobs
    )
    rows = list(tqdm(runs, total=len(jobs), file=sys.stderr))
    dataset = to_dataset(cells, args.contestants, rows)
    print("\n".join(markdown(dataset)))
    if args.out:
        dataset.to_netcdf(args.out, engine="h5netcdf")
    if args.page:
        args.page.write_text(page(dataset, args.seed), encoding="utf-8")


if __name__ == "__main__":
    main()
