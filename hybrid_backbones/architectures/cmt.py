"""CMT.

Guo et al., CMT: Convolutional Neural Networks Meet Vision Transformers, CVPR 2022,
arXiv:2107.06263. Official code: huawei-noah/Efficient-AI-Backbones, cmt_pytorch. Where the paper
and that code differ (a norm behind the reduction of keys and values; pooling behind the last
convolution), this follows the code, with which the weights were trained.

Deliberate differences, none of which changes a result at the published image sizes:
- Any image size; the published code accepts one. Maps are padded only as far as a stride needs it:
  a map with an odd side gets one row or column of zeros before the next patch embedding, and the
  normalized map gets zeros up to whole cells before keys and values are reduced. So the padding
  contains no query and no key of its own (each cell contains part of the image), and affects the
  statistics only of the norm of the reduced cells at the lower and right border.
- The bias of each query and key is a table for one image size. For other sizes it is interpolated
  bicubically over both grids: at each forward pass in training, once for each size and weights
  without gradient, or, for `image_size`, once when loading. The published code has no rule for
  this. Positions are relative to the sides of the image, so the maps of a padded image or of a crop
  differ from those of the image itself.
- Attention uses `scaled_dot_product_attention`.

The maps are, as published, the results of the stages without a norm. Their values are large, so
normalize them before further use.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_backbones.attention_geometry import AttentionGeometry, grid_positions, with_tokens
from hybrid_backbones.backbone import Backbone, EncoderOutput, FeatureInfo, run_block
from hybrid_backbones.kernels.activation import GELU
from hybrid_backbones.kernels.conv_sequence import ConvSequence
from hybrid_backbones.kernels.dispatch import residual_conv, to_fast_layout
from hybrid_backbones.kernels.linear import Linear
from hybrid_backbones.layers.attention import merge_heads
from hybrid_backbones.layers.drop import DropPath
from hybrid_backbones.layers.position import Grid, resize_pair_table
from hybrid_backbones.layers.shape_cache import ShapeCache
from hybrid_backbones.model_spec import ModelSpec, SmallVariant

_KEY_STRIDE = 32  # Each key represents a cell of 32 x 32 pixels, in every stage.
_HEAD_WIDTH = 1280


@dataclass(frozen=True, slots=True, kw_only=True)
class CMTConfig:
    """A variant of CMT.

    Attributes:
        in_channels: Channels of the images.
        num_classes: Number of classes; 0: no classifier.
        image_size: Side of the images that the position tables are made for, in pixels; a
            multiple of 32. Other sizes are accepted too.
        stem_width: Channels of the stem.
        embed_dims: Channels of each stage.
        depths: Blocks of each stage.
        num_heads: Attention heads of each stage.
        mlp_ratio: Hidden width of the feed-forward networks over their width.
        drop_path: Rate of stochastic depth in the last block; rises linearly from 0.
        dropout: Rate of dropout in front of the classifier.
    """

    in_channels: int = 3
    num_classes: int = 1000
    image_size: int = 224
    stem_width: int = 16
    embed_dims: tuple[int, ...] = (46, 92, 184, 368)
    depths: tuple[int, ...] = (2, 2, 10, 2)
    num_heads: tuple[int, ...] = (1, 2, 4, 8)
    mlp_ratio: float = 4.0
    drop_path: float = 0.1
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.image_size < _KEY_STRIDE or self.image_size % _KEY_STRIDE:
            raise ValueError(f"image_size {self.image_size} is not a multiple of {_KEY_STRIDE}")


class Stem(ConvSequence):
    """Three convolutions at half the resolution, each with GELU and then a norm.

    Source:
        arXiv:2107.06263, section 3.1.
    """

    def __init__(self, in_channels: int, width: int) -> None:
        layers: list[nn.Module] = []
        for index in range(3):
            before, stride = (in_channels, 2) if index == 0 else (width, 1)
            convolution = nn.Conv2d(before, width, 3, stride, 1)
            layers += [convolution, nn.GELU(), nn.BatchNorm2d(width)]
        super().__init__(*layers)


class PatchEmbed(nn.Module):
    """Halve both sides: patches of 2 x 2 positions, normalized."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(before, width, 2, 2)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, D, ceil(H/2), ceil(W/2))."""
        if x.shape[2] % 2 or x.shape[3] % 2:
            x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
        tokens: Tensor = self.norm(self.proj(x).permute(0, 2, 3, 1))
        return tokens.permute(0, 3, 1, 2)


