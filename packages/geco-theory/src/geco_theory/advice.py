r"""Which tolerance to ask for: a table of kappa against what it costs (D6-D9)."""

import math

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_array

from geco_theory._typing import Array
from geco_theory.forecast.rate import LEAST_SAMPLES, forecast_rate
from geco_theory.linalg import covariance_eigenvalues
from geco_theory.linear_vae import LinearVAEOptimum, linear_vae_optimum
from geco_theory.phase_transitions import PhaseTransitions
from geco_theory.rate_distortion import rate_distortion_curve
from geco_theory.validation import unmasked

__all__ = ["advise"]

# shares of the variance that are asked for by default
SHARES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
# samples up to which cold temperatures are cheap: heating begins there
FEW_SAMPLES = 3000
MEMORY = 0.3  # share of the forecast above which the gap is warned of
FORECAST = ("forecast", "beta", "multiplier", "latents", "gap")
# step in ln T where the path has to be continued to lower temperatures
COLD_STEP = 0.2


def advise(
    X: ArrayLike,
    kappa: ArrayLike | None = None,
    *,
    analysis: PhaseTransitions | None = None,
    extend: bool = True,
    forecast: bool = True,
    random_state: int | np.random.RandomState | None = 0,
) -> xr.Dataset:
    r"""Tabulate what each tolerance of the constraint RE buys and costs on these data.

    Args:
        X: data (n_samples, n_features).
        kappa: tolerances: root-mean-square errors per element, in data units; by default those
            that keep 10, 25, 50, 75, 90, 95 and 99 percent of the variance.
        analysis: a `PhaseTransitions(masses="free")` fitted on the same data; by default one is
            fitted here.
        extend: solve colder temperatures than those of the analysis where the smallest `kappa`
            needs them (up to 3,000 samples, where they cost little).
        forecast: whether to forecast the rate on unseen data (`forecast_rate`, D10; from 20
            samples on).
        random_state: of the forecast's splits.

    Returns:
        A dataset over ``kappa``, largest first. ``explained_variance``; what to expect on unseen
        data (D10; NaN without a forecast): ``forecast`` (nats), ``forecast_beta``,
        ``forecast_multiplier``, ``latents``, ``gap``; of the best linear VAE
        (D7): ``linear_rate`` (nats), ``linear_multiplier``, ``linear_relative_multiplier``,
        ``active_dimensions``, ``linear_beta``; of the best model at all on these samples (D6,
        D9): ``smallest_rate`` (nats; where the solved temperatures do not reach so low, its
        lower bound), ``exact`` (whether it is more than a bound), ``multiplier``,
        ``temperature`` (= beta for a decoder of unit variance), ``n_clusters``; the critical
        temperatures around it, ``critical_above`` and ``critical_below`` (NaN if there is none);
        and ``sentence``, which says it in words. Where the path's certificate comes from a
        sample of the data, ``smallest_rate`` has the attribute ``search``: an estimate.

    Raises:
        ValueError: unusable data, `kappa` not positive, or an `analysis` of other data or of
            equal masses.

    Example:
        >>> import numpy as np
        >>> X = np.repeat([[0.0, 0.0], [4.0, 0.0]], 10, axis=0)
        >>> table = advise(X, kappa=[1.0])
        >>> float(table.explained_variance[0]), int(table.active_dimensions[0])
        (0.5, 1)
    """
    unmasked(X, "X")
    data = np.asarray(check_array(X, dtype=np.float64, ensure_min_samples=2, input_name="X"))
    features = data.shape[1]
    spectrum = covariance_eigenvalues(data)
    total = float(spectrum.sum())
    if analysis is not None and getattr(analysis, "n_features_in_", features) != features:
        raise ValueError(
            f"`analysis` must be fitted on the same data: it has seen "
            f"{analysis.n_features_in_} features, `X` has {features}."
        )
    if kappa is None:
        asked = np.sqrt((1.0 - np.array(SHARES)) * total / features)
    else:
        asked = np.sort(np.atleast_1d(np.asarray(kappa, dtype=np.float64)))[::-1]
    linear = [linear_vae_optimum(spectrum, k, n_features=features) for k in asked]
    fitted = PhaseTransitions().fit(data) if analysis is None else analysis
    path = fitted.path_
    if extend and len(data) <= FEW_SAMPLES:
        path = _extended(fitted, data, linear[-1])
    expected = _expected(data, asked, fitted, random_state) if forecast else _unknown(asked.size)
    curve = rate_distortion_curve(path, asked, n_features=features)
    # an analysis that was interrupted has a path but no critical temperatures yet
    found = getattr(fitted, "critical_temperatures_", ())
    critical = np.sort(np.asarray(found, dtype=np.float64))
    heat = curve["temperature"].values
    exact = np.isfinite(curve["rate"].values)
    smallest = np.where(exact, curve["rate"].values, curve["rate_lower"].values)
    clusters = _clusters(path, heat)
    below, above = _around(critical, heat)
    kept = np.array([optimum.explained_variance for optimum in linear])
    search = curve["rate_lower"].attrs.get("search", "")
    sentences = [
        _sentence(
            asked[i], kept[i], linear[i], smallest[i], bool(exact[i]), float(heat[i]),
            int(clusters[i]), float(below[i]), float(above[i]), data.shape[0], bool(search),
            {name: float(values[i]) for name, values in expected.items()},
        )
        for i in range(asked.size)
    ]  # fmt: skip
    squared, inverse = "(data unit)^2", "1/(data unit)^2"
    columns = {
        "explained_variance": (kept, "share of the variance kept", "1"),
        "forecast": (expected["forecast"], "expected rate on unseen data", "nat"),
        "forecast_beta": (expected["beta"], "beta to expect at unit variance", squared),
        "forecast_multiplier": (expected["multiplier"], "multiplier to expect", inverse),
        "latents": (expected["latents"], "latents that suffice for 95% of the samples", "1"),
        "gap": (expected["gap"], "expected rate minus that on seen data", "nat"),
        "linear_rate": ([o.rate for o in linear], "rate of the best linear VAE", "nat"),
        "linear_multiplier": ([o.multiplier for o in linear], "its multiplier", inverse),
        "linear_relative_multiplier": (
            [o.relative_multiplier for o in linear], "its multiplier times kappa squared", "1",
        ),
        "active_dimensions": ([o.active_dimensions for o in linear], "active dimensions", "1"),
        "linear_beta": ([o.water_level for o in linear], "its beta at unit variance", squared),
        "smallest_rate": (smallest, "smallest rate of any model", "nat"),
        "exact": (exact, "whether that is reached, not only a lower bound", "1"),
        "multiplier": (curve["multiplier"].values, "multiplier there", inverse),
        "temperature": (heat, "temperature there", squared),
        "n_clusters": (clusters, "number of decoder values there; -1: not solved", "1"),
        "critical_above": (above, "critical temperature above", squared),
        "critical_below": (below, "critical temperature below", squared),
        "sentence": (np.array(sentences, dtype=object).astype(str), "in words", "1"),
    }  # fmt: skip
    table = xr.Dataset(
        {
            name: ("kappa", np.asarray(values), {"long_name": words, "units": units})
            for name, (values, words, units) in columns.items()
        },
        {"kappa": ("kappa", asked, {"long_name": "RMS error per element", "units": "data unit"})},
        {"n_samples": data.shape[0], "n_features": features, "total_variance": total},
    )
    if search:
        table["smallest_rate"].attrs["search"] = search
    return table


