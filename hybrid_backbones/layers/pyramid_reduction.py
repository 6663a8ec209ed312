"""Downsampling by convolutions of several dilations."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hybrid_backbones.kernels.conv_sequence import ConvSequence
from hybrid_backbones.layers.export_shapes import pad_to_stride


class PyramidReduction(nn.Module):
    """Strided convolutions of growing dilation over one map, with GELU, concatenated.

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
            ConvSequence(
                nn.Conv2d(
                    in_channels,
                    width,
                    kernel,
                    stride,
                    math.ceil(((kernel - 1) * dilation + 1 - stride) / 2),
                    dilation,
                ),
                nn.GELU(),
            )
            for dilation in dilations
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to tokens (N, ceil(H/s), ceil(W/s), D), D = width * dilations."""
        x = pad_to_stride(x, self.stride)
        return torch.cat([conv(x) for conv in self.convs], 1).permute(0, 2, 3, 1)
