"""How constraints get their names."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from torch import Tensor, nn

from geco_core.violation import Constraint, as_constraint

__all__ = ["BARE", "Constraints", "named_constraints"]

#: The name in `objective.constraints` of a constraint that was given without one.
BARE = "constraint"

ConstraintLike: TypeAlias = Constraint | Callable[..., Tensor]
Constraints: TypeAlias = (
    ConstraintLike | Mapping[str, ConstraintLike] | Iterable[tuple[str, ConstraintLike]]
)


def named_constraints(constraints: Any) -> tuple[bool, dict[str, Constraint]]:
    """Constraints by name, and whether a single one was given without a name.

    Args:
        constraints: A constraint, a mapping of them, or pairs of a name and a constraint.

    Raises:
        TypeError: If something is not a constraint.
        ValueError: If there is none, or a name is unusable or given twice.
    """
    if isinstance(constraints, nn.ModuleDict):
        constraints = dict(constraints.items())
    if isinstance(constraints, Mapping):
        pairs = list(constraints.items())
    elif callable(constraints) or not isinstance(constraints, Iterable):
        return True, {BARE: as_constraint(constraints)}
    else:
        pairs = [_as_pair(item) for item in constraints]
    named: dict[str, Constraint] = {}
    module = nn.ModuleDict()
    for name, constraint in pairs:
        if name in named:
            raise ValueError(f"`constraints` has the name {name!r} twice; give each its own")
        if not isinstance(name, str) or not name or "." in name or hasattr(module, name):
            raise ValueError(
                f"`constraints` must have names that are non-empty strings without dots and not "
                f"those of a module's own attributes, got {name!r}"
            )
        named[name] = as_constraint(constraint)
    if not named:
        raise ValueError("`constraints` is empty; give at least one constraint")
    return False, named


def _as_pair(item: Any) -> tuple[Any, Any]:
    if not (isinstance(item, tuple | list) and len(item) == 2):
        raise TypeError(
            f"`constraints` must be a constraint, a mapping from names to constraints, or pairs "
            f"(name, constraint), got an element {item!r}"
        )
    return item[0], item[1]
