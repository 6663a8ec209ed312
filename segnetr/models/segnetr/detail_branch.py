"""The levels between the pixel grid and the finest map of a backbone."""

from torch import Tensor, nn

from segnetr.models.segnetr.blocks import BlockSettings
from segnetr.models.segnetr.encoder import Stem
from segnetr.models.segnetr.mbconv import MBConv


class DetailBranch(nn.Module):
    """A small convolutional branch on the image that preserves structures of pixel size.

    A backbone that begins at stride 4 or 16 has no finer map. The branch computes the missing
    levels from the image: a `Stem` at stride 1, then a strided 3x3 convolution and an MBConv for
    each stride 2, 4, ... below the backbone's finest. Sides are ceil(H / s), as in a backbone.

    Args:
        in_channels: Channels of the images.
        width: Channels at full resolution, doubled at each level.
        finest_stride: The backbone's finest stride, in pixels, 2 or more.
        settings: Settings shared by all blocks.

    Attributes:
        out_channels: Width of each map, finest first.
        strides: Stride of each map.
    """

    def __init__(
        self, in_channels: int, *, width: int, finest_stride: int, settings: BlockSettings
    ) -> None:
        super().__init__()
        self.strides = tuple(
            1 << level for level in range(finest_stride.bit_length()) if 1 << level < finest_stride
        )
        self.out_channels = tuple(width * stride for stride in self.strides)
        self.stem = Stem(in_channels, width, settings=settings)
        self.steps = nn.ModuleList(
            _step_down(before, settings.build_mbconv(2 * before))
            for before in self.out_channels[:-1]
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map images (N, C, H, W) to feature maps, finest first."""
        maps = [self.stem(image)]
        for step in self.steps:
            maps.append(step(maps[-1]))
        return maps


def _step_down(width: int, mbconv: MBConv) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(2 * width),
        nn.SiLU(inplace=True),
        mbconv,
    )
