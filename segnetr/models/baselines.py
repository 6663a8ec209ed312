"""The networks SegNetr is compared with.

The U-Net is the one the SegNetr paper counts (29.59 Mi parameters): Ronneberger et al., U-Net,
arXiv:1505.04597, with padded convolutions, biases and no batch norm. BasicUNet, AttentionUnet
(Oktay et al., arXiv:1804.03999) and SwinUNETR (Hatamizadeh et al., arXiv:2201.01266) are MONAI's,
two-dimensional and otherwise untouched.
"""

from itertools import pairwise

import torch
from monai.networks.nets.attentionunet import AttentionUnet
from monai.networks.nets.basic_unet import BasicUNet
from monai.networks.nets.swin_unetr import SwinUNETR
from torch import Tensor, nn

from segnetr.config.schema import MonaiConfig
from segnetr.errors import UsageError
from segnetr.models.initialisation import initialise


class UNet(nn.Module):
    """U-Net with five levels; (N, C, H, W) -> logits (N, K, H, W), sides multiples of 16.

    Args:
        in_channels: Channels of the images.
        num_classes: Classes with the background, K.
        width: Channels of the first level, doubled at each later one.
    """

    def __init__(self, in_channels: int, num_classes: int, *, width: int = 64) -> None:
        super().__init__()
        widths = [width << level for level in range(5)]
        self.down = nn.ModuleList(
            _double_convolution(before, after) for before, after in pairwise([in_channels, *widths])
        )
        self.pool = nn.MaxPool2d(2)
        self.grow = nn.ModuleList(
            nn.ConvTranspose2d(2 * fine, fine, 2, stride=2) for fine in widths[:-1]
        )
        self.up = nn.ModuleList(_double_convolution(2 * fine, fine) for fine in widths[:-1])
        self.head = nn.Conv2d(width, num_classes, 1)
        initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        """Turn images (N, C, H, W) into logits (N, K, H, W)."""
        pyramid = [self.down[0](image)]
        for stage in list(self.down)[1:]:
            pyramid.append(stage(self.pool(pyramid[-1])))
        x = pyramid.pop()
        for grow, stage in zip(reversed(self.grow), reversed(self.up), strict=True):
            x = stage(torch.cat((pyramid.pop(), grow(x)), 1))
        logits: Tensor = self.head(x)
        return logits


def build_monai(config: MonaiConfig, *, in_channels: int, num_classes: int) -> nn.Module:
    """Make a two-dimensional network of MONAI.

    Args:
        config: Which one, and its widths.
        in_channels: Channels of the images.
        num_classes: Classes with the background.

    Raises:
        UsageError: If the widths do not fit the network.
    """
    features = config.features
    network: nn.Module
    if config.architecture == "basic_unet":
        if len(features) != 6:
            raise _wrong_features(config, "six widths")
        network = BasicUNet(2, in_channels, num_classes, features)
    elif config.architecture == "attention_unet":
        if len(features) < 2:
            raise _wrong_features(config, "two widths or more")
        network = AttentionUnet(2, in_channels, num_classes, features, (2,) * (len(features) - 1))
    else:
        if features[0] % 12:
            raise _wrong_features(config, "a first width that is a multiple of 12")
        network = SwinUNETR(in_channels, num_classes, feature_size=features[0], spatial_dims=2)
    return network


def _wrong_features(config: MonaiConfig, need: str) -> UsageError:
    return UsageError(f"model.features {list(config.features)}: {config.architecture} needs {need}")


def _double_convolution(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(after, after, 3, padding=1),
        nn.ReLU(inplace=True),
    )
