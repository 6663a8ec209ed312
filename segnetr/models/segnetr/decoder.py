"""The decoder of SegNetr: it mirrors the stages of the encoder, with a skip before each.

Source:
    Cheng et al., SegNetr, arXiv:2307.02953, section 2 and figure 1. A block in each of the four
    decoder stages with the window of the matching encoder stage, and an MBConv at full size, follow
    from the published counts.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from segnetr.models.segnetr.blocks import BlockSettings, SegNetrBlock
from segnetr.models.segnetr.skip import FusedUpsampling, SkipKind


def choose_window(stride: int, windows: Sequence[int]) -> int:
    """Return the side of the local windows at a level of any encoder, in feature pixels.

    The paper's windows belong to the strides 2, 4, 8 and 16. A level uses the window of the nearest
    of these strides, and a deeper level uses the last one. The level at full resolution has no
    window and only an MBConv.
    """
    if stride == 1:
        return 0
    return windows[min(max(round(math.log2(stride)), 1), len(windows)) - 1]


class SegNetrDecoder(nn.Module):
    """Upsamples from the coarsest map to the finest and fuses one encoder map at each step.

    Widths and grids mirror those of any encoder: a map is upsampled to the grid of the next finer
    encoder map, by 2, by 4, or by another ratio if sides are odd. A level with a window has a
    SegNetr block, a level without a window an MBConv.

    Args:
        in_channels: Width of each encoder map, finest first.
        strides: Image pixels per feature pixel of each encoder map, finest first.
        windows: Side of the local windows at each level, finest first. 0: MBConv only.
        settings: Settings shared by all blocks.
        size: Image height and width that window mixing is built for.
        skip: How encoder maps are fused: "irsc", "concat" or "add".

    Attributes:
        out_channels: Width of the output map.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        *,
        windows: Sequence[int],
        settings: BlockSettings,
        size: tuple[int, int],
        skip: SkipKind = "irsc",
    ) -> None:
        super().__init__()
        self.out_channels = in_channels[0]
        self.stages = nn.ModuleList(
            SegNetrBlock(
                channels,
                window,
                settings=settings,
                size=(-(-size[0] // stride), -(-size[1] // stride)),
            )
            if window
            else settings.build_mbconv(channels)
            for channels, stride, window in zip(in_channels, strides, windows, strict=True)
        )
        self.fusions = nn.ModuleList(
            FusedUpsampling(coarse, fine, kind=skip) for fine, coarse in pairwise(in_channels)
        )

    def forward(self, pyramid: list[Tensor]) -> Tensor:
        """Map the encoder's maps, finest first, to one map (N, C, H, W) on the finest grid."""
        x: Tensor = self.stages[-1](pyramid[-1])
        for level in range(len(self.fusions) - 1, -1, -1):
            x = self.stages[level](self.fusions[level](x, pyramid[level]))
        return x
