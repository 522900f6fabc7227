"""One checkpoint file per run: all that is needed to go on bit for bit.

The file is a header (magic word, version, sha256 of the rest), then what `torch.save` makes of
tensors, numbers and text. The checksum is compared before anything is unpickled, and only with
`weights_only=True`: a foreign file can do no harm, and a flipped bit, which `torch.load` would not
notice, is noticed. The file is written whole or not at all.
"""

import hashlib
import io
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from geco_experiments.config import RunConfig
from geco_experiments.runtime.atomic import reading, write_atomic, writing
from geco_experiments.runtime.errors import RunError

__all__ = ["FILE", "Checkpoint", "read", "write"]

FILE = "checkpoint.pt"
MAGIC = b"geco-experiments checkpoint\n"
VERSION = 2
HEADER = len(MAGIC) + 1 + 32


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
        knot_history: The multiplier at each knot of a range at each record, (records, knots).
    """

    step: int
    model: dict[str, Any]
    optimizer: dict[str, Any]
    objective: dict[str, Any]
    noise: dict[str, Tensor]
    history: Tensor
    draw_history: Tensor | None
    seconds: float
    knot_history: Tensor | None = None


def write(path: Path, config: RunConfig, fingerprint: str, checkpoint: Checkpoint) -> None:
    """Write a checkpoint in place of the previous one, atomically.

    Args:
        path: Its file.
        config: The run.
        fingerprint: The fingerprint of the run's data.
        checkpoint: The state.

    Raises:
        RunError: if the disk is full or the folder cannot be written to; the previous checkpoint
            is still there.
    """
    content = {"config": config.to_json(), "data": fingerprint, **checkpoint._asdict()}
    buffer = io.BytesIO()
    buffer.write(bytes(HEADER))
    torch.save(content, buffer)
    data = buffer.getbuffer()
    data[:HEADER] = _header(data[HEADER:])
    with writing(f"the checkpoint of step {checkpoint.step}", path):
        write_atomic(path, data)


def read(path: Path, config: RunConfig, fingerprint: str) -> Checkpoint:
    """Read a checkpoint of the given run onto the CPU.

    Args:
        path: Its file.
        config: The run.
        fingerprint: The fingerprint of the run's data, as they are now.

    Raises:
        RunError: if the file is damaged, foreign, of a newer version, of another run, or of a
            run on other data. The file is left as it is.
    """
    remedy = "move it away to start this run from the beginning"
    with reading(path):
        data = path.read_bytes()
    if not data.startswith(MAGIC) or len(data) < HEADER:
        raise RunError(f"{path} is truncated or was not written by this program: {remedy}")
    version, body = data[len(MAGIC)], data[HEADER:]
    if version != VERSION:
        raise RunError(
            f"{path} has format version {version}, this release reads {VERSION}: use the release "
            f"that wrote it, or {remedy}"
        )
    if data[:HEADER] != _header(body):
        raise RunError(f"{path} is damaged (its checksum does not fit its content): {remedy}")
    try:
        content = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever torch makes of a foreign file
        raise RunError(f"{path} holds no state of a run: {remedy}") from error
    try:
        found = content["data"]
        identity = RunConfig.from_json(content["config"]).identity
        later = {name: content.get(name) for name in Checkpoint._field_defaults}
        needed = [name for name in Checkpoint._fields if name not in later]
        checkpoint = Checkpoint(**{name: content[name] for name in needed}, **later)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path} lacks a part or holds a wrong one ({error}): {remedy}") from error
    if identity != config.identity:
        raise RunError(f"{path} belongs to a run with another configuration: {remedy}")
    if found != fingerprint:
        raise RunError(
            f"{path} belongs to a run on other data than those of {config.dataset.label} now: put "
            f"the old data back, or {remedy}"
        )
    return checkpoint


def _header(body: bytes | memoryview) -> bytes:
    return MAGIC + bytes([VERSION]) + hashlib.sha256(body).digest()
