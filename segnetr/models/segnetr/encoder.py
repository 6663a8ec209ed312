"""The encoder of SegNetr: a stem at full size and four stages of SegNetr blocks.

Source:
    Cheng et al., SegNetr, arXiv:2307.02953, section 2 and figure 1. Blocks at 1/2, 1/4, 1/8 and
    1/16 of the sides with widths C, 2C, 4C, 8C follow from the published counts and from the
    recommended window sizes (side of the stage's map over 14).
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from segnetr.models.kernels.recomputation import recompute_large_maps
from segnetr.models.segnetr.blocks import BlockSettings, SegNetrBlock
from segnetr.models.segnetr.skip import PatchMerging


class Encoder(Protocol):
    """What a decoder needs from an encoder.

    Attributes:
        out_channels: Width of each map, finest first.
        strides: Input pixels per feature pixel of each map, finest first.
    """

    out_channels: Sequence[int]
    strides: Sequence[int]

    def __call__(self, image: Tensor) -> list[Tensor]:
        """Map images (N, C, H, W) to feature maps (N, C_i, H/s_i, W/s_i), finest first."""
        ...


class Stem(nn.Module):
    """A 1x1 convolution and an MBConv at full size; (N, C, H, W) -> (N, K, H, W).

    Args:
        in_channels: Channels of the images, C.
        width: Width of the map, K.
        settings: Settings shared by all blocks.
    """

    def __init__(self, in_channels: int, width: int, *, settings: BlockSettings) -> None:
        super().__init__()
        self.widen = nn.Conv2d(in_channels, width, 1)
        self.mbconv = settings.build_mbconv(width)

    def forward(self, image: Tensor) -> Tensor:
        """Map images (N, C, H, W) to feature maps (N, K, H, W)."""
        # The input is much narrower than the map, so keeping only the input is worth a second pass.
        return recompute_large_maps(self._widen, image, norms=self.mbconv.norms)

    def _widen(self, image: Tensor) -> Tensor:
        widened: Tensor = self.mbconv(self.widen(image))
        return widened


class SegNetrEncoder(nn.Module):
    """Stem and one stage for each window size.

    Images (N, C, H, W), H and W multiples of the last stride, to maps of strides 1, 2, 4, 8, 16.

    Args:
        in_channels: Channels of the images.
        width: Width of the stem and of the first stage, C; doubled at each later stage.
        windows: Side of the local windows in each stage, in feature pixels.
        settings: Settings shared by all blocks.
        size: Image height and width that window mixing is built for, multiples of the last stride.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        width: int,
        windows: Sequence[int],
        settings: BlockSettings,
        size: tuple[int, int],
    ) -> None:
        super().__init__()
        self.out_channels = (width, *(width << stage for stage in range(len(windows))))
        self.strides = tuple(1 << level for level in range(len(windows) + 1))
        self.stem = Stem(in_channels, width, settings=settings)
        self.merges = nn.ModuleList(
            PatchMerging(self.out_channels[level], self.out_channels[level + 1])
            for level in range(len(windows))
        )
        self.stages = nn.ModuleList(
            SegNetrBlock(
                self.out_channels[level + 1],
                window,
                settings=settings,
                size=(size[0] // self.strides[level + 1], size[1] // self.strides[level + 1]),
            )
            for level, window in enumerate(windows)
        )

    @property
    def transferable(self) -> nn.Module:
        """The module whose weights can be loaded from another training run."""
        return self

    def own_parts(self) -> tuple[nn.Module, ...]:
        """Return the modules that use this package's initialization."""
        return (self,)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map images (N, C, H, W) to feature maps, finest first."""
        # Channel norms and depth-wise convolutions are faster in channels-last layout.
        pyramid = [self.stem(image.contiguous(memory_format=torch.channels_last))]
        for merge, stage in zip(self.merges, self.stages, strict=True):
            pyramid.append(stage(merge(pyramid[-1])))
        return pyramid
