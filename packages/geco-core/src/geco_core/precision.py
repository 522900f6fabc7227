"""In which precision a loss is summed: float32 at least, since half precision cannot sum."""

import torch
from torch import Tensor

__all__ = ["accumulation_dtype", "at_least_float32"]


def accumulation_dtype(*tensors: Tensor) -> torch.dtype:
    """The common dtype of some tensors, but float32 at least: half precision cannot sum."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def at_least_float32(value: Tensor) -> Tensor:
    """Returns half-precision values as float32 and everything else unchanged."""
    if value.dtype in (torch.float16, torch.bfloat16):
        return value.float()
    return value
