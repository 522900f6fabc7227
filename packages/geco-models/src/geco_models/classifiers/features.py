"""The activations of a frozen classifier, for constraints on features (FRE)."""

from collections.abc import Sequence
from typing import Self

from torch import Tensor, nn

from geco_models.classifiers.models import AbstractClassifier

__all__ = ["FeatureExtractor"]


class FeatureExtractor(nn.Module):
    """The activations of a classifier after given layers, as a frozen function of the image.

    Its parameters need no gradient and it stays in evaluation mode; gradients pass through to
    the image. The classifier itself is used, not copied: it is frozen from then on.

    Args:
        model: The classifier.
        layer: The name of a layer, or several names.

    Raises:
        TypeError: If `model` is not a classifier of this package.
        ValueError: If there is no such layer.
    """

    def __init__(self, model: AbstractClassifier, layer: str | Sequence[str]) -> None:
        super().__init__()
        if not isinstance(model, AbstractClassifier):
            raise TypeError(
                f"`model` must be a SmallCNN or SmallResNet, got {type(model).__name__}"
            )
        names = model.check_layers(layer)
        self.layer = layer if isinstance(layer, str) else names
        self.model = model.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Does nothing to the classifier: it stays frozen."""
        super().train(mode)
        self.model.eval()
        return self

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The activations.

        Args:
            x: Images in [0, 1], (batch, C, H, W).

        Returns:
            The activations, (batch, ...), or a tuple of them if several layers were named.
        """
        return self.model.features(x, self.layer)
