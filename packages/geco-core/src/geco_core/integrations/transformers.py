"""GECO in the transformers `Trainer`: one ascent per optimizer step, its numbers in the log."""

from typing import Any

from geco_core.integrations.objectives import numbers, objectives_in

try:
    from transformers import TrainerCallback
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "geco_core.integrations.transformers needs transformers: pip install transformers"
    ) from error

__all__ = ["GECOCallback"]


class GECOCallback(TrainerCallback):
    """Calls `step()` of the model's objectives after every optimizer step.

    The objective is an attribute of the model, so that it is saved in every checkpoint and a
    resumed run goes on with its multipliers. The model's `forward` returns the objective's value
    as `loss`. Micro-batches under `gradient_accumulation_steps` are averaged by the objective
    itself, ranks too.

    Args:
        prefix: What the names of the logged numbers begin with.

    Raises:
        ValueError: When training begins, if the model has no objective.

    Example:
        >>> Trainer(model, args, train_dataset=data, callbacks=[GECOCallback()])  # doctest: +SKIP
    """

    def __init__(self, prefix: str = "geco/") -> None:
        super().__init__()
        self.prefix = prefix

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Makes sure that there is an objective. The Trainer calls this."""
        objectives_in(kwargs["model"])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The ascent. The Trainer calls this."""
        for objective in objectives_in(kwargs["model"]).values():
            objective.step()

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Adds the objectives' numbers to a training log. The Trainer calls this.

        They are in `state.log_history`, in what is printed, and in the logs of callbacks that
        come after this one. Those of `report_to` come before: pass them as callbacks instead, as
        in `report_to="none"` with `callbacks=[GECOCallback(), TensorBoardCallback()]`.
        """
        if "loss" not in kwargs["logs"]:
            return  # an evaluation
        values = numbers(objectives_in(kwargs["model"]), self.prefix)
        kwargs["logs"].update(values)
        state.log_history[-1].update(values)
