"""One run over a range of tolerances against single runs, each at one of them.

The testbed of `benchmarks/frontier.py`: MNIST at 14 x 14 (10,000 images), an MLP with two hidden
layers of 64, 16 latents, Adam 1e-3, batch 64. The one run takes the tolerance as an input,
`GECO(ReconstructionError(ToleranceRange(low, high)))` with `MLPVAE(..., tolerance=(low, high))`,
both with nothing else set; the single runs are plain ones of as many steps, and of half as many.

    python benchmarks/one_run.py testbed --seeds 0 1 2 --out one-run.nc --figure one-run.svg
    python benchmarks/one_run.py conv --steps 2500 --out conv.nc
    python benchmarks/one_run.py cost

`conv` compares one run of ConvVAE at 28 x 28 with single runs of as many and of half as many
steps. `cost` counts what a step takes beyond the plain one's: floating-point operations of model
and objective, operations that are called, and CPU seconds, side by side in one process. Errors
and KLs are those of the whole training set. The data are looked for in the folder that
`GECO_DATA_HOME` names.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from frontier_parts.along import Along, conv_run, measure_cost
from frontier_parts.contestants import Geco
from frontier_parts.data import images, small_mnist
from frontier_parts.stack import train
from torch.nn.functional import avg_pool2d

SETTINGS = {"latents": 16, "hidden": (64, 64)}
RANGE, KAPPAS = (0.105, 0.18), (0.16, 0.14, 0.12, 0.112)
CONV_RANGE, CONV_KAPPAS = (0.06, 0.2), (0.175, 0.125, 0.1, 0.08, 0.06)
ONE = "one run"


def small(name: str) -> torch.Tensor:
    """A dataset averaged over 2 x 2 pixels, as rows of numbers."""
    return small_mnist() if name == "mnist" else avg_pool2d(images(name), 2).flatten(1)


def testbed(args: argparse.Namespace) -> xr.Dataset:
    """The one run and the single runs of all seeds, some at once."""
    data, seeds = small(args.dataset), args.seeds
    ends = tuple(args.range or RANGE)
    kappas = tuple(args.kappas or KAPPAS)
    found: dict[str, Any] = {}
    trace = train(
        data,
        seeds,
        [Along(ends, kappas) for _ in seeds],
        steps=args.steps,
        settings={**SETTINGS, "tolerance": ends},
        every=args.steps,
        at=kappas,
    )
    found[ONE] = trace.values[-1].swapaxes(1, 2)  # (3, kappa, seed)
    print(f"{ONE} of {args.steps} steps done", file=sys.stderr, flush=True)
    for steps in (args.steps, args.steps // 2):
        runs = [(seed, kappa) for kappa in kappas for seed in seeds]
        trace = train(
            data,
            [seed for seed, _ in runs],
            [Geco(kappa) for _, kappa in runs],
            steps=steps,
            settings=SETTINGS,
            every=steps,
        )
        found[f"single, {steps}"] = trace.values[-1].reshape(3, len(kappas), len(seeds))
        print(f"single runs of {steps} steps done", file=sys.stderr, flush=True)
    return as_dataset(found, kappas, seeds, ends, args)


def conv(args: argparse.Namespace) -> xr.Dataset:
    """The same for ConvVAE at full size, one run after the other."""
    data = images(args.dataset)
    ends, kappas = tuple(args.range or CONV_RANGE), tuple(args.kappas or CONV_KAPPAS)
    found: dict[str, Any] = {}
    for name, steps in (
        (ONE, args.steps),
        (f"single, {args.steps}", args.steps),
        (f"single, {args.steps // 2}", args.steps // 2),
    ):
        if name not in (args.only or [name]):
            continue
        values = np.empty((3, len(kappas), len(args.seeds)))
        for j, seed in enumerate(args.seeds):
            if name == ONE:
                values[:, :, j] = conv_run(data, seed, steps, kappas, ends)
                continue
            for i, kappa in enumerate(kappas):
                values[:, i, j] = conv_run(data, seed, steps, [kappa])[:, 0]
                print(f"{name}: {kappa} done", file=sys.stderr, flush=True)
        found[name] = values
    return as_dataset(found, kappas, args.seeds, ends, args)


def as_dataset(
    found: dict[str, Any],
    kappas: Sequence[float],
    seeds: Sequence[int],
    ends: Sequence[float],
    args: argparse.Namespace,
) -> xr.Dataset:
    """Errors, KLs and relative multipliers by kind of run, tolerance and seed."""
    whole = np.stack(list(found.values()))
    names = ("rms", "kl", "relative_multiplier")
    return xr.Dataset(
        {name: (("runs", "kappa", "seed"), whole[:, k]) for k, name in enumerate(names)},
        coords={"runs": list(found), "kappa": list(kappas), "seed": list(seeds)},
        attrs={
            "torch": str(torch.__version__),
            "range": list(ends),
            "steps": args.steps,
            "dataset": args.dataset,
        },
    )


def table(result: xr.Dataset) -> list[str]:
    """RMS / kappa and KL of every seed, and the one run's mean KL over the single runs'."""
    runs = [str(name) for name in result.runs.values]
    over = [name for name in runs if name != ONE]
    lines = [
        "| kappa | " + " | ".join(runs) + " | " + " | ".join(f"over {n}" for n in over) + " |",
        "|---" * (1 + len(runs) + len(over)) + "|",
    ]
    for kappa in result.kappa.values:
        here = result.sel(kappa=kappa)
        cells = [
            " / ".join(
                f"{rms / kappa:.3f} {kl:.1f}"
                for rms, kl in zip(
                    here.rms.sel(runs=n).values, here.kl.sel(runs=n).values, strict=True
                )
            )
            for n in runs
        ]
        mean = here.kl.mean("seed")
        ratios = [f"{float(mean.sel(runs=ONE) / mean.sel(runs=n)):.3f}" for n in over]
        lines.append(f"| {kappa:g} | " + " | ".join(cells + ratios) + " |")
    return lines


def draw(result: xr.Dataset, path: Path) -> None:
    """KL over error: the one run's curve and the single runs."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for kappa in result.kappa.values:
        axes.axvline(kappa, color="0.85", lw=0.8, zorder=0)
    for name in result.runs.values:
        one = result.sel(runs=name)
        style: dict[str, Any] = {"marker": "o", "ms": 4, "lw": 1.2 if name == ONE else 0}
        for seed in result.seed.values:
            label = str(name) if seed == result.seed.values[0] else None
            colour = {"one run": "C0"}.get(str(name), "C1" if str(result.steps) in name else "C7")
            mine = one.sel(seed=seed)
            axes.plot(mine.rms, mine.kl, color=colour, label=label, alpha=0.8, **style)
    axes.set(xlabel="RMS error", ylabel="KL (nats)", yscale="log")
    axes.legend(frameon=False)
    figure.savefig(path)


def main() -> None:
    """Runs one part."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("part", choices=("testbed", "conv", "cost"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--range", type=float, nargs=2, metavar=("LOW", "HIGH"))
    parser.add_argument("--kappas", type=float, nargs="+")
    parser.add_argument("--only", nargs="+", help="kinds of runs of `conv`, by their names")
    parser.add_argument("--out", type=Path, help="where the dataset goes (NetCDF)")
    parser.add_argument("--figure", type=Path, help="where the figure goes (SVG)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.part == "cost":
        print("\n".join(measure_cost(RANGE, CONV_RANGE, SETTINGS)))
        return
    result = testbed(args) if args.part == "testbed" else conv(args)
    if ONE in result.runs.values:
        print("\n".join(table(result)))
    else:
        print(result.to_dataframe())
    if args.figure is not None:
        draw(result, args.figure)
    if args.out is not None:
        result.to_netcdf(args.out)


if __name__ == "__main__":
    main()
