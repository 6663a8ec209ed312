"""Build pyramids from timm networks. Needs timm; never downloads weights."""

import importlib
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from segnetr.errors import UsageError

TIMM_PREFIX = "timm:"


class TimmFeatures(nn.Module):
    """Returns the last feature map of each stride of a timm network, as (N, C, H, W).

    Args:
        network: Created with `features_only=True`.
        levels: Indices of the returned maps.
        channels_last: Whether the network returns maps as (N, H, W, C).
    """

    def __init__(self, network: nn.Module, *, levels: list[int], channels_last: bool) -> None:
        super().__init__()
        self.network = network
        self.levels = levels
        self.channels_last = channels_last

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map images (N, C, H, W) to feature maps, finest first."""
        maps = self.network(image)
        chosen = [maps[level] for level in self.levels]
        return [x.permute(0, 3, 1, 2) for x in chosen] if self.channels_last else chosen


def build_timm(name: str, in_channels: int, *, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Build the arguments of a `Pyramid` from a timm network with random weights.

    Args:
        name: "timm:" followed by a timm model name.
        in_channels: Channels of the images.
        settings: Passed to timm unchanged.

    Returns:
        `backbone`, `out_channels`, `strides` and `multiple`. Images are padded to whole feature
        pixels of the deepest map, because many timm networks require it.

    Raises:
        UsageError: If timm is not installed, or rejects the name or the settings.
    """
    try:
        timm = importlib.import_module("timm")
    except ImportError as error:
        raise UsageError(
            f"encoder {name!r} needs timm, which cannot be imported here ({error}); pip install "
            "timm, or take a backbone that comes with segnetr, as mobilevit_s"
        ) from None
    try:
        network = timm.create_model(
            name.removeprefix(TIMM_PREFIX),
            features_only=True,
            pretrained=False,
            in_chans=in_channels,
            **settings,
        )
    except (RuntimeError, TypeError, ValueError, AttributeError, AssertionError) as error:
        raise UsageError(f"encoder {name!r}: timm refuses: {error}") from error
    channels, strides = network.feature_info.channels(), network.feature_info.reduction()
    # Plain transformers return several maps of one stride. Only the last of them is a level.
    last = {stride: level for level, stride in enumerate(strides)}
    levels = [last[stride] for stride in sorted(last)]
    layout = str(getattr(getattr(network, "output_fmt", None), "value", "NCHW"))
    return {
        "backbone": TimmFeatures(network, levels=levels, channels_last=layout == "NHWC"),
        "out_channels": [channels[level] for level in levels],
        "strides": [strides[level] for level in levels],
        "multiple": max(strides),
    }
