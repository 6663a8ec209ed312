"""Build a network from its configuration.

To add an architecture, write its builder in a new file and add one line to `ARCHITECTURES`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final, Protocol, cast

from segnetr.config.schema.segmentation import ModelConfig, SegNetrConfig
from segnetr.models.segnetr.backbone_encoder import check_encoder

if TYPE_CHECKING:
    from segnetr.models.segnetr.segmentation import SegmentationModel


class Builder(Protocol):
    """Builds a network with random weights; the arguments are those of `build_model`."""

    def __call__(
        self,
        config: ModelConfig,
        *,
        in_channels: int,
        num_classes: int,
        image_size: tuple[int, int],
    ) -> "SegmentationModel":
        """Return the network."""
        ...


#: "module:function" of each builder, by the `architecture` of its configuration. The module is
#: imported when the network is built, so that SegNetr does not import MONAI.
ARCHITECTURES: Final[dict[str, str]] = {
    "segnetr": "segnetr.models.segnetr.segmentation:build_segnetr",
    "unet": "segnetr.models.baselines.unet:build_unet",
    "unet_plus_plus": "segnetr.models.baselines.unet_plus_plus:build_unet_plus_plus",
    "segnet": "segnetr.models.baselines.segnet:build_segnet",
    "unext": "segnetr.models.baselines.unext:build_unext",
    "basic_unet": "segnetr.models.baselines.monai:build_basic_unet",
    "attention_unet": "segnetr.models.baselines.monai:build_attention_unet",
    "swin_unetr": "segnetr.models.baselines.monai:build_swin_unetr",
}


def build_model(
    config: ModelConfig, *, in_channels: int, num_classes: int, image_size: tuple[int, int]
) -> "SegmentationModel":
    """Build a network with random weights from torch's global generator.

    Args:
        config: Architecture and its settings.
        in_channels: Channels of the images.
        num_classes: Number of classes K, including the background.
        image_size: Height and width of the training images in pixels. The network also accepts
            other sizes, but SegNetr's window mixing is built for this one.

    Returns:
        A network from images (N, C, H, W) to logits (N, K, H, W), for any H and W from 32 up.

    Raises:
        UsageError: If the settings do not fit the architecture.
    """
    build = get_builder(config.architecture)
    return build(config, in_channels=in_channels, num_classes=num_classes, image_size=image_size)


def get_builder(architecture: str) -> Builder:
    """Import and return the builder of an architecture, a key of `ARCHITECTURES`."""
    module, _, function = ARCHITECTURES[architecture].partition(":")
    return cast(Builder, getattr(import_module(module), function))


def check_model(config: ModelConfig) -> None:
    """Check the settings that the schema cannot check, before the data is prepared.

    Raises:
        UsageError: If the encoder or one of its settings is unknown.
    """
    if isinstance(config, SegNetrConfig):
        check_encoder(config.encoder, config.encoder_settings)
