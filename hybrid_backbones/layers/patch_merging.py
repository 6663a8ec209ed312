"""Patch merging: half the sides, twice the channels."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_backbones.kernels.linear import Linear


class PatchMerging(nn.Module):
    """Halve both sides: four neighbors become one position with twice the channels.

    Maps with odd sides get a last row or column of zeros.

    Source:
        Liu et al., Swin Transformer, arXiv:2103.14030, section 3.1.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.reduction = Linear(4 * width, 2 * width, bias=False)
        self.norm = nn.LayerNorm(4 * width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, H, W, D) to (N, ceil(H/2), ceil(W/2), 2D)."""
        if x.shape[1] % 2 or x.shape[2] % 2:
            x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        corners = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        merged: Tensor = self.reduction(self.norm(torch.cat(corners, -1)))
        return merged
