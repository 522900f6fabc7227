"""PhaseTransitions against plain iterations and scikit-learn's clusterings, in one run.

Every time is CPU time of this process on one thread (mnist: two threads, wall clock as well;
jobs: wall clock), and every claim is a ratio within one part. Name the parts to run; by default
all but mnist, npeb, forecast, free-1797 and equal-others:

    iteration   one blocked pass over its floor: two matrix products and n K exponentials
    free-600    free masses, 60 temperatures, against plain Blahut-Arimoto; certificates checked
    free-1797   the same on all digits (long; Blahut-Arimoto at every fifth temperature), and the
                time in floors of one iteration, beside the prototype's
    jobs        the n=600 sweep with n_jobs=1 and n_jobs=2, wall clock
    directions  heating, cooling and cold starts: spread of F
    equal-600   equal masses against the plain iteration (minutes). It stops once no coordinate
                moves by 1e-6, after at most 20,000 passes a temperature. What that leaves of
                error, and what ours leaves, is measured against the same state polished by
                Newton steps to 1e-10; the plain error is the larger one, so that at equal
                accuracy the ratio would be larger than the one that is printed
    equal-others the same on blobs, other digits, Gaussian and uniform data
    clusterings time and labels against SpectralClustering and MeanShift
    growth      seconds against n and d
    mnist       60,000 images in 50 principal components, cooling to 500 values (GECO_DATA_HOME)
    npeb        one temperature, beside npeb 0.0.2 (pip install npeb cvxpy) until its F is as low:
                its README's circle, galaxies, iris, wine
    forecast    the forecast of the rate (D10) on MNIST and Fashion-MNIST (GECO_DATA_HOME)
"""

import argparse
import contextlib
import gzip
import io
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.special import logsumexp
from sklearn.cluster import MeanShift, SpectralClustering, estimate_bandwidth
from sklearn.datasets import load_digits, load_iris, load_wine, make_blobs
from sklearn.metrics import adjusted_rand_score
from threadpoolctl import threadpool_limits

from geco_theory import PhaseTransitions, forecast_rate
from geco_theory.deterministic_annealing import solve_equal
from geco_theory.free_energy import Mixture, Solution, StandardData, merge_coincident, moments
from geco_theory.npmle import Landscape, ascend, solve_free

DEFAULT = ("iteration", "free-600", "directions", "jobs", "equal-600", "clusterings", "growth")

# a prototype of the same method took 1662 s for the 60 temperatures of n=1797 to ln S <= 1e-6,
# where one floor of an iteration took 19.4 ms
PROTOTYPE = 1662 / 19.4e-3


def digits(n: int) -> StandardData:
    return StandardData.from_samples(load_digits().data[:n] / 16)


def grid(data: StandardData, number: int = 60) -> np.ndarray:
    """Log-spaced from 0.02 to 1.3 lambda_max, in standard units."""
    unit = data.temperature_unit
    return np.geomspace(0.02, 1.3 * data.variances[0] * unit, number) / unit


def from_data(data: StandardData) -> Mixture:
    return Mixture(data.rows.copy(), data.weights.copy())


def from_one(data: StandardData) -> Mixture:
    return Mixture(np.zeros((1, data.rows.shape[1])), np.ones(1))


def plain_log_supremum(data: StandardData, solution: Solution) -> float:
    """The certificate ln S by plain ascent from every data point, from D9 alone."""
    x, t = data.rows, solution.temperature
    values, masses = solution.mixture.values, solution.mixture.masses

    def pairs(points: np.ndarray) -> np.ndarray:
        gaps = np.square(x).sum(axis=1)[:, None] + np.square(points).sum(axis=1)
        return -(gaps - 2 * x @ points.T) / (2 * t)

    log_w = np.log(data.weights)[:, None] - logsumexp(
        pairs(values) + np.log(masses), axis=1, keepdims=True
    )
    going, height, best = x.copy(), np.full(len(x), -np.inf), -np.inf
    for _ in range(3000):
        terms = pairs(going) + log_w
        new = logsumexp(terms, axis=0)
        best = max(best, float(new.max()))
        rising = new - height > 1e-12
        if not rising.any():
            break
        going = (np.exp(terms - new).T @ x)[rising]
        height = new[rising]
    return best


