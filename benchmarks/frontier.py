"""What a tolerance costs: KL over error, for GECO, its rivals and fixed multipliers.

Many small VAEs on MNIST at 14 x 14 (10,000 images, an MLP with two hidden layers of 64, 16
latents, Adam 1e-3, batch 64, 2,500 steps) are trained at once. The frontier of a seed is the lower
envelope of fixed multipliers, with the loss divided by its weights and without. Contestants, each
with its best rate per tolerance where it has one: ours (`GECO(ReconstructionError(kappa))`,
nothing set), Algorithm 1 as printed, Cooper, humancompatible-train, the optimal-sigma VAE (which
has no tolerance), and a PI controller of the KL's weight as in ControlVAE.

    python benchmarks/frontier.py testbed --seeds 0 1 2 --out frontier.nc
    python benchmarks/frontier.py robustness
    python benchmarks/frontier.py models --out models.nc

`robustness` changes the training under ours: rates, batches, optimizers, clipping, schedules, the
unit of the KL, the tolerance on the way. `models` runs ours on the project's ConvVAE, NVPVAE and
ConvDraw at full size. Errors and KLs at the end are those of the whole training set; the step
from which the error stays within 2% of the tolerance is judged on 2,000 of its images every 100
steps. The data are looked for in the folder that `GECO_DATA_HOME` names.
"""

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from contestants import Contestant, Geco
from frontier_parts.contestants import CONTESTANTS, Fixed
from frontier_parts.data import images, small_mnist
from frontier_parts.frontier import PLAIN, RESCALED, UNIT, Frontier
from frontier_parts.models import MODELS, Problem, train_one
from frontier_parts.stack import steps_to_stay, train

SETTINGS = {"latents": 16, "hidden": (64, 64)}
KAPPAS = (0.16, 0.14, 0.12, 0.112, 0.095)
TOGETHER = 60  # models trained in one stack


def trained(
    data: torch.Tensor, runs: Sequence[tuple[int, Callable[[], Contestant]]], **settings: Any
) -> list[dict[str, Any]]:
    """Trains all runs, some at once, and returns what is known of each at the end."""
    results = []
    for start in range(0, len(runs), TOGETHER):
        part = runs[start : start + TOGETHER]
        contestants = [make() for _, make in part]
        trace = train(data, [seed for seed, _ in part], contestants, **settings)
        values = trace.values
        results += [
            {
                "rms": values[-1, 0, i],
                "kl": values[-1, 1, i],
                "multiplier": values[-1, 2, i],
                "peak": values[:, 2, i].max(),
                "steps": trace.steps,
                "errors": values[:, 0, i],
            }
            for i in range(len(part))
        ]
        print(f"{len(results)} of {len(runs)} runs", file=sys.stderr, flush=True)
    return results


def fixed_runs(seeds: Sequence[int]) -> list[tuple[int, Callable[[], Contestant]]]:
    """The fixed multipliers of every seed."""
    return [
        (seed, lambda m=m, rescale=rescale: Fixed(UNIT, m, rescale=rescale))  # type: ignore[misc]
        for seed in seeds
        for rescale, multipliers in ((True, RESCALED), (False, PLAIN))
        for m in multipliers
    ]


def frontier_of(fixed: Sequence[dict[str, Any]]) -> Frontier:
    """The frontier of runs with fixed multipliers."""
    return Frontier([run["rms"] for run in fixed], [run["kl"] for run in fixed])


