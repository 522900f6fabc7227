"""What an objective tells: for programs as `Info` and flat metrics, for people as a report."""

import logging
from collections.abc import Iterator
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from geco_core.feasibility import is_feasible
from geco_core.info import Info

if TYPE_CHECKING:
    from geco_core.constraints.base import Constraint
    from geco_core.multipliers.state import Multipliers

__all__ = ["Columns", "flat_metrics", "in_lines", "shape_of"]

logger = logging.getLogger(__name__)


class Columns:
    """Which multipliers belong to which constraint.

    Args:
        named: The constraints by name.
    """

    def __init__(self, named: "dict[str, Constraint]") -> None:
        self.counts = {name: constraint.multipliers for name, constraint in named.items()}
        self.total = sum(self.counts.values())

    def slices(self) -> Iterator[tuple[str, slice]]:
        """The columns of every constraint."""
        start = 0
        for name, count in self.counts.items():
            yield name, slice(start, start + count)
            start += count

    def by_label(self, named: "dict[str, Constraint]") -> "dict[str, Constraint]":
        """The constraint of every multiplier, by a name of the multiplier."""
        labels = {}
        for name, constraint in named.items():
            if constraint.multipliers == 1:
                labels[name] = constraint
                continue
            for index in range(constraint.multipliers):
                label, one = constraint.of_multiplier(index)
                labels[f"{name}[{label}]"] = one
        return labels


def shape_of(x: Any) -> Any:
    """Data as tensors of the device "meta", which have shapes and no values."""
    if isinstance(x, Tensor):
        return torch.empty(x.shape, device="meta")
    if isinstance(x, dict):
        return {key: shape_of(value) for key, value in x.items()}
    if isinstance(x, (list, tuple)) and not hasattr(x, "_fields"):
        return type(x)(shape_of(value) for value in x)
    return None


def flat_metrics(info: Info) -> dict[str, float]:
    """The numbers of an `Info` under flat names; one reading of the device."""
    names, values = [], []

    def add(name: str, value: Tensor) -> None:
        value = value.detach().double()
        if value.ndim == 0:
            names.append(name)
            values.append(value)
        else:  # of several multipliers what can be drawn
            known = torch.where(value.isnan(), 0.0, value)
            count = value.isnan().logical_not().sum()
            mean = torch.where(count > 0, known.sum() / count, torch.nan)
            low = torch.where(value.isnan(), torch.inf, value).min()
            high = torch.where(value.isnan(), -torch.inf, value).max()
            names.extend([f"{name}/mean", f"{name}/lowest", f"{name}/highest"])
            values.extend([mean, low, high])

    for field in fields(info):
        value: Any = getattr(info, field.name)
        if value is None:
            continue
        label = "violation" if field.name == "constraint" else field.name
        if isinstance(value, dict):
            for name, one in value.items():
                add(f"{name}/{label}", one)
        else:
            add(label, value)
    return dict(zip(names, torch.stack(values).tolist(), strict=True))


def in_lines(
    multipliers: "Multipliers",
    columns: Columns,
    named: "dict[str, Constraint]",
    scales: list[float],
) -> str:
    """One line per constraint, and per multiplier that is not as it should be in groups."""
    lines = []
    average = multipliers.moving_average(scales)
    fields_: dict[str, Any] = {
        "moving_average": average,
        "feasible": is_feasible(average / multipliers.as_tensor(scales)),
        "multiplier": multipliers.multiplier(scales),
        "saturated": multipliers.saturated(),
        "skipped": multipliers.skipped(),
    }
    for name, where in columns.slices():
        constraint = named[name]
        one: dict[str, Any] = {
            field: constraint.as_reported(field, values[where]).tolist()
            for field, values in fields_.items()
        }
        if isinstance(one["multiplier"], list):
            lines.append(_of_several(name, one, constraint))
            continue
        state = "saturated" if one["saturated"] else "feasible" if one["feasible"] else "violated"
        violation = one["moving_average"]
        if violation != violation and not one["skipped"]:
            lines.append(f"{name}: no ascent yet")  # nor a multiplier that means anything
            continue
        lines.append(
            f"{name}: {state}, violation {violation:.4g} ({violation / constraint.scale:+.2%} of "
            f"its scale), multiplier {one['multiplier']:.4g}"
            + (f", kappa {constraint.kappa:g}" if constraint.kappa is not None else "")
            + (f", {one['skipped']} ascents skipped" if one["skipped"] else "")
        )
    return "\n".join(lines)


def _of_several(name: str, one: dict[str, Any], constraint: "Constraint") -> str:
    """Of groups of examples, or of the tolerances of a range."""
    violations, multipliers, scales = one["moving_average"], one["multiplier"], constraint.scales
    seen = [index for index, value in enumerate(violations) if value == value]
    what = constraint.several
    text = f"{name}: {sum(one['feasible'])} of {len(violations)} {what} feasible"
    if seen:
        worst = max(seen, key=lambda index: violations[index] / scales[index])
        text += (
            f", worst {constraint.of_multiplier(worst)[0]}: violation {violations[worst]:.4g} "
            f"({violations[worst] / scales[worst]:+.2%} of its scale), multiplier "
            f"{multipliers[worst]:.4g}"
        )
    if sum(one["saturated"]):
        text += f", {sum(one['saturated'])} saturated"
    if len(seen) < len(violations):
        text += f", {len(violations) - len(seen)} never seen"
    return text + (f", kappa {constraint.kappa:g}" if constraint.kappa is not None else "")