def timed(work: Callable[[], object], repeats: int = 7) -> float:
    best = np.inf
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def floor_of(n: int, x: np.ndarray) -> Callable[[], None]:
    """Two matrix products and n K exponentials, K = n, the least that an iteration can cost."""
    pairs = np.empty((n, n))
    exponents = -np.abs(np.random.default_rng(0).normal(size=(n, n))) * 10
    buffer = np.empty_like(exponents)

    def floor() -> None:
        np.dot(x, x.T, out=pairs)
        np.exp(exponents, out=buffer)
        np.dot(pairs.T, x)

    return floor


def iteration() -> None:
    print("one pass: time / floor (two products + n K exponentials)")
    for n, d in ((1797, 64), (600, 58), (5000, 50)):
        data = StandardData.from_samples(np.random.default_rng(0).normal(size=(n, d)))
        mixture = from_data(data)
        floor = floor_of(n, data.rows)
        ratios, times = [], []
        for _ in range(5):  # interleaved, so that a busy machine slows both alike
            bottom = timed(floor, 3)
            ours = timed(lambda d=data, m=mixture: moments(d, m, 0.05), 3)
            ratios.append(ours / bottom)
            times.append(ours)
        print(f"  n=K={n} d={d}: {min(times) * 1e3:.1f} ms, ratio {np.median(ratios):.2f}")


def sweep(data: StandardData, tolerance: float) -> tuple[list[Solution], float]:
    start, solutions, mixture = time.process_time(), [], from_data(data)
    for temperature in grid(data):
        solutions.append(solve_free(data, float(temperature), mixture, tolerance=tolerance))
        mixture = solutions[-1].mixture
    return solutions, time.process_time() - start


def blahut_arimoto(
    data: StandardData, solutions: list[Solution], every: int
) -> tuple[float, int, int, list[float]]:
    """Plain steps, heating, until F is within 1e-6 T of the optimum, at most 1,500 a temperature.

    It is told the optimum; it could not know it. The first temperatures of each stretch of `every`
    are passed through as well, so that warm starts are those of the whole sweep.
    """
    mixture, spent, missed, passes, suprema = from_data(data), 0.0, 0, 0, []
    for index, solution in enumerate(solutions):
        t = solution.temperature
        if index % every:
            continue
        start = time.process_time()
        for step in range(1500):
            state = moments(data, mixture, t)
            passes += 1
            if state.free_energy - solution.free_energy < 1e-6 * t:
                break
            mixture = Mixture(state.means, np.maximum(state.mass, 1e-300))
            if step % 10 == 9:
                mixture = merge_coincident(mixture, 1e-4 * np.sqrt(t))
        else:
            missed += 1
        spent += time.process_time() - start
        if index % (5 * every) == 0:
            reached = Solution(t, mixture.normalised(), 0, 0, 0, 0, False)
            suprema.append(plain_log_supremum(data, reached))
    return spent, missed, passes, suprema


def free(n: int, every: int) -> None:
    data = digits(n)
    print(f"free masses, digits n={n}, 60 temperatures")
    for tolerance in (1e-6, 1e-9)[: 2 if n < 1000 else 1]:
        solutions, seconds = sweep(data, tolerance)
        largest = max(s.certificate for s in solutions)
        print(
            f"  ours to ln S <= {tolerance:.0e}: {seconds:.1f} s, largest ln S {largest:.1e}, "
            f"all converged: {all(s.converged for s in solutions)}",
            flush=True,
        )
        if tolerance == 1e-6:
            checked = max(plain_log_supremum(data, s) for s in solutions)
            print(f"    by plain ascent from all data points: {checked:.1e}", flush=True)
            ours = seconds
    if n == 1797:
        bottom = timed(floor_of(n, data.rows))
        print(
            f"  at 1e-6: {ours / bottom:.0f} floors of one iteration ({bottom * 1e3:.1f} ms); the "
            f"prototype: {PROTOTYPE:.0f}; ratio {PROTOTYPE * bottom / ours:.1f}"
        )
    spent, missed, passes, suprema = blahut_arimoto(data, solutions, every)
    share = "" if every == 1 else f" at every {every}th temperature"
    print(
        f"  Blahut-Arimoto to F within 1e-6 T{share}: {spent:.1f} s, {passes} passes, "
        f"not reached at {missed}; ln S there {min(suprema):.0e} to {max(suprema):.0e}"
    )
    if every == 1:
        print(f"  ratio of times, theirs / ours at 1e-6: {spent / ours:.2f}")


