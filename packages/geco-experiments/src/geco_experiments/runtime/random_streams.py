"""Seeds for each purpose of a run, and the generators of its loop with states for checkpoints."""

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from geco_experiments.runtime.distributed import JointNoise, Ranks

__all__ = ["Noise", "stream_seed"]


def stream_seed(seed: int, *purpose: int) -> int:
    """A seed for one purpose of a run, independent of those for other purposes."""
    return int(np.random.SeedSequence([seed, *purpose]).generate_state(1, np.uint32)[0])


class Noise:
    """The generators of the latents' noise (on the device) and of views (on the CPU).

    A compiled model cannot take a generator, so it draws from the device's global one; `active`
    then seeds that one for the duration of the loop and puts the caller's state back.

    Args:
        seed: The run's seed.
        device: Where latents are drawn.
        ranks: The processes of the run.
        compiled: Whether the model is compiled.
    """

    def __init__(self, seed: int, device: torch.device, ranks: Ranks, compiled: bool) -> None:
        self.views = torch.Generator().manual_seed(stream_seed(seed, 5))
        # compiled draws cannot be joined over ranks: each rank then has noise of its own
        stream = (6, ranks.rank) if compiled else (6,)
        self._seed = stream_seed(seed, *stream)
        self._device = device
        self._ranks = ranks
        self._compiled = compiled
        self._latents = torch.Generator(device).manual_seed(self._seed)
        self._global_state: Tensor | None = None

    @property
    def generator(self) -> torch.Generator | None:
        """What the model is given: None stands for the device's global generator."""
        return None if self._compiled else self._latents

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """The context in which the loop draws."""
        with contextlib.ExitStack() as stack:
            if self._compiled:
                cuda = [self._device] if self._device.type == "cuda" else []
                stack.enter_context(torch.random.fork_rng(devices=cuda))
                torch.manual_seed(self._seed)
                if self._global_state is not None:
                    self._set_global(self._global_state)
            elif self._ranks.world > 1:
                stack.enter_context(JointNoise(self._ranks, self._latents))
            yield

    def state(self) -> dict[str, Tensor]:
        """The states of both; call it inside `active`."""
        latents = self._get_global() if self._compiled else self._latents.get_state()
        return {"views": self.views.get_state(), "latents": latents}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from the states of a checkpoint; call it before `active`."""
        self.views.set_state(state["views"])
        if self._compiled:
            self._global_state = state["latents"]
        else:
            self._latents.set_state(state["latents"])

    def _get_global(self) -> Tensor:
        if self._device.type == "cuda":
            return torch.cuda.get_rng_state(self._device)
        return torch.get_rng_state()

    def _set_global(self, state: Tensor) -> None:
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(state, self._device)
        else:
            torch.set_rng_state(state)
