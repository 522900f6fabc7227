"""How numbers become verdicts. Written before the runs are made, used by every study alike."""

from collections.abc import Iterable

import numpy as np

from geco_experiments.results.findings import Verdict

__all__ = ["EQUAL", "by_share", "by_sign"]

# two runs have the same error where theirs differ by no more than this; the tolerance that GECO
# is held to everywhere
EQUAL = 0.02


def by_share(hits: int, total: int, *, enough: float = 1.0) -> Verdict:
    """A share of `enough` agrees (all): holds. Half: holds partly. Fewer: does not hold here."""
    if total == 0:
        return "not decided"
    if hits >= enough * total:
        return "holds"
    return "holds partly" if 2 * hits >= total else "does not hold here"


def by_sign(effects: Iterable[float], margin: float) -> Verdict:
    """On an effect that the claim says is negative, measured on several seeds or pairs.

    Every one below `-margin`: holds. The mean below `-margin`: holds partly. Else: does not hold
    here. Fewer than three values decide nothing.
    """
    values = np.asarray(list(effects), dtype=float)
    values = values[np.isfinite(values)]
    if values.size < 3:
        return "not decided"
    if (values < -margin).all():
        return "holds"
    return "holds partly" if values.mean() < -margin else "does not hold here"