def directions() -> None:
    data = digits(600)
    print("free masses, digits n=600: spread of F over heating, cooling and cold starts")
    worst, counts = 0.0, 0
    for t in grid(data, 12):
        starts = [from_data(data), from_one(data)]
        for factor, begin in ((0.85, from_data(data)), (1.15, from_one(data))):
            starts.append(solve_free(data, float(t * factor), begin).mixture)
        found = [solve_free(data, float(t), start) for start in starts]
        worst = max(worst, float(np.ptp([f.free_energy for f in found])))
        counts += len({f.mixture.size for f in found}) > 1
    print(f"  largest spread {worst * data.temperature_unit:.1e}; K differs at {counts} of 12")


def jobs() -> None:
    X = load_digits().data[:600] / 16
    print("free masses, digits n=600, 40 temperatures, ln S <= 1e-6: wall clock")
    times = []
    for number in (1, 2):
        start = time.perf_counter()
        PhaseTransitions(tolerance=1e-6, n_transitions=0, n_jobs=number).fit(X)
        times.append(time.perf_counter() - start)
        print(f"  n_jobs={number}: {times[-1]:.1f} s", flush=True)
    print(f"  ratio {times[0] / times[1]:.2f} on {os.cpu_count()} cores")


def plain_equal(data: StandardData, temperature: float, start: Mixture) -> tuple[Mixture, int]:
    """The plain iteration with equal masses until no coordinate moves by 1e-6, and its passes."""
    mixture, step, passes = start, np.inf, 0
    while step >= 1e-6 and passes < 20_000:
        state = moments(data, mixture, temperature)
        step = np.abs(state.means - mixture.values).max()
        mixture = Mixture(state.means, mixture.masses)
        passes += 1
    return mixture, passes


def true_error(data: StandardData, mixture: Mixture, temperature: float) -> tuple[float, float]:
    """Error of RE and of the values against this very state, polished to 1e-10, groups tied."""
    exact = solve_equal(data, temperature, mixture, tied=True, tolerance=1e-10)
    distortion = moments(data, mixture, temperature).distortion
    gaps = np.linalg.norm(mixture.values[:, None] - exact.mixture.values, axis=2)
    return abs(distortion - exact.distortion), float(gaps.min(axis=1).max())


def equal(name: str, data: StandardData, number: int) -> None:
    """Both heat from the data, each from its own last state, one temperature after the other."""
    unit = data.temperature_unit
    print(f"equal masses, {name}, {number} temperatures, heating", flush=True)
    ours_at = theirs_at = from_data(data)
    ours, theirs, converged, passes = 0.0, 0.0, 0, 0
    gaps, errors = [], []
    for temperature in grid(data, number).tolist():
        start = time.process_time()
        solution = solve_equal(data, temperature, ours_at)
        ours += time.process_time() - start
        start = time.process_time()
        theirs_at, more = plain_equal(data, temperature, theirs_at)
        theirs += time.process_time() - start
        ours_at = solution.mixture
        converged += solution.converged
        passes += more
        plain = moments(data, theirs_at, temperature).free_energy
        gaps.append((solution.free_energy - plain) * unit)
        states = (ours_at, theirs_at)
        errors.append([true_error(data, state, temperature) for state in states])
    print(f"  ours: {ours:.1f} s, converged at {converged}")
    print(f"  plain iteration: {theirs:.1f} s, {passes} passes; ratio {theirs / ours:.1f}")
    worst = np.max(errors, axis=0)
    for who, (distortion, value) in zip(("ours", "plain"), worst, strict=True):
        print(
            f"  {who}: error of RE at most {distortion * unit:.1e}, "
            f"of a value {value * data.scale:.1e}"
        )
    above = [gap for gap in gaps if gap > 1e-9]
    print(
        f"  F above the plain one (by more than 1e-9) at {len(above)} temperatures, at most by "
        f"{max(0.0, *gaps):.1e}; below it at {sum(gap < -1e-9 for gap in gaps)}, at most by "
        f"{-min(gaps):.1e}",
        flush=True,
    )


def equal_others() -> None:
    rng = np.random.default_rng(0)
    further = load_digits().data[600:1000] / 16
    for name, samples in {
        "blobs n=300": make_blobs(300, centers=4, random_state=0)[0],
        "digits 600 to 999": further,
        "Gaussian n=200 d=10": rng.normal(size=(200, 10)) * np.geomspace(1, 0.2, 10),
        "uniform n=200 d=2": rng.uniform(size=(200, 2)),
    }.items():
        equal(name, StandardData.from_samples(samples), 40)


