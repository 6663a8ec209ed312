"""A network of timm as a pyramid, where timm is installed; never downloads anything."""

import importlib
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from segnetr.errors import UsageError

TIMM_PREFIX = "timm:"


class TimmFeatures(nn.Module):
    """The maps of a timm network, NCHW, the last map of each stride.

    Args:
        network: Made with `features_only=True`.
        levels: Which of its maps are given.
        channels_last: Whether it gives (N, H, W, C).
    """

    def __init__(self, network: nn.Module, *, levels: list[int], channels_last: bool) -> None:
        super().__init__()
        self.network = network
        self.levels = levels
        self.channels_last = channels_last

    def forward(self, image: Tensor) -> list[Tensor]:
        """Turn images (N, C, H, W) into maps, finest first."""
        maps = self.network(image)
        chosen = [maps[level] for level in self.levels]
        return [x.permute(0, 3, 1, 2) for x in chosen] if self.channels_last else chosen


def build_timm(name: str, in_channels: int, *, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Make the parts of a pyramid from a timm network with random weights.

    Args:
        name: "timm:" and a name of timm.
        in_channels: Channels of the images.
        settings: Passed to timm as they are.

    Returns:
        The network, `out_channels`, `strides`, and `multiple`: images are filled up to whole
        feature pixels of the deepest map, because many of its networks need that.

    Raises:
        UsageError: If timm is not installed, does not know the name, or refuses the settings.
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
    # Plain transformers give several maps of one stride; copies of a grid are no levels.
    last = {stride: level for level, stride in enumerate(strides)}
    levels = [last[stride] for stride in sorted(last)]
    layout = str(getattr(getattr(network, "output_fmt", None), "value", "NCHW"))
    return {
        "backbone": TimmFeatures(network, levels=levels, channels_last=layout == "NHWC"),
        "out_channels": [channels[level] for level in levels],
        "strides": [strides[level] for level in levels],
        "multiple": max(strides),
    }