def _expected(
    data: Array,
    kappa: Array,
    analysis: PhaseTransitions,
    random_state: int | np.random.RandomState | None,
) -> dict[str, Array]:
    """The forecast at each tolerance; NaN for data too few to set some aside."""
    if len(data) < LEAST_SAMPLES or not np.any(data != data[0]):
        return _unknown(kappa.size)
    table = forecast_rate(data, kappa, random_state=random_state, analysis=analysis)
    return {name: np.asarray(table[name].values, dtype=np.float64) for name in FORECAST}


def _unknown(number: int) -> dict[str, Array]:
    return {name: np.full(number, np.nan) for name in FORECAST}


def _extended(analysis: PhaseTransitions, data: Array, coldest: LinearVAEOptimum) -> xr.Dataset:
    """The path, continued to where its error is below that of the smallest tolerance."""
    path = analysis.path_
    if coldest.multiplier == 0.0 or analysis.masses != "free":
        return path
    if float(path["distortion"].min()) <= coldest.distortion:
        return path
    # the best model reaches an error at a higher temperature than the linear one, as a rule
    start, stop = coldest.water_level, float(path["temperature"].min())
    steps = max(2, math.ceil(math.log(stop / start) / COLD_STEP))
    colder = np.geomspace(start, stop, steps, endpoint=False)
    solver = PhaseTransitions(
        temperatures=colder,
        tolerance=analysis.tolerance,
        n_transitions=0,
        n_jobs=analysis.n_jobs,
        working_memory=analysis.working_memory,
    )
    merged: xr.Dataset = xr.concat([solver.fit(data).path_, path], "temperature")
    merged["certificate"].attrs.update(path["certificate"].attrs)
    return merged


