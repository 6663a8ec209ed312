"""MBConv, the first layer of every SegNetr block.

Source:
    Sandler et al., MobileNetV2, arXiv:1801.04381 (inverted residual); Hu et al.,
    Squeeze-and-Excitation Networks, arXiv:1709.01507; used by Cheng et al., SegNetr,
    arXiv:2307.02953, section 2.1, according to which MBConv encodes positions and weights the
    channels. Expansion 4, a 3x3 kernel, SiLU and a squeeze to a quarter of the input width are our
    reading: they reproduce the parameters and multiply-adds of both published sizes.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from segnetr.models.kernels.mbconv_dispatch import try_mbconv_kernel
from segnetr.models.kernels.squeeze_excitation import SqueezeExcitation


class MBConv(nn.Module):
    """Expand, convolve depth-wise, weight the channels, project, add the input.

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
        fast = try_mbconv_kernel(self, x)
        if fast is not None:
            return fast
        hidden = F.silu(self.expand_norm(self.expand(x)), inplace=True)
        hidden = F.silu(self.depthwise_norm(self.depthwise(hidden)), inplace=True)
        if self.squeeze is not None:
            hidden = hidden * self.squeeze(hidden.mean((2, 3)))[:, :, None, None]
        projected: Tensor = self.project_norm(self.project(hidden))
        return projected + x

    @property
    def norms(self) -> tuple[nn.BatchNorm2d, ...]:
        """The batch norms, in the order in which they run."""
        return self.expand_norm, self.depthwise_norm, self.project_norm
