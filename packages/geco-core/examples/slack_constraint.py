"""Several constraints of which one is slack: its multiplier goes to the floor by itself.

minimise |w|^2 / 2 subject to w_1 >= 1 (active, multiplier 1) and w_2 >= -1 (slack, multiplier 0).
Run with `python slack_constraint.py` (seconds on a CPU).
"""

import torch

from geco_core import GECO


def main(steps: int = 3000) -> dict[str, float]:
    """Solves it, prints the solution and returns it."""
    w = torch.tensor([0.2, 0.7], requires_grad=True)
    objective = GECO({"active": lambda x, w: 1 - w[:, 0], "slack": lambda x, w: -1 - w[:, 1]})
    optimizer = torch.optim.SGD([w], lr=0.05)
    for _ in range(steps):
        # one example, whose cost is what is minimised; the constraints look at w
        objective((w.square().sum() / 2).reshape(1), None, w[None]).backward()
        optimizer.step()
        optimizer.zero_grad()
        objective.step()
    print(objective.report())
    multiplier = objective.info.multiplier
    return {
        "w_1": w[0].item(),
        "w_2": w[1].item(),
        "active": float(multiplier["active"]),
        "slack": float(multiplier["slack"]),
    }


if __name__ == "__main__":
    main()
