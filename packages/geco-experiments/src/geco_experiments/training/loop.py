"""The training loop: batches in, an optimizer step, the multiplier's ascent, records.

Nothing in a step reads a number from the device. Numbers are read only for the progress report
and for checkpoints, both of which come at intervals of time, and neither of which changes the
result.
"""

import contextlib
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

from geco_core import ReconstructionError
from geco_experiments.builders.classifiers import Judge
from geco_experiments.builders.models import (
    build_model,
    forward_of,
    model_input,
    takes_generator,
    takes_tolerance,
)
from geco_experiments.builders.objectives import build_objective
from geco_experiments.config import RunConfig
from geco_experiments.datasets import Batch, Dataset
from geco_experiments.evaluation.metrics import facts, squared_errors
from geco_experiments.runtime.distributed import Ranks
from geco_experiments.runtime.errors import RunError
from geco_experiments.runtime.progress import Meter
from geco_experiments.runtime.random_streams import Noise, stream_seed
from geco_experiments.training.batch_order import Order
from geco_experiments.training.checkpoints import Checkpoint
from geco_experiments.training.history import FIELDS, History

__all__ = ["Loop", "Stopped", "learning_rate"]


class Stopped(Exception):  # noqa: N818 (an event, not an error)
    """The run was asked to stop and has written a checkpoint."""


