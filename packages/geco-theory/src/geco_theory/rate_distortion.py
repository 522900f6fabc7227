r"""Rate and distortion of a dataset, from a solved path of global optima (D6, D8, D9).

At every temperature the optimum with free masses gives one point
:math:`(\mathrm{RE}, \mathrm{KL})` of the smallest rate that any model can have at that error on
these data; the slope there is :math:`-\mathrm{d}R/\mathrm{d}D = 1/2T` (D6, with D the summed
squared error). Between two solved temperatures the curve lies, by convexity, below the chord and
above both tangents. The tangents are D9's bound: every VAE has
:math:`\mathrm{RE}/2 + T\,\mathrm{KL} \ge F^*(T)` on the data that it is evaluated on, hence

.. math:: \mathrm{KL} \ge \max_T \frac{F^*(T) - \mathrm{RE}/2}{T} .

The certificate of the path is taken off (:math:`F^* \ge F - T \ln S`), so the bound does not lean
on how far the solver went, only on how well :math:`\ln S` was searched for: by ascents from every
data point, or, where `path["certificate"]` has the attribute `search`, from a sample of them.
Then :math:`\ln S` is a lower estimate, and what is called a bound here is an estimate and no
strict bound; every such variable carries the attribute `search` on, which says so.
"""

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike
from scipy.interpolate import CubicHermiteSpline

from geco_theory._typing import Array
from geco_theory.validation import whole_number

__all__ = ["bound_margin", "free_energy_bound", "rate_distortion_curve"]

SQUARED = "(data unit)^2"
ESTIMATE = "an estimate, no strict bound: ln S was looked for from a sample of the data"


def rate_distortion_curve(
    path: xr.Dataset, kappa: ArrayLike | None = None, *, n_features: int
) -> xr.Dataset:
    r"""The smallest rate at each tolerance, and the multiplier that it takes (D6, D8).

    Args:
        path: `PhaseTransitions(masses="free").fit(X).path_`.
        kappa: tolerances of the constraint RE, root-mean-square errors per element in data
            units; by default those of the path's own temperatures.
        n_features: the number d of elements that the mean of RE runs over.

    Returns:
        A dataset over ``kappa``: ``distortion`` (:math:`D = d \kappa^2`), ``rate`` (nats, by the
        cubic through the solved points and slopes), ``rate_lower`` (the tangents' bound) and
        ``rate_upper`` (the chords'), ``temperature`` (also the beta of a decoder of unit
        variance), ``multiplier`` (:math:`d / 2T`, of the mean squared error) and
        ``relative_multiplier`` (:math:`\lambda \kappa^2`). Where the mean of the data is good
        enough: rate 0 and multiplier 0. Where `kappa` is below the error of the lowest solved
        temperature: NaN, but for ``rate_lower``, which holds everywhere. With the attribute
        ``search`` it is an estimate and no strict bound (the certificate is from a sample).

    Raises:
        ValueError: `path` is not one of free masses, or `kappa` is not positive and finite.
        TypeError: `n_features` is not a whole number.
    """
    temperatures, distortion, rate, _ = _solved(path)
    features = whole_number(n_features, "n_features", least=1)
    if kappa is None:
        wanted = np.sqrt(np.unique(distortion) / features)
        wanted = wanted[wanted > 0]
    else:
        wanted = _amounts(kappa, "kappa")
        if not (wanted > 0).all():
            raise ValueError(f"`kappa` must be positive, got {wanted.min()}.")
    allowed = features * wanted**2

    # above the top transition the error no longer changes: keep the coldest of equal ones
    knots, first = np.unique(np.maximum.accumulate(distortion), return_index=True)
    heat, cost = temperatures[first], rate[first]
    inside = (allowed >= knots[0] * (1.0 - 1e-12)) & (allowed < knots[-1])
    # only a path that ends in the one-value solution knows the error above which all is idle
    idle = (allowed >= knots[-1] * (1.0 - 1e-12)) & (cost[-1] <= 1e-9)
    found = np.full(wanted.size, np.nan)
    level = np.full(wanted.size, np.nan)
    upper = np.full(wanted.size, np.nan)
    if knots.size > 1 and inside.any():
        curve = CubicHermiteSpline(knots, cost, -0.5 / heat)
        found[inside] = curve(allowed[inside])
        upper[inside] = np.interp(allowed[inside], knots, cost)
        level[inside] = np.exp(np.interp(allowed[inside], knots, np.log(heat)))
    found[idle], upper[idle] = 0.0, 0.0
    level[idle] = heat[-1]
    lower = free_energy_bound(path, allowed)["rate"].values
    multiplier = np.where(idle, 0.0, features / (2.0 * level))
    return xr.Dataset(
        {
            "distortion": _variable(allowed, "kappa", "summed squared error", SQUARED),
            "rate": _variable(np.clip(found, lower, upper), "kappa", "smallest rate", "nat"),
            "rate_lower": _bounded(path, lower, "kappa", "lower bound of the rate", "nat"),
            "rate_upper": _variable(upper, "kappa", "upper bound of the smallest rate", "nat"),
            "temperature": _variable(level, "kappa", "temperature T", SQUARED),
            "multiplier": _variable(multiplier, "kappa", "multiplier", "1/(data unit)^2"),
            "relative_multiplier": _variable(
                multiplier * wanted**2, "kappa", "multiplier times kappa squared", "1"
            ),
        },
        {"kappa": ("kappa", wanted, {"long_name": "RMS error per element", "units": "data unit"})},
    )