class LightweightAttention(nn.Module):
    """Attention to keys and values of cells, with a learned bias for each query and key.

    Source:
        arXiv:2107.06263, section 3.2, equation 2; with the official code's norm behind the
        reducing convolution.
    """

    def __init__(self, width: int, heads: int, *, reduction: int) -> None:
        super().__init__()
        self.heads = heads
        self.reduction = reduction
        self.q = Linear(width, width)
        self.k = Linear(width, width)
        self.v = Linear(width, width)
        self.proj = Linear(width, width)
        if reduction > 1:
            self.sr = ConvSequence(
                nn.Conv2d(width, width, reduction, reduction, groups=width),
                nn.BatchNorm2d(width),
            )

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Map (N, H, W, D) to the same shape; `bias` (heads, H*W, cells) is added to the scores."""
        queries, cells = x.flatten(1, 2), x
        if self.reduction > 1:
            below, right = -x.shape[1] % self.reduction, -x.shape[2] % self.reduction
            if below or right:
                cells = F.pad(x, (0, 0, 0, right, 0, below))
            cells = self.sr(cells.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        cells = cells.flatten(1, 2)
        q, k, v = (
            project(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for project, tokens in ((self.q, queries), (self.k, cells), (self.v, cells))
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype).unsqueeze(0))
        out = self.proj(merge_heads(mixed))
        result: Tensor = out.unflatten(1, (x.shape[1], x.shape[2]))
        return result


class InvertedResidual(nn.Module):
    """The feed-forward network: expand, mix neighbors with a shortcut, project (IRFFN).

    Source:
        arXiv:2107.06263, section 3.2, equations 3 and 4.
    """

    norms_ahead = (("proj_bn", "conv2.0"),)

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.conv1 = ConvSequence(nn.Conv2d(width, hidden, 1), nn.GELU(), nn.BatchNorm2d(hidden))
        self.proj = nn.Conv2d(hidden, hidden, 3, 1, 1, groups=hidden)
        self.proj_bn = nn.BatchNorm2d(hidden)
        self.conv2 = ConvSequence(nn.Conv2d(hidden, width, 1), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, D, H, W) to the same shape."""
        x = residual_conv(self.conv1(x), self.proj, activation=GELU)
        result: Tensor = self.conv2(x, norm_ahead=self.proj_bn)
        return result