class Loop:
    """Everything that changes during a run.

    Args:
        config: The run.
        data: The dataset, on the device.
        device: Where to compute.
        ranks: The processes of the run.
        judge: The classifier that the constraint looks through, if it needs one.
        model: Somebody's own model, trained in place; None: the one that the configuration names.

    Raises:
        RunError: if the model or the objective cannot be made as configured.
    """

    def __init__(
        self,
        config: RunConfig,
        data: Dataset,
        device: torch.device,
        ranks: Ranks,
        judge: Judge | None = None,
        model: nn.Module | None = None,
    ) -> None:
        self.config = config
        self.data = data
        self.device = device
        self.ranks = ranks
        self.judge = judge
        self.step = 0
        self.seconds = 0.0
        seed = config.seed
        classifier = judge.model if judge else None
        self.objective = build_objective(config.objective, classifier, data).to(device)
        self.over_range = config.objective.kappa_range is not None
        made: Any = model or build_model(
            config.model, data, stream_seed(seed, 0), config.objective.kappa_range
        )
        if self.over_range and not takes_tolerance(made):
            raise RunError(
                f"`objective.kappa` is the range {config.objective.kappa}, so the model must take "
                f"the tolerances: forward(x, kappa=...); {type(made).__name__} does not"
            )
        self.model: Any = made
        self.model.to(device)
        if config.execution.channels_last:
            self.model.to(memory_format=torch.channels_last)
        # fused: one kernel for all parameters, also on a CPU
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=config.training.learning_rate, fused=True
        )
        self.order = Order(len(data.train), config.training.batch_size, seed)
        # a model that takes no generator draws from the global one, as a compiled one does
        own_generator = takes_generator(self.model) and not config.execution.compile
        self.noise = Noise(seed, device, ranks, not own_generator)
        draw_steps = config.model.draw_steps if config.model.name == "conv-draw" else 0
        knots = len(self.objective.curve().kappa) if self.over_range else 0
        self.history = History(config.training.steps, device, draw_steps, knots)
        self._callable = self._callable_model()
        self._forward = forward_of(self.model)

    def _callable_model(self) -> Any:
        model: Any = self.model
        if self.ranks.world > 1:
            ids = [self.device] if self.device.type == "cuda" else None
            model = DistributedDataParallel(model, device_ids=ids)
        return torch.compile(model) if self.config.execution.compile else model

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The precision of the forward pass."""
        if self.config.training.precision == "bfloat16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def train(
        self,
        *,
        save: Callable[[], None],
        meter: Meter,
        stop: Callable[[], bool] | None = None,
    ) -> None:
        """Make the steps that are left.

        Args:
            save: Writes a checkpoint.
            meter: Told how far the run is.
            stop: Asked between steps.

        Raises:
            RunError: if the loss is no longer a finite number.
            Stopped: if `stop` said so, after a checkpoint.
        """
        total = self.config.training.steps
        if self.step == total:  # stopped between the last step and the result
            return
        every = self.config.execution.checkpoint_seconds
        began = self.seconds
        start = now = time.monotonic()
        saved = reported = now
        self.model.train()
        self.objective.train()
        with self.noise.active():
            while self.step < total:
                self.advance()
                now = time.monotonic()
                self.seconds = began + now - start
                if now - reported >= meter.interval:
                    meter.report(self.step, self.summary())
                    reported = time.monotonic()
                if now - saved >= every:
                    self.check_finite()
                    save()
                    saved = time.monotonic()
                if self.step < total and stop is not None and self.ranks.any(stop()):
                    save()
                    raise Stopped(f"stopped after step {self.step} of {total}")
            self.check_finite()
            meter.report(self.step, self.summary())
            save()

    def advance(self) -> None:
        """Make one step."""
        config = self.config
        rate = learning_rate(config, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        rows = self.order.rows(self.step)
        draws = self.data.draw(len(rows), self.noise.views)
        # each example has a tolerance of its own; the draws of the joined batch are shared out
        kappa = (
            self.objective.draw_tolerance(len(rows), self.noise.views) if self.over_range else None
        )
        if self.ranks.world > 1:
            rows = self.ranks.share(rows)
            kappa = None if kappa is None else self.ranks.share(kappa)
            draws = None if draws is None else self.ranks.share(draws)
        batch = self.data.batch("train", rows, draws)
        images = batch.images
        if config.execution.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with self.autocast():
            x = model_input(config.model, images)
            out = self._forward(self._callable, x, batch.context, self.noise.generator, kappa)
        # what a model of flat rows returns becomes images again for constraints that see them
        reconstruction = out.reconstruction.reshape(images.shape)
        asked = facts(batch) if kappa is None else {**facts(batch), "kappa": kappa}
        loss = self.objective(out.kl, images, reconstruction, **asked)
        loss.backward()
        if config.training.gradient_clip is not None:
            clip_grad_norm_(self.model.parameters(), config.training.gradient_clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.objective.step()
        self.step += 1
        row = self.history.row(self.step)
        if row is not None:
            self._record(row, batch, reconstruction, getattr(out, "kl_steps", None))

    @torch.no_grad()
    def _record(
        self, row: int, batch: Batch, reconstruction: Tensor, kl_steps: Tensor | None
    ) -> None:
        info = self.objective.info
        allowed = self._allowed_mse
        if allowed is not None:
            # the violation is the squared error less what is allowed: no second pass over images
            error = info.constraint + allowed
        else:
            error = squared_errors(batch, reconstruction.float()).float().mean()
        # this rank's own numbers; those after them are the same on all
        constraint = None if self.over_range else info.constraint
        local = [info.loss, info.kl, error, constraint]
        steps = None if kl_steps is None else kl_steps.float().mean(0)
        if self.ranks.world > 1:
            local = [v if v is None else self.ranks.mean(v.float().clone()) for v in local]
            steps = steps if steps is None else self.ranks.mean(steps)
        shared = [_along(name, getattr(info, name)) for name in FIELDS[len(local) :]]
        at_knots = info.multiplier if self.over_range else None
        self.history.record(row, [*local, *shared], steps, at_knots)

    @property
    def _allowed_mse(self) -> float | None:
        """The mean squared error that the constraint allows, if it speaks of that error."""
        constraints = list(self.objective.constraints.values())
        if self.over_range:
            return None
        if len(constraints) == 1 and isinstance(constraints[0], ReconstructionError):
            return constraints[0].scale
        return None

    def summary(self) -> dict[str, float]:
        """The numbers of the progress bar; waits for the device."""
        info = self.objective.info
        allowed = self._allowed_mse
        shown = {}
        if self.over_range:
            return {"met": float(info.feasible.float().mean()), "KL": float(info.kl)}
        if allowed is not None:
            mse = float(info.moving_average) + allowed
            shown["RE/kappa"] = math.sqrt(max(mse, 0.0) / allowed)
        elif info.constraint is not None:
            shown["C"] = float(info.moving_average)
        shown["KL"] = float(info.kl)
        if info.beta is not None:
            shown["beta"] = float(info.beta)
        if info.multiplier is not None:
            shown["lambda"] = float(info.multiplier)
        return shown

    def check_finite(self) -> None:
        """Stop a run that has diverged, before a checkpoint of it replaces a good one.

        Raises:
            RunError: if the last loss is not finite.
        """
        value = float(self.objective.info.loss)
        if not math.isfinite(value):
            raise RunError(
                f"the loss is {value} after step {self.step}: training has diverged; lower "
                "`training.learning_rate` or set `training.gradient_clip`"
            )

    def checkpoint(self) -> Checkpoint:
        """The whole state; call it inside `train`."""
        history = self.history
        return Checkpoint(
            step=self.step,
            model=self.model.state_dict(),
            optimizer=self.optimizer.state_dict(),
            objective=self.objective.state_dict(),
            noise=self.noise.state(),
            history=history.values,
            draw_history=history.draw_values,
            knot_history=history.knot_values,
            seconds=self.seconds,
        )

    def load(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint.

        Raises:
            RunError: if a part of it does not fit this run.
        """
        try:
            self.model.load_state_dict(checkpoint.model)
            self.optimizer.load_state_dict(checkpoint.optimizer)
            self.objective.load_state_dict(checkpoint.objective)
            self.noise.load(checkpoint.noise)
            self.history.load(checkpoint.history, checkpoint.draw_history, checkpoint.knot_history)
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise RunError(
                f"the checkpoint of {self.config.name} does not fit this version ({reason}): "
                "move it away to start the run from the beginning"
            ) from error
        self.step = checkpoint.step
        self.seconds = checkpoint.seconds


def _along(name: str, value: Tensor | None) -> Tensor | None:
    """What a record holds of a fact about every knot of a range: all met, any at its bound.

    A number that differs from knot to knot has no place among those of one tolerance.
    """
    if value is None or value.ndim == 0:
        return value
    match name:
        case "feasible":
            return value.all()
        case "saturated":
            return value.any()
        case "skipped":
            return value.amax()
    return None


def learning_rate(config: RunConfig, step: int) -> float:
    """Adam's rate at a step counted from 0: constant, then half a cosine to the final share."""
    training = config.training
    start = training.constant_share * training.steps
    if step < start:
        return training.learning_rate
    share = min((step - start) / max(training.steps - 1 - start, 1.0), 1.0)
    low = training.final_rate
    return training.learning_rate * (low + (1 - low) * (1 + math.cos(math.pi * share)) / 2)
