"""Numbers in sentences: one run, three runs."""

__all__ = ["counted", "named", "ranging"]


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun: `1 run`, `3 runs`.

    Args:
        number: how many.
        one: the noun.
        many: its plural (None: with an s).
    """
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def ranging(number: int, one: str, many: str | None = None, *, what: str = "Range") -> str:
    """What the ranges of a table are over: `One seed.` or `Range over 3 seeds.`"""
    return f"One {one}." if number == 1 else f"{what} over {counted(number, one, many)}."


def named(word: str, ones: list[str]) -> str:
    """Those that a count leaves out, in brackets after it: ` (not: a, b)`; nothing if none."""
    return f" ({word}: {', '.join(ones)})" if ones else ""
