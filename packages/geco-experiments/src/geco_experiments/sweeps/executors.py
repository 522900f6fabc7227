"""Where the runs of a sweep are made: in this process, in a local pool, or on a Dask cluster.

An executor is a generator: it takes tasks and yields outcomes as they come, waking up in between
so that progress can be shown. A task never raises; a run that fails is an outcome like any other.
"""

import contextlib
import importlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from geco_experiments.runtime.errors import RunError
from geco_experiments.sweeps.tasks import Outcome, Task, leave_with_parent, perform

__all__ = ["dask", "local", "serial"]

TICK = 0.5
"""Seconds between two looks at the progress."""
DEATHS = 3
"""How often a run may take its worker process down before it is given up."""
CONNECT = 10
"""Seconds to wait for a Dask scheduler to answer."""
Work = Callable[[Task], Outcome]


def serial(tasks: Sequence[Task], work: Work = perform) -> Generator[Outcome | None, None, None]:
    """One run after the other in this process."""
    for task in tasks:
        yield work(task)


def local(
    tasks: Sequence[Task], workers: int | None = None, work: Work = perform
) -> Generator[Outcome | None, None, None]:
    """A pool of fresh processes on this machine, the processor's cores divided among them.

    A worker that dies (killed, out of memory) takes the whole pool down. The runs that were in
    flight then are tried again one at a time, so that only the one to blame is given up.
    """
    workers = min(workers or os.cpu_count() or 1, len(tasks))
    threads = max(1, (os.cpu_count() or 1) // max(workers, 1))
    waiting = [task.with_threads(threads) for task in tasks]
    suspects: list[Task] = []
    while waiting:
        suspects.extend((yield from _pool(waiting, workers, work)))
    deaths = dict.fromkeys((task.name for task in suspects), 1)
    while suspects:
        alone = [suspects.pop(0)]
        task = alone[0]
        if (yield from _pool(alone, 1, work)):
            deaths[task.name] += 1
            if deaths[task.name] >= DEATHS:
                yield task.lost(f"its process died {DEATHS} times")
            else:
                suspects.append(task)


def _pool(waiting: list[Task], workers: int, work: Work) -> Any:
    """Work through `waiting` until it is empty or the pool breaks; returns what was in flight."""
    context = multiprocessing.get_context("spawn")
    flying: dict[Future[Outcome], Task] = {}
    with (
        ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker) as pool,
        _winding_down(waiting),
    ):
        while waiting or flying:
            while waiting and len(flying) < workers:
                task = waiting.pop(0)
                try:
                    flying[pool.submit(work, task)] = task
                except BrokenProcessPool:
                    waiting.insert(0, task)
                    break
            done, _ = wait(flying, timeout=TICK, return_when=FIRST_COMPLETED)
            lost = []
            for future in done:
                task = flying.pop(future)
                try:
                    yield future.result()
                except BrokenProcessPool:
                    lost.append(task)
            if lost:
                return [*lost, *flying.values()]
            if not done:
                yield None
    return []


def _start_worker() -> None:
    # Ctrl-C reaches every process of the terminal; workers are told by the stop file instead
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=leave_with_parent, daemon=True).start()


@contextlib.contextmanager
def _winding_down(
    tasks: Sequence[Task], finish: Callable[[], object] = lambda: None
) -> Iterator[None]:
    """On Ctrl-C tell the runs under way to write a checkpoint and stop, then pass it on."""
    stop_files = {task.stop_file for task in tasks if task.stop_file is not None}
    try:
        yield
    except KeyboardInterrupt:
        for path in stop_files:
            path.touch()
        finish()
        raise


def dask(
    tasks: Sequence[Task],
    scheduler: str | None = None,
    workers: int | None = None,
    work: Work = perform,
) -> Generator[Outcome | None, None, None]:
    """A Dask cluster: the one at `scheduler`, or a local one made for the occasion.

    Results are files, so all workers must see the folder of runs under the same path. A run whose
    worker dies is given to another one, where it goes on from its last checkpoint.

    Raises:
        RunError: if Dask is not installed or the scheduler does not answer.
    """
    try:
        # its functions carry no types
        distributed: Any = importlib.import_module("distributed")
    except ImportError as error:
        raise RunError(
            "the executor dask needs the package `distributed`: install it with "
            "`pip install 'geco-experiments[dask]'`"
        ) from error
    cancelled: Any = distributed.CancelledError
    cluster = None
    if scheduler is None:
        count = min(workers or os.cpu_count() or 1, len(tasks))
        cluster = distributed.LocalCluster(
            n_workers=count, threads_per_worker=1, processes=True, dashboard_address=None
        )
        threads = max(1, (os.cpu_count() or 1) // count)
        tasks = [task.with_threads(threads) for task in tasks]
    try:
        try:
            client = distributed.Client(cluster or scheduler, timeout=CONNECT)
        except (OSError, TimeoutError, ValueError) as error:
            raise RunError(f"no Dask scheduler answers at {scheduler}: {error}") from error
        with client, _winding_down(tasks, lambda: distributed.wait(list(flying), timeout=120)):
            flying = {client.submit(work, task, pure=False, key=task.name): task for task in tasks}
            while flying:
                try:
                    done = distributed.wait(
                        list(flying), timeout=TICK, return_when="FIRST_COMPLETED"
                    ).done
                except TimeoutError:
                    # the client tries to connect anew for a while, then gives up
                    if client.status not in ("running", "connecting", "newly-created"):
                        raise RunError(_gone(scheduler)) from None
                    yield None
                    continue
                for future in done:
                    task = flying.pop(future)
                    if future.status == "finished":
                        yield future.result()
                    elif future.status in ("cancelled", "lost"):
                        raise RunError(_gone(scheduler))
                    else:
                        yield task.lost(f"its worker was lost ({future.exception()!r})")
    except (OSError, cancelled) as error:
        raise RunError(_gone(scheduler)) from error
    finally:
        if cluster is not None:
            cluster.close()


def _gone(scheduler: str | None) -> str:
    return (
        f"the Dask scheduler {scheduler or 'of this sweep'} is gone; finished runs are kept, and "
        "the same command goes on with the others"
    )
