"""One run: from a configuration to `run.nc`, resumed exactly wherever it was stopped."""

import contextlib
import dataclasses
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from geco_experiments import datasets, results
from geco_experiments.builders.classifiers import frozen_classifier
from geco_experiments.config import RunConfig
from geco_experiments.datasets import Dataset
from geco_experiments.datasets.home import DataHome
from geco_experiments.runtime.atomic import reading, replacing, writing
from geco_experiments.runtime.distributed import Ranks
from geco_experiments.runtime.errors import RunError, is_out_of_memory
from geco_experiments.runtime.progress import Meter, NoMeter
from geco_experiments.training import checkpoints
from geco_experiments.training.loop import Loop, Stopped
from geco_experiments.training.own import as_dataset, named
from geco_experiments.training.record import finished_run
from geco_experiments.training.run_folder import claim
from geco_models import AbstractVAE

__all__ = ["Stopped", "choose_device", "run"]

MODEL_FILE = "model.pt"


def run(
    config: RunConfig,
    out: str | os.PathLike[str],
    *,
    data: Any = None,
    model: nn.Module | None = None,
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
        data: Somebody's own data instead of those that `config.dataset` names: a `Dataset`, an
            array (n, ...), a pair of a training and a held-out array, a dictionary of arrays as
            an .npz file would hold them, or a torch dataset of known length. Its content is part
            of the run's name.
        model: Somebody's own model instead of the one that `config.model` names: a module whose
            `forward(x)` (with `context` and `generator`, if it has such arguments) returns a
            `geco_models.ModelOutput`. It is trained in place; its class and the shapes of its
            parameters are part of the run's name.
        data_home: Where datasets lie; None asks the environment variable `GECO_DATA_HOME`.
        progress: Told how far the run is.
        stop: Asked between steps; True writes a checkpoint and raises `Stopped`.

    Returns:
        The path of `run.nc`.

    Raises:
        DataError: if the dataset is missing or damaged, or not the one that the run began with.
        RunError: if the folder is not this run's or cannot be written to, a file in it is
            damaged, model or objective cannot be made as configured, memory runs out, or training
            diverges.
        Stopped: if `stop` said so.
    """
    home = DataHome.resolve(data_home)
    own = None if data is None else as_dataset(data, config.dataset)
    config = named(config, own, model, home)
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
        stack.enter_context(_memory_told(config))
        stack.enter_context(_threads(config.execution.threads))
        device = choose_device(config.execution.device)
        path, found = ranks.from_main(lambda: _prepare(stack, config, folder))
        if path is not None:
            if model is not None:
                _load_state(model, folder / MODEL_FILE)
            return path
        whole = own if own is not None else ranks.from_main_first(lambda: _load(config, home))
        whole = whole.limited(config.dataset.train_limit, config.dataset.test_limit)
        fingerprint = whole.fingerprint()
        checkpoint = None
        if found is not None:
            checkpoint = checkpoints.read(found, config, fingerprint)
        moved = whole.to(device)
        judge = frozen_classifier(config, moved, Path(out), ranks, device)
        loop = Loop(config, moved, device, ranks, judge, model)
        if checkpoint is not None:
            loop.load(checkpoint)

        def save() -> None:
            # the state is the same on every rank, so the first one's is everyone's
            if ranks.is_main:
                path = folder / checkpoints.FILE
                checkpoints.write(path, config, fingerprint, loop.checkpoint())

        meter.start(config.name, config.training.steps, loop.step)
        loop.train(save=save, meter=meter, stop=stop)
        meter.phase("evaluating")
        dataset = finished_run(loop)
        if ranks.is_main:
            with writing("the model", folder / MODEL_FILE), replacing(folder / MODEL_FILE) as part:
                _save_model(loop.model, part)
            results.write_dataset(dataset, folder / results.FILE)
            (folder / checkpoints.FILE).unlink(missing_ok=True)
        ranks.barrier()
    return folder / results.FILE


def _load(config: RunConfig, home: DataHome) -> Dataset:
    everything = dataclasses.replace(config.dataset, train_limit=None, test_limit=None)
    return datasets.load(everything, home)


def _save_model(model: Any, path: Path) -> None:
    if isinstance(model, AbstractVAE):
        model.save(path)
    else:  # somebody's own: who loads it has the class
        torch.save(model.state_dict(), path)


def _load_state(model: Any, path: Path) -> None:
    """Give somebody's own model the weights of the finished run that it belongs to."""
    with reading(path):
        content = path.read_bytes()
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        model.load_state_dict(state["state"] if isinstance(model, AbstractVAE) else state)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise RunError(f"{path} does not fit the model ({reason}): move the run away") from error


@contextlib.contextmanager
def _memory_told(config: RunConfig) -> Iterator[None]:
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise RunError(
            f"the memory is not enough for {config.name}: choose a smaller model, "
            "`training.batch_size` or `training.evaluation_batch_size`"
        ) from error


def _prepare(
    stack: contextlib.ExitStack, config: RunConfig, folder: Path
) -> tuple[Path | None, Path | None]:
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
    return None, path if path.exists() else None


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