def free_energy_bound(path: xr.Dataset, distortion: ArrayLike | None = None) -> xr.Dataset:
    r"""The rate below which no model can be at each distortion (D9).

    For drawing in the information plane: every point of every VAE, evaluated on the data of the
    path, lies on or above this line.

    Args:
        path: `PhaseTransitions(masses="free").fit(X).path_`.
        distortion: RE, the mean squared error summed over the elements, >= 0; by default 200
            values from zero to a little above that of the one-value solution.

    Returns:
        A dataset over ``distortion``: ``rate`` (nats), the envelope
        :math:`\max_T (F^* - \mathrm{RE}/2) / T`, never below 0, and ``temperature``, the T at
        which it is reached (NaN where the envelope is 0). With the attribute ``search``
        ``rate`` is an estimate and no strict bound (the certificate is from a sample).

    Raises:
        ValueError: `path` is not one of free masses, or `distortion` is negative or not finite.
    """
    temperatures, solved, _, floor = _solved(path)
    if distortion is None:
        asked = np.linspace(0.0, 1.05 * float(solved.max()), 200)
    else:
        asked = _amounts(distortion, "distortion")
    lines = (floor - 0.5 * asked[:, None]) / temperatures
    best = lines.argmax(axis=1)
    rate = np.maximum(lines[np.arange(asked.size), best], 0.0)
    level = np.where(rate > 0, temperatures[best], np.nan)
    return xr.Dataset(
        {
            "rate": _bounded(path, rate, "distortion", "smallest rate of any model", "nat"),
            "temperature": _variable(level, "distortion", "temperature", SQUARED),
        },
        {
            "distortion": (
                "distortion", asked, {"long_name": "RE, summed over elements", "units": SQUARED},
            )
        },
    )  # fmt: skip


def bound_margin(path: xr.Dataset, distortion: ArrayLike, rate: ArrayLike) -> xr.Dataset:
    r"""How far trained models lie above the bound that holds for every model (D9).

    Args:
        path: `PhaseTransitions(masses="free").fit(X).path_` of the data that the models were
            evaluated on.
        distortion: RE of each model on these data: mean squared error summed over the elements.
        rate: KL of each model on these data, nats.

    Returns:
        A dataset over ``model``: ``margin``, :math:`\min_T [\mathrm{RE}/2 + T\,\mathrm{KL} -
        F^*(T)]`, in squared data units, negative only if RE or KL is not what it claims to be;
        ``temperature``, where it is smallest; ``smallest_rate`` at this RE and ``excess_rate``,
        the nats above it. With the attribute ``search`` these are estimates: a small negative
        margin can then also mean that the search missed a maximum of D.

    Raises:
        ValueError: `path` is not one of free masses, the two differ in length, or hold negative
            or infinite values.
    """
    temperatures, _, _, floor = _solved(path)
    errors, rates = _amounts(distortion, "distortion"), _amounts(rate, "rate")
    if errors.size != rates.size:
        raise ValueError(
            f"`distortion` and `rate` must have one value per model each, got {errors.size} "
            f"and {rates.size}."
        )
    margins = 0.5 * errors[:, None] + rates[:, None] * temperatures - floor
    worst = margins.argmin(axis=1)
    smallest = free_energy_bound(path, errors)["rate"].values
    return xr.Dataset(
        {
            "margin": _bounded(
                path,
                margins[np.arange(errors.size), worst],
                "model",
                "distance above F*",
                SQUARED,
            ),
            "temperature": _variable(temperatures[worst], "model", "temperature", SQUARED),
            "smallest_rate": _bounded(path, smallest, "model", "smallest rate at this RE", "nat"),
            "excess_rate": _bounded(path, rates - smallest, "model", "rate above it", "nat"),
        }
    )


def _solved(path: xr.Dataset) -> tuple[Array, Array, Array, Array]:
    """Temperature, distortion, rate and the lower bound of F*, ascending in temperature."""
    needed = {"temperature", "distortion", "rate", "free_energy", "certificate"}
    if not needed <= set(getattr(path, "variables", ())) or path.sizes["temperature"] == 0:
        raise ValueError(
            "`path` must be the `path_` of a fitted PhaseTransitions, "
            f"got {type(path).__name__} without all of {sorted(needed)}."
        )
    ordered = path.sortby("temperature")
    certificate = np.asarray(ordered["certificate"].values, dtype=np.float64)
    usable = np.isfinite(certificate)
    if not usable.any():
        raise ValueError(
            '`path` must be of masses="free": equal masses carry no certificate, and their free '
            "energy bounds nothing."
        )
    columns = [
        np.asarray(ordered[name].values, dtype=np.float64)[usable]
        for name in ("temperature", "distortion", "rate", "free_energy")
    ]
    floor = columns[3] - columns[0] * np.maximum(certificate[usable], 0.0)
    return columns[0], columns[1], columns[2], floor


def _amounts(values: ArrayLike, name: str) -> Array:
    """A vector of finite numbers >= 0."""
    found = np.atleast_1d(np.asarray(values, dtype=np.float64))
    if found.ndim != 1 or not np.isfinite(found).all() or (found < 0).any():
        raise ValueError(
            f"`{name}` must be a number or a vector of finite numbers >= 0, got {values!r}."
        )
    return found


def _variable(
    values: Array, dimension: str, long_name: str, units: str
) -> tuple[str, Array, dict[str, str]]:
    """A labelled vector."""
    return dimension, values, {"long_name": long_name, "units": units}


def _bounded(
    path: xr.Dataset, values: Array, dimension: str, long_name: str, units: str
) -> tuple[str, Array, dict[str, str]]:
    """A labelled vector that is as strict a bound as the certificate of the path allows."""
    attributes = {"long_name": long_name, "units": units}
    if "search" in path["certificate"].attrs:
        attributes["search"] = ESTIMATE
    return dimension, values, attributes
