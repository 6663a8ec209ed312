"""UNet++: a U-Net with nested, dense skip connections.

Architecture:
    Zongwei Zhou, Md Mahfuzur Rahman Siddiquee, Nima Tajbakhsh, Jianming Liang: UNet++: A Nested
    U-Net Architecture for Medical Image Segmentation. DLMIA 2018. arXiv:1807.10165. Official code:
    MrGiovanni/UNetPlusPlus.

Deliberate differences: batch norm after each convolution, bilinear upsampling, no deep supervision;
initialization is this package's. The SegNetr paper's UNet++ has a ResNet-34 encoder (25.66 Mi);
this is the published network. With `skip="irsc"`, a node receives every second channel of each
earlier node of its level.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segnetr.config.schema.segmentation import UShapeConfig
from segnetr.models.segnetr.initialization import initialize
from segnetr.models.segnetr.segmentation import SegmentationModel


class UNetPlusPlus(nn.Module):
    """UNet++ with five levels; (N, C, H, W) -> logits (N, K, H, W), sides multiples of 16.

    Args:
        in_channels: Channels of the images.
        num_classes: Number of classes K, including the background.
        widths: Channels of the five levels, strides 1 to 16.
        use_irsc: Use information retention skips instead of whole maps.
    """

    def __init__(
        self, in_channels: int, num_classes: int, *, widths: Sequence[int], use_irsc: bool = False
    ) -> None:
        super().__init__()
        self.step = 2 if use_irsc else 1
        self.down = nn.ModuleList(
            _node(before, after) for before, after in pairwise([in_channels, *widths])
        )
        # Column c, level i: c earlier maps of the level and one upsampled map from level i + 1.
        self.columns = nn.ModuleList(
            nn.ModuleList(
                _node(column * widths[level] // self.step + widths[level + 1], widths[level])
                for level in range(len(widths) - column)
            )
            for column in range(1, len(widths))
        )
        self.head = nn.Conv2d(widths[0], num_classes, 1)
        initialize(self)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (N, K, H, W) of images (N, C, H, W)."""
        rows: list[list[Tensor]] = []
        for level, node in enumerate(self.down):
            rows.append([node(F.max_pool2d(rows[-1][0], 2) if level else image)])
        for column in self.columns:
            coarser = [_double(row[-1]) for row in rows[1 : len(column) + 1]]  # type: ignore[arg-type]
            for row, node, below in zip(rows, column, coarser, strict=False):  # type: ignore[call-overload]
                row.append(node(torch.cat([*(x[:, :: self.step] for x in row), below], 1)))
        logits: Tensor = self.head(rows[0][-1])
        return logits


def _node(before: int, after: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inward in (before, after):
        layers += [
            nn.Conv2d(inward, after, 3, padding=1),
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def build_unet_plus_plus(
    config: UShapeConfig, *, in_channels: int, num_classes: int, image_size: tuple[int, int]
) -> SegmentationModel:
    """Build the network; arguments as in `segnetr.models.build.build_model`."""
    del image_size
    network = UNetPlusPlus(
        in_channels, num_classes, widths=config.widths, use_irsc=config.skip == "irsc"
    )
    # Two feature pixels in the coarsest map: a batch norm rejects a single value.
    return SegmentationModel(network, multiple=32, least=64)
