"""Transitions: where the number of decoder values changes, and how."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import xarray as xr

from geco_theory._typing import Array
from geco_theory.free_energy.data import StandardData
from geco_theory.transitions.births import Birth
from geco_theory.transitions.splits import MERGE, SPLIT, GroupChange
from geco_theory.transitions.stability import OneValueLimit

__all__ = [
    "BIRTH",
    "MERGE",
    "SPLIT",
    "STABILITY",
    "Transition",
    "birth_transition",
    "change_transition",
    "top_transitions",
    "transitions_dataset",
]

BIRTH = "birth"
STABILITY = "stability limit"
_NEAR = 0.1  # in sqrt(T): a birth nearer than this to an older value counts as continuous


@dataclass(frozen=True)
class Transition:
    """One transition, in the user's units.

    Args:
        temperature: T at which it happens.
        kind: `birth` (global optimum), `merge` (equal masses, heating), `split` (equal masses,
            cooling) or `stability limit` (of the one-value solution, D2).
        distance: Births: from the new value to the nearest other one. Merges and splits: the
            jump of the values at the transition; 0 where it is continuous.
        continuous: Whether the branch goes through without a jump (always true of RE and KL at a
            birth, where the support alone jumps).
        size: Share of the samples in the group that changes.
        parts: Shares of the samples of the parts; of the new value alone at a birth.
        direction: (d,) unit vector of the change.
    """

    temperature: float
    kind: str
    distance: float
    continuous: bool
    size: float
    direction: Array
    parts: tuple[float, ...] = field(default=())


def top_transitions(data: StandardData, limit: OneValueLimit, *, births: bool) -> list[Transition]:
    """The stability limit of the one-value solution, and where it stops being optimal.

    Args:
        data: The data.
        limit: The top transition of the global optimum.
        births: Whether to include it.
    """
    unit = data.temperature_unit
    stability = float(data.variances[0]) * unit
    found = [Transition(stability, STABILITY, 0.0, True, 1.0, data.axes[:, 0])]
    if births:
        direction = data.axes @ limit.birth
        length = float(np.linalg.norm(direction))
        found.append(
            Transition(
                limit.temperature * unit,
                BIRTH,
                length * data.scale,
                limit.continuous,
                1.0,
                direction / length if length else data.axes[:, 0],
            )
        )
    return found


def birth_transition(data: StandardData, birth: Birth) -> Transition:
    """A birth in the user's units."""
    offset = data.axes @ (birth.value - birth.nearest)
    return Transition(
        birth.temperature * data.temperature_unit,
        BIRTH,
        birth.distance * data.scale,
        birth.distance < _NEAR * np.sqrt(birth.temperature),
        birth.parent_mass,
        offset / max(float(np.linalg.norm(offset)), 1e-300),
    )


def change_transition(data: StandardData, change: GroupChange) -> Transition:
    """A merge or a split in the user's units."""
    return Transition(
        change.temperature * data.temperature_unit,
        change.kind,
        change.jump * data.scale,
        change.continuous,
        change.mass,
        data.axes @ change.direction,
        change.parts,
    )


def transitions_dataset(found: Sequence[Transition], features: int) -> xr.Dataset:
    """Transitions as a dataset over `transition`, highest temperature first."""
    rows = sorted(found, key=lambda t: (-t.temperature, t.kind))
    direction = np.array([t.direction for t in rows]).reshape(len(rows), features)
    smaller = [min(t.parts) if t.parts else np.nan for t in rows]
    dataset = xr.Dataset(
        {
            "kind": ("transition", np.array([t.kind for t in rows], dtype="U16")),
            "distance": ("transition", np.array([t.distance for t in rows], dtype=float)),
            "continuous": ("transition", np.array([t.continuous for t in rows], dtype=np.int8)),
            "size": ("transition", np.array([t.size for t in rows], dtype=float)),
            "smaller_part": ("transition", np.array(smaller, dtype=float)),
            "direction": (("transition", "feature"), direction),
        },
        coords={"temperature": ("transition", np.array([t.temperature for t in rows]))},
    )
    dataset["temperature"].attrs = {
        "units": "(data unit)^2",
        "long_name": "temperature T = beta sigma^2",
    }
    dataset["distance"].attrs = {
        "units": "data unit",
        "long_name": "distance at which a value appears, or the jump of a merge or split",
    }
    dataset["size"].attrs = {"units": "1", "long_name": "share of the samples in the group"}
    dataset["smaller_part"].attrs = {"units": "1", "long_name": "share of its smaller part"}
    dataset["continuous"].attrs = {"long_name": "1 where there is no jump"}
    dataset["direction"].attrs = {"units": "1", "long_name": "unit vector of the change"}
    return dataset
