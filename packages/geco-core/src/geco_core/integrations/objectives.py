"""Finding the objectives within a model."""

from torch import nn

from geco_core.baselines import GaussianBaseline
from geco_core.objectives import GECO

__all__ = ["Objective", "numbers", "objectives_in"]

Objective = GECO | GaussianBaseline


def objectives_in(module: nn.Module) -> dict[str, Objective]:
    """The objectives among the submodules of a model.

    Args:
        module: The model.

    Returns:
        The objectives by the last part of the name under which they are registered.

    Raises:
        ValueError: If there is none.
    """
    found = {
        name.rpartition(".")[2]: part
        for name, part in module.named_modules()
        if isinstance(part, GECO | GaussianBaseline)
    }
    if not found:
        raise ValueError(
            f"{type(module).__name__} has no objective: assign one in its constructor, such as "
            f"self.objective = GECO(ReconstructionError(kappa=0.1))"
        )
    return found


def numbers(objectives: dict[str, Objective], prefix: str) -> dict[str, float]:
    """What the objectives tell, under flat names for a logger.

    Reads numbers from the device, so call it where something is logged and not at every step.

    Args:
        objectives: The objectives by name; the name becomes part of the keys if there are several.
        prefix: What all keys begin with.

    Returns:
        Numbers by name.
    """
    found = {}
    for name, objective in objectives.items():
        part = f"{name}/" if len(objectives) > 1 else ""
        for key, value in objective.metrics().items():
            found[f"{prefix}{part}{key}"] = value
    return found
