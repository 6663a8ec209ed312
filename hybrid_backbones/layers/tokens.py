"""Token modules: attention that changes the width of tokens, as in Tokens-to-Token ViT.

Yuan et al., Tokens-to-Token ViT, ICCV 2021, arXiv:2101.11986; the performer's random features are
those of Choromanski et al., Rethinking Attention with Performers, ICLR 2021, arXiv:2009.14794.
"""

import math
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_backbones.attention_geometry import (
    AttentionGeometry,
    sequence_geometry,
    window_geometry,
)
from hybrid_backbones.kernels.linear import Linear
from hybrid_backbones.layers.attention import merge_heads
from hybrid_backbones.layers.export_shapes import may_differ, missing_to_multiple
from hybrid_backbones.layers.mlp import Mlp
from hybrid_backbones.layers.windows import merge_windows, partition_windows


class TokenAttention(nn.Module):
    """Self-attention from one width to another.

    If the widths differ, there is no residual around it. With `value_skip`, the values are added in
    place of the residual.
    """

    def __init__(
        self,
        in_width: int,
        width: int,
        heads: int,
        *,
        bias: bool = True,
        value_skip: bool = False,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.value_skip = value_skip
        self.qkv = Linear(in_width, 3 * width, bias=bias)
        self.proj = Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (N, L, D_in) to (N, L, D)."""
        split = self.qkv(tokens).unflatten(2, (3, self.heads, -1))
        q, k, v = split.permute(2, 0, 3, 1, 4).unbind(0)
        out = merge_heads(F.scaled_dot_product_attention(q, k, v))
        mixed: Tensor = self.proj(out)
        return mixed + merge_heads(v) if self.value_skip else mixed


def attend_map(attention: TokenAttention, x: Tensor, *, window: int = 0) -> Tensor:
    """Attend in a channels-last map (N, H, W, D_in), globally or in windows.

    Args:
        attention: The attention.
        x: The map.
        window: Side of a window in feature pixels; 0: global attention. A map that is not a
            multiple of it is padded with zeros on all sides, half of them (rounded down) above and
            to the left. The windows attend to the padding.

    Returns:
        A map (N, H, W, D).
    """
    height, width = x.shape[1:3]
    if not window:
        whole: Tensor = attention(x.flatten(1, 2))
        return whole.reshape(-1, height, width, whole.shape[-1])
    down, across = missing_to_multiple(height, window), missing_to_multiple(width, window)
    top, left = down // 2, across // 2
    if may_differ((down, across), (0, 0)):
        x = F.pad(x, (0, 0, left, across - left, top, down - top))
    grid = (x.shape[1] // window, x.shape[2] // window)
    windows = attention(partition_windows(x, window).flatten(0, 1))
    merged = merge_windows(windows, grid, window)
    return merged[:, top : top + height, left : left + width]


def centered_window_geometry(size: tuple[int, int], window: int) -> AttentionGeometry:
    """Return the geometry of `attend_map` on a map of this height and width."""
    if not window:
        return sequence_geometry(*size)
    before = (-size[0] % window // 2, -size[1] % window // 2)
    return window_geometry(size, (window, window), before=before)


class TokenTransformer(nn.Module):
    """Attention and MLP that change the width of tokens.

    With windows, queries, keys and values have biases, and the values are not added.

    Source:
        arXiv:2101.11986, section 3.1; in windows: Zhang et al., arXiv:2202.10108, section 3.3.
    """

    def __init__(self, in_width: int, width: int, *, heads: int = 1, window: int = 0) -> None:
        super().__init__()
        self.window = window
        self.norm1 = nn.LayerNorm(in_width)
        self.attn = TokenAttention(in_width, width, heads, bias=window > 0, value_skip=window == 0)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, width)

    def forward(self, x: Tensor, local: Tensor) -> Tensor:
        """Map (N, H, W, D_in) to (N, H, W, D); `local` (N, H, W, D) is added after attention."""
        y = attend_map(self.attn, self.norm1(x), window=self.window) + local
        result: Tensor = y + self.mlp(self.norm2(y))
        return result

    def attention_geometry(self, x: Tensor, local: Tensor) -> AttentionGeometry:
        """Return the positions of the windows."""
        del local
        return centered_window_geometry((x.shape[1], x.shape[2]), self.window)


class TokenPerformer(nn.Module):
    """Attention of linear cost with random features, and an MLP, to another width.

    The features are drawn once and never trained. Their exponentials exceed the range of half
    precision, so they are always computed in float32 or wider, also under autocast.

    Source:
        arXiv:2101.11986, section 3.1; arXiv:2009.14794, section 2.2, positive features.
    """

    def __init__(self, in_width: int, width: int, *, dropout: float = 0.1) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(in_width)
        self.kqv = Linear(in_width, 3 * width)
        self.proj = Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            Linear(width, width), nn.GELU(), Linear(width, width), nn.Dropout(dropout)
        )
        # Half as many features as channels.
        self.w = nn.Parameter(torch.empty(width // 2, width), requires_grad=False)
        self.reset_features()

    def reset_features(self) -> None:
        """Draw the random features: orthogonal rows of length sqrt(count)."""
        nn.init.orthogonal_(self.w, gain=math.sqrt(len(self.w)))

    def forward(self, x: Tensor, local: Tensor) -> Tensor:
        """Map (N, H, W, D_in) to (N, H, W, D); `local` (N, H, W, D) is added after attention."""
        k, q, v = self.kqv(self.norm1(x.flatten(1, 2))).chunk(3, -1)
        y = v + self.dropout(self.proj(self._attend(q, k, v)))
        y = y.unflatten(1, (x.shape[1], x.shape[2])) + local
        result: Tensor = y + self.mlp(self.norm2(y))
        return result

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with _without_autocast(q):
            queries, keys = self._features(q), self._features(k)
            total = queries @ keys.sum(1).unsqueeze(2)
            attended = queries @ (keys.transpose(1, 2) @ _widen(v))
            return (attended / (total + 1e-8)).to(v.dtype)

    def _features(self, x: Tensor) -> Tensor:
        x = _widen(x)
        exponent = x @ _widen(self.w).t() - x.square().sum(-1, keepdim=True) / 2
        return torch.exp(exponent) / math.sqrt(len(self.w))


def _widen(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _without_autocast(x: Tensor) -> AbstractContextManager[object]:
    # Entered only if needed, because exporters may not know the context.
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()
