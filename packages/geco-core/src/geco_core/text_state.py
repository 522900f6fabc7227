"""Facts about a module as a tensor, so that its `state_dict` holds nothing but tensors.

Savers such as safetensors, and loops over the values of a state that average them (moving averages
of weights), want tensors only. Facts are written as JSON, one float32 number per character, which
survives conversion to half precision and averaging with itself; numbers that may change during
a run stand before it as numbers, so that an average of them is again a number.
"""

import json
import math
import struct
from typing import Any

import torch
from torch import Tensor

__all__ = ["facts_of", "tensor_of"]

_PARTS = 3  # a float64 is the sum of this many numbers of float32


def tensor_of(facts: dict[str, Any], **numbers: float) -> Tensor:
    """Facts that JSON can say, and numbers in the range of float32, as a tensor of float32."""
    text = json.dumps({**facts, "numbers": list(numbers)}, separators=(",", ":"))
    values: list[float] = []
    for number in numbers.values():
        rest = float(number)
        for _ in range(_PARTS):
            (part,) = struct.unpack("f", struct.pack("f", rest))
            values.append(part)
            rest = rest - part if math.isfinite(rest) else 0.0
    codes = [float(code) for code in text.encode("ascii")]
    return torch.tensor([float(len(values)), *values, *codes], dtype=torch.float32, device="cpu")


def facts_of(state: Any) -> dict[str, Any] | None:
    """What :func:`tensor_of` was given; a mapping, as of the first version, is returned as it is.

    Returns:
        The facts and numbers by name; None if it is neither.
    """
    if isinstance(state, dict):
        return state
    if not isinstance(state, Tensor) or state.ndim != 1 or state.numel() < 2:
        return None
    try:
        values = state.detach().double().tolist()
        count = round(values[0])
        text = bytes(round(code) for code in values[1 + count :]).decode("ascii")
        facts: dict[str, Any] = json.loads(text)
        for index, name in enumerate(facts.pop("numbers")):
            start = 1 + _PARTS * index
            facts[name] = sum(values[start : start + _PARTS])
    except (ValueError, KeyError, TypeError, OverflowError, AttributeError):
        return None
    return facts
