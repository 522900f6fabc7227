"""Values of configurations: their types, their ranges, and words for those that are refused."""

import math
import re
import types
import typing
from dataclasses import fields, is_dataclass
from numbers import Integral, Real
from typing import Any, Literal

__all__ = ["check_positive", "check_types", "ends_of"]

# the square of the least still is a normal number in float32
LEAST, MOST = 1e-15, 1e30
MOST_WHOLE = 10**15


_RANGE = re.compile(r"\s*(.+?)\s*\.\.\s*(.+?)\s*")


def ends_of(name: str, value: Any) -> tuple[float, float] | None:
    """The ends of a range such as `0.06..0.2`, `(0.06, 0.2)` or a `ToleranceRange`.

    Args:
        name: The field, for messages.
        value: A number, or a range.

    Returns:
        The lower and the upper end; None for anything that is no range.

    Raises:
        ValueError: if it is a range whose ends are not numbers, or not low < high.
    """
    found: Any = None
    if isinstance(value, str):
        match = _RANGE.fullmatch(value)
        found = None if match is None else match.groups()
    elif isinstance(value, tuple | list):
        found = value
    elif hasattr(value, "low") and hasattr(value, "high"):
        found = (value.low, value.high)
    if found is None:
        return None
    try:
        low, high = (float(end) for end in found)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`{name}` must be a number or a range such as 0.06..0.2; got {value!r}"
        ) from error
    if not (math.isfinite(low) and math.isfinite(high) and 0 < low < high):
        raise ValueError(
            f"`{name}` as a range must be low..high with 0 < low < high; got {value!r}"
        )
    return low, high


def check_positive(config: object, *names: str, most: float | None = None) -> None:
    """Make sure that some fields are above zero and of a size that can be computed with.

    Raises:
        ValueError: names the field, what is allowed and what was given.
    """
    for name in names:
        value = getattr(config, name)
        if value is None:
            continue
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"`{name}` must be a finite number above 0; got {value!r}")
        limit = most or (MOST_WHOLE if isinstance(value, int) else MOST)
        if value > limit:
            raise ValueError(f"`{name}` must be at most {limit:g}; got {value!r}")
        if value < LEAST:
            raise ValueError(f"`{name}` must be at least {LEAST:g}; got {value!r}")


def check_types(config: Any) -> None:
    """Make sure that every field has its type; numpy's scalars become Python's.

    A whole number given for a real one becomes a float: equal configurations must have equal
    JSON, hence equal names.

    Raises:
        TypeError: for a value of another type.
        ValueError: for a word that is none of those allowed.
    """
    hints = typing.get_type_hints(type(config))
    for item in fields(config):
        hint = hints[item.name]
        if not is_dataclass(hint):
            value = _checked(hint, _plain(getattr(config, item.name)), item.name)
            object.__setattr__(config, item.name, value)
        elif not isinstance(getattr(config, item.name), typing.cast(type, hint)):
            raise TypeError(
                f"`{item.name}` must be a {typing.cast(type, hint).__name__}; got "
                f"{getattr(config, item.name)!r}"
            )


def _plain(value: Any) -> Any:
    """A number, text or truth value of numpy or torch as Python's own."""
    if type(value) in (bool, int, float, str, type(None)):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        # by its shortest text: numpy.float32(0.1) is meant as 0.1
        return float(str(value))
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()
    return value


def _checked(hint: Any, value: Any, path: str) -> Any:
    origin = typing.get_origin(hint)
    if origin is Literal:
        allowed = typing.get_args(hint)
        if value not in allowed:
            raise ValueError(f"`{path}` must be one of {', '.join(allowed)}; got {value!r}")
        return value
    options = typing.get_args(hint) if origin in (types.UnionType, typing.Union) else (hint,)
    for option in options:
        if typing.get_origin(option) is tuple:
            if isinstance(value, tuple | list):
                (item, _) = typing.get_args(option)
                return tuple(_checked(item, _plain(one), path) for one in value)
            continue
        if option is float and isinstance(value, int | float) and not isinstance(value, bool):
            try:
                return float(value)
            except OverflowError as error:
                raise ValueError(f"`{path}` is too large a number; got {value!r}") from error
        if option is int and isinstance(value, bool):
            continue
        if isinstance(value, option):
            return value
    raise TypeError(f"`{path}` must be {_words(options)}; got {value!r}")


def _words(options: tuple[Any, ...]) -> str:
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    words = ("numbers" if typing.get_origin(o) is tuple else names.get(o, "null") for o in options)
    return " or ".join(words)
