r"""FRE, the feature reconstruction error, and the local moments as built-in features.

:math:`C(x, g(z)) = \text{mean}_j (f(x)_j - f(g(z))_j)^2 - \kappa^2` with frozen features
:math:`f`: the activations of a pretrained network, or local means and standard deviations. The
form is the paper's; the mean over elements is this project's choice.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from geco_core.constraints.frozen import check_differentiable, frozen, outputs_of
from geco_core.constraints.patches import box_mean, check_patches, patch_shape, rounding_floor
from geco_core.constraints.reductions import (
    element_weights,
    mean_per_example,
    observed_examples,
)
from geco_core.constraints.tolerance import SquaredTolerance
from geco_core.constraints.tolerance_range import ToleranceRange
from geco_core.precision import accumulation_dtype
from geco_core.validation import check_images, positive

__all__ = ["FeatureReconstructionError", "LocalMoments"]


class LocalMoments(nn.Module):
    r"""The mean and the standard deviation of every patch, per channel, in the data's units.

    It asks for the right brightness and contrast everywhere and leaves the texture free.

    Args:
        size: The size of a patch, one number or one per axis of space.
        stride: The step between patches, one number or one per axis of space.
        eps: The standard deviation, in the units of the data, below which contrast counts
            little: :math:`s = \sqrt{v + \epsilon^2}` has a finite gradient at :math:`v = 0`.

    Raises:
        TypeError: If an argument has another type than the one described.
        ValueError: If an argument is out of its range.
    """

    def __init__(
        self,
        size: int | Sequence[int] = 8,
        stride: int | Sequence[int] = 1,
        *,
        eps: float = 1e-3,
    ) -> None:
        super().__init__()
        self.size = patch_shape(size, "size")
        self.stride = patch_shape(stride, "stride")
        self.eps = positive("eps", eps)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        r"""Computes the moments.

        Args:
            x: Images, :math:`(B, C, *)`.

        Returns:
            The means and the standard deviations, both :math:`(B, C, *)` with one value per
            location, float32 or wider.

        Raises:
            ValueError: If a patch does not fit into `x`.
        """
        size, stride = check_patches(x, self.size, self.stride)
        x = x.to(accumulation_dtype(x))
        # centred first, or the variance loses its digits in images far from 0
        centre = x.detach().mean(tuple(range(2, x.ndim)), keepdim=True)
        centred = x - centre
        maps = torch.stack([centred, centred.square()])
        mean, second = box_mean(maps, size, stride).unbind(0)
        variance = (second - mean.square()).clamp_min(0)
        return mean + centre, (variance + self.eps**2 + rounding_floor(second)).sqrt()

    def extra_repr(self) -> str:
        """The patches and the constant of flat ones."""
        return f"size={self.size}, stride={self.stride}, eps={self.eps:g}"


class FeatureReconstructionError(SquaredTolerance):
    r"""FRE: the mean squared error of an example's features is at most :math:`\kappa^2`.

    .. math:: C(x, g) = \text{mean}_j \bigl(f(x)_j - f(g)_j\bigr)^2 - \kappa^2

    Features that come as several tensors (layers of a network, the two local moments) count
    alike, whatever their sizes: the mean is over the elements of each, then over the tensors.
    Gradients reach the reconstruction only.

    Args:
        kappa: The root mean square error per feature that is asked for, in the units of the
            features.
        features: :math:`f`. Of a module a frozen copy in evaluation mode is kept (dropout off,
            batch normalisation with its running statistics, no gradients); the module that was
            passed is not changed. The copy is shared by all constraints that were given the
            same network, and is no part of their parameters and state. Images are converted to
            the dtype of its parameters. A method of a module is treated alike.
            :class:`~geco_core.NetworkFeatures` takes layers of a network by name and normalises
            the images. Any other callable is used as it is; freezing
            what it calls is up to the caller. It takes images :math:`(B, *)` and returns
            floating-point tensors :math:`(B, *)`, one or several in a tuple, list or mapping.
            `LocalMoments` needs no network.
        in_state: Whether the weights of a module belong to the `state_dict`.

    Raises:
        TypeError: If `kappa` is no number or `features` cannot be called.
        ValueError: If `kappa` is not positive and finite.
        RuntimeError: If a module cannot be copied.

    Example:
        >>> import torch
        >>> constraint = FeatureReconstructionError(kappa=0.1, features=LocalMoments(4))
        >>> x = torch.zeros(2, 3, 8, 8)
        >>> constraint(x, x + 0.2)  # the means are wrong by 0.2, the standard deviations by 0
        tensor([0.0100, 0.0100])
    """

    reduction = "mean over the elements of each feature tensor, then over the tensors"
    keywords = frozenset({"mask"})

    def __init__(
        self,
        kappa: float | ToleranceRange,
        features: Callable[[Tensor], Any],
        *,
        in_state: bool = False,
    ) -> None:
        super().__init__(kappa)
        self.features = frozen(features, "features", in_state=in_state)

    def forward(
        self, x: Tensor, reconstruction: Tensor, *, mask: Tensor | None = None, **batch: Any
    ) -> Tensor:
        r"""Computes the violations.

        Args:
            x: The data, :math:`(B, *)`, floating-point.
            reconstruction: The decoder's output, of the same shape.
            mask: Boolean, True where an element was observed. Of the shape of `x`, where any
                axis may have size 1. The rest of `x`, NaN or not, is replaced by the
                reconstruction before its features are taken, so it makes no error; features
                that see nothing observed count as error 0.
            batch: Ignored.

        Returns:
            The violations, :math:`(B,)`, float32 or wider.

        Raises:
            TypeError: If a dtype, or what `features` returns, is not what is described.
            ValueError: If a shape is not the one described.
            RuntimeError: If `features` stops the gradient.
        """
        check_images(x, reconstruction)
        observed = element_weights(x, mask, None, torch.float32)
        if observed is not None:
            x = torch.where(observed > 0, x, reconstruction.detach().to(x.dtype))
        with torch.no_grad():
            targets = self._features_of(x.detach())
        outputs = self._features_of(reconstruction)
        check_differentiable(reconstruction, outputs, "features")
        if [t.shape for t in targets] != [o.shape for o in outputs]:
            raise ValueError(
                f"`features` must return the same shapes for data and reconstruction, got "
                f"{[tuple(t.shape) for t in targets]} and {[tuple(o.shape) for o in outputs]}"
            )
        dtype = accumulation_dtype(*targets, *outputs)
        errors = [
            mean_per_example((target.to(dtype) - output.to(dtype)).square())
            for target, output in zip(targets, outputs, strict=True)
        ]
        mean = errors[0] if len(errors) == 1 else torch.stack(errors).mean(0)
        return mean - self.scale

    def example_weights(
        self, x: Tensor, reconstruction: Tensor, *, mask: Tensor | None = None, **batch: Any
    ) -> Tensor | None:
        """0 for examples of which nothing was observed."""
        return observed_examples(x, mask)

    def _features_of(self, images: Tensor) -> tuple[Tensor, ...]:
        return outputs_of(self.features(images), images.shape[0], "features")
