"""Square patches of an image as tokens."""

import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_backbones.kernels.dispatch import to_fast_layout


class PatchEmbed(nn.Module):
    """Normalized linear projections of patches; incomplete patches are padded with zeros."""

    def __init__(self, in_channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv2d(in_channels, width, patch, patch)
        self.norm = nn.LayerNorm(width)

    def forward(self, image: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, ceil(H/P), ceil(W/P), D)."""
        height, width = image.shape[-2:]
        if height % self.patch or width % self.patch:
            image = F.pad(image, (0, -width % self.patch, 0, -height % self.patch))
        tokens: Tensor = self.norm(self.proj(to_fast_layout(image)).permute(0, 2, 3, 1))
        return tokens