def clusterings() -> None:
    print("clusterings: seconds and adjusted Rand index")
    for name, (X, y) in {
        "blobs": make_blobs(300, centers=4, random_state=0),
        "digits 600": (load_digits().data[:600] / 16, load_digits().target[:600]),
    }.items():
        start = time.process_time()
        ours = PhaseTransitions(n_transitions=0, tolerance=1e-6).fit(X)
        seconds = time.process_time() - start
        best = max(
            adjusted_rand_score(y, ours.predict(X, temperature=float(t)))
            for t in ours.path_["temperature"].values
        )
        print(f"  {name}: 40 certified temperatures {seconds:.1f} s, best {best:.2f}")
        start = time.process_time()
        shift = MeanShift(bandwidth=estimate_bandwidth(X)).fit_predict(X)
        seconds = time.process_time() - start
        print(f"    MeanShift, once: {seconds:.1f} s, {adjusted_rand_score(y, shift):.2f}")
        start, scores = time.process_time(), []
        for t in ours.path_["temperature"].values[::8]:
            spectral = SpectralClustering(len(set(y)), gamma=1 / (2 * t), random_state=0)
            try:
                scores.append(adjusted_rand_score(y, spectral.fit_predict(X)))
            except (ValueError, np.linalg.LinAlgError):  # its affinity is not finite
                scores.append(0.0)
        seconds = (time.process_time() - start) * 8
        print(f"    SpectralClustering, 40 widths: {seconds:.1f} s, best {max(scores):.2f}")


def growth() -> None:
    print("growth: 20 temperatures, free masses, ln S <= 1e-6, Gaussian data; seconds")
    rng = np.random.default_rng(0)
    for n, d in ((250, 20), (500, 20), (1000, 20), (500, 5), (500, 80), (200, 2000)):
        X = rng.normal(size=(n, d)) * np.geomspace(1, 0.1, d)
        start = time.process_time()
        found = PhaseTransitions(temperatures=20, n_transitions=0, tolerance=1e-6).fit(X)
        seconds = time.process_time() - start
        solved = int(found.path_["converged"].sum())
        print(f"  n={n} d={d}: {seconds:.1f} s, certified at {solved} of 20", flush=True)


def training_images(fashion: bool) -> np.ndarray | None:
    """MNIST or Fashion-MNIST in [0, 1], from wherever it is under GECO_DATA_HOME."""
    home = os.environ.get("GECO_DATA_HOME")
    paths = sorted(Path(home or ".").rglob("*train-images*3-ubyte*")) if home else []
    paths = [path for path in paths if ("fashion" in str(path).lower()) is fashion]
    if not paths:
        print("no training images under GECO_DATA_HOME; skipped")
        return None
    opened = gzip.open if paths[0].suffix == ".gz" else open
    with opened(paths[0], "rb") as stream:
        return np.frombuffer(stream.read(), np.uint8, offset=16).reshape(-1, 784) / 255.0


def forecast() -> None:
    for name, fashion in (("mnist", False), ("fashion-mnist", True)):
        images = training_images(fashion)
        if images is None:
            continue
        spent = time.process_time()
        table = forecast_rate(images, (0.06, 0.08, 0.1, 0.125, 0.175), random_state=0)
        print(f"{name}: {time.process_time() - spent:.0f} CPU s")
        print(table.to_dataframe().round(3).to_string(), flush=True)


def mnist() -> None:
    images = training_images(False)
    if images is None:
        return
    images -= images.mean(axis=0)
    axes = np.linalg.eigh(images.T @ images)[1][:, ::-1][:, :50]
    X = images @ axes
    del images
    start, spent = time.perf_counter(), time.process_time()

    def progress(state: dict[str, object]) -> None:
        print(f"    {time.perf_counter() - start:.0f} s {state}", flush=True)

    settings = {"temperatures": 40, "max_clusters": 500, "n_transitions": 0, "tolerance": 1e-4}
    found = PhaseTransitions(**settings, n_jobs=2, progress=progress).fit(X)
    seconds, spent = time.perf_counter() - start, time.process_time() - spent
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    counts = found.path_["n_clusters"].values
    print(f"mnist, n={len(X)}, 50 components: {counts.min()} to {counts.max()} values")
    print(f"  {seconds:.0f} s, {spent:.0f} CPU s, {memory:.1f} GiB")
    print(found.path_.to_dataframe().to_string(), flush=True)
    data = StandardData.from_samples(X)
    coldest = float(found.path_["temperature"].min())
    decoder = found.decoder_values(coldest)
    temperature = coldest / data.temperature_unit
    mixture = Mixture(data.to_standard(decoder["value"].values), decoder["mass"].values)
    log_z = moments(data, mixture, temperature).log_z
    landscape = Landscape(data, log_z, temperature, np.float32, 2)
    log_d, ahead = landscape.step(data.rows)
    highest = ahead[np.argsort(-log_d)[:3000]]
    longer = ascend(data, log_z, temperature, highest, known=mixture.values, refine=False)
    print(
        f"  lowest temperature, a longer search: ln D at all {len(X)} data points at most "
        f"{log_d.max():.1e}; climbs from the 3,000 highest end at {longer.log_supremum:.1e}, "
        f"{(longer.log_d > 1e-4).sum()} above 1e-4"
    )