def testbed(args: argparse.Namespace) -> xr.Dataset:
    """All contestants at all tolerances and seeds, and the frontier of every seed."""
    data = small_mnist()
    common = {"steps": args.steps, "settings": SETTINGS}
    fixed = trained(data, fixed_runs(args.seeds), **common)
    per_seed = len(RESCALED) + len(PLAIN)
    frontiers = {
        seed: frontier_of(fixed[i * per_seed : (i + 1) * per_seed])
        for i, seed in enumerate(args.seeds)
    }
    cells = [
        (name, kappa, seed, rate)
        for name in args.contestants
        for kappa in args.kappas
        for seed in args.seeds
        for rate in CONTESTANTS[name][0]
    ]
    runs = [
        (seed, lambda name=name, kappa=kappa, rate=rate: CONTESTANTS[name][1](kappa, rate))  # type: ignore[misc]
        for name, kappa, seed, rate in cells
    ]
    found: dict[tuple[str, float, int], dict[str, Any]] = {}
    for (name, kappa, seed, rate), run in zip(cells, trained(data, runs, **common), strict=True):
        run |= {"rate": rate, "stays": steps_to_stay(run["steps"], run["errors"], kappa)}
        key = (name, kappa, seed)
        if key not in found or quality(run, kappa) < quality(found[key], kappa):
            found[key] = run
    shape = (len(args.contestants), len(args.kappas), len(args.seeds))
    dims = ("contestant", "kappa", "seed")

    def table(pick: Callable[[dict[str, Any], float, int], float]) -> Any:
        values = [
            pick(found[name, kappa, seed], kappa, seed)
            for name in args.contestants
            for kappa in args.kappas
            for seed in args.seeds
        ]
        return dims, np.array(values, dtype=float).reshape(shape)

    return xr.Dataset(
        {
            "rms": table(lambda run, kappa, seed: run["rms"]),
            "kl": table(lambda run, kappa, seed: run["kl"]),
            "multiplier": table(lambda run, kappa, seed: run["multiplier"]),
            "peak": table(lambda run, kappa, seed: run["peak"]),
            "stays": table(lambda run, kappa, seed: run["stays"]),
            "rate": table(lambda run, kappa, seed: run["rate"]),
            "excess": table(lambda run, kappa, seed: run["kl"] / frontiers[seed].kl(kappa)),
            "excess_at_error": table(
                lambda run, kappa, seed: run["kl"] / frontiers[seed].kl(run["rms"])
            ),
            "least_error": (
                "seed",
                np.array([frontiers[seed].least_error for seed in args.seeds]),
            ),
            "fixed_rms": (
                ("seed", "fixed"),
                np.array([r["rms"] for r in fixed]).reshape(len(args.seeds), per_seed),
            ),
            "fixed_kl": (
                ("seed", "fixed"),
                np.array([r["kl"] for r in fixed]).reshape(len(args.seeds), per_seed),
            ),
        },
        coords={
            "contestant": list(args.contestants),
            "kappa": list(args.kappas),
            "seed": list(args.seeds),
            "fixed": [*RESCALED, *PLAIN],
            "rescaled": ("fixed", [True] * len(RESCALED) + [False] * len(PLAIN)),
        },
        attrs={"title": "KL over error on MNIST 14 x 14", "torch": str(torch.__version__)},
    )


def quality(run: dict[str, Any], kappa: float) -> tuple[float, float]:
    """The better of two rates: first within 2% of the tolerance, then the lower KL."""
    off = abs(run["rms"] / kappa - 1)
    return (max(off - 0.02, 0.0) if np.isfinite(off) else math.inf, run["kl"])


def testbed_table(result: xr.Dataset) -> Iterator[str]:
    """One row per contestant and tolerance."""
    yield (
        "| contestant | kappa | RMS/kappa | KL | over the frontier's at kappa | at its error "
        "| stays within 2% from |"
    )
    yield "|---|---|---|---|---|---|---|"
    for name in result.contestant.values:
        for kappa in result.kappa.values:
            row = result.sel(contestant=name, kappa=kappa)
            cells = [
                " ".join(f"{v:.3f}" for v in (row.rms / kappa).values),
                " ".join(f"{v:.1f}" for v in row.kl.values),
                " ".join(f"{v:.2f}" for v in row.excess.values),
                " ".join(f"{v:.2f}" for v in row.excess_at_error.values),
                " ".join("never" if math.isinf(v) else f"{v:.0f}" for v in row.stays.values),
            ]
            yield f"| {name} | {kappa:g} | " + " | ".join(cells) + " |"