def _clusters(path: xr.Dataset, temperatures: Array) -> NDArray[np.int64]:
    """The number of decoder values at the nearest solved temperature; -1 where there is none."""
    solved = np.log(path["temperature"].values)
    counts = np.asarray(path["n_clusters"].values, dtype=np.int64)
    found = np.full(temperatures.size, -1, dtype=np.int64)
    for i in np.flatnonzero(np.isfinite(temperatures)):
        found[i] = counts[np.abs(solved - math.log(temperatures[i])).argmin()]
    return found


def _around(critical: Array, temperatures: Array) -> tuple[Array, Array]:
    """The nearest critical temperature at or below, and above, each temperature."""
    padded = np.concatenate([[np.nan], critical, [np.nan]])
    place = np.searchsorted(critical, temperatures, side="right")
    unknown = ~np.isfinite(temperatures)
    below, above = padded[place], padded[place + 1]
    return np.where(unknown, np.nan, below), np.where(unknown, np.nan, above)


def _sentence(
    kappa: float,
    kept: float,
    linear: LinearVAEOptimum,
    smallest: float,
    exact: bool,
    temperature: float,
    clusters: int,
    below: float,
    above: float,
    samples: int,
    estimated: bool,
    expected: dict[str, float],
) -> str:
    """One row in words."""
    start = f"An RMS error of {kappa:.4g} per element keeps {100 * kept:.3g}% of the variance"
    if linear.multiplier == 0.0:
        return f"{start}: the mean of the data satisfies it, and nothing needs to be encoded."
    words = [start]
    if math.isfinite(expected["forecast"]):
        latents = int(expected["latents"])
        words.append(
            f"a good model will pay about {expected['forecast']:.3g} nats for it on unseen data: "
            f"take {latents} {'latent' if latents == 1 else 'latents'}, "
            f"beta will end near {expected['beta']:.2g}"
        )
        if expected["gap"] > MEMORY * expected["forecast"]:
            words.append(
                f"it would pay {expected['gap']:.3g} nats less on data it has seen: the samples "
                "are few for this error, and a model of that size remembers them"
            )
    dimensions = "dimension" if linear.active_dimensions == 1 else "dimensions"
    words.append(
        f"a linear VAE pays {linear.rate:.3g} nats, "
        f"with {linear.active_dimensions} active {dimensions}"
    )
    if not exact:
        words.append(
            f"no model pays less than {smallest:.3g} nats on these {samples} samples, and one "
            f"value per sample costs {math.log(samples):.3g}"
        )
    else:
        words.append(
            f"no model of these {samples} samples pays less than {smallest:.3g} nats (reached at "
            f"beta = {temperature:.3g} with about {clusters} decoder values; one per sample costs "
            f"{math.log(samples):.3g})"
        )
        if math.isfinite(above):
            words.append(
                f"the next critical temperature above is {above:.3g}"
                + (f", below {below:.3g}" if math.isfinite(below) else "")
            )
    if estimated:
        words.append(
            "what no model can pay less than is an estimate here, from a search that began at a "
            "sample of the data"
        )
    return "; ".join(words) + "."
