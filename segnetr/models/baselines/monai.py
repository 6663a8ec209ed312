"""Two-dimensional networks of MONAI, unchanged.

BasicUNet, AttentionUnet (Oktay et al., arXiv:1804.03999) and SwinUNETR (Hatamizadeh et al.,
arXiv:2201.01266). MONAI takes seconds to import, so it is imported when a network is built.
"""

from segnetr.config.schema.segmentation import MonaiConfig
from segnetr.errors import UsageError
from segnetr.models.segnetr.segmentation import SegmentationModel


def build_basic_unet(
    config: MonaiConfig, *, in_channels: int, num_classes: int, image_size: tuple[int, int]
) -> SegmentationModel:
    """Build a BasicUNet; arguments as in `segnetr.models.build.build_model`.

    Raises:
        UsageError: If there are not six widths.
    """
    from monai.networks.nets.basic_unet import BasicUNet

    del image_size
    if len(config.features) != 6:
        raise _wrong_features(config, "six widths")
    return SegmentationModel(BasicUNet(2, in_channels, num_classes, config.features), multiple=16)


def build_attention_unet(
    config: MonaiConfig, *, in_channels: int, num_classes: int, image_size: tuple[int, int]
) -> SegmentationModel:
    """Build an AttentionUnet; arguments as in `segnetr.models.build.build_model`.

    Raises:
        UsageError: If there are fewer than two widths.
    """
    from monai.networks.nets.attentionunet import AttentionUnet

    del image_size
    steps = len(config.features) - 1
    if steps < 1:
        raise _wrong_features(config, "two widths or more")
    network = AttentionUnet(2, in_channels, num_classes, config.features, (2,) * steps)
    return SegmentationModel(network, multiple=1 << steps)


def build_swin_unetr(
    config: MonaiConfig, *, in_channels: int, num_classes: int, image_size: tuple[int, int]
) -> SegmentationModel:
    """Build a SwinUNETR; arguments as in `segnetr.models.build.build_model`.

    Raises:
        UsageError: If the first width is not a multiple of 12.
    """
    from monai.networks.nets.swin_unetr import SwinUNETR

    del image_size
    width = config.features[0]
    if width % 12:
        raise _wrong_features(config, "a first width that is a multiple of 12")
    network = SwinUNETR(in_channels, num_classes, feature_size=width, spatial_dims=2)
    # Its coarsest map has stride 32, and its instance norms reject a map of one pixel.
    return SegmentationModel(network, multiple=32, least=64)


def _wrong_features(config: MonaiConfig, need: str) -> UsageError:
    return UsageError(f"model.features {list(config.features)}: {config.architecture} needs {need}")
