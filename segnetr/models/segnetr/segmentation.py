"""SegNetr put together, and the frame every network here stands in.

Architecture:
    Junlong Cheng, Chengrui Gao, Fengjie Wang, Min Zhu: SegNetr: Rethinking the Local-Global
    Interactions and Skip Connections in U-Shaped Networks. MICCAI 2023, pages 64-74.
    arXiv:2307.02953. There is no official code.

Deliberate differences and readings, each described where it is built:
    - The interaction FFN works along the axis of windows (`mixing: window`), because only that
      reproduces the published parameters; the literal text is `mixing: position`.
    - The softmax is multiplied by the number of its entries, and a batch norm follows the weighted
      sum of the branches, whose two weights are learned.
    - The displacement counts windows from 1 and is cyclic; maps are filled up with zeros to an even
      number of windows.
    - MBConv: expansion 4, squeeze-excitation to D/4, SiLU. Channel FFN: 3D, GELU, layer norm first.
    - Stem: 1x1 convolution and MBConv at full size; head: MBConv and 1x1 convolution at full size.
    - Patch merging projects as in Swin (layer norm, linear map); up-sampling is a 1x1 convolution
      and bilinear growth; the skip concatenates.
    - Images are filled up to a multiple of 16 by repeating their lower and right edge, and the
      logits cut back, so that any size from 32 pixels up works.

Together these count 12.22 Mi parameters and 9.99 GMAC for C = 64, and 3.56 Mi and 2.60 GMAC for
C = 32, at 3x224x224 with two classes (published: 12.26 Mi, 10.18; 3.60 Mi, 2.71; "M" is 2^20 there,
and the published operations count two for each value that passes a batch norm).
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
    """A network that needs sides of a certain multiple, made to take any size.

    (N, C, H, W) -> logits (N, K, H, W), any H and W from 32 up. Images are filled up below and to
    the right by repeating their edge, and the logits are cut back. Compile it with
    `torch.compile(model, dynamic=False)`: a graph for each size is made in seconds, one for sizes
    that are symbols takes the compiler many minutes.

    Args:
        network: Maps (N, C, H, W) to (N, K, H, W) for sides that are multiples of `multiple`.
        multiple: In pixels.
        least: Smallest side the network takes, in pixels.
    """

    def __init__(self, network: nn.Module, *, multiple: int, least: int = 32) -> None:
        super().__init__()
        self.network = network
        self.multiple = multiple
        self.least = least

    def forward(self, image: Tensor) -> Tensor:
        """Turn images (N, C, H, W) into logits (N, K, H, W)."""
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

    With a backbone as encoder the levels, strides and widths are the backbone's, and a light
    convolutional path from the image adds the levels above its finest one, up to the pixel grid.

    Args:
        config: Its settings.
        in_channels: Channels of the images.
        num_classes: Classes with the background, K.
        image_size: Height and width in pixels that window mixing is built for where the
            configuration names none.

    Attributes:
        multiple: What H and W must be multiples of, in pixels.
        least: Smallest side it can be trained at, in pixels: two feature pixels of the last level.

    Raises:
        UsageError: If there is no such encoder, or its settings do not fit.
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
        # A backbone brings its published initialization along.
        for part in (*self.encoder.own_parts(), self.decoder, self.head):
            initialize(part)

    def forward(self, image: Tensor) -> Tensor:
        """Turn images (N, C, H, W) into logits (N, K, H, W)."""
        logits: Tensor = self.head(self.decoder(self.encoder(image)))
        return logits


def build_segnetr(
    config: SegNetrConfig, *, in_channels: int, num_classes: int, image_size: tuple[int, int]
) -> SegmentationModel:
    """Build a SegNetr; arguments as in `segnetr.models.build.build_model`.

    Raises:
        UsageError: If there is no such encoder, or its settings do not fit.
    """
    network = SegNetr(
        config, in_channels=in_channels, num_classes=num_classes, image_size=image_size
    )
    return SegmentationModel(network, multiple=network.multiple, least=network.least)


def round_up(size: tuple[int, int], multiple: int) -> tuple[int, int]:
    """Give the next height and width that are multiples of a number."""
    height, width = size
    return height + -height % multiple, width + -width % multiple
