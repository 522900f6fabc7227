r"""`forecast_rate`: what a good model will pay for each tolerance on unseen data [D10].

Between the floor that no model can go below on these samples (D9, at most ln n) and what the best
linear model pays (D7) lies a factor of five to fifty on images. The forecast is what an explicit
encoder and decoder attain on held-out images: which component, then a local linear code
(`local_code`). It is an upper bound on what the best model pays for unseen data, it assumes no
distribution, and it is not capped by ln n.
"""

import math
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from sklearn.model_selection import KFold
from sklearn.utils import check_array, check_random_state

from geco_theory._typing import Array
from geco_theory.forecast.components import cells, fit_components, reassign
from geco_theory.forecast.local_code import Candidates, Code, LocalMixture, Single
from geco_theory.linalg import covariance_eigenvalues, principal_axes
from geco_theory.linear_vae import linear_vae_optimum
from geco_theory.phase_transitions import PhaseTransitions
from geco_theory.rate_distortion import free_energy_bound
from geco_theory.validation import unmasked

__all__ = ["LEAST_SAMPLES", "forecast_rate"]

LEAST_SAMPLES = 20
_COMPONENTS = (1, 2, 3, 5, 10, 30, 100, 300)
_REASSIGNED = 4  # times at most that each sample takes its component anew
_PER_COMPONENT = 20  # samples that a component needs in the mean
_MOST_NUMBERS = 5e7  # of the data that are looked at
_NUMBERS = 6e7  # of the covariances of all components
_MOST_AXES = 400
_CUT = 0.05  # of the smallest error asked for: variance of the axes that are cut off
_ONE_SPLIT = 5000  # samples from which one held-out tenth is enough; below, five folds
_MOST_HELD_OUT = 10_000
_SEEN = 2000  # samples that the rate on the training data is taken from
_FLOOR_SAMPLES = 500
_FLOOR_TEMPERATURES = 16
_FLOOR_TOLERANCE = 1e-4  # of ln S, which is taken off: nats

Rows = NDArray[np.signedinteger]


def forecast_rate(
    X: ArrayLike,
    kappa: ArrayLike,
    X_held_out: ArrayLike | None = None,
    random_state: int | np.random.RandomState | None = None,
    *,
    analysis: PhaseTransitions | None = None,
) -> xr.Dataset:
    r"""Forecast what each tolerance of the constraint RE will cost on unseen data (D10).

    Args:
        X: data (n_samples, n_features), at least 20 samples; where they hold more than 5e7
            numbers, samples at random.
        kappa: tolerances: root-mean-square errors per element, in data units.
        X_held_out: unseen data (m, n_features) to evaluate on; by default a tenth of X that takes
            no part in anything else, or five such parts in turn below 5,000 samples. The number
            of components is chosen on a part of X of its own in either case.
        random_state: of the splits and of k-means.
        analysis: a `PhaseTransitions(masses="free")` fitted on X, for the floor; by default one
            is fitted on at most 500 of the samples.

    Returns:
        A dataset over ``kappa``, largest first, rates in nats: ``floor`` (no model pays less on
        the samples it was solved on, D9; of part of the samples it is, in the mean, below that of
        all), ``forecast`` (attained on unseen data, in the mean), ``standard_error`` (of its
        mean over samples), ``linear`` (D7, on X), ``beta`` (the water level :math:`\theta`: the
        beta of a decoder of unit variance, in squared data units), ``multiplier``
        (:math:`d / 2\theta`, of the mean squared error; 0 where nothing needs to be encoded),
        ``latents`` (95% of the samples code no more directions), ``gap`` (the forecast minus the
        same on training data: large against it, a model of this kind would memorise), and
        ``components`` (how many were chosen). Where the held-out error cannot be brought down to
        `kappa`: NaN.

    Raises:
        TypeError: `kappa` is not numeric.
        ValueError: unusable data or `kappa`, fewer than 20 samples, or an `analysis` of equal
            masses.

    Example:
        >>> import numpy as np
        >>> X = np.random.default_rng(0).normal(size=(2000, 4)) * [3.0, 1.0, 0.1, 0.1]
        >>> table = forecast_rate(X, kappa=[0.5], random_state=0)
        >>> bool(abs(table.forecast[0] - table.linear[0]) < 0.1)  # Gaussian data: nothing to gain
        True
    """
    unmasked(X, "X")
    unmasked(X_held_out, "X_held_out")
    random = check_random_state(random_state)
    data = _some(
        check_array(X, ensure_min_samples=LEAST_SAMPLES, input_name="X"), _MOST_NUMBERS, random
    )
    features = data.shape[1]
    try:
        asked = np.sort(np.atleast_1d(np.asarray(kappa, dtype=np.float64)).ravel())[::-1]
    except (TypeError, ValueError) as error:
        raise TypeError(f"`kappa` must be a number or several, got {kappa!r}.") from error
    if not asked.size or not np.isfinite(asked).all() or asked[-1] <= 0:
        raise ValueError(f"`kappa` must be positive and finite, got {kappa!r}.")
    spectrum = covariance_eigenvalues(data)
    unit = math.sqrt(float(spectrum.sum()) / features) or 1.0
    centre = data.mean(axis=0)
    scaled = (data - centre) / unit
    allowed = features * np.square(asked / unit)
    if X_held_out is not None:
        unseen = _some(check_array(X_held_out, input_name="X_held_out"), _MOST_NUMBERS / 5, random)
        if unseen.shape[1] != features:
            raise ValueError(
                f"`X_held_out` must have the {features} features of `X`, got {unseen.shape[1]}."
            )
        results = [_evaluate(scaled, (unseen - centre) / unit, allowed, random)]
    else:
        results = [
            _evaluate(scaled[seen], scaled[unseen[:_MOST_HELD_OUT]], allowed, random)
            for seen, unseen in _splits(len(scaled), random)
        ]
    columns = {name: np.mean([r[name] for r in results], axis=0) for name in results[0]}
    columns["latents"] = np.ceil(columns["latents"])
    columns["standard_error"] /= math.sqrt(len(results))
    linear = [linear_vae_optimum(spectrum, k, n_features=features) for k in asked]
    idle = np.array([optimum.multiplier == 0.0 for optimum in linear])
    beta = np.where(idle, float(spectrum[0]), columns["level"] * unit**2)
    squared = "(data unit)^2"
    floor = _floor(data, features * np.square(asked), analysis, random)
    variables = {
        "floor": (floor, "no model pays less on the samples (D9)", "nat"),
        "forecast": (np.where(idle, 0.0, columns["rate"]), "attained on unseen data", "nat"),
        "standard_error": (columns["standard_error"], "standard error of the forecast", "nat"),
        "linear": ([o.rate for o in linear], "the best linear model (D7)", "nat"),
        "beta": (beta, "water level: beta at unit variance", squared),
        "multiplier": (
            np.where(idle, 0.0, features / (2.0 * beta)), "multiplier", "1/(data unit)^2",
        ),
        "latents": (np.where(idle, 0.0, columns["latents"]), "latents that suffice for 95%", "1"),
        "gap": (np.where(idle, 0.0, columns["gap"]), "forecast minus that on seen data", "nat"),
        "components": (columns["components"], "components of the code", "1"),
    }  # fmt: skip
    return xr.Dataset(
        {
            name: ("kappa", np.asarray(values), {"long_name": words, "units": units})
            for name, (values, words, units) in variables.items()
        },
        {"kappa": ("kappa", asked, {"long_name": "RMS error per element", "units": "data unit"})},
        {"n_samples": data.shape[0], "n_features": features},
    )


