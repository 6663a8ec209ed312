"""SegNet: a mirrored VGG-16 encoder (thirteen convolutions) with pooling indices as skips.

Architecture:
    Vijay Badrinarayanan, Alex Kendall, Roberto Cipolla: SegNet: A Deep Convolutional
    Encoder-Decoder Architecture for Image Segmentation. TPAMI 2017. arXiv:1511.00561.

Deliberate differences: initialization is this package's. With `skip="irsc"`, unpooling by indices
is replaced by a 1x1 convolution, bilinear upsampling and information retention, as in SegNetr.
The SegNetr paper reports 17.94 Mi parameters for its SegNet, fewer than the 28.1 Mi of the
published network. How it was reduced is unknown.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from segnetr.config.schema.segmentation import UShapeConfig
from segnetr.models.segnetr.initialization import initialize
from segnetr.models.segnetr.segmentation import SegmentationModel
from segnetr.models.segnetr.skip import FusedUpsampling

_DEPTHS = (2, 2, 3, 3, 3)


class SegNet(nn.Module):
    """SegNet with five levels; (N, C, H, W) -> logits (N, K, H, W), sides multiples of 32.

    Args:
        in_channels: Channels of the images.
        num_classes: Number of classes K, including the background.
        widths: Channels of the five levels, strides 1 to 16.
        use_irsc: Use information retention skips instead of pooling indices.
    """

    def __init__(
        self, in_channels: int, num_classes: int, *, widths: Sequence[int], use_irsc: bool = False
    ) -> None:
        super().__init__()
        befores = [in_channels, *widths[:-1]]
        self.down = nn.ModuleList(
            _convolutions([before, *[width] * depth])
            for before, width, depth in zip(befores, widths, _DEPTHS, strict=True)
        )
        self.up = nn.ModuleList(
            _convolutions([*[width] * depth, after])
            for after, width, depth in zip(
                [widths[0], *widths[:-1]], widths, [1, *_DEPTHS[1:]], strict=True
            )
        )
        self.fusions = (
            nn.ModuleList(FusedUpsampling(width, width, kind="irsc") for width in widths)
            if use_irsc
            else None
        )
        self.head = nn.Conv2d(widths[0], num_classes, 3, padding=1)
        initialize(self)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (N, K, H, W) of images (N, C, H, W)."""
        x = image
        maps: list[Tensor] = []
        pooling_indices: list[Tensor] = []
        for stage in self.down:
            maps.append(stage(x))
            x, indices = F.max_pool2d(maps[-1], 2, return_indices=True)
            pooling_indices.append(indices)
        for level in range(len(self.up) - 1, -1, -1):
            if self.fusions is None:
                x = F.max_unpool2d(x, pooling_indices[level], (2, 2))
            else:
                x = self.fusions[level](x, maps[level])
            x = self.up[level](x)
        logits: Tensor = self.head(x)
        return logits


def _convolutions(widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [
            nn.Conv2d(before, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


def build_segnet(
    config: UShapeConfig, *, in_channels: int, num_classes: int, image_size: tuple[int, int]
) -> SegmentationModel:
    """Build the network; arguments as in `segnetr.models.build.build_model`."""
    del image_size
    network = SegNet(in_channels, num_classes, widths=config.widths, use_irsc=config.skip == "irsc")
    # Two feature pixels in the coarsest map: a batch norm rejects a single value.
    return SegmentationModel(network, multiple=32, least=64)
