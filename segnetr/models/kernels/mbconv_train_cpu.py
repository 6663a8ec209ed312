"""Cache-blocked CPU training kernel for the expanded layers of MBConv.

At full size, the expanded maps of MBConv, four times wider than its input, take 205 MB for four
images. The plain modules write and read them about fifty times in a training step and keep several
of them for the gradient. This kernel keeps only the narrow input. It recomputes the expanded maps
where they are needed, in tiles of one image and some channels, so that they stay in the cache and
the allocator reuses the same pages. The arithmetic is that of the plain modules, with 1.7 times the
multiply-adds of their 1x1 convolutions. A test compares values and gradients.

Two sums need no pass over the maps: a gate's gradient is the product of the projection's kernel and
that kernel's gradient for the image, and the mean over the pixels, from which the gate is computed,
enters the gradient as a bias of the transposed projection.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hybrid_backbones.kernels.activation import SILU
from hybrid_backbones.kernels.dispatch import conv2d_same
from hybrid_backbones.kernels.switch import settings
from segnetr.models.kernels.squeeze_excitation import compute_gate_gradients, compute_gates

_silu_backward = torch.ops.aten.silu_backward.grad_input


class _Kernels(NamedTuple):
    """Weights from D channels to E expanded channels and back."""

    expand: Tensor  # (E, D, 1, 1), the norm behind it folded in
    expand_bias: Tensor  # (E,)
    depthwise: Tensor  # (E, 1, 3, 3)
    scale: Tensor  # (E,), the norm behind the depth-wise convolution
    shift: Tensor  # (E,)
    project: Tensor  # (D, E, 1, 1)

    def select(self, at: slice) -> "_Kernels":
        """Return the weights of some expanded channels."""
        first = [kernel[at] for kernel in self[:5]]
        return _Kernels._make([*first, self.project[:, at]])

    def tiles(self, x: Tensor) -> list[slice]:
        """Divide the expanded channels so that one image's map of a tile is small enough."""
        channels = self.expand.shape[0]
        size = x.shape[-2] * x.shape[-1] * x.element_size()
        step = max(16, settings.tile_bytes // size // 16 * 16)
        return [slice(start, min(start + step, channels)) for start in range(0, channels, step)]

    def convolve(self, hidden: Tensor) -> Tensor:
        """Convolve the expanded channels depth-wise."""
        return conv2d_same(hidden, self.depthwise, groups=self.depthwise.shape[0])

    def expand_maps(self, x: Tensor) -> Tensor:
        """Compute the input of the second norm, (N, E, H, W)."""
        return self.convolve(conv2d_same(x, self.expand, self.expand_bias, activation=SILU))

    def norm_gradient(self, wide: Tensor, gradient: Tensor, gates: Tensor, lift: Tensor) -> Tensor:
        """Compute the gradient at the second norm's output from that of the projected image.

        Args:
            wide: The norm's input (1, E, H, W).
            gradient: At the projection's output (1, D, H, W).
            gates: The gates of this image (E,).
            lift: Gradient of each pixel through the pooled value (E,).
        """
        kernel = (self.project * gates[:, None, None]).transpose(0, 1)
        result = conv2d_same(gradient, kernel, lift)
        before = torch.addcmul(_column(self.shift), wide, _column(self.scale))
        return _silu_backward(result, before, grad_input=result)  # type: ignore[no-any-return]


class _Slopes(NamedTuple):
    """A batch norm's gradient as a linear function, each (E,)."""

    of_input: Tensor
    of_gradient: Tensor
    constant: Tensor


# Opaque operators: a compiler would keep the expanded maps.
@torch.library.custom_op("segnetr::mbconv_train_cpu", mutates_args=())
def _mbconv_train_cpu(
    x: Tensor,
    expand: Tensor,
    expand_bias: Tensor,
    depthwise: Tensor,
    gamma: Tensor,
    beta: Tensor,
    project: Tensor,
    epsilon: float,
    squeeze: list[Tensor],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return projected maps, mean, variance, inverse, scale, shift, and pooled values (N, E)."""
    kernels = _Kernels(expand, expand_bias, depthwise, gamma, beta, project)
    mean, variance = _moments(x, kernels)
    inverse = (variance + epsilon).rsqrt()
    scale = gamma * inverse
    shift = beta - mean * scale
    kernels = kernels._replace(scale=scale, shift=shift)
    projected, pooled = _project(x, kernels, squeeze)
    return projected, mean, variance, inverse, scale, shift, pooled


@_mbconv_train_cpu.register_fake
def _(
    x: Tensor, expand: Tensor, *_: object
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    wide = expand.shape[0]
    one, two, three, four, five = (x.new_empty(wide) for _ in range(5))
    return torch.empty_like(x), one, two, three, four, five, x.new_empty(x.shape[0], wide)


@torch.library.custom_op("segnetr::mbconv_train_cpu_backward", mutates_args=())
def _mbconv_train_cpu_backward(
    gradient: Tensor,
    x: Tensor,
    mean: Tensor,
    inverse: Tensor,
    pooled: Tensor,
    kernels: list[Tensor],
    squeeze: list[Tensor],
) -> list[Tensor]:
    """Return the gradients of the input, the six kernels and the weights of the gates."""
    return _go_back(gradient, x, mean, inverse, pooled, _Kernels(*kernels), squeeze)


@_mbconv_train_cpu_backward.register_fake
def _(
    gradient: Tensor,  # noqa: ARG001
    x: Tensor,
    mean: Tensor,
    inverse: Tensor,  # noqa: ARG001
    pooled: Tensor,  # noqa: ARG001
    kernels: list[Tensor],
    squeeze: list[Tensor],
) -> list[Tensor]:
    expand, expand_bias, depthwise, _, _, project = kernels
    like = (x, expand, expand_bias, depthwise, mean, mean, project, *squeeze)
    return [torch.empty_like(tensor) for tensor in like]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, expand, expand_bias, depthwise, _, _, project, _, squeeze = inputs
    _, mean, _, inverse, scale, shift, pooled = output
    kernels = (expand, expand_bias, depthwise, scale, shift, project)
    ctx.save_for_backward(x, mean, inverse, pooled, *kernels, *squeeze)


def _differentiate(
    ctx: Any, gradient: Tensor, *_: Tensor
) -> tuple[Tensor | list[Tensor] | None, ...]:
    # Read once: a second access raises inside a checkpoint.
    x, mean, inverse, pooled, *saved = ctx.saved_tensors
    gradient = gradient.contiguous(memory_format=torch.channels_last)
    gradients = _mbconv_train_cpu_backward(gradient, x, mean, inverse, pooled, saved[:6], saved[6:])
    return (*gradients[:7], None, gradients[7:])


_mbconv_train_cpu.register_autograd(_differentiate, setup_context=_keep)


def _go_back(
    gradient: Tensor,
    x: Tensor,
    mean: Tensor,
    inverse: Tensor,
    pooled: Tensor,
    kernels: _Kernels,
    squeeze: list[Tensor],
) -> list[Tensor]:
    gamma_gradient, beta_gradient = torch.zeros_like(mean), torch.zeros_like(mean)
    project_gradient = torch.zeros_like(kernels.project)
    squeeze_gradients = [torch.zeros_like(parameter) for parameter in squeeze]
    bends = []
    for one, its_gradient, its_pooled in zip(x.split(1), gradient.split(1), pooled, strict=True):
        tiles = kernels.tiles(one)
        wide = [kernels.select(at).expand_maps(one) for at in tiles]
        kernel_gradient = _projection_gradient(kernels, wide, its_gradient)
        gates, lift, parameters = compute_gate_gradients(
            its_pooled, squeeze, (kernels.project * kernel_gradient).sum((0, 2, 3))
        )
        lift /= one.shape[-2] * one.shape[-1]
        project_gradient.addcmul_(kernel_gradient, gates[:, None, None])
        for gathered, value in zip(squeeze_gradients, parameters, strict=True):
            gathered.add_(value)
        bends.append((gates, lift))
        for at, tile in zip(tiles, wide, strict=True):
            part = kernels.select(at)
            at_norm = part.norm_gradient(tile, its_gradient, gates[at], lift[at])
            sums = _norm_sums(at_norm, tile, mean[at], inverse[at])
            gamma_gradient[at] += sums[0]
            beta_gradient[at] += sums[1]
    slopes = _norm_slopes(kernels.scale, mean, inverse, gamma_gradient, beta_gradient, x)
    narrow = _narrow_gradients(x, gradient, kernels, bends, slopes)
    return [*narrow, gamma_gradient, beta_gradient, project_gradient, *squeeze_gradients]


def mbconv_train_cpu(
    x: Tensor,
    expand: Tensor,
    expand_bias: Tensor,
    depthwise: Tensor,
    norm: tuple[Tensor, Tensor, float],
    project: Tensor,
    squeeze: list[Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    """Expand, SiLU, depth-wise convolution, batch norm, SiLU, squeeze-excitation, project.

    Args:
        x: Maps (N, D, H, W).
        expand: Kernel (E, D, 1, 1), the first norm folded in.
        expand_bias: Its bias (E,).
        depthwise: Kernel (E, 1, 3, 3).
        norm: Weight (E,), bias (E,) and epsilon of the second norm.
        project: Kernel (D, E, 1, 1).
        squeeze: Weights of `compute_gates`; an empty list for no gates.

    Returns:
        The projected maps (N, D, H, W) before the third norm, and the mean (E,) and the variance
        (E,) that the second norm used.
    """
    x = x.contiguous(memory_format=torch.channels_last)
    gamma, beta, epsilon = norm
    projected, mean, variance, *_ = _mbconv_train_cpu(
        x, expand, expand_bias, depthwise, gamma, beta, project, epsilon, squeeze
    )
    return projected, mean, variance


def _column(values: Tensor) -> Tensor:
    return values[:, None, None]


def _moments(x: Tensor, kernels: _Kernels) -> tuple[Tensor, Tensor]:
    """Mean and variance of the depth-wise convolution's output over images and pixels."""
    means, variances = [], []
    for one in x.split(1):
        of_image = [
            torch.ops.aten.batch_norm_update_stats(
                kernels.select(at).expand_maps(one), None, None, 0.0
            )
            for at in kernels.tiles(one)
        ]
        means.append(torch.cat([tile[0] for tile in of_image]))
        variances.append(torch.cat([tile[1] for tile in of_image]))
    mean = torch.stack(means).mean(0)
    # The variance within the images plus the variance between them.
    variance = torch.stack(variances).mean(0) + (torch.stack(means) - mean).square().mean(0)
    return mean, variance


def _project(x: Tensor, kernels: _Kernels, squeeze: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Compute the projected maps (N, D, H, W) and the pooled values of the gates (N, E)."""
    # The second norm is folded into the depth-wise kernels.
    folded = kernels._replace(depthwise=kernels.depthwise * kernels.scale[:, None, None, None])
    projected, pooled = torch.empty_like(x), []
    for one, out in zip(x.split(1), projected.split(1), strict=True):
        tiles = kernels.tiles(one)
        hidden = []
        for at in tiles:
            part = folded.select(at)
            first = conv2d_same(one, part.expand, part.expand_bias, activation=SILU)
            groups = first.shape[1]
            hidden.append(
                conv2d_same(first, part.depthwise, part.shift, groups=groups, activation=SILU)
            )
        pooled.append(torch.cat([tile.mean((0, 2, 3)) for tile in hidden]))
        kernel = kernels.project * _column(compute_gates(pooled[-1], squeeze))
        out.copy_(conv2d_same(hidden[0], kernel[:, tiles[0]]))
        for at, tile in zip(tiles[1:], hidden[1:], strict=True):
            out.add_(conv2d_same(tile, kernel[:, at]))
    return projected, torch.stack(pooled)


def _projection_gradient(kernels: _Kernels, wide: list[Tensor], gradient: Tensor) -> Tensor:
    """Return the gradient (D, E, 1, 1) of the projection's kernel times an image's gates."""
    gradients = []
    for at, tile in zip(kernels.tiles(gradient), wide, strict=True):
        part = kernels.select(at)
        hidden = torch.addcmul(_column(part.shift), tile, _column(part.scale))
        hidden = F.silu(hidden, inplace=True)
        gradients.append(_kernel_gradient(gradient, hidden, part.project))
    return torch.cat(gradients, 1)


def _norm_sums(
    gradient: Tensor, wide: Tensor, mean: Tensor, inverse: Tensor
) -> tuple[Tensor, Tensor]:
    """Sum a gradient over the pixels, with and without the normalized values as factors."""
    _, weight, bias = torch.ops.aten.native_batch_norm_backward(
        gradient, wide, inverse, None, None, mean, inverse, True, 0.0, [False, True, True]
    )
    return weight, bias


def _norm_slopes(
    scale: Tensor, mean: Tensor, inverse: Tensor, gamma: Tensor, beta: Tensor, x: Tensor
) -> _Slopes:
    """Express the norm's gradient as a linear function of its input and its output's gradient."""
    count = x.numel() // x.shape[1]
    of_input = -scale * inverse * gamma / count
    return _Slopes(of_input, scale, -scale * beta / count - of_input * mean)


def _narrow_gradients(
    x: Tensor,
    gradient: Tensor,
    kernels: _Kernels,
    bends: list[tuple[Tensor, Tensor]],
    slopes: _Slopes,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of the input, the expansion, its bias, and the depth-wise kernels."""
    inputs = torch.zeros_like(x)
    expand, bias = torch.zeros_like(kernels.expand), torch.zeros_like(kernels.expand_bias)
    depthwise = torch.zeros_like(kernels.depthwise)
    for one, out, its_gradient, (gates, lift) in zip(
        x.split(1), inputs.split(1), gradient.split(1), bends, strict=True
    ):
        for at in kernels.tiles(one):
            part = kernels.select(at)
            before = conv2d_same(one, part.expand, part.expand_bias)
            hidden = F.silu(before)
            wide = part.convolve(hidden)
            at_norm = part.norm_gradient(wide, its_gradient, gates[at], lift[at])
            at_wide = torch.addcmul(
                _column(slopes.constant[at]), wide, _column(slopes.of_input[at])
            )
            at_wide.addcmul_(at_norm, _column(slopes.of_gradient[at]))
            groups = hidden.shape[1]
            depthwise[at] += _kernel_gradient(at_wide, hidden, part.depthwise, groups=groups)
            # With the rotated kernel: a depth-wise convolution is three times faster than the
            # operator for its gradient.
            at_hidden = conv2d_same(at_wide, part.depthwise.flip(2, 3), groups=groups)
            at_before = _silu_backward(at_hidden, before, grad_input=at_hidden)
            expand[at] += _kernel_gradient(at_before, one, part.expand)
            bias[at] += at_before.sum((0, 2, 3))
            out.add_(conv2d_same(at_before, part.expand.transpose(0, 1)))
    return inputs, expand, bias, depthwise


def _kernel_gradient(gradient: Tensor, x: Tensor, kernel: Tensor, *, groups: int = 1) -> Tensor:
    """Return the gradient of a convolution's kernel."""
    padding = [kernel.shape[-1] // 2] * 2
    result: Tensor = torch.ops.aten.convolution_backward(
        gradient, x, kernel, None, [1, 1], padding, [1, 1], False, [0, 0], groups,
        [False, True, False],
    )[1]  # fmt: skip
    return result
