"""The interaction FFN: from channel means to a weight for every position.

Two readings of the paper's "linear computation" on the partitioned map (N, L, P*P), L windows of
P x P positions (arXiv:2307.02953, section 2.1):

- `WindowMixing` works along the L windows, separately for each position in a window. It is a linear
  layer on the last axis of the usual unfolding (N, P*P, L). Only this reading reproduces the
  published parameter counts, in particular those of the patch-size ablation.
- `PositionMixing` works along the P*P positions, separately for each window: the literal text. It
  fits any image size. With P = 1 there is nothing to mix, so the layer then has no parameters.

Both are LayerNorm, Linear, GELU, Linear and softmax. The softmax is multiplied by the number of
entries, so that the mean weight is 1 at any image size. In theory, the norm after the fusion
cancels this factor. In practice, it prevents small weights from being dominated by the epsilon of
that norm.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PositionMixing(nn.Module):
    """Weights along the positions of each window; any number of windows.

    Args:
        positions: Positions in a window, P*P.
        ratio: Hidden width over `positions`.
    """

    def __init__(self, positions: int, *, ratio: float = 1.0) -> None:
        super().__init__()
        hidden = max(1, round(positions * ratio))
        self.layers = nn.Sequential(
            nn.LayerNorm(positions),
            nn.Linear(positions, hidden),
            nn.GELU(),
            nn.Linear(hidden, positions),
        )

    def forward(self, means: Tensor, grid: tuple[int, int]) -> Tensor:
        """Map channel means (N, L, P*P) to weights (N, L, P*P) with mean 1 in each window."""
        del grid
        logits: Tensor = self.layers(means)
        return logits.softmax(-1) * means.shape[-1]


class WindowMixing(nn.Module):
    """Weights along the windows, separately for each position in a window.

    The matrices are built for one grid of windows. On another grid, the window axis of both
    matrices is resampled bilinearly, and the input side is rescaled so that sums keep their
    magnitude. This reduces accuracy, because every weight is applied near the position it was
    trained for, and resamples 4 * L * hidden values in each forward pass. Prefer windows of the
    trained size.

    Args:
        grid: Windows along the height and the width, L = their product.
        ratio: Hidden width over L.
    """

    def __init__(self, grid: tuple[int, int], *, ratio: float = 1.0) -> None:
        super().__init__()
        self.grid = grid
        count = grid[0] * grid[1]
        self.norm = nn.LayerNorm(count)
        self.reduce = nn.Linear(count, max(1, round(count * ratio)))
        self.restore = nn.Linear(self.reduce.out_features, count)

    def forward(self, means: Tensor, grid: tuple[int, int]) -> Tensor:
        """Map channel means (N, L', P*P) on `grid` to weights with mean 1 along the windows."""
        count = grid[0] * grid[1]
        scale = self.norm.weight.numel() / count
        x = means.transpose(1, 2)
        x = F.layer_norm(
            x, (count,), self._on(grid, self.norm.weight), self._on(grid, self.norm.bias)
        )
        x = F.gelu(F.linear(x, self._on(grid, self.reduce.weight) * scale, self.reduce.bias))
        columns = self._on(grid, self.restore.weight.t()).t()
        logits = F.linear(x, columns, self._on(grid, self.restore.bias))
        return (logits.softmax(-1) * count).transpose(1, 2)

    def _on(self, grid: tuple[int, int], values: Tensor) -> Tensor:
        """Resample the last axis of `values` from `self.grid` to another grid."""
        if grid == self.grid:
            return values
        own = values.reshape(-1, 1, *self.grid)
        resampled = F.interpolate(own, grid, mode="bilinear", align_corners=False)
        return resampled.reshape(*values.shape[:-1], grid[0] * grid[1])


class NoMixing(nn.Module):
    """Weight 1 everywhere: the softmax over a single entry, without parameters."""

    def forward(self, means: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return ones in the shape of `means`."""
        del grid
        return torch.ones_like(means)