def draw(result: xr.Dataset, path: Path) -> None:
    """KL over error: the frontiers as lines, every contestant's end points."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for i, seed in enumerate(result.seed.values):
        row = result.sel(seed=seed)
        points = Frontier(row.fixed_rms.values.tolist(), row.fixed_kl.values.tolist()).points
        label = "frontier of fixed multipliers" if i == 0 else None
        axes.plot(*points.T, color="0.6", lw=1, label=label, zorder=1)
    marks = dict(zip(result.contestant.values, "osD^vPX", strict=False))
    for name in result.contestant.values:
        row = result.sel(contestant=name)
        x, y = row.rms.values.ravel(), row.kl.values.ravel()
        axes.scatter(
            x, y, s=22 if name == "ours" else 14, marker=marks[name], label=name, zorder=2
        )
    for kappa in result.kappa.values:
        axes.axvline(kappa, color="0.85", lw=0.8, zorder=0)
    axes.set(xlabel="RMS error per pixel (grey lines: the tolerances)", ylabel="KL in nats")
    axes.set(xlim=(0.09, 0.19), yscale="log", ylim=(3, 300))
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path)
    plt.close(figure)


def cosine(steps: int) -> Callable[[int], float]:
    """To 1%."""
    return lambda step: 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps))


def warm_up(step: int) -> float:
    """Linear over 500 steps."""
    return min(1.0, (step + 1) / 500)


def variants(steps: int) -> dict[str, dict[str, Any]]:
    """The changes to the training; `ours` is for the objective, `settings` for the model."""
    late = (3 * steps) // 5
    return {
        "as it is": {},
        "Adam 1e-4": {"learning_rate": 1e-4},
        "Adam 3e-4": {"learning_rate": 3e-4},
        "Adam 3e-3": {"learning_rate": 3e-3},
        "Adam 1e-2": {"learning_rate": 1e-2},
        "batch 16": {"batch": 16},
        "4 latents": {"settings": {**SETTINGS, "latents": 4}},
        "256 latents": {"settings": {**SETTINGS, "latents": 256}},
        "SGD 0.2, momentum 0.9": {"optimizer": "sgd", "learning_rate": 0.2},
        "clipped to 0.1": {"clip": 0.1},
        "AdamW 0.1": {"decay": 0.1},
        "warm-up": {"schedule": warm_up},
        "cosine": {"schedule": cosine(steps)},
        "KL / 16": {"ours": {"kl_unit": 1 / 16}},
        "KL / 256": {"ours": {"kl_unit": 1 / 256}},
        "kappa x 0.8 late": {"change": (late, 0.8)},
        "kappa x 1.3 late": {"change": (late, 1.3)},
    }


def changed(kappa: float, settings: dict[str, Any], change: tuple[int, float] | None) -> Geco:
    """Ours, with a tolerance that changes by a factor at a step if one is given."""
    late = None if change is None else (change[0], change[1] * kappa)
    return Geco(kappa, change=late, **settings)


def robustness(args: argparse.Namespace) -> xr.Dataset:
    """Ours at two tolerances under every change, against fixed multipliers under the same."""
    data = small_mnist()
    kappas, multipliers = (0.14, 0.12), (10, 16, 25, 40, 63, 100, 160, 250, 400, 800)
    chosen = {n: v for n, v in variants(args.steps).items() if args.only in n}
    values = np.full((len(chosen), len(kappas), 4), np.nan)
    for i, (name, changes) in enumerate(chosen.items()):
        changes = {"settings": SETTINGS, "steps": args.steps, **changes}
        ours, change = changes.pop("ours", {}), changes.pop("change", None)
        if args.total_steps:
            ours = {**ours, "total_steps": args.steps}
        makes = [partial(changed, kappa, ours, change) for kappa in kappas]
        unit = ours.get("kl_unit", 1.0)
        makes += [partial(Fixed, UNIT, m, kl_unit=unit) for m in multipliers]
        results = trained(data, [(args.seeds[0], make) for make in makes], **changes)
        frontier = frontier_of(results[len(kappas) :])
        for j, kappa in enumerate(kappas):
            asked = kappa if change is None else kappa * change[1]
            run = results[j]
            excess = run["kl"] / frontier.kl(run["rms"])
            values[i, j] = run["rms"] / asked, run["kl"], excess, frontier.least_error / asked
        row = "; ".join(
            f"RMS {v[0]:.3f} KL {v[1]:.1f} over {v[2]:.2f} (least {v[3]:.2f})" for v in values[i]
        )
        print(f"{name}: {row}", flush=True)
    names = ["rms_over_kappa", "kl", "excess_at_error", "least_error_over_kappa"]
    return xr.Dataset(
        {n: (("variant", "kappa"), values[:, :, k]) for k, n in enumerate(names)},
        coords={"variant": list(chosen), "kappa": list(kappas)},
        attrs={"torch": str(torch.__version__), "seed": args.seeds[0]},
    )


def models(args: argparse.Namespace) -> xr.Dataset:
    """Ours on the project's models at full size, against fixed multipliers where asked for."""
    problems = [p for p in MODELS if args.only in p.name]
    rows, cells = [], []
    for problem in problems:
        data = images(problem.dataset)
        multipliers = problem.multipliers if args.multipliers is None else args.multipliers
        for seed in args.seeds if problem.seeds or args.fixed else args.seeds[:1]:
            runs = [(math.nan, train_one(problem, seed, data))]
            report(problem, seed, *runs[0])
            for multiplier in multipliers if args.fixed else ():
                runs.append((multiplier, train_one(problem, seed, data, multiplier)))
                report(problem, seed, *runs[-1])
            ours = runs[0][1]
            fixed = frontier_of([row for _, row in runs[1:]]) if args.fixed else None
            excess = ours["kl"] / fixed.kl(ours["rms"]) if fixed is not None else math.nan
            if fixed is not None:
                print(f"{problem.name}, seed {seed}: KL over the frontier's {excess:.3f}")
            for multiplier, row in runs:
                rows.append(row)
                cells.append(
                    (problem, seed, multiplier, excess if math.isnan(multiplier) else math.nan)
                )
    names = ("rms", "kl", "multiplier", "peak", "stays")
    return xr.Dataset(
        {name: ("run", np.array([row[name] for row in rows], dtype=float)) for name in names}
        | {"excess_at_error": ("run", [excess for *_, excess in cells])},
        coords={
            "problem": ("run", [p.name for p, *_ in cells]),
            "kappa": ("run", [p.kappa for p, *_ in cells]),
            "seed": ("run", [seed for _, seed, *_ in cells]),
            "fixed": ("run", [multiplier for _, _, multiplier, _ in cells]),
        },
        attrs={"torch": str(torch.__version__)},
    )


