"""How numbers become verdicts. Written before the runs are made, used by every study alike.

A rule is met or it is not. Where some of the runs meet it, the claim says how many, and which do
not.
"""

from collections.abc import Iterable

import numpy as np

from geco_experiments.results.findings import Verdict

__all__ = ["EQUAL", "by_share", "by_sign"]

# two runs have the same error where theirs differ by no more than this; the tolerance that GECO
# is held to everywhere
EQUAL = 0.02


def by_share(hits: int, total: int, *, enough: float = 1.0) -> Verdict:
    """A share of at least `enough` agrees (all): holds. Fewer: does not hold here."""
    if total == 0:
        return "not decided"
    return "holds" if hits >= enough * total else "does not hold here"


def by_sign(effects: Iterable[float], margin: float) -> Verdict:
    """On an effect that the claim says is negative, measured on several seeds or pairs.

    Every one below `-margin`: holds. Else: does not hold here. Fewer than three values decide
    nothing.
    """
    values = np.asarray(list(effects), dtype=float)
    values = values[np.isfinite(values)]
    if values.size < 3:
        return "not decided"
    return "holds" if (values < -margin).all() else "does not hold here"