def _some(X: NDArray[np.generic], numbers: float, random: np.random.RandomState) -> Array:
    """X in double precision; rows at random where it holds more numbers than that."""
    most = max(int(numbers / X.shape[1]), LEAST_SAMPLES)
    rows = np.sort(random.choice(len(X), most, replace=False)) if len(X) > most else slice(None)
    return np.asarray(X[rows], dtype=np.float64)


def _splits(n: int, random: np.random.RandomState) -> list[tuple[Rows, Rows]]:
    """Training and held-out rows: one held-out tenth of many, five folds of few."""
    if n < _ONE_SPLIT:
        return list(KFold(5, shuffle=True, random_state=random).split(np.empty((n, 0))))
    order = random.permutation(n)
    return [(order[n // 10 :], order[: n // 10])]


@dataclass(frozen=True)
class _Rows:
    """Samples in the leading coordinates, and the squared length of what was cut off."""

    leading: Single
    rest: Array

    def __getitem__(self, rows: slice) -> "_Rows":
        return _Rows(self.leading[rows], self.rest[rows])


def _evaluate(
    seen: Array, unseen: Array, allowed: Array, random: np.random.RandomState
) -> dict[str, Array]:
    """Everything about one split: components from seen samples, rates from unseen ones."""
    order = random.permutation(len(seen))
    seed = int(random.randint(2**31 - 1))
    number = max(1, len(seen) // 10)
    fitted, choosing = seen[order[number:]], seen[order[:number]]
    centre = fitted.mean(axis=0)
    axes, variances = principal_axes(fitted)
    tail = np.cumsum(variances[::-1])[::-1]
    cut = max(1, min(int(np.sum(tail > _CUT * allowed[-1])), _MOST_AXES))
    axes = axes[:, :cut]

    def project(rows: Array) -> _Rows:
        gaps = rows - centre
        leading = gaps @ axes
        rest = np.square(gaps).sum(axis=1) - np.square(leading).sum(axis=1)
        return _Rows(leading.astype(np.float32), np.maximum(rest, 0.0))

    training, choice, held_out = project(fitted), project(choosing), project(unseen)
    dropped = seen.shape[1] - cut
    rest = float(choice.rest.mean() / dropped) if dropped else 0.0
    mixtures = _choose(training, choice, allowed, rest, dropped, seed)
    found = {
        name: np.full(allowed.size, np.nan)
        for name in ("rate", "standard_error", "level", "latents", "gap", "components")
    }
    for mixture, wanted in mixtures:
        new = Candidates(mixture, held_out.leading, held_out.rest)
        some = training[slice(_SEEN)]
        old = Candidates(mixture, some.leading, some.rest)
        for i in wanted:
            level, code = _at_error(new, allowed[i])
            found["rate"][i] = code.rate.mean()
            found["standard_error"][i] = code.rate.std() / math.sqrt(len(code.rate))
            found["level"][i] = level
            found["latents"][i] = np.percentile(code.latents, 95, method="higher")
            found["gap"][i] = code.rate.mean() - _at_error(old, allowed[i])[1].rate.mean()
            found["components"][i] = mixture.size
    return found


def _choose(
    training: _Rows, choice: _Rows, allowed: Array, rest: float, dropped: int, seed: int
) -> list[tuple[LocalMixture, list[int]]]:
    """The components with the least rate on the choosing samples at each error, and which errors.

    The number grows until no error gains; then each sample takes its component anew by cost, and
    the components are fitted again, as long as that pays (hard EM).
    """
    n, axes = training.leading.shape
    best = np.full(allowed.size, np.inf)
    level = np.full(allowed.size, np.nan)
    chosen: list[LocalMixture | None] = [None] * allowed.size
    for number in _COMPONENTS:
        if number > 1 and (number * _PER_COMPONENT > n or number * axes * axes > _NUMBERS):
            break
        cell = cells(training.leading, number, seed)
        mixture = fit_components(training.leading, cell, rest, dropped)
        gained = _take(mixture, choice, allowed, best, level, chosen, range(allowed.size))
        if not gained and number >= 10:
            break
    for mixture in {id(m): m for m in chosen if m is not None}.values():
        wanted = [i for i, m in enumerate(chosen) if m is mixture]
        latest = mixture
        for _ in range(_REASSIGNED if mixture.size > 1 else 0):
            middle = float(np.median(level[wanted]))
            cell = reassign(training.leading, training.rest, latest, middle)
            latest = fit_components(training.leading, cell, rest, dropped)
            if not _take(latest, choice, allowed, best, level, chosen, wanted):
                break
    final = {id(m): m for m in chosen if m is not None}.values()
    return [(m, [i for i, own in enumerate(chosen) if own is m]) for m in final]


def _take(
    mixture: LocalMixture,
    choice: _Rows,
    allowed: Array,
    best: Array,
    level: Array,
    chosen: list[LocalMixture | None],
    errors: range | list[int],
) -> bool:
    """Take these components at the errors where they pay less; whether there were any."""
    candidates = Candidates(mixture, choice.leading, choice.rest)
    gained = False
    for i in errors:
        here, code = _at_error(candidates, allowed[i])
        if np.isfinite(here) and code.rate.mean() < best[i]:
            best[i], level[i], chosen[i], gained = code.rate.mean(), here, mixture, True
    return gained


def _at_error(candidates: Candidates, allowed: float) -> tuple[float, Code]:
    """The highest water level at which the mean error is allowed, and the code there."""
    model = candidates.mixture
    highest = 10.0 * float(max(model.variances.max(), model.rest))
    lowest = 1e-4 * allowed / (model.variances.shape[1] + model.dropped)

    def missing(log_level: float) -> float:
        return float(candidates.at(math.exp(log_level)).error.mean() - allowed)

    low, high = math.log(lowest), math.log(max(highest, 2.0 * lowest))
    if missing(high) <= 0.0:
        return math.exp(high), candidates.at(math.exp(high))
    if missing(low) > 0.0:  # what was cut off is already too much
        code = candidates.at(math.exp(low))
        nothing = np.full(candidates.number, np.nan)
        return math.nan, Code(nothing, code.error, code.latents, code.component)
    level = math.exp(float(brentq(missing, low, high, xtol=1e-4)))
    return level, candidates.at(level)


def _floor(
    data: Array,
    distortion: Array,
    analysis: PhaseTransitions | None,
    random: np.random.RandomState,
) -> Array:
    """The bound of D9, from the analysis or from one of a part of the samples."""
    if analysis is not None:
        return np.asarray(free_energy_bound(analysis.path_, distortion)["rate"].values)
    part = data
    if len(data) > _FLOOR_SAMPLES:
        part = data[random.choice(len(data), _FLOOR_SAMPLES, replace=False)]
    if not np.any(part != part[0]):
        return np.zeros(distortion.size)
    solved = PhaseTransitions(
        temperatures=_FLOOR_TEMPERATURES, tolerance=_FLOOR_TOLERANCE, n_transitions=0
    ).fit(part)
    return np.asarray(free_energy_bound(solved.path_, distortion)["rate"].values)
