"""Mean and covariance of a map's channels, which tell the statistics behind a 1x1 convolution.

For e = W x the mean is W mean(x) and the variance the diagonal of W cov(x) W^T. So a batch norm
behind a 1x1 convolution that widens a map can be folded into the convolution while training, too:
its statistics come from the narrow map, and the wide one is neither read nor kept for them.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.library.custom_op("segnetr::channel_covariance", mutates_args=())
def _channel_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    channels = x.shape[1]
    mean = x.mean((0, 2, 3))
    covariance = x.new_zeros(channels, channels)
    for image in x:
        rows = image.permute(1, 2, 0).reshape(-1, channels) - mean
        covariance.addmm_(rows.t(), rows)
    return mean, covariance.div_(x.numel() // channels)


@_channel_moments.register_fake
def _(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape[1]), x.new_empty(x.shape[1], x.shape[1])


def _keep(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(inputs[0], output[0])


def _differentiate(ctx: Any, mean_grad: Tensor, covariance_grad: Tensor) -> Tensor:
    x, mean = ctx.saved_tensors
    count = x.numel() // x.shape[1]
    slope = (covariance_grad + covariance_grad.t()) / count
    return F.conv2d(x, slope[:, :, None, None], mean_grad / count - slope @ mean)


_channel_moments.register_autograd(_differentiate, setup_context=_keep)


def channel_covariance(x: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the mean and the covariance of the channels over images and pixels.

    Args:
        x: Maps (N, C, H, W).

    Returns:
        The mean (C,) and the covariance (C, C), divided by the number of pixels N*H*W.
    """
    mean, covariance = _channel_moments(x)
    return mean, covariance
