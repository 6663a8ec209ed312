"""The U-Net that SegNetr is compared with.

This is the network whose parameters the SegNetr paper counts (29.59 Mi): Ronneberger et al., U-Net,
arXiv:1505.04597, with padded convolutions, biases and no batch norm. IRSC can replace its skips and
SegNetr blocks its second convolutions, because the SegNetr paper claims that both fit any U-shaped
network.
"""

import torch
from torch import Tensor, nn

from segnetr.config.schema.segmentation import UNetConfig
from segnetr.models.segnetr.blocks import SegNetrBlock
from segnetr.models.segnetr.initialization import initialize
from segnetr.models.segnetr.segmentation import SegmentationModel
from segnetr.models.segnetr.skip import InformationRetentionSkip

# The paper's windows at strides 2 to 16. The level at full resolution keeps its convolutions.
_WINDOWS = (0, 8, 4, 2, 1)


class UNet(nn.Module):
    """U-Net with five levels; (N, C, H, W) -> logits (N, K, H, W), sides multiples of 16.

    Args:
        in_channels: Channels of the images.
        num_classes: Number of classes K, including the background.
        width: Channels of the first level; doubled at each coarser level.
        use_irsc: Use information retention skips: the upsampled map has half of the level's width
            and the encoder map contributes the other half. Otherwise concatenate, as in U-Net.
        use_segnetr_blocks: Replace each second convolution below full resolution by a SegNetr
            block.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        width: int = 64,
        use_irsc: bool = False,
        use_segnetr_blocks: bool = False,
    ) -> None:
        super().__init__()
        widths = [width << level for level in range(5)]
        windows = _WINDOWS if use_segnetr_blocks else (0,) * len(_WINDOWS)
        self.down = nn.ModuleList(
            _level(before, after, window)
            for before, after, window in zip([in_channels, *widths], widths, windows, strict=False)
        )
        self.pool = nn.MaxPool2d(2)
        share = 2 if use_irsc else 1
        self.grow = nn.ModuleList(
            nn.ConvTranspose2d(2 * fine, fine // share, 2, stride=2) for fine in widths[:-1]
        )
        self.up = nn.ModuleList(
            _level(2 * fine // share, fine, window)
            for fine, window in zip(widths, windows[:-1], strict=False)
        )
        self.skips = (
            nn.ModuleList(InformationRetentionSkip(fine, fine // 2) for fine in widths[:-1])
            if use_irsc
            else None
        )
        self.head = nn.Conv2d(width, num_classes, 1)
        initialize(self)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (N, K, H, W) of images (N, C, H, W)."""
        pyramid = [self.down[0](image)]
        for stage in list(self.down)[1:]:
            pyramid.append(stage(self.pool(pyramid[-1])))
        x = pyramid.pop()
        for level in range(len(self.up) - 1, -1, -1):
            fine, upsampled = pyramid.pop(), self.grow[level](x)
            fused = (
                torch.cat((fine, upsampled), 1)
                if self.skips is None
                else self.skips[level](fine, upsampled)
            )
            x = self.up[level](fused)
        logits: Tensor = self.head(x)
        return logits


def build_unet(
    config: UNetConfig, *, in_channels: int, num_classes: int, image_size: tuple[int, int]
) -> SegmentationModel:
    """Build a U-Net; arguments as in `segnetr.models.build.build_model`."""
    del image_size
    unet = UNet(
        in_channels,
        num_classes,
        width=config.width,
        use_irsc=config.skip == "irsc",
        use_segnetr_blocks=config.block == "segnetr",
    )
    return SegmentationModel(unet, multiple=16)


def _level(before: int, after: int, window: int) -> nn.Sequential:
    if not window:
        return _double_convolution(before, after)
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1), nn.ReLU(inplace=True), SegNetrBlock(after, window)
    )


def _double_convolution(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(after, after, 3, padding=1),
        nn.ReLU(inplace=True),
    )
