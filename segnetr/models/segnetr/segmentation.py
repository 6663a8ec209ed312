"""The SegNetr network, and a wrapper that lets any network accept any image size.

Architecture:
    Junlong Cheng, Chengrui Gao, Fengjie Wang, Min Zhu: SegNetr: Rethinking the Local-Global
    Interactions and Skip Connections in U-Shaped Networks. MICCAI 2023, pages 64-74.
    arXiv:2307.02953. There is no official code.

Deliberate differences and readings, each described where it is built:
    - The interaction FFN works along the axis of windows (`mixing: window`), because only that
      reproduces the published parameters; the literal text is `mixing: position`.
    - The softmax is multiplied by the number of its entries, and a batch norm follows the weighted
      sum of the branches, whose two weights are learned.
    - The displacement counts windows from 1 and is cyclic; maps are zero-padded to an even number
      of windows.
    - MBConv: expansion 4, squeeze-excitation to D/4, SiLU. Channel FFN: 3D, GELU, layer norm first.
    - Stem: 1x1 convolution and MBConv at full size; head: MBConv and 1x1 convolution at full size.
    - Patch merging projects as in Swin (layer norm, linear layer); upsampling is a 1x1 convolution
      and bilinear interpolation; the skip concatenates.
    - Images are padded to a multiple of 16 by repeating their bottom and right edge, and the
      logits are cropped, so that any size from 32 pixels up works.

The network has 12.22 Mi parameters and 9.99 GMAC for C = 64, and 3.56 Mi and 2.60 GMAC for
C = 32, at 3x224x224 with two classes (published: 12.26 Mi, 10.18; 3.60 Mi, 2.71; "M" is 2^20 there,
and the published counts include two operations per value that passes a batch norm).
"""

import torch.nn.functional as F
from torch import Tensor, nn

from segnetr.config.schema.segmentation import SegNetrConfig
from segnetr.errors import UsageError
from segnetr.models.segnetr.backbone_encoder import BackboneEncoder, build_pyramid
from segnetr.models.segnetr.blocks import BlockSettings
from segnetr.models.segnetr.decoder import SegNetrDecoder, choose_window
from segnetr.models.segnetr.encoder import SegNetrEncoder
from segnetr.models.segnetr.initialization import initialize


class SegmentationModel(nn.Module):
    """Wraps a network that requires sides of a certain multiple so that it accepts any size.

    (N, C, H, W) -> logits (N, K, H, W), for any H and W from 32 up. Images are padded at the bottom
    and right by repeating their edge, and the logits are cropped. Compile it with
    `torch.compile(model, dynamic=False)`: compiling a graph for each size takes seconds, but a
    graph with symbolic sizes takes many minutes.

    Args:
        network: Maps (N, C, H, W) to (N, K, H, W) for sides that are multiples of `multiple`.
        multiple: Required multiple of the sides, in pixels.
        least: Smallest side that the network accepts, in pixels.
    """

    def __init__(self, network: nn.Module, *, multiple: int, least: int = 32) -> None:
        super().__init__()
        self.network = network
        self.multiple = multiple
        self.least = least

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (N, K, H, W) of images (N, C, H, W)."""
        height, width = image.shape[-2:]
        below, right = self._missing(height), self._missing(width)
        if below or right:
            image = F.pad(image, (0, right, 0, below), mode="replicate")
        logits: Tensor = self.network(image)
        return logits[..., :height, :width] if below or right else logits

    def _missing(self, side: int) -> int:
        return max(self.least, side + -side % self.multiple) - side


class SegNetr(nn.Module):
    """Encoder, decoder and a 1x1 convolution to the classes.

    (N, C, H, W) -> logits (N, K, H, W), H and W multiples of `multiple`.

    With a backbone as encoder, the backbone determines the levels, strides and widths. A light
    convolutional branch on the image adds the finer levels, up to full resolution.

    Args:
        config: Settings of the network.
        in_channels: Channels of the images.
        num_classes: Number of classes K, including the background.
        image_size: Height and width in pixels that window mixing is built for, unless the
            configuration sets `native_size`.

    Attributes:
        multiple: H and W must be multiples of this, in pixels.
        least: Smallest side for training, in pixels: at least 32, and two feature pixels of the
            last level.

    Raises:
        UsageError: If the encoder is unknown or its settings do not fit.
    """

    def __init__(
        self,
        config: SegNetrConfig,
        *,
        in_channels: int,
        num_classes: int,
        image_size: tuple[int, int],
    ) -> None:
        super().__init__()
        settings = BlockSettings(
            mixing=config.mixing,
            mixing_ratio=config.mixing_ratio,
            expansion=config.expansion,
            squeeze_ratio=config.squeeze_ratio,
            ffn_ratio=config.ffn_ratio,
            interaction=config.interaction,
        )
        self.encoder: SegNetrEncoder | BackboneEncoder
        if config.encoder == "segnetr":
            self.multiple = 1 << len(config.windows)
            size = round_up(config.native_size or image_size, self.multiple)
            self.encoder = SegNetrEncoder(
                in_channels,
                width=config.width,
                windows=config.windows,
                settings=settings,
                size=size,
            )
        else:
            pyramid = build_pyramid(config.encoder, in_channels, settings=config.encoder_settings)
            self.multiple = pyramid.multiple
            size = round_up(config.native_size or image_size, self.multiple)
            self.encoder = BackboneEncoder(
                pyramid, in_channels, width=config.width // 4, settings=settings
            )
        self.least = max(32, 2 * self.encoder.strides[-1])
        odd = [channels for channels in self.encoder.out_channels if channels % 2]
        if odd and config.skip == "irsc":
            raise UsageError(
                f"encoder {config.encoder!r} has a map of {odd[0]} channels, and IRSC keeps half "
                "of an even number; use --skip concat"
            )
        self.decoder = SegNetrDecoder(
            self.encoder.out_channels,
            self.encoder.strides,
            windows=[choose_window(stride, config.windows) for stride in self.encoder.strides],
            settings=settings,
            size=size,
            skip=config.skip,
        )
        self.head = nn.Conv2d(self.decoder.out_channels, num_classes, 1)
        # A backbone keeps its published initialization.
        for part in (*self.encoder.own_parts(), self.decoder, self.head):
            initialize(part)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (N, K, H, W) of images (N, C, H, W)."""
        logits: Tensor = self.head(self.decoder(self.encoder(image)))
        return logits


def build_segnetr(
    config: SegNetrConfig, *, in_channels: int, num_classes: int, image_size: tuple[int, int]
) -> SegmentationModel:
    """Build a SegNetr; arguments as in `segnetr.models.build.build_model`.

    Raises:
        UsageError: If the encoder is unknown or its settings do not fit.
    """
    network = SegNetr(
        config, in_channels=in_channels, num_classes=num_classes, image_size=image_size
    )
    return SegmentationModel(network, multiple=network.multiple, least=network.least)


def round_up(size: tuple[int, int], multiple: int) -> tuple[int, int]:
    """Return the height and width rounded up to multiples of a number."""
    height, width = size
    return height + -height % multiple, width + -width % multiple
