"""How much memory may be taken, and a refusal of what would not fit."""

import os


def available_memory() -> float:
    """The memory, in bytes, that a computation may take: half of what the machine has free.

    Infinite where the system does not say.
    """
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not a POSIX system
        return float("inf")
    # what the file cache holds counts as taken, so never less than a quarter of the machine
    return max(0.5 * free, 0.25 * total)


def require_memory(
    needed: float,
    what: str,
    limit: float | None = None,
    *,
    advice: str = "take fewer cells along each coordinate or fewer features.",
) -> None:
    """Refuse what would not fit.

    Args:
        needed: bytes that would be taken.
        what: the words that name it in the message.
        limit: bytes that may be taken; by default `available_memory()`.
        advice: what to do about it.

    Raises:
        ValueError: `needed` is more than that.
    """
    allowed = available_memory() if limit is None else limit
    if needed > allowed:
        raise ValueError(
            f"{what} would need {needed / 2**30:.3g} GiB, more than the {allowed / 2**30:.3g} GiB "
            f"that may be used; {advice}"
        )
