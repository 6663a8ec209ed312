"""Mean and covariance of a map's channels, from which the statistics of a 1x1 convolution follow.

For e = W x, the mean is W mean(x) and the variance is the diagonal of W cov(x) W^T. So a batch norm
behind an expanding 1x1 convolution can be folded into the convolution in training, too: its
statistics are computed from the narrow map, and the expanded map is neither read nor kept for them.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.library.custom_op("segnetr::channel_covariance", mutates_args=())
def _channel_covariance(x: Tensor) -> tuple[Tensor, Tensor]:
    channels = x.shape[1]
    mean = x.mean((0, 2, 3))
    covariance = x.new_zeros(channels, channels)
    for image in x:
        rows = image.permute(1, 2, 0).reshape(-1, channels) - mean
        covariance.addmm_(rows.t(), rows)
    return mean, covariance.div_(x.numel() // channels)


@_channel_covariance.register_fake
def _(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape[1]), x.new_empty(x.shape[1], x.shape[1])


def _save(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(inputs[0], output[0])


def _differentiate(ctx: Any, mean_grad: Tensor, covariance_grad: Tensor) -> Tensor:
    x, mean = ctx.saved_tensors
    count = x.numel() // x.shape[1]
    slope = (covariance_grad + covariance_grad.t()) / count
    return F.conv2d(x, slope[:, :, None, None], mean_grad / count - slope @ mean)


_channel_covariance.register_autograd(_differentiate, setup_context=_save)


def channel_covariance(x: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the mean and the covariance of the channels over images and pixels.

    Args:
        x: Maps (N, C, H, W).

    Returns:
        The mean (C,) and the covariance (C, C), divided by the number of pixels N*H*W.
    """
    mean, covariance = _channel_covariance(x)
    return mean, covariance
