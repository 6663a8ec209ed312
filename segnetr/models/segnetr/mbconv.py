"""MBConv, the convolution every stage of SegNetr begins with.

Source:
    Sandler et al., MobileNetV2, arXiv:1801.04381 (inverted residual); Hu et al.,
    Squeeze-and-Excitation Networks, arXiv:1709.01507; used by Cheng et al., SegNetr,
    arXiv:2307.02953, section 2.1, which says that MBConv brings the positions and weighs the
    channels. Expansion 4, a 3x3 kernel, SiLU and a squeeze to a quarter of the input width are our
    reading: with them the parameters and the multiply-adds of both published sizes come out.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segnetr.models.kernels.channel_covariance import channel_covariance
from segnetr.models.kernels.conv import can_fuse
from segnetr.models.kernels.mbconv_infer_cpu import FoldedKernels, fold_norm, mbconv_infer_cpu
from segnetr.models.kernels.mbconv_train_cpu import mbconv_train_cpu
from segnetr.models.kernels.recomputation import is_large
from segnetr.models.kernels.squeeze_excitation import SqueezeExcitation

_PIXELS_PER_CHANNEL = 1


class MBConv(nn.Module):
    """Expand, convolve each channel by itself, weigh the channels, project, add the input.

    (N, D, H, W) -> (N, D, H, W).

    Args:
        channels: Width, D.
        expansion: Hidden width over `channels`.
        squeeze_ratio: Hidden width of squeeze-excitation over `channels`; 0: none.
    """

    def __init__(self, channels: int, *, expansion: int = 4, squeeze_ratio: float = 0.25) -> None:
        super().__init__()
        hidden = channels * expansion
        self.expand = nn.Conv2d(channels, hidden, 1, bias=False)
        self.expand_norm = nn.BatchNorm2d(hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(hidden)
        self.squeeze = (
            SqueezeExcitation(hidden, max(1, round(channels * squeeze_ratio)))
            if squeeze_ratio
            else None
        )
        self.project = nn.Conv2d(hidden, channels, 1, bias=False)
        self.project_norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, D, H, W) to (N, D, H, W)."""
        if self._uses_train_kernel(x):
            return self._forward_train_cpu(x)
        if self._is_folded(x):
            return mbconv_infer_cpu(x, self.fold(), self._gate_weights())
        hidden = F.silu(self.expand_norm(self.expand(x)), inplace=True)
        hidden = F.silu(self.depthwise_norm(self.depthwise(hidden)), inplace=True)
        if self.squeeze is not None:
            hidden = hidden * self.squeeze(hidden.mean((2, 3)))[:, :, None, None]
        projected: Tensor = self.project_norm(self.project(hidden))
        return projected + x

    @property
    def norms(self) -> tuple[nn.BatchNorm2d, ...]:
        """The batch norms, in the order they are met."""
        return self.expand_norm, self.depthwise_norm, self.project_norm

    def fold(self) -> FoldedKernels:
        """Give the kernels of prediction, the running moments of the norms folded in."""
        return FoldedKernels(
            *fold_norm(self.expand, self.expand_norm),
            *fold_norm(self.depthwise, self.depthwise_norm),
            *fold_norm(self.project, self.project_norm),
        )

    def _gate_weights(self) -> list[Tensor]:
        return [] if self.squeeze is None else self.squeeze.weights

    def _is_folded(self, x: Tensor) -> bool:
        """Say whether the frugal way to predict pays: a processor, without a gradient."""
        return can_fuse(x) and not self.training and not torch.is_grad_enabled()

    def _uses_train_kernel(self, x: Tensor) -> bool:
        """Say whether the frugal way to train pays: a processor, a large map, pixels enough.

        It needs the covariance of the input's channels, D*D multiply-adds for a pixel and 4*D*D*D
        once, which few pixels do not pay back.
        """
        pixels = x.numel() // x.shape[1]
        return (
            self.training
            and torch.is_grad_enabled()
            and x.device.type == "cpu"
            and x.dtype in (torch.float32, torch.float64)
            and pixels >= _PIXELS_PER_CHANNEL * x.shape[1]
            and not torch.is_autocast_enabled("cpu")
            and is_large(x)
        )

    def _forward_train_cpu(self, x: Tensor) -> Tensor:
        first, second = self.expand_norm, self.depthwise_norm
        mean, covariance = channel_covariance(x)
        kernel = self.expand.weight.flatten(1)
        wide_mean = kernel @ mean
        wide_variance = ((kernel @ covariance) * kernel).sum(1)
        scale = first.weight * (wide_variance + first.eps).rsqrt()
        projected, second_mean, second_variance = mbconv_train_cpu(
            x,
            self.expand.weight * scale[:, None, None, None],
            first.bias - wide_mean * scale,
            self.depthwise.weight,
            (second.weight, second.bias, second.eps),
            self.project.weight,
            self._gate_weights(),
        )
        pixels = x.numel() // x.shape[1]
        _update_running(first, wide_mean, wide_variance, pixels)
        _update_running(second, second_mean, second_variance, pixels)
        normed: Tensor = self.project_norm(projected)
        return normed + x


@torch.no_grad()
def _update_running(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, count: int) -> None:
    """Do what `norm` does with a batch's moments; `variance` is divided by `count`."""
    if not norm.momentum:
        return
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked += 1
    norm.running_mean.lerp_(mean, norm.momentum)
    norm.running_var.lerp_(variance * count / (count - 1), norm.momentum)
