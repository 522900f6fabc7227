r"""CLA, the classification accuracy.

:math:`C(x, g(z)) = \kappa - l(x)^T c(g(z))` with :math:`l` the one-hot label and :math:`c` the
class probabilities of a frozen classifier. The form is the paper's, its sign this project's: at
most 0 where the reconstruction is classified well enough.

The probability of a class has next to no gradient where the classifier is sure of another one,
so that reconstructions which are surely wrong stay wrong: under this constraint alone, training
from scratch can get stuck with classes that are never decoded, whatever the multiplier. The
value of the constraint is always that of the formula; its gradient is that of :math:`\ln p` times
a small constant where :math:`p` is smaller than this constant. That is this project's choice too.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from geco_core.constraints.frozen import check_differentiable, frozen, outputs_of
from geco_core.constraints.reductions import mean_per_example
from geco_core.constraints.tolerance import ComplementTolerance
from geco_core.constraints.tolerance_range import ToleranceRange
from geco_core.precision import accumulation_dtype
from geco_core.validation import check_images, check_number, whole

__all__ = ["ClassificationAccuracy"]


class ClassificationAccuracy(ComplementTolerance):
    r"""CLA: a classifier gives the right class at least the probability :math:`\kappa`.

    .. math:: C(x, g) = \kappa - l(x)^T c(g) \in [\kappa - 1, \kappa]

    What is averaged over examples is the probability of the right class, the expected accuracy
    of a classifier that draws its answer. The value relative to `scale`,
    :math:`(1 - l^T c) / (1 - \kappa) - 1`, compares the error with the error that is allowed.

    Labels are passed by keyword: `objective(kl, x, reconstruction, labels=labels)`.

    Args:
        kappa: The mean probability of the right class that is asked for, between 0 and 1.
            Nothing above what the classifier reaches on the data itself can be asked for.
        classifier: :math:`c`. Of a module a frozen copy in evaluation mode is kept (dropout
            off, batch normalisation with its running statistics, no gradients); the module that
            was passed is not changed. The copy is shared by all constraints that were given the
            same network, and is no part of their parameters and state. Images are converted to
            the dtype of its parameters. A method of a module is treated alike. Any other
            callable is used as it is; freezing what it calls is up to the caller. It takes
            reconstructions :math:`(B, *)` and
            returns :math:`(B, K)` for :math:`K \ge 2` classes, or :math:`(B, K, *)` for a class
            at each location, which are averaged.
        outputs: What the classifier returns: "logits", before a softmax over the classes, or
            "probabilities".
        gradient_floor: :math:`\epsilon`; the gradient of a probability :math:`p` is taken as
            :math:`\max(p, \epsilon) \nabla \ln p`, which is exact from :math:`p = \epsilon` on
            and does not vanish below. 0 takes the exact gradient everywhere.
        ignore_index: The integer label that stands for "not known"; examples or locations that
            have it are left out. Nobody's class by default.
        in_state: Whether the weights of a module belong to the `state_dict`.

    Raises:
        TypeError: If `kappa` is no number or `classifier` cannot be called.
        ValueError: If `kappa` is not between 0 and 1, `outputs` is something else, or
            `gradient_floor` is not in [0, 1).
        RuntimeError: If a module cannot be copied.
    """

    reduction = "probability of the labelled class, mean over locations if there are several"
    keywords = frozenset({"labels"})

    def __init__(
        self,
        kappa: float | ToleranceRange,
        classifier: Callable[[Tensor], Tensor],
        *,
        outputs: Literal["logits", "probabilities"] = "logits",
        gradient_floor: float = 0.05,
        ignore_index: int = -100,
        in_state: bool = False,
    ) -> None:
        super().__init__(kappa)
        if outputs not in ("logits", "probabilities"):
            raise ValueError(f"`outputs` must be 'logits' or 'probabilities', got {outputs!r}")
        self.outputs = outputs
        self.gradient_floor = check_number("gradient_floor", gradient_floor, 0.0, 1.0)
        self.ignore_index = whole("ignore_index", ignore_index, least=-(2**63))
        self.classifier = frozen(classifier, "classifier", in_state=in_state)

    def forward(
        self, x: Tensor, reconstruction: Tensor, *, labels: Tensor | None = None, **batch: Any
    ) -> Tensor:
        r"""Computes the violations.

        Args:
            x: The data, :math:`(B, *)`, floating-point.
            reconstruction: The decoder's output, of the same shape.
            labels: The classes, integers :math:`(B,)` from 0 to :math:`K - 1`, or one-hot (or
                soft) labels :math:`(B, K)`. Examples with the label `ignore_index`, or with
                one-hot labels that are all 0, have none and are left out. Integers out of range
                are an error on a CPU; on a GPU they stop the kernel, as in every loss of torch,
                since checking them would make the host wait.
            batch: Ignored.

        Returns:
            The violations, :math:`(B,)`, float32 or wider.

        Raises:
            TypeError: If a dtype is not the one described.
            ValueError: If labels are missing or out of range, or a shape is not the one
                described.
            RuntimeError: If `classifier` stops the gradient.
        """
        right, known = self._right(x, reconstruction, labels)
        return mean_per_example(1 - right, known) - self.scale

    def evaluate(
        self, x: Tensor, reconstruction: Tensor, *, labels: Tensor | None = None, **batch: Any
    ) -> tuple[Tensor, Tensor | None]:
        """The violations, and weights of 0 for examples without a label."""
        if self._forward_hooks or type(self).forward is not ClassificationAccuracy.forward:
            violation: Tensor = self(x, reconstruction, labels=labels, **batch)
            _, known = self._right(x, reconstruction, labels)
        else:
            right, known = self._right(x, reconstruction, labels)
            violation = mean_per_example(1 - right, known) - self.scale
        return violation, known.flatten(1).amax(1) if known.ndim > 1 else known

    def _right(
        self, x: Tensor, reconstruction: Tensor, labels: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The probability of the right class, and 1 where there is a label, else 0."""
        check_images(x, reconstruction)
        if labels is None:
            raise ValueError(
                "`labels` is missing; pass the classes by keyword, "
                "objective(kl, x, reconstruction, labels=labels)"
            )
        raw = self.classifier(reconstruction)
        (scores, *others) = outputs_of(raw, x.shape[0], "classifier")
        if others or scores.ndim < 2 or scores.shape[1] < 2:
            raise ValueError(
                f"`classifier` must return one tensor (batch, classes) with at least 2 classes, "
                f"got {[tuple(s.shape) for s in (scores, *others)]}"
            )
        check_differentiable(reconstruction, (scores,), "classifier")
        scores = scores.to(accumulation_dtype(scores))
        return _probability_of(labels, self._probabilities(scores), self.ignore_index)

    def _probabilities(self, scores: Tensor) -> Tensor:
        """The class probabilities, with the gradient that does not vanish."""
        floor = self.gradient_floor
        if self.outputs == "logits":
            if floor == 0:
                return scores.softmax(1)
            logarithms = scores.log_softmax(1)
            values = logarithms.detach().exp()
            # x - x.detach() is 0 with the gradient of x
            return values + values.clamp_min(floor) * (logarithms - logarithms.detach())
        if floor == 0:
            return scores
        values = scores.detach()
        factor = floor / values.clamp(1e-6 * floor, floor)
        return values + factor * (scores - values)


