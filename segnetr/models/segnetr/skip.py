"""Patch merging, patch reverse, and the information retention skip connection (IRSC).

Source:
    Cheng et al., SegNetr, arXiv:2307.02953, section 2.2 and figure 2: patch merging (PM) halves the
    sides and keeps all values; the skip takes alternately half of the merged channels, patch
    reverse (PR) brings them back to the finer grid, and they meet the up-sampled decoder map there.
    Concatenation is our reading of "fuse": a redrawing of the figure has it, and only it aligns the
    widths as the text says.

    The merged channels come quadrant by quadrant, as in Swin (Liu et al., arXiv:2103.14030, section
    3.1): all channels of the upper left pixels, of the lower left, upper right, lower right. With
    this order every second merged channel is every second channel of each quadrant, so
    PR(PM(x)[:, ::2]) == x[:, ::2]: the skip is half of the encoder's channels, in place. In the
    order of `torch.nn.PixelUnshuffle` the same slice would keep half of the *pixels* instead.

    With a backbone as encoder (our reading, for the paper has its own alone): its map of stride s
    and width C is merged to stride 2s and 4C, every second merged channel is kept, patch reverse
    gives C/2 at stride s, and these stand beside C/2 channels of the up-sampled decoder map. An
    odd side would be filled up for the merging and cut after the reverse, which changes nothing:
    again x[:, ::2]. So the skip asks for nothing but an even C, and the backbone's own way of going
    down (strided convolutions, patch embedding) stays as published.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segnetr.models.kernels.pointwise_conv import normalize_channels, pointwise_conv
from segnetr.models.kernels.recomputation import recompute

SkipKind = Literal["irsc", "concat", "add"]


def merge_patches(x: Tensor) -> Tensor:
    """Put the four pixels of each 2x2 patch into the channels (PM).

    Args:
        x: Maps (N, C, H, W), H and W even.

    Returns:
        Maps (N, 4C, H/2, W/2), quadrant by quadrant.
    """
    return torch.cat(
        (x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]), 1
    )


def reverse_patches(x: Tensor) -> Tensor:
    """Put the four quadrants of the channels back to the pixels (PR), undoing `merge_patches`.

    Args:
        x: Maps (N, 4C, H, W), quadrant by quadrant.

    Returns:
        Maps (N, C, 2H, 2W).
    """
    height, width = x.shape[-2:]
    quadrants = x.unflatten(1, (2, 2, -1))
    pixels: Tensor = quadrants.permute(0, 3, 4, 2, 5, 1)
    return pixels.reshape(-1, x.shape[1] // 4, 2 * height, 2 * width)


class PatchMerging(nn.Module):
    """Halve the sides without losing a value, then project; (N, C, H, W) -> (N, K, H/2, W/2).

    Args:
        in_channels: Width before, C.
        out_channels: Width after, K.

    Source:
        arXiv:2307.02953, section 2.2, for the merging; the norm and the linear map from 4C are
        those of Swin (arXiv:2103.14030), and the published parameters need them.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * in_channels)
        self.project = nn.Linear(4 * in_channels, out_channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, K, H/2, W/2)."""
        return recompute(self._project, x)

    def _project(self, x: Tensor) -> Tensor:
        return pointwise_conv(self.project, normalize_channels(self.norm, merge_patches(x)))


class InformationRetentionSkip(nn.Module):
    """IRSC: half of the encoder's channels, in place, beside the up-sampled decoder map.

    (N, C, H, W) and (N, K, H, W) -> (N, K + C/2, H, W). Contract: both maps on one grid of any
    stride and any sides; C even; K free, C/2 where the fused map is to have the encoder's width.
    Has no parameters and fits any encoder and decoder. Written as the slice that patch merging,
    taking every second channel and patch reverse amount to (see the module's text; a test holds
    it).

    Args:
        encoder_channels: Width of the encoder's map, C, even.
        decoder_channels: Width of the up-sampled map, K.

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
        """Fuse (N, C, H, W) and (N, K, H, W) to (N, K + C/2, H, W)."""
        return torch.cat((upsampled, encoder_map[:, ::2]), 1)


class ConcatenationSkip(nn.Module):
    """The skip of U-Net: all of the encoder's channels beside the decoder's, then a 1x1 projection.

    Args:
        encoder_channels: Width of the encoder's map, C.
        decoder_channels: Width of the up-sampled map, K.

    Attributes:
        out_channels: Width of the fused map, C.
    """

    def __init__(self, encoder_channels: int, decoder_channels: int) -> None:
        super().__init__()
        self.out_channels = encoder_channels
        self.project = nn.Conv2d(encoder_channels + decoder_channels, encoder_channels, 1)

    def forward(self, encoder_map: Tensor, upsampled: Tensor) -> Tensor:
        """Fuse (N, C, H, W) and (N, K, H, W) to (N, C, H, W)."""
        return pointwise_conv(self.project, torch.cat((upsampled, encoder_map), 1))


class AdditionSkip(nn.Module):
    """The skip of LinkNet: both maps added; they have one width.

    Args:
        encoder_channels: Width of both maps, C.

    Attributes:
        out_channels: Width of the fused map, C.
    """

    def __init__(self, encoder_channels: int) -> None:
        super().__init__()
        self.out_channels = encoder_channels

    def forward(self, encoder_map: Tensor, upsampled: Tensor) -> Tensor:
        """Fuse two maps (N, C, H, W) to one."""
        return encoder_map + upsampled


class FusedUpsampling(nn.Module):
    """Bring a coarse decoder map to the grid of an encoder map and fuse both.

    A 1x1 convolution narrows the coarse map before it grows: half of the encoder's width with
    "irsc", so that the fused map has the encoder's width; the whole of it otherwise.

    Args:
        coarse_channels: Width of the coarse map.
        encoder_channels: Width of the encoder's map, C; also of the result. Even.
        kind: How the encoder's map joins: "irsc", "concat" or "add".

    Source:
        arXiv:2307.02953, section 2.2. The operator is not in the text; a 1x1 convolution and
        bilinear growth is the reading whose counts fit.
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