# velocities of 82 galaxies in 1,000 km/s, Postman, Huchra and Geller (1986), Roeder (1990)
GALAXIES = (
    9.172, 9.350, 9.483, 9.558, 9.775, 10.227, 10.406, 16.084, 16.170, 18.419, 18.552, 18.600,
    18.927, 19.052, 19.070, 19.330, 19.343, 19.349, 19.440, 19.473, 19.529, 19.541, 19.547,
    19.663, 19.846, 19.856, 19.863, 19.914, 19.918, 19.973, 19.989, 20.166, 20.175, 20.179,
    20.196, 20.215, 20.221, 20.415, 20.629, 20.795, 20.821, 20.846, 20.875, 20.986, 21.137,
    21.492, 21.701, 21.814, 21.921, 21.960, 22.185, 22.209, 22.242, 22.249, 22.314, 22.374,
    22.495, 22.746, 22.747, 22.888, 22.914, 23.206, 23.241, 23.263, 23.484, 23.538, 23.542,
    23.666, 23.706, 23.711, 24.129, 24.285, 24.289, 24.366, 24.717, 24.990, 25.633, 26.960,
    26.995, 32.065, 32.789, 34.279,
)  # fmt: skip


def npeb() -> None:
    try:
        from npeb import GLMixture
    except ModuleNotFoundError:
        print("npeb is not installed; skipped")
        return
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, 150)
    circle = 3 * np.column_stack([np.cos(angle), np.sin(angle)]) + rng.normal(size=(150, 2))
    wine = load_wine().data
    for name, X, temperature in (
        ("circle", circle, 1.0),
        ("galaxies", np.array(GALAXIES)[:, None], 1.0),
        ("iris", load_iris().data, 0.1),
        ("wine, standardised", (wine - wine.mean(axis=0)) / wine.std(axis=0), 2.0),
    ):
        start = time.process_time()
        ours = PhaseTransitions(temperatures=[temperature], n_transitions=0).fit(X).path_
        ours_spent = time.process_time() - start
        lowest = float(ours["free_energy"][0])
        precision = np.eye(X.shape[1]) / temperature
        for steps in (10, 100, 1000):
            model = GLMixture(homoscedastic=True)
            start = time.process_time()
            with contextlib.redirect_stdout(io.StringIO()):
                model.fit(X, precision, max_iter_em=steps)
            spent = time.process_time() - start
            gaps = np.square(X[:, None] - model.atoms).sum(axis=2) / (2 * temperature)
            log_z = logsumexp(np.log(np.maximum(model.weights, 1e-300)) - gaps, axis=1)
            above = -float(log_z.mean()) - lowest / temperature
            if above < 1e-6 or spent > 20:
                break
        print(
            f"  {name}, {X.shape}: ours {ours_spent:.2f} s, ln S "
            f"{float(ours.certificate[0]):.0e}; "
            f"npeb, {steps} EM steps, {spent:.2f} s, F/T above ours by {above:.0e}; "
            f"ratio {spent / ours_spent:.1f}",
            flush=True,
        )


PARTS: dict[str, Callable[[], None]] = {
    "iteration": iteration,
    "free-600": lambda: free(600, 1),
    "free-1797": lambda: free(1797, 5),
    "directions": directions,
    "jobs": jobs,
    "equal-600": lambda: equal("digits n=600", digits(600), 60),
    "equal-others": equal_others,
    "clusterings": clusterings,
    "growth": growth,
    "mnist": mnist,
    "npeb": npeb,
    "forecast": forecast,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parts = parser.parse_args().parts or DEFAULT
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        parser.error(f"no part {', '.join(unknown)}; there are: {', '.join(PARTS)}")
    for part in parts:
        with threadpool_limits(None if part == "mnist" else 1):
            PARTS[part]()


if __name__ == "__main__":
    main()