def _probability_of(
    labels: Tensor, probabilities: Tensor, ignore_index: int
) -> tuple[Tensor, Tensor]:
    """The probability of the labelled class, and where there is one: (batch, *) both."""
    if not isinstance(labels, Tensor):
        raise TypeError(f"`labels` must be a torch.Tensor, got {type(labels).__name__}")
    dtype = probabilities.dtype
    if labels.shape == probabilities.shape:  # one-hot or soft
        known = (labels != 0).any(1).to(dtype)
        return (labels.to(dtype) * probabilities).sum(1), known
    classes = probabilities.shape[1]
    if labels.shape != probabilities.shape[:1] + probabilities.shape[2:]:
        raise ValueError(
            f"`labels` must be integers (batch, ...) or one-hot (batch, {classes}, ...) for a "
            f"classifier that returns {tuple(probabilities.shape)}, got {tuple(labels.shape)}"
        )
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(
            f"`labels` of shape {tuple(labels.shape)} must be integers, got {labels.dtype}; "
            f"one-hot labels have a second axis of {classes} classes"
        )
    labelled = labels != ignore_index
    index = torch.where(labelled, labels, 0).long().unsqueeze(1)
    if torch.compiler.is_compiling():
        return probabilities.gather(1, index).squeeze(1), labelled.to(dtype)
    try:
        return probabilities.gather(1, index).squeeze(1), labelled.to(dtype)
    except (IndexError, RuntimeError) as error:
        if "out of bounds" not in str(error):
            raise
        raise ValueError(
            f"`labels` must be from 0 to {classes - 1} for a classifier of {classes} classes, or "
            f"{ignore_index} where there is no label: {str(error).splitlines()[0]}"
        ) from error
