"""GECO in Lightning: the ascent once per optimizer step, and its numbers in the loggers."""

from typing import Any

from geco_core.integrations.objectives import Objective, numbers, objectives_in

try:
    from lightning.pytorch.callbacks import Callback
except ModuleNotFoundError:
    try:
        from pytorch_lightning.callbacks import Callback
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "geco_core.integrations.lightning needs Lightning: pip install lightning"
        ) from error

__all__ = ["GECOCallback"]


class GECOCallback(Callback):
    """Calls `step()` of the module's objectives after every optimizer step, and logs them.

    The objective is an attribute of the `LightningModule`, so that it moves to the module's
    device, follows its training and evaluation mode, and is saved and resumed with it.
    Micro-batches under `accumulate_grad_batches` are averaged by the objective itself, ranks too.

    With several optimizers (manual optimization) the ascent comes once per batch in which one of
    them has stepped; to choose another moment, call `self.objective.step()` yourself instead.

    Args:
        prefix: What the names of the logged numbers begin with.

    Raises:
        ValueError: When training begins, if the module has no objective.

    Example:
        >>> trainer = Trainer(callbacks=[GECOCallback()])  # doctest: +SKIP
    """

    def __init__(self, prefix: str = "geco/") -> None:
        super().__init__()
        self.prefix = prefix
        self._objectives: dict[str, Objective] = {}
        self._steps = 0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Finds the objectives. Lightning calls this."""
        self._objectives = objectives_in(pl_module)
        self._steps = trainer.global_step

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """The ascent, where an optimizer has stepped. Lightning calls this."""
        if trainer.global_step == self._steps:
            return  # a micro-batch
        self._steps = trainer.global_step
        for objective in self._objectives.values():
            objective.step()
        every = trainer.log_every_n_steps
        if trainer.loggers and every and self._steps % every == 0:
            values = numbers(self._objectives, self.prefix)
            for logger in trainer.loggers:
                logger.log_metrics(values, step=self._steps)
