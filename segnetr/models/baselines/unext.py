"""UNeXt: a light U-shaped network with shifted MLPs at its two deepest levels.

Architecture:
    Jeya Maria Jose Valanarasu, Vishal M. Patel: UNeXt: MLP-based Rapid Medical Image Segmentation
    Network. MICCAI 2022. arXiv:2203.04967. Official code: jeya-maria-jose/UNeXt-pytorch.

Deliberate differences: the shift is a crop of a padded map instead of a cropped roll (equal
values); initialization is this package's. With `skip="irsc"`, each decoder step computes half of
the level's width and concatenates the other half from the encoder. UNeXt adds both maps instead.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segnetr.config.schema.segmentation import UShapeConfig
from segnetr.models.kernels.pointwise_conv import normalize_channels, pointwise_conv
from segnetr.models.segnetr.initialization import initialize
from segnetr.models.segnetr.segmentation import SegmentationModel
from segnetr.models.segnetr.skip import InformationRetentionSkip

_REACH = 2  # maximum shift of a channel group in feature pixels; 5 groups


def shift_groups(x: Tensor, axis: int) -> Tensor:
    """Shift five channel groups by -2 to 2 pixels along one axis, with zero padding.

    Args:
        x: Maps (N, C, H, W).
        axis: 2: along the height; 3: along the width.

    Source:
        arXiv:2203.04967, section 2 (tokenized MLP stage).
    """
    padding = (_REACH, _REACH) if axis == 3 else (0, 0, _REACH, _REACH)
    groups = F.pad(x, padding).chunk(2 * _REACH + 1, 1)
    side = x.shape[axis]
    moved = [group.narrow(axis, 2 * _REACH - i, side) for i, group in enumerate(groups)]
    return torch.cat(moved, 1)


class ShiftedMLP(nn.Module):
    """Norm, shift, linear, depth-wise convolution, GELU, shift, linear; residual.

    (N, D, H, W) -> (N, D, H, W).

    Args:
        width: Width, D.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, width)
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, D, H, W) to (N, D, H, W)."""
        hidden = pointwise_conv(self.expand, shift_groups(normalize_channels(self.norm, x), 2))
        hidden = shift_groups(F.gelu(self.depthwise(hidden)), 3)
        return x + pointwise_conv(self.project, hidden)


class TokenLevel(nn.Module):
    """A strided patch embedding, a shifted MLP and a norm; halves the sides.

    Args:
        before: Width of the finer map.
        width: Width of the level.
    """

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(before, width, 3, stride=2, padding=1)
        self.embed_norm = nn.LayerNorm(width)
        self.mix = ShiftedMLP(width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, D, H/2, W/2)."""
        return normalize_channels(
            self.norm, self.mix(normalize_channels(self.embed_norm, self.embed(x)))
        )


class UNeXt(nn.Module):
    """Three convolutional and two tokenized levels; sides multiples of 32.

    (N, C, H, W) -> logits (N, K, H, W).

    Args:
        in_channels: Channels of the images.
        num_classes: Number of classes K, including the background.
        widths: Channels of the five levels, strides 2 to 32.
        use_irsc: Use information retention skips instead of addition.
    """

    def __init__(
        self, in_channels: int, num_classes: int, *, widths: Sequence[int], use_irsc: bool = False
    ) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            _convolution(before, after) for before, after in pairwise([in_channels, *widths[:3]])
        )
        self.token_down = nn.ModuleList(
            TokenLevel(before, after) for before, after in pairwise(widths[2:])
        )
        coarse_to_fine = list(pairwise(reversed(widths)))
        self.up = nn.ModuleList(
            _convolution(coarse, fine // 2 if use_irsc else fine) for coarse, fine in coarse_to_fine
        )
        self.skips = nn.ModuleList(
            InformationRetentionSkip(fine, fine // 2) if use_irsc else _Addition()
            for _, fine in coarse_to_fine
        )
        deep = (widths[3], widths[2])
        self.token_up = nn.ModuleList(ShiftedMLP(width) for width in deep)
        self.token_norms = nn.ModuleList(nn.LayerNorm(width) for width in deep)
        self.last = nn.Conv2d(widths[0], widths[0], 3, padding=1)
        self.head = nn.Conv2d(widths[0], num_classes, 1)
        initialize(self)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (N, K, H, W) of images (N, C, H, W)."""
        pyramid = [image]
        for level in self.down:
            pyramid.append(F.relu(F.max_pool2d(level(pyramid[-1]), 2)))
        for level in self.token_down:
            pyramid.append(level(pyramid[-1]))
        x = pyramid[-1]
        for step, (up, skip) in enumerate(zip(self.up, self.skips, strict=True)):
            x = skip(pyramid[-2 - step], F.relu(_double(up(x))))
            if step < len(self.token_up):
                norm = self.token_norms[step]
                assert isinstance(norm, nn.LayerNorm)
                x = normalize_channels(norm, self.token_up[step](x))
        logits: Tensor = self.head(F.relu(_double(self.last(x))))
        return logits


class _Addition(nn.Module):
    def forward(self, encoder_map: Tensor, upsampled: Tensor) -> Tensor:
        return encoder_map + upsampled


def _convolution(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after))


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def build_unext(
    config: UShapeConfig, *, in_channels: int, num_classes: int, image_size: tuple[int, int]
) -> SegmentationModel:
    """Build the network; arguments as in `segnetr.models.build.build_model`."""
    del image_size
    network = UNeXt(in_channels, num_classes, widths=config.widths, use_irsc=config.skip == "irsc")
    # Two feature pixels in the coarsest map: a batch norm rejects a single value.
    return SegmentationModel(network, multiple=32, least=64)
