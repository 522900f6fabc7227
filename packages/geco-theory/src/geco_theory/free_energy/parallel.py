"""Row blocks on several threads: numpy releases the GIL while it computes."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
_LEAST_ROWS = 4096  # for one thread; fewer are not worth one


def over_rows(
    work: Callable[[int, int], T], rows: int, workers: int, least: int | None = None
) -> list[T]:
    """What `work(begin, end)` returns for stretches of rows, one for each thread, in order.

    Args:
        work: Computes one stretch.
        rows: How many rows there are.
        workers: Threads at most.
        least: Rows that are worth a thread; None means 4,096.
    """
    number = max(1, min(workers, rows // (least or _LEAST_ROWS)))
    edges = [rows * i // number for i in range(number + 1)]
    if number == 1:
        return [work(0, rows)]
    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(work, edges[:-1], edges[1:]))
