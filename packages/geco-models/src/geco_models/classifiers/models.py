"""Small classifiers, whose features (FRE) and predictions (CLA) constraints can use.

Both are sequences of named layers, so that the activations after any of them can be asked for by
name. They normalise by groups of channels, not by batch: the output of an image depends on that
image alone, training and evaluation compute the same, and nothing drifts when a frozen classifier
sits inside a larger module that is switched to training mode.
"""

import math
from abc import ABC
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from geco_models.checkpoint import ConfiguredModule
from geco_models.validation import as_positive, as_shape, check_tensor

__all__ = ["AbstractClassifier", "SmallCNN", "SmallResNet"]

MINIMUM_SIDE = 4
"""The smallest image side that the classifiers take."""


class AbstractClassifier(ConfiguredModule, ABC):
    """A classifier made of named layers.

    Args:
        shape: Channels, height and width of an image.
        config: The constructor arguments, ready for JSON.
        layers: The layers in their order; the last one gives the logits.
    """

    def __init__(
        self, shape: tuple[int, ...], config: dict[str, Any], layers: OrderedDict[str, nn.Module]
    ) -> None:
        super().__init__(config)
        self.shape = shape
        self.layers = nn.Sequential(layers)

    @property
    def layer_names(self) -> tuple[str, ...]:
        """The names that `features` takes, from input to logits."""
        return tuple(name for name, _ in self.layers.named_children())

    def forward(self, x: Tensor) -> Tensor:
        """Computes the logits.

        Args:
            x: Images in [0, 1], (batch, C, H, W).

        Returns:
            Unnormalised log-probabilities of the classes, (batch, classes).

        Raises:
            TypeError: If `x` is not floating point.
            ValueError: If its shape is wrong.
        """
        logits: Tensor = self.layers(self._centred(x))
        return logits

    def features(self, x: Tensor, layer: str | Sequence[str]) -> Tensor | tuple[Tensor, ...]:
        """The activations after a layer, or after several; later layers are not computed.

        Args:
            x: Images in [0, 1], (batch, C, H, W).
            layer: A name out of `layer_names`, or a sequence of them.

        Returns:
            The activations, (batch, ...); a tuple in the order of the names if several.

        Raises:
            TypeError: If `x` is not floating point.
            ValueError: If its shape is wrong or there is no such layer.
        """
        wanted = self.check_layers(layer)
        found: dict[str, Tensor] = {}
        x = self._centred(x)
        for name, module in self.layers.named_children():
            x = module(x)
            if name in wanted:
                found[name] = x
                if len(found) == len(set(wanted)):
                    break
        return found[layer] if isinstance(layer, str) else tuple(found[name] for name in wanted)

    def check_layers(self, layer: str | Sequence[str]) -> tuple[str, ...]:
        """The names of layers, once all of them exist.

        Args:
            layer: One name or several.

        Returns:
            The names.

        Raises:
            ValueError: If there is none, or one that does not exist.
        """
        names = (layer,) if isinstance(layer, str) else tuple(layer)
        unknown = [name for name in names if name not in self.layer_names]
        if unknown or not names:
            known = ", ".join(self.layer_names)
            got = repr(unknown[0]) if unknown else "none"
            raise ValueError(f"`layer` must be one or several of {known}, got {got}")
        return names

    def _centred(self, x: Tensor) -> Tensor:
        return 2 * check_tensor(x, "x", self.shape, type(self).__name__) - 1


class SmallCNN(AbstractClassifier):
    """Three convolutions and a dense layer, for small gray images such as MNIST.

    Layers: `conv1` (half the side), `conv2` (a quarter), `conv3`, `dense`, `logits`.

    Args:
        shape: Channels, height and width of an image.
        classes: The number of classes.
        width: The channels of the first convolution; the others have twice as many.
    """

    def __init__(
        self, shape: Sequence[int] = (1, 28, 28), classes: int = 10, width: int = 32
    ) -> None:
        sizes = _image_shape(shape)
        classes, width = as_positive(classes, "classes", 2), as_positive(width, "width")
        config = {"shape": list(sizes), "classes": classes, "width": width}
        height, breadth = (math.ceil(side / 4) for side in sizes[1:])
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            conv1=_convolution(sizes[0], width, kernel=5, stride=2),
            conv2=_convolution(width, 2 * width, kernel=3, stride=2),
            conv3=_convolution(2 * width, 2 * width, kernel=3, stride=1),
            dense=nn.Sequential(
                nn.Flatten(), nn.Linear(2 * width * height * breadth, 4 * width), nn.ReLU()
            ),
            logits=nn.Linear(4 * width, classes),
        )
        super().__init__(sizes, config, layers)


class SmallResNet(AbstractClassifier):
    """A residual network of three stages, for small colour images such as CIFAR-10.

    Layers: `stem`, `stage1` (the full side), `stage2` (half), `stage3` (a quarter), `pool`,
    `logits`. Blocks normalise first, so the path of the gradient to the image is free of
    nonlinearities.

    References:
        Identity Mappings in Deep Residual Networks (He et al., 2016),
        https://arxiv.org/abs/1603.05027

    Args:
        shape: Channels, height and width of an image.
        classes: The number of classes.
        width: The channels of the first stage; the others have two and four times as many.
        blocks: The number of blocks in each stage.
    """

    def __init__(
        self,
        shape: Sequence[int] = (3, 32, 32),
        classes: int = 10,
        width: int = 64,
        blocks: int = 2,
    ) -> None:
        sizes = _image_shape(shape)
        classes, width = as_positive(classes, "classes", 2), as_positive(width, "width")
        blocks = as_positive(blocks, "blocks")
        config = {"shape": list(sizes), "classes": classes, "width": width, "blocks": blocks}
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            stem=nn.Conv2d(sizes[0], width, 3, padding=1, bias=False),
            stage1=_stage(width, width, blocks, stride=1),
            stage2=_stage(width, 2 * width, blocks, stride=2),
            stage3=_stage(2 * width, 4 * width, blocks, stride=2),
            pool=nn.Sequential(_norm(4 * width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            logits=nn.Linear(4 * width, classes),
        )
        super().__init__(sizes, config, layers)


class ResidualBlock(nn.Module):
    """Normalise, activate, convolve, twice, and add the input.

    Args:
        inputs: The channels that enter.
        outputs: The channels that leave.
        stride: The stride of the first convolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.prepare = nn.Sequential(_norm(inputs), nn.ReLU())
        self.residual = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            _norm(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        )
        changes = inputs != outputs or stride != 1
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """From (batch, inputs, H, W) to (batch, outputs, H / stride, W / stride)."""
        prepared = self.prepare(x)
        kept: Tensor = x if self.shortcut is None else self.shortcut(prepared)
        changed: Tensor = self.residual(prepared)
        return kept + changed


def _image_shape(shape: Sequence[int]) -> tuple[int, ...]:
    sizes = as_shape(shape, dims=(3,))
    if min(sizes[1:]) < MINIMUM_SIDE:
        raise ValueError(f"`shape` must have sides of at least {MINIMUM_SIDE}, got {sizes}")
    return sizes


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(channels, 8), channels)


def _convolution(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        _norm(outputs),
        nn.ReLU(),
    )


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    first = ResidualBlock(inputs, outputs, stride)
    return nn.Sequential(first, *(ResidualBlock(outputs, outputs, 1) for _ in range(blocks - 1)))
