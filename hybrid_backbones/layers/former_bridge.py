"""Global tokens and their two-way bridge to a map, as in Mobile-Former."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_backbones.layers.attention import merge_heads
from hybrid_backbones.layers.drop import DropPath
from hybrid_backbones.layers.mlp import Mlp

_HEADS = 2
_TOKEN_HEADS = 4
_TOKEN_MLP_RATIO = 2
_SQUEEZE = 4


def _softmax(scores: Tensor, dim: int) -> Tensor:
    return scores.softmax(dim, dtype=torch.promote_types(scores.dtype, torch.float32))


def _split_map(x: Tensor) -> Tensor:
    split: Tensor = x.flatten(2).unflatten(1, (_HEADS, -1))
    return split


def _split_tokens(tokens: Tensor, heads: int) -> Tensor:
    split: Tensor = tokens.unflatten(2, (heads, -1)).transpose(1, 2)
    return split


class MapToTokens(nn.Module):
    """Tokens attend to the positions of a map, which are keys and values without projection.

    Source:
        arXiv:2108.05895, "Mobile to Former"; the gate is from the official code.
    """

    def __init__(self, channels: int, width: int, *, drop_path: float) -> None:
        super().__init__()
        self.scale = (channels // _HEADS) ** -0.5
        self.gate = nn.Linear(width, channels)
        self.q = nn.Linear(width, channels)
        self.proj = nn.Linear(channels, width)
        self.norm = nn.LayerNorm(width)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Let tokens (N, T, D) attend to a map (N, C, H, W)."""
        positions = _split_map(x)
        weights = _softmax(_split_tokens(self.q(tokens) * self.scale, _HEADS) @ positions, -1)
        read = (weights.to(positions.dtype) @ positions.transpose(2, 3)).transpose(1, 2).flatten(2)
        read = read * (2 * F.hardsigmoid(self.gate(tokens)))
        result: Tensor = self.norm(tokens + self.drop_path(self.proj(read)))
        return result


class TokenBlock(nn.Module):
    """Attention among tokens and an MLP, with norms behind.

    Source:
        arXiv:2108.05895, "Former sub-block", with the official code's four heads.
    """

    def __init__(self, width: int, *, drop_path: float) -> None:
        super().__init__()
        self.q = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)
        self.norm1 = nn.LayerNorm(width)
        self.mlp = Mlp(width, _TOKEN_MLP_RATIO * width)
        self.norm2 = nn.LayerNorm(width)
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (N, T, D) to the same shape."""
        keys = _split_tokens(tokens, _TOKEN_HEADS)
        q = _split_tokens(self.q(tokens), _TOKEN_HEADS)
        mixed = F.scaled_dot_product_attention(q, keys.to(q.dtype), keys.to(q.dtype))
        mixed = self.proj(merge_heads(mixed))
        tokens = self.norm1(tokens + self.drop_path(mixed))
        result: Tensor = self.norm2(tokens + self.mlp(tokens))
        return result


class TokensToMap(nn.Module):
    """The positions of a map attend to the tokens.

    Source:
        arXiv:2108.05895, "Former to Mobile".
    """

    def __init__(self, channels: int, width: int, *, drop_path: float) -> None:
        super().__init__()
        self.scale = (channels // _HEADS) ** -0.5
        self.k = nn.Linear(width, channels)
        self.v = nn.Linear(width, channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Let a map (N, C, H, W) attend to tokens (N, T, D)."""
        keys = _split_tokens(self.k(tokens) * self.scale, _HEADS)
        values = _split_tokens(self.v(tokens), _HEADS)
        weights = _softmax(keys @ _split_map(x), -2)
        read = values.transpose(2, 3) @ weights.to(values.dtype)
        result: Tensor = x + self.drop_path(read.flatten(1, 2).unflatten(2, x.shape[2:]))
        return result


class DynamicReLU(nn.Module):
    """The maximum of two linear functions, whose slopes the first token sets for each channel.

    Source:
        Chen et al., Dynamic ReLU, arXiv:2003.10027, without intercepts, as in arXiv:2108.05895.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(width, width // _SQUEEZE)
        self.expand = nn.Linear(width // _SQUEEZE, 2 * channels)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Activate maps (N, C, H, W) with slopes from tokens (N, T, D)."""
        theta = F.hardsigmoid(self.expand(F.relu(self.squeeze(tokens[:, 0]))))
        first, second = theta.unflatten(1, (2, -1, 1, 1)).unbind(1)
        # Slopes in [0, 2] and [-1, 1].
        return torch.maximum(x * (2 * first), x * (2 * second - 1))
