"""What can be named on the command line: datasets, models and studies, ours and those of others.

A package adds its own by entry points of the groups `geco_experiments.datasets`,
`geco_experiments.models` and `geco_experiments.studies`; `docs/extending.md` of this package shows
how. Nothing is imported before it is asked for.
"""

import difflib
import functools
import importlib
from importlib import metadata
from typing import Any, Literal

__all__ = ["Kind", "is_built_in", "load", "names", "unknown"]

Kind = Literal["datasets", "models", "studies"]

BUILT_IN: dict[Kind, dict[str, str]] = {
    "datasets": {
        "digits": "geco_experiments.datasets.digits:DIGITS",
        "mnist": "geco_experiments.datasets.mnist:MNIST",
        "fashion-mnist": "geco_experiments.datasets.mnist:FASHION_MNIST",
        "mnist-rotate": "geco_experiments.datasets.mnist:MNIST_ROTATE",
        "color-mnist": "geco_experiments.datasets.mnist:COLOR_MNIST",
        "cifar-10": "geco_experiments.datasets.cifar:CIFAR_10",
        "olivetti": "geco_experiments.datasets.olivetti:OLIVETTI",
        "celeba": "geco_experiments.datasets.celeba:CELEBA",
    },
    "models": {
        "linear-vae": "geco_experiments.builders.models:linear_vae",
        "mlp-vae": "geco_experiments.builders.models:mlp_vae",
        "conv-vae": "geco_experiments.builders.models:conv_vae",
        "nvp-vae": "geco_experiments.builders.models:nvp_vae",
        "conv-draw": "geco_experiments.builders.models:conv_draw",
    },
    "studies": {},
}


def names(kind: Kind) -> tuple[str, ...]:
    """All names of a kind: the built-in ones, then those of other packages in order."""
    return (*BUILT_IN[kind], *sorted(set(_foreign(kind)) - set(BUILT_IN[kind])))


def is_built_in(kind: Kind, name: str) -> bool:
    """Whether a name is this package's own."""
    return name in BUILT_IN[kind]


def load(kind: Kind, name: str) -> Any:
    """The object behind a name.

    Raises:
        ValueError: if there is none of that name, or the package that offers it cannot be used.
    """
    if is_built_in(kind, name):
        module, _, attribute = BUILT_IN[kind][name].partition(":")
        return getattr(importlib.import_module(module), attribute)
    found = _foreign(kind).get(name)
    if found is None:
        raise ValueError(unknown(kind, name))
    try:
        return found.load()
    except Exception as error:  # whatever somebody else's package raises at import
        raise ValueError(
            f"the {kind[:-1]} {name!r} of {found.value} cannot be loaded "
            f"({type(error).__name__}: {error}): mend or remove the package that offers it"
        ) from error


def unknown(kind: Kind, name: str) -> str:
    """A sentence on a name that does not exist, with what could be meant."""
    close = difflib.get_close_matches(name, names(kind), n=2)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    return f"there is no {kind[:-1]} {name!r}: {hint}known are {', '.join(names(kind))}"


@functools.cache
def _foreign(kind: Kind) -> dict[str, metadata.EntryPoint]:
    points = metadata.entry_points(group=f"geco_experiments.{kind}")
    return {point.name: point for point in points}
