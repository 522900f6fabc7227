"""Finding the objectives within a model."""

from torch import nn

from geco_core.baselines import ELBO, AnnealedELBO
from geco_core.objectives import GECO

__all__ = ["Objective", "objectives_in"]

Objective = GECO | ELBO | AnnealedELBO


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
        if isinstance(part, GECO | ELBO | AnnealedELBO)
    }
    if not found:
        raise ValueError(
            f"{type(module).__name__} has no objective: assign one in its constructor, such as "
            f"self.objective = GECO(ReconstructionError(kappa=0.1))"
        )
    return found
