"""The networks SegNetr is compared with.

The U-Net is the one the SegNetr paper counts (29.59 Mi parameters): Ronneberger et al., U-Net,
arXiv:1505.04597, with padded convolutions, biases and no batch norm; IRSC and SegNetr blocks can
take the place of its skips and second convolutions (the SegNetr paper's claim that both fit any
U-shape). UNet++, SegNet and UNeXt stand in files of their own. BasicUNet, AttentionUnet
(Oktay et al., arXiv:1804.03999) and SwinUNETR (Hatamizadeh et al., arXiv:2201.01266) are MONAI's,
two-dimensional and otherwise untouched.
"""

import torch
from monai.networks.nets.attentionunet import AttentionUnet
from monai.networks.nets.basic_unet import BasicUNet
from monai.networks.nets.swin_unetr import SwinUNETR
from torch import Tensor, nn

from segnetr.config.schema.segmentation import MonaiConfig, UShapeConfig
from segnetr.errors import UsageError
from segnetr.models.baselines.segnet import SegNet
from segnetr.models.baselines.unet_plus_plus import UNetPlusPlus
from segnetr.models.baselines.unext import UNeXt
from segnetr.models.segnetr.blocks import SegNetrBlock
from segnetr.models.segnetr.initialization import initialize
from segnetr.models.segnetr.skip import InformationRetentionSkip

# The paper's windows at strides 2 to 16; the pixel grid keeps its convolutions.
_WINDOWS = (0, 8, 4, 2, 1)


class UNet(nn.Module):
    """U-Net with five levels; (N, C, H, W) -> logits (N, K, H, W), sides multiples of 16.

    Args:
        in_channels: Channels of the images.
        num_classes: Classes with the background, K.
        width: Channels of the first level, doubled at each later one.
        retains: Skips by information retention: the grown map has half of the level's width, the
            encoder gives the other half; else U-Net's concatenation.
        interacts: A SegNetr block in place of each second convolution below the pixel grid.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        width: int = 64,
        retains: bool = False,
        interacts: bool = False,
    ) -> None:
        super().__init__()
        widths = [width << level for level in range(5)]
        windows = _WINDOWS if interacts else (0,) * len(_WINDOWS)
        self.down = nn.ModuleList(
            _level(before, after, window)
            for before, after, window in zip([in_channels, *widths], widths, windows, strict=False)
        )
        self.pool = nn.MaxPool2d(2)
        share = 2 if retains else 1
        self.grow = nn.ModuleList(
            nn.ConvTranspose2d(2 * fine, fine // share, 2, stride=2) for fine in widths[:-1]
        )
        self.up = nn.ModuleList(
            _level(2 * fine // share, fine, window)
            for fine, window in zip(widths, windows[:-1], strict=False)
        )
        self.skips = (
            nn.ModuleList(InformationRetentionSkip(fine, fine // 2) for fine in widths[:-1])
            if retains
            else None
        )
        self.head = nn.Conv2d(width, num_classes, 1)
        initialize(self)

    def forward(self, image: Tensor) -> Tensor:
        """Turn images (N, C, H, W) into logits (N, K, H, W)."""
        pyramid = [self.down[0](image)]
        for stage in list(self.down)[1:]:
            pyramid.append(stage(self.pool(pyramid[-1])))
        x = pyramid.pop()
        for level in range(len(self.up) - 1, -1, -1):
            fine, grown = pyramid.pop(), self.grow[level](x)
            fused = (
                torch.cat((fine, grown), 1)
                if self.skips is None
                else self.skips[level](fine, grown)
            )
            x = self.up[level](fused)
        logits: Tensor = self.head(x)
        return logits


def build_u_shape(config: UShapeConfig, *, in_channels: int, num_classes: int) -> nn.Module:
    """Make a network of the paper's skip ablation; sides multiples of 32.

    Args:
        config: Which one, its widths, its skips.
        in_channels: Channels of the images.
        num_classes: Classes with the background.
    """
    kinds = {"unet_plus_plus": UNetPlusPlus, "segnet": SegNet, "unext": UNeXt}
    network: nn.Module = kinds[config.architecture](
        in_channels, num_classes, widths=config.widths, retains=config.skip == "irsc"
    )
    return network


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