class CMTBlock(nn.Module):
    """Local perception, attention and feed-forward network, each around a residual.

    Source:
        arXiv:2107.06263, section 3.2, equations 5 to 7.
    """

    def __init__(
        self, width: int, heads: int, *, reduction: int, mlp_ratio: float, drop_path: float
    ) -> None:
        super().__init__()
        self.proj = nn.Conv2d(width, width, 3, 1, 1, groups=width)
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = LightweightAttention(width, heads, reduction=reduction)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = InvertedResidual(width, int(width * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Map (N, D, H, W) to the same shape; `bias` as in the attention."""
        x = residual_conv(x, self.proj).permute(0, 2, 3, 1)
        x = x + self.drop_path(self.attn(self.norm1(x), bias))
        y: Tensor = self.mlp(self.norm2(x).permute(0, 3, 1, 2))
        result: Tensor = x.permute(0, 3, 1, 2) + self.drop_path(y)
        return result

    def attention_geometry(self, x: Tensor, bias: Tensor) -> AttentionGeometry:
        """Return the positions of a map and of its cells."""
        del bias
        (height, width), side = x.shape[2:], self.attn.reduction
        cells = grid_positions(-(-height // side), -(-width // side), step=side, first=side / 2)
        return AttentionGeometry(
            queries=with_tokens(grid_positions(height, width), 0), keys=with_tokens(cells, 0)
        )


class CMTStage(nn.Module):
    """A patch embedding and blocks that share one table of positions."""

    def __init__(self, config: CMTConfig, level: int, *, rates: list[float]) -> None:
        super().__init__()
        width, heads = config.embed_dims[level], config.num_heads[level]
        before = config.embed_dims[level - 1] if level else config.stem_width
        query_side = config.image_size // (4 * 2**level)
        key_side = config.image_size // _KEY_STRIDE
        self.reduction = query_side // key_side
        self.grids = ((query_side, query_side), (key_side, key_side))
        # Of one size only, because the tables of large images are large.
        self.tables = ShapeCache(limit=1)
        self.patch_embed = PatchEmbed(before, width)
        self.relative_pos = nn.Parameter(torch.randn(heads, query_side**2, key_side**2))
        self.blocks = nn.ModuleList(
            CMTBlock(
                width,
                heads,
                reduction=self.reduction,
                mlp_ratio=config.mlp_ratio,
                drop_path=rate,
            )
            for rate in rates
        )

    def bias(self, height: int, width: int) -> Tensor:
        """Return the biases (heads, H*W, cells) for a map of this size."""
        queries: Grid = (height, width)
        keys: Grid = (-(-height // self.reduction), -(-width // self.reduction))
        return self.tables.resize(
            self.relative_pos,
            partial(resize_pair_table, own=self.grids, wanted=(queries, keys)),
            own=(*self.grids[0], *self.grids[1]),
            size=(*queries, *keys),
        )

    def forward(self, x: Tensor, *, checkpoint: bool) -> Tensor:
        """Map (N, C, H, W) to (N, D, ceil(H/2), ceil(W/2))."""
        x = self.patch_embed(x)
        bias = self.bias(x.shape[2], x.shape[3])
        for block in self.blocks:
            x = run_block(block, x, bias, checkpoint=checkpoint and self.training)
        return x


class CMT(Backbone):
    """CMT: a pyramid with strides 4, 8, 16 and 32."""

    first_convolution = "stem.0.weight"
    head_keys = ("head.weight", "head.bias")

    def __init__(self, config: CMTConfig) -> None:
        super().__init__()
        self.config = config
        self.num_classes = config.num_classes
        count = sum(config.depths)
        rates = [config.drop_path * index / max(count - 1, 1) for index in range(count)]
        starts = [sum(config.depths[:level]) for level in range(len(config.depths))]
        self.stem = Stem(config.in_channels, config.stem_width)
        self.stages = nn.ModuleList(
            CMTStage(config, level, rates=rates[start : start + config.depths[level]])
            for level, start in enumerate(starts)
        )
        if config.num_classes:
            self.expand = ConvSequence(
                nn.Conv2d(config.embed_dims[-1], _HEAD_WIDTH, 1),
                nn.BatchNorm2d(_HEAD_WIDTH),
                nn.SiLU(),
            )
            self.dropout = nn.Dropout(config.dropout)
            self.head = nn.Linear(_HEAD_WIDTH, config.num_classes)
        self.feature_info = tuple(
            FeatureInfo(width, 4 * 2**level, f"stages.{level}")
            for level, width in enumerate(config.embed_dims)
        )
        self._init_as_official()

    def encode(self, image: Tensor) -> EncoderOutput:
        """Compute maps at strides 4, 8, 16, 32 of images (N, C, H, W)."""
        maps = []
        x = self.stem(to_fast_layout(image))
        for stage in self.stages:
            x = stage(x, checkpoint=self.gradient_checkpointing)
            maps.append(x)
        return EncoderOutput(maps)

    def forward_head(self, encoded: EncoderOutput) -> Tensor:
        """Expand, norm, swish, mean over positions, classifier."""
        pooled = self.expand(encoded.maps[-1]).mean((2, 3))
        logits: Tensor = self.head(self.dropout(pooled))
        return logits

    def convert_published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Convert the layout of cmt_pytorch; tables of another image size are interpolated."""
        converted = {}
        for name, value in state.items():
            key = name
            for pattern, target in _RENAMES:
                key = re.sub(pattern, target, key)
            converted[key] = value
        if not self.num_classes:
            heads = ("expand.", "head.")
            converted = {k: v for k, v in converted.items() if not k.startswith(heads)}
        for level, stage in enumerate(cast(list[CMTStage], list(self.stages))):
            key = f"stages.{level}.relative_pos"
            if key in converted:
                converted[key] = _fit_table(converted[key], stage)
        return converted

    def _init_as_official(self) -> None:
        """He's normal over outputs for convolutions, truncated normal 0.02 for matrices.

        Biases are zero, position tables standard normal (in the stages).
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
                nn.init.zeros_(cast(Tensor, module.bias))


def _level(letter: re.Match[str]) -> str:
    return str("abcd".index(letter[2]))


_RENAMES = (
    (
        r"^stem_(conv|norm)(\d)\.",
        lambda found: f"stem.{3 * int(found[2]) - (3 if found[1] == 'conv' else 1)}.",
    ),
    (
        r"^(patch_embed|blocks|relative_pos)_([abcd])\b",
        lambda found: f"stages.{_level(found)}.{found[1]}",
    ),
    (r"^_fc\.", "expand.0."),
    (r"^_bn\.", "expand.1."),
)


def _fit_table(table: Tensor, stage: CMTStage) -> Tensor:
    """Resize a published table to a stage's own grids, if it fits the shape of the stage."""
    key_side = round(table.shape[-1] ** 0.5)
    query_side = key_side * stage.reduction
    if table.ndim != 3 or table.shape[1:] != (query_side**2, key_side**2):
        return table
    grids = ((query_side, query_side), (key_side, key_side))
    return resize_pair_table(table, grids, stage.grids)


def _spec(
    name: str, *, size: int, parameters: int, gmacs: float, top1: float, **fields: object
) -> ModelSpec:
    config = CMTConfig(image_size=size, **fields)  # type: ignore[arg-type]
    return ModelSpec(
        name=name,
        build=CMT,
        config=config,
        image_size=size,
        parameters=parameters,
        gmacs=gmacs,
        strides=(4, 8, 16, 32),
        channels=config.embed_dims,
        top1=top1,
        paper="Guo et al., CMT, CVPR 2022, arXiv:2107.06263",
        code="huawei-noah/Efficient-AI-Backbones@f90e129 cmt_pytorch",
        weights_license="not stated (code: Apache-2.0)",
    )


_XS: dict[str, object] = {
    "embed_dims": (52, 104, 208, 416),
    "depths": (3, 3, 12, 3),
    "mlp_ratio": 3.77,
    "drop_path": 0.08,
}
_SMALL: dict[str, object] = {
    "stem_width": 32,
    "embed_dims": (64, 128, 256, 512),
    "depths": (3, 3, 16, 3),
}
_BASE: dict[str, object] = {
    "stem_width": 38,
    "embed_dims": (76, 152, 304, 608),
    "depths": (4, 4, 20, 4),
    "drop_path": 0.25,
    "dropout": 0.3,
}

SPECS: tuple[ModelSpec, ...] = (
    _spec("cmt_ti", size=160, parameters=9_492_426, gmacs=0.639, top1=79.0, mlp_ratio=3.6),
    _spec("cmt_xs", size=192, parameters=15_247_208, gmacs=1.547, top1=81.8, **_XS),
    _spec("cmt_s", size=224, parameters=26_256_160, gmacs=4.032, top1=83.5, **_SMALL),
    _spec("cmt_b", size=256, parameters=45_715_076, gmacs=9.317, top1=84.5, **_BASE),
)

# Interpolating tables of two grids takes minutes of symbolic reasoning in an export of any size.
SMALL: Mapping[str, SmallVariant] = {
    "cmt_ti": SmallVariant({"depths": (1, 1, 2, 1), "image_size": 64})
}
