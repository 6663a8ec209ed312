"""The SegNetr block: MBConv, interaction, channel FFN.

Source:
    Cheng et al., SegNetr, arXiv:2307.02953, section 2.1 and figure 1. The text says "Norm, FFN and
    residual connections" without their order, which is our choice.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from segnetr.models.kernels.pointwise_conv import normalize_channels, pointwise_conv
from segnetr.models.kernels.recomputation import recompute_large_maps
from segnetr.models.segnetr.interaction import InteractionFusion, InteractionKind, MixingKind
from segnetr.models.segnetr.mbconv import MBConv


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockSettings:
    """Settings shared by all blocks of a network.

    Attributes:
        mixing: Axis of the interaction FFN, see `segnetr.models.segnetr.mixing`.
        mixing_ratio: Hidden width of the interaction FFN over its input width.
        expansion: Hidden width of MBConv over its input width.
        squeeze_ratio: Hidden width of squeeze-excitation over MBConv's input width; 0: none.
        ffn_ratio: Hidden width of the channel FFN over its input width.
        interaction: Which branches the blocks have.
    """

    mixing: MixingKind = "window"
    mixing_ratio: float = 1.0
    expansion: int = 4
    squeeze_ratio: float = 0.25
    ffn_ratio: float = 3.0
    interaction: InteractionKind = "both"

    def build_mbconv(self, channels: int) -> MBConv:
        """Build an MBConv with the same number of input and output channels."""
        return MBConv(channels, expansion=self.expansion, squeeze_ratio=self.squeeze_ratio)


ANY_SIZE = BlockSettings(mixing="position", mixing_ratio=2.0)
"""Settings of a block that is not tied to one image size."""


class ChannelFeedForward(nn.Module):
    """LayerNorm and a two-layer MLP along the channels; (N, D, H, W) -> (N, D, H, W).

    Args:
        channels: Width, D.
        ratio: Hidden width over `channels`.
    """

    def __init__(self, channels: int, *, ratio: float) -> None:
        super().__init__()
        hidden = max(1, round(channels * ratio))
        self.norm = nn.LayerNorm(channels)
        self.expand = nn.Linear(channels, hidden)
        self.project = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, D, H, W) to (N, D, H, W)."""
        hidden = pointwise_conv(self.expand, normalize_channels(self.norm, x))
        return pointwise_conv(self.project, F.gelu(hidden))


class SegNetrBlock(nn.Module):
    """MBConv, then local and global interaction, then the channel FFN, the last two residual.

    (N, D, H, W) -> (N, D, H, W), for any D, H and W. Width and resolution do not change, so the
    block can replace any convolution with equal input and output channels. `SegNetrBlock(64, 8)`
    needs no further arguments. Its mixing then works along the positions of a window, at any size.

    Args:
        channels: Width, D.
        window: Side of the local windows, P, in feature pixels. Global windows have side 2P. The
            paper uses 1/14 of the side of the map.
        settings: Settings shared by all blocks of the network.
        size: Height and width of the maps that window mixing is built for, in feature pixels. Only
            needed for "window" mixing.

    Raises:
        ValueError: If window mixing is selected without `size`.
    """

    def __init__(
        self,
        channels: int,
        window: int,
        *,
        settings: BlockSettings = ANY_SIZE,
        size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        if size is None and settings.mixing == "window":
            raise ValueError("window mixing needs `size`, the map's height and width")
        self.mbconv = settings.build_mbconv(channels)
        self.interaction = (
            None
            if settings.interaction == "none"
            else InteractionFusion(
                channels,
                window,
                mixing=settings.mixing,
                ratio=settings.mixing_ratio,
                size=size or (1, 1),
                kind=settings.interaction,
            )
        )
        self.feed_forward = ChannelFeedForward(channels, ratio=settings.ffn_ratio)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, D, H, W) to (N, D, H, W)."""
        convolved: Tensor = self.mbconv(x)
        norms = () if self.interaction is None else (self.interaction.norm,)
        return recompute_large_maps(self._interact, convolved, norms=norms)

    def _interact(self, x: Tensor) -> Tensor:
        mixed: Tensor = x if self.interaction is None else x + self.interaction(x)
        refined: Tensor = mixed + self.feed_forward(mixed)
        return refined
