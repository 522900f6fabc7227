"""Where the fixed points find the clusters of spectral clustering, and where they do not.

One table per question over five datasets: the best agreement with each method at equal numbers of
clusters, the closest that each method comes to the true labels, and the longest plateaus of the
number of clusters beside the spectral gap. Numbers, not times.

    python benchmarks/spectral_link.py [--quick]
"""

import argparse
import sys
import time

import numpy as np
import xarray as xr
from sklearn.datasets import (
    load_digits,
    load_wine,
    make_blobs,
    make_circles,
    make_moons,
)
from sklearn.preprocessing import StandardScaler

from geco_theory import PhaseTransitions, compare_spectral_clustering


def datasets(quick: bool) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Data and true labels by name."""
    size = 60 if quick else 200
    digits = load_digits()
    wine = load_wine()
    return {
        "blobs": make_blobs(size, centers=3, cluster_std=0.8, random_state=0),
        "moons": make_moons(size, noise=0.06, random_state=0),
        "circles": make_circles(size, noise=0.05, factor=0.4, random_state=0),
        "wine": (StandardScaler().fit_transform(wine.data), wine.target),
        "digits": (digits.data[: size * 3] / 16, digits.target[: size * 3]),
    }


def plateaus(found: xr.Dataset) -> str:
    """The three widest plateaus of K >= 2 below the coldest, and what the gap says there."""
    counts = found.n_clusters.values
    widths = found.plateau_width.values
    rows = {}
    for i, (k, width) in enumerate(zip(counts, widths, strict=True)):
        if k >= 2 and k != counts[0] and width > 0:
            rows.setdefault(int(k), (width, []))[1].append(i)
    best = sorted(rows.items(), key=lambda row: -row[1][0])[:3]
    words = []
    for k, (width, places) in best:
        share = np.mean(found.gap_clusters.values[places] == k)
        gap = np.median(found.spectral_gap.values[places])
        words.append(f"K={k}: {width:.2f} (gap {gap:.3f}, largest at k=K for {share:.0%})")
    return "; ".join(words) or "none"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small samples, few temperatures")
    parser.add_argument("--only", help="one dataset")
    options = parser.parse_args()
    for name, (X, y) in datasets(options.quick).items():
        if options.only not in (None, name):
            continue
        start = time.perf_counter()
        analysis = PhaseTransitions(temperatures=10 if options.quick else 40).fit(X)
        found = compare_spectral_clustering(
            X, y, analysis=analysis, max_clusters=20, random_state=0
        )
        print(f"\n{name}: n={len(X)}, d={X.shape[1]}, {np.unique(y).size} classes, "
              f"{time.perf_counter() - start:.0f} s")  # fmt: skip
        at = found.best_agreement_temperature.values
        print("  agreement with the fixed points at equal k, best over T:")
        for j, rival in enumerate(found.rival.values):
            values = found.agreement.values[:, j]
            row = int(np.nanargmax(values))
            print(f"    {rival:17s} {values[row]:.2f} at T={at[j]:.4g} (K="
                  f"{int(found.n_clusters[row])}); median {np.nanmedian(values):.2f}")  # fmt: skip
        print("  agreement with the labels, best over T:")
        for j, method in enumerate(found.clustering.values):
            where = float(found.best_accuracy_temperature[j])
            row = int(np.argmin(np.abs(found.temperature.values - where)))
            extra = f" (K={int(found.n_clusters[row])})" if method == "fixed_points" else ""
            print(f"    {method:17s} {float(found.best_accuracy[j]):.2f} at T={where:.4g}{extra}")
        print(f"  plateaus, width in ln T: {plateaus(found)}")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