def report(problem: Problem, seed: int, fixed: float, row: dict[str, Any]) -> None:
    """One line for one run."""
    stays = "never" if math.isinf(row["stays"]) else f"{row['stays']:.0f}"
    who = "ours" if math.isnan(fixed) else "fixed"
    print(
        f"{problem.name}, seed {seed}, {who}: RMS/kappa {row['rms'] / problem.kappa:.3f}, KL "
        f"{row['kl']:.1f}, multiplier {row['multiplier']:.0f}, within 2% from {stays}",
        flush=True,
    )


def main() -> None:
    """Runs one part."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("part", choices=("testbed", "robustness", "models"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--kappas", type=float, nargs="+", default=[*KAPPAS])
    parser.add_argument(
        "--contestants", nargs="+", choices=CONTESTANTS, default=[*CONTESTANTS], metavar="NAME"
    )
    parser.add_argument("--only", default="", help="problems or changes whose name contains this")
    parser.add_argument("--fixed", action="store_true", help="models: also their frontiers")
    parser.add_argument("--multipliers", type=float, nargs="+", help="of those frontiers")
    parser.add_argument("--total-steps", action="store_true", help="tell ours the run's length")
    parser.add_argument("--out", type=Path, help="where the dataset goes (NetCDF)")
    parser.add_argument("--figure", type=Path, help="where the testbed's figure goes (SVG)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    parts = {"testbed": testbed, "robustness": robustness, "models": models}
    result = parts[args.part](args)
    if args.part == "testbed":
        print("\n".join(testbed_table(result)))
        if args.figure is not None:
            draw(result, args.figure)
    if args.out is not None:
        result.to_netcdf(args.out, engine="h5netcdf")


if __name__ == "__main__":
    main()
