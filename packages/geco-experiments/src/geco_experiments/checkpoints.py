"""One checkpoint file per run: all that is needed to go on bit for bit.

The file holds tensors, numbers and text only and is read with `weights_only=True`, so that a
foreign file can do no harm. It is written whole or not at all.
"""

import io
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from geco_experiments.atomic import write_atomic, writing
from geco_experiments.config import RunConfig
from geco_experiments.errors import RunError

__all__ = ["FILE", "Checkpoint", "read", "write"]

FILE = "checkpoint.pt"
FORMAT = "geco-experiments checkpoint"
VERSION = 1


class Checkpoint(NamedTuple):
    """The state of a run between two steps.

    Attributes:
        step: Steps done.
        model: The model's parameters and buffers.
        optimizer: The optimizer's state.
        objective: The objective's state: multipliers, moving averages, schedules.
        noise: The states of the generators of noise and of views.
        history: The records so far, (records, fields).
        draw_history: The KL of each recurrent step at each record, (records, steps), or None.
        seconds: Time spent in the loop so far.
    """

    step: int
    model: dict[str, Any]
    optimizer: dict[str, Any]
    objective: dict[str, Any]
    noise: dict[str, Tensor]
    history: Tensor
    draw_history: Tensor | None
    seconds: float


def write(path: Path, config: RunConfig, checkpoint: Checkpoint) -> None:
    """Write a checkpoint in place of the previous one, atomically.

    Raises:
        RunError: if the disk is full or the folder cannot be written to; the previous checkpoint
            is still there.
    """
    content = {
        "format": FORMAT,
        "version": VERSION,
        "config": config.to_json(),
        **checkpoint._asdict(),
    }
    # serialised in memory first: torch's own writer reports a full disk as an internal error
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with writing(f"the checkpoint of step {checkpoint.step}", path):
        write_atomic(path, buffer.getbuffer())


def read(path: Path, config: RunConfig) -> Checkpoint:
    """Read a checkpoint of the given run onto the CPU.

    Raises:
        RunError: if the file is damaged, foreign, of a newer version, or of another run. The file
            is left as it is.
    """
    remedy = "move it away to start this run from the beginning"
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (
        OSError,
        RuntimeError,
        pickle.UnpicklingError,
        EOFError,
        KeyError,
        ValueError,
    ) as error:
        reason = str(error).partition("\n")[0][:100]
        raise RunError(f"{path} is damaged or no checkpoint ({reason}): {remedy}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise RunError(f"{path} was not written by this program: {remedy}")
    if content.get("version") != VERSION:
        raise RunError(
            f"{path} has format version {content.get('version')}, this release reads {VERSION}: "
            "use the release that wrote it, or " + remedy
        )
    try:
        identity = RunConfig.from_json(content["config"]).identity
        checkpoint = Checkpoint(**{name: content[name] for name in Checkpoint._fields})
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path} lacks a part or holds a wrong one ({error}): {remedy}") from error
    if identity != config.identity:
        raise RunError(f"{path} belongs to a run with another configuration: {remedy}")
    return checkpoint
