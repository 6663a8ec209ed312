"""Downsampling that looks at several scales at once."""

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_backbones.kernels.activation import GELU
from hybrid_backbones.kernels.inference import convolve, is_plain_inference
from hybrid_backbones.layers.export_shapes import may_differ, missing_to_multiple


class PyramidReduction(nn.Module):
    """Strided convolutions of growing dilation over one map, side by side along the channels.

    Source:
        Xu et al., ViTAE, arXiv:2106.03348, section 3.2, equation 5 (PRM).
    """

    def __init__(
        self, in_channels: int, width: int, *, kernel: int, stride: int, dilations: Sequence[int]
    ) -> None:
        super().__init__()
        self.stride = stride
        self.out_channels = width * len(dilations)
        self.convs = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(
                    in_channels,
                    width,
                    kernel,
                    stride,
                    math.ceil(((kernel - 1) * dilation + 1 - stride) / 2),
                    dilation,
                )
            )
            for dilation in dilations
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to tokens (N, ceil(H/s), ceil(W/s), D), D = width * dilations."""
        bottom, right = (missing_to_multiple(side, self.stride) for side in x.shape[2:])
        if may_differ((right, bottom), (0, 0)):
            x = F.pad(x, (0, right, 0, bottom))
        if is_plain_inference(x):
            # Each convolution stands alone in a sequence, as in the published keys.
            convolutions = (cast(nn.Conv2d, cast(nn.Sequential, conv)[0]) for conv in self.convs)
            active = [convolve(x, convolution, activation=GELU) for convolution in convolutions]
            return torch.cat(active, 1).permute(0, 2, 3, 1)
        scales = torch.cat([conv(x) for conv in self.convs], 1)
        return F.gelu(scales.permute(0, 2, 3, 1))
