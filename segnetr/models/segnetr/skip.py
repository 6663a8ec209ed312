"""Patch merging, patch reverse, and the information retention skip connection (IRSC).

Source:
    Cheng et al., SegNetr, arXiv:2307.02953, section 2.2 and figure 2: patch merging (PM) halves the
    sides and keeps all values; the skip selects every second merged channel, patch reverse
    (PR) moves them back to the finer grid, and they are fused with the upsampled decoder map there.
    We read "fuse" as concatenation, because only this gives the widths stated in the text.

    The merged channels are ordered by quadrant, as in Swin (Liu et al., arXiv:2103.14030, section
    3.1): all channels of the upper left pixels, of the lower left, upper right, lower right. With
    this order every second merged channel is every second channel of each quadrant, so
    PR(PM(x)[:, ::2]) == x[:, ::2]: the skip is every second encoder channel, unchanged. In the
    order of `torch.nn.PixelUnshuffle` the same slice would keep half of the *pixels* instead.

    With a backbone as encoder (our extension, since the paper only has its own encoder): the map of
    stride s and width C is merged to stride 2s and 4C channels, every second merged channel is
    selected, patch reverse gives C/2 channels at stride s, and these are concatenated with C/2
    channels of the upsampled decoder map. An odd side would be padded before merging and cropped
    after the reverse, which again gives x[:, ::2]. The skip therefore only needs an even C, and the
    backbone's own downsampling (strided convolutions, patch embedding) is unchanged.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from segnetr.models.kernels.pointwise_conv import normalize_channels, pointwise_conv
from segnetr.models.kernels.recomputation import recompute_large_maps

SkipKind = Literal["irsc", "concat", "add"]


def merge_patches(x: Tensor) -> Tensor:
    """Move the four pixels of each 2x2 patch into the channels (PM).

    Args:
        x: Maps (N, C, H, W), H and W even.

    Returns:
        Maps (N, 4C, H/2, W/2), quadrant by quadrant, in the channels-last memory format, which the
        norm and the linear map of `PatchMerging` read fastest.
    """
    pixels = "n c (h row) (w column) -> n h w (column row c)"
    return rearrange(x, pixels, row=2, column=2).permute(0, 3, 1, 2)


def reverse_patches(x: Tensor) -> Tensor:
    """Move the four quadrants of the channels back to pixels (PR), the inverse of `merge_patches`.

    Args:
        x: Maps (N, 4C, H, W), quadrant by quadrant.

    Returns:
        Maps (N, C, 2H, 2W).
    """
    return rearrange(x, "n (column row c) h w -> n c (h row) (w column)", row=2, column=2)


class PatchMerging(nn.Module):
    """Merge 2x2 patches and project to K channels; (N, C, H, W) -> (N, K, H/2, W/2).

    Args:
        in_channels: Input channels, C.
        out_channels: Output channels, K.

    Source:
        arXiv:2307.02953, section 2.2, for the merging; the norm and the linear map from 4C are
        those of Swin (arXiv:2103.14030), and the published parameter counts require them.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * in_channels)
        self.project = nn.Linear(4 * in_channels, out_channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, K, H/2, W/2)."""
        return recompute_large_maps(self._project, x)

    def _project(self, x: Tensor) -> Tensor:
        return pointwise_conv(self.project, normalize_channels(self.norm, merge_patches(x)))


class InformationRetentionSkip(nn.Module):
    """IRSC: concatenate every second encoder channel with the upsampled decoder map.

    (N, C, H, W) and (N, K, H, W) -> (N, K + C/2, H, W). Both maps have the same size, at any
    stride. C must be even. Use K = C/2 if the fused map should have the encoder's width. The module
    has no parameters and fits any encoder and decoder. It is written as the slice that equals patch
    merging, selecting every second channel, and patch reverse (see the module docstring; a test
    checks the equality).

    Args:
        encoder_channels: Width of the encoder's map, C, even.
        decoder_channels: Width of the upsampled map, K.

    Attributes:
        out_channels: Width of the fused map, K + C/2.

    Raises:
        ValueError: If C is odd.
    """

    def __init__(self, encoder_channels: int, decoder_channels: int) -> None:
        super().__init__()
        if encoder_channels % 2:
            raise ValueError(f"{encoder_channels} channels: IRSC keeps half of an even number")
        self.out_channels = decoder_channels + encoder_channels // 2

    def forward(self, encoder_map: Tensor, upsampled: Tensor) -> Tensor:
        """Return the fused map of (N, C, H, W) and (N, K, H, W): (N, K + C/2, H, W)."""
        return torch.cat((upsampled, encoder_map[:, ::2]), 1)


class ConcatenationSkip(nn.Module):
    """The skip of U-Net: concatenate encoder and decoder maps, then project with a 1x1 convolution.

    Args:
        encoder_channels: Width of the encoder's map, C.
        decoder_channels: Width of the upsampled map, K.

    Attributes:
        out_channels: Width of the fused map, C.
    """

    def __init__(self, encoder_channels: int, decoder_channels: int) -> None:
        super().__init__()
        self.out_channels = encoder_channels
        self.project = nn.Conv2d(encoder_channels + decoder_channels, encoder_channels, 1)

    def forward(self, encoder_map: Tensor, upsampled: Tensor) -> Tensor:
        """Return the fused map of (N, C, H, W) and (N, K, H, W): (N, C, H, W)."""
        return pointwise_conv(self.project, torch.cat((upsampled, encoder_map), 1))


class AdditionSkip(nn.Module):
    """The skip of LinkNet: add both maps, which have the same width.

    Args:
        encoder_channels: Width of both maps, C.

    Attributes:
        out_channels: Width of the fused map, C.
    """

    def __init__(self, encoder_channels: int) -> None:
        super().__init__()
        self.out_channels = encoder_channels

    def forward(self, encoder_map: Tensor, upsampled: Tensor) -> Tensor:
        """Return the sum of two maps (N, C, H, W)."""
        return encoder_map + upsampled


class FusedUpsampling(nn.Module):
    """Upsample a coarse decoder map to the size of an encoder map and fuse both.

    A 1x1 convolution reduces the channels of the coarse map before upsampling: to half of the
    encoder's width with "irsc", so that the fused map has the encoder's width; to the full width
    otherwise.

    Args:
        coarse_channels: Width of the coarse map.
        encoder_channels: Width of the encoder's map, C; also of the result. Even.
        kind: How the encoder's map is fused: "irsc", "concat" or "add".

    Source:
        arXiv:2307.02953, section 2.2. The text does not name the operator; a 1x1 convolution
        and bilinear interpolation match the published counts.
    """

    def __init__(self, coarse_channels: int, encoder_channels: int, *, kind: SkipKind) -> None:
        super().__init__()
        width = encoder_channels // 2 if kind == "irsc" else encoder_channels
        self.narrow = nn.Conv2d(coarse_channels, width, 1)
        self.skip: nn.Module
        if kind == "irsc":
            self.skip = InformationRetentionSkip(encoder_channels, width)
        elif kind == "concat":
            self.skip = ConcatenationSkip(encoder_channels, width)
        else:
            self.skip = AdditionSkip(encoder_channels)

    def forward(self, coarse: Tensor, encoder_map: Tensor) -> Tensor:
        """Fuse (N, K, h, w) and (N, C, H, W) to (N, C, H, W)."""
        narrow = pointwise_conv(self.narrow, coarse)
        size = encoder_map.shape[-2:]
        upsampled = F.interpolate(narrow, size, mode="bilinear", align_corners=False)
        fused: Tensor = self.skip(encoder_map, upsampled)
        return fused
