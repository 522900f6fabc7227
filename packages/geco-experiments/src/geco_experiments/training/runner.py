"""One run: from a configuration to `run.nc`, resumed exactly wherever it was stopped."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from geco_experiments import datasets, results
from geco_experiments.builders.classifiers import frozen_classifier
from geco_experiments.config import RunConfig
from geco_experiments.datasets.home import DataHome
from geco_experiments.runtime.atomic import replacing, writing
from geco_experiments.runtime.distributed import Ranks
from geco_experiments.runtime.errors import RunError
from geco_experiments.runtime.progress import Meter, NoMeter
from geco_experiments.training import checkpoints
from geco_experiments.training.loop import Loop, Stopped
from geco_experiments.training.record import finished_run
from geco_experiments.training.run_folder import claim

__all__ = ["Stopped", "choose_device", "run"]

MODEL_FILE = "model.pt"


def run(
    config: RunConfig,
    out: str | os.PathLike[str],
    *,
    data_home: str | os.PathLike[str] | None = None,
    progress: Meter | None = None,
    stop: Callable[[], bool] | None = None,
) -> Path:
    """Make a run, or go on with it, or find it finished.

    The run lives in `out/<name>/`: `config.json`, `checkpoint.pt` while it is under way, and at
    the end `model.pt` (the trained model) and `run.nc` (everything measured). A run that is
    finished is not made again. One that was stopped, by whatever means, goes on from its last
    checkpoint to the same result, on a CPU bit for bit.

    Args:
        config: What to run.
        out: The folder of runs.
        data_home: Where datasets lie; None asks the environment variable `GECO_DATA_HOME`.
        progress: Told how far the run is.
        stop: Asked between steps; True writes a checkpoint and raises `Stopped`.

    Returns:
        The path of `run.nc`.

    Raises:
        DataError: if the dataset is missing or damaged.
        RunError: if the folder is not this run's or cannot be written to, a file in it is
            damaged, or training diverges.
        Stopped: if `stop` said so.
    """
    folder = Path(out) / config.name
    ranks = Ranks.current()
    meter = progress if progress is not None and ranks.is_main else NoMeter()
    if config.training.batch_size % ranks.world:
        raise RunError(
            f"`training.batch_size` {config.training.batch_size} must be a multiple of the "
            f"{ranks.world} processes"
        )
    with contextlib.ExitStack() as stack:
        stack.callback(meter.close)
        stack.enter_context(_threads(config.execution.threads))
        path, checkpoint = ranks.from_main(lambda: _prepare(stack, config, folder))
        if path is not None:
            return path
        device = choose_device(config.execution.device)
        home = DataHome.resolve(data_home)
        data = ranks.from_main_first(lambda: datasets.load(config.dataset, home)).to(device)
        judge = frozen_classifier(config, data, Path(out), ranks, device)
        loop = Loop(config, data, device, ranks, judge)
        if checkpoint is not None:
            loop.load(checkpoint)

        def save() -> None:
            # the state is the same on every rank, so the first one's is everyone's
            if ranks.is_main:
                checkpoints.write(folder / checkpoints.FILE, config, loop.checkpoint())

        meter.start(config.name, config.training.steps, loop.step)
        loop.train(save=save, meter=meter, stop=stop)
        meter.phase("evaluating")
        dataset = finished_run(loop)
        if ranks.is_main:
            with writing("the model", folder / MODEL_FILE), replacing(folder / MODEL_FILE) as part:
                loop.model.save(part)
            results.write_dataset(dataset, folder / results.FILE)
            (folder / checkpoints.FILE).unlink(missing_ok=True)
        ranks.barrier()
    return folder / results.FILE


def _prepare(
    stack: contextlib.ExitStack, config: RunConfig, folder: Path
) -> tuple[Path | None, checkpoints.Checkpoint | None]:
    """The finished result, or the checkpoint to go on from, if either is there."""
    stack.enter_context(claim(folder, config))
    result = folder / results.FILE
    if result.exists():
        found = results.config_of(results.open_run(result))
        if found.identity != config.identity:
            raise RunError(
                f"{result} belongs to a run with another configuration: move {folder} away"
            )
        (folder / checkpoints.FILE).unlink(missing_ok=True)
        return result, None
    path = folder / checkpoints.FILE
    return None, checkpoints.read(path, config) if path.exists() else None


def choose_device(name: str) -> torch.device:
    """The device of that name; `auto` takes an accelerator where there is one.

    Raises:
        RunError: if the name is no device or the device is not there.
    """
    if name == "auto":
        name = "cpu"
        if torch.cuda.is_available():
            name = "cuda"
        elif torch.backends.mps.is_available():
            name = "mps"
    if name == "cuda":
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise RunError(f"`execution.device` {name!r} cannot be used: {reason}") from error
    if device.type == "meta":
        raise RunError("`execution.device` must be a device that computes; got 'meta'")
    return device


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
