"""From a model configuration to a network."""

from segnetr.config.schema.segmentation import ModelConfig, SegNetrConfig, UNetConfig, UShapeConfig
from segnetr.models.baselines.unet import UNet, build_monai, build_u_shape
from segnetr.models.segnetr.backbone_encoder import check_encoder
from segnetr.models.segnetr.segmentation import SegmentationModel, SegNetr


def build_model(
    config: ModelConfig, *, in_channels: int, num_classes: int, image_size: tuple[int, int]
) -> SegmentationModel:
    """Make a network with random weights, drawn from torch's global generator.

    Args:
        config: Architecture and its settings.
        in_channels: Channels of the images.
        num_classes: Classes with the background, K.
        image_size: Height and width of the training images in pixels. Any other size works too;
            this is the one that SegNetr's window mixing is made for.

    Returns:
        A network from images (N, C, H, W) to logits (N, K, H, W), any H and W from 32 up.

    Raises:
        UsageError: If the settings do not fit the architecture.
    """
    if isinstance(config, SegNetrConfig):
        segnetr = SegNetr(
            config, in_channels=in_channels, num_classes=num_classes, image_size=image_size
        )
        return SegmentationModel(segnetr, multiple=segnetr.multiple, least=segnetr.least)
    if isinstance(config, UNetConfig):
        unet = UNet(
            in_channels,
            num_classes,
            width=config.width,
            retains=config.skip == "irsc",
            interacts=config.block == "segnetr",
        )
        return SegmentationModel(unet, multiple=16)
    if isinstance(config, UShapeConfig):
        # Two feature pixels of the deepest map: a batch norm refuses a single value.
        u_shape = build_u_shape(config, in_channels=in_channels, num_classes=num_classes)
        return SegmentationModel(u_shape, multiple=32, least=64)
    network = build_monai(config, in_channels=in_channels, num_classes=num_classes)
    if config.architecture == "swin_unetr":
        # Its deepest map has stride 32, and its instance norms refuse a map of one pixel.
        return SegmentationModel(network, multiple=32, least=64)
    if config.architecture == "attention_unet":
        return SegmentationModel(network, multiple=1 << (len(config.features) - 1))
    return SegmentationModel(network, multiple=16)


def check_model(config: ModelConfig) -> None:
    """Check what the schema cannot know, before minutes go into the data.

    Raises:
        UsageError: If the encoder is unknown, or its settings are.
    """
    if isinstance(config, SegNetrConfig):
        check_encoder(config.encoder, config.encoder_settings)
