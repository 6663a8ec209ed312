"""CvT.

Wu et al., CvT: Introducing Convolutions to Vision Transformers, ICCV 2021, arXiv:2103.15808.
Official code: microsoft/CvT.

Deliberate differences, none of which changes a result of the published classifier:
- In the pyramid, each embedding pads its input with zeros at the right and at the bottom up to a
  multiple of its stride, so that each map has ceil(H / stride) x ceil(W / stride) positions. The
  published embedding rounds down. No position consists of padding only, so that attention needs no
  mask. The classifier computes as published, without padding. Attention covers the whole map, so
  that adding a border to an image changes its maps.
- The class token is not part of the maps. In the third stage it attends to the map, and the map to
  it, so it is computed there.
- Attention uses `scaled_dot_product_attention` with the published scale (the square root of the
  whole width, not of a head's).
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_backbones.attention_geometry import AttentionGeometry, grid_positions, with_tokens
from hybrid_backbones.backbone import Backbone, EncoderOutput, FeatureInfo, run_block
from hybrid_backbones.kernels.activation import QUICK_GELU
from hybrid_backbones.kernels.dispatch import to_fast_layout
from hybrid_backbones.kernels.linear import Linear
from hybrid_backbones.layers.attention import merge_heads
from hybrid_backbones.layers.conv_norm import ConvNorm
from hybrid_backbones.layers.drop import DropPath
from hybrid_backbones.layers.export_shapes import pad_to_stride
from hybrid_backbones.layers.mlp import Mlp
from hybrid_backbones.model_spec import ModelSpec, SmallVariant

_STRIDES = (4, 2, 2)
_KERNELS = (7, 3, 3)
_PADDINGS = (2, 1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class CvTConfig:
    """A variant of CvT.

    Attributes:
        in_channels: Channels of the images.
        num_classes: Number of classes; 0: no classifier.
        embed_dims: Channels of each stage.
        num_heads: Attention heads of each stage.
        depths: Blocks of each stage.
        mlp_ratio: Hidden width of the MLPs over their width.
        drop_path: Rate of stochastic depth in the last block; rises linearly within the last stage.
    """

    in_channels: int = 3
    num_classes: int = 1000
    embed_dims: tuple[int, int, int] = (64, 192, 384)
    num_heads: tuple[int, int, int] = (1, 3, 6)
    depths: tuple[int, int, int] = (1, 2, 10)
    mlp_ratio: float = 4.0
    drop_path: float = 0.1


class ConvEmbed(nn.Module):
    """Overlapping patches to tokens.

    Source:
        arXiv:2103.15808, section 3.1.
    """

    def __init__(self, in_channels: int, width: int, *, stage: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(
            in_channels, width, _KERNELS[stage], _STRIDES[stage], _PADDINGS[stage]
        )
        self.stride = _STRIDES[stage]
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, *, round_up: bool) -> tuple[Tensor, tuple[int, int]]:
        """Map (N, C, H, W) to tokens (N, L, D) and their grid."""
        y = self.proj(pad_to_stride(x, self.stride) if round_up else x)
        return self.norm(y.flatten(2).transpose(1, 2)), (y.shape[2], y.shape[3])


class ConvProjection(ConvNorm):
    """Depth-wise convolution and norm in front of a projection of attention."""

    def __init__(self, width: int, *, stride: int) -> None:
        super().__init__(width, width, 3, stride=stride, groups=width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, D, H, W) to tokens (N, L, D)."""
        return super().forward(x).flatten(2).transpose(1, 2)


class ConvAttention(nn.Module):
    """Attention with queries, keys and values from convolutions.

    Source:
        arXiv:2103.15808, section 3.2; keys and values at half the resolution, section 3.3.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = width**-0.5
        for name, stride in (("q", 1), ("k", 2), ("v", 2)):
            self.add_module(f"conv_proj_{name}", ConvProjection(width, stride=stride))
            self.add_module(f"proj_{name}", Linear(width, width))
        self.proj = Linear(width, width)

    def forward(self, tokens: Tensor, grid: tuple[int, int], extra: int) -> Tensor:
        """Attend among tokens (N, extra + L, D); the first `extra` ones are not on the grid."""
        head, grid_tokens = tokens[:, :extra], tokens[:, extra:]
        image = grid_tokens.transpose(1, 2).unflatten(2, grid)
        split = []
        for name in ("q", "k", "v"):
            projected = torch.cat((head, getattr(self, f"conv_proj_{name}")(image)), 1)
            split.append(
                getattr(self, f"proj_{name}")(projected)
                .unflatten(2, (self.heads, -1))
                .transpose(1, 2)
            )
        q, k, v = split
        out = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        mixed: Tensor = self.proj(merge_heads(out))
        return mixed


class CvTBlock(nn.Module):
    """Attention and MLP with norms before and residuals around them."""

    def __init__(self, width: int, heads: int, *, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = ConvAttention(width, heads)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio), activation=QUICK_GELU)

    def forward(self, tokens: Tensor, grid: tuple[int, int], extra: int) -> Tensor:
        """Map tokens (N, extra + L, D) to the same shape."""
        tokens = tokens + self.drop_path(self.attn(self.norm1(tokens), grid, extra))
        result: Tensor = tokens + self.drop_path(self.mlp(self.norm2(tokens)))
        return result

    def attention_geometry(
        self, tokens: Tensor, grid: tuple[int, int], extra: int
    ) -> AttentionGeometry:
        """Return the positions of the map and of the keys at half its resolution."""
        del tokens
        # Kernels of 3 with a padding of 1: that of key j is centered on position 2 j.
        halved = grid_positions(-(-grid[0] // 2), -(-grid[1] // 2), step=2.0)
        return AttentionGeometry(
            queries=with_tokens(grid_positions(*grid), extra), keys=with_tokens(halved, extra)
        )


class CvTStage(nn.Module):
    """An embedding and blocks; the last stage has a class token."""

    def __init__(self, config: CvTConfig, stage: int, *, class_token: bool) -> None:
        super().__init__()
        width = config.embed_dims[stage]
        before = config.embed_dims[stage - 1] if stage else config.in_channels
        last = stage == len(config.embed_dims) - 1
        # On the CPU explicitly, so that a network can be built on the meta device.
        end = config.drop_path if last else 0.0
        rates = torch.linspace(0, end, config.depths[stage], device="cpu")
        self.patch_embed = ConvEmbed(before, width, stage=stage)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width)) if class_token else None
        self.blocks = nn.ModuleList(
            CvTBlock(width, config.num_heads[stage], mlp_ratio=config.mlp_ratio, drop_path=rate)
            for rate in rates.tolist()
        )

    def forward(
        self, x: Tensor, *, checkpoint: bool, round_up: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Map (N, C, H, W) to a map (N, D, H', W') and the class token (N, 1, D), if any."""
        tokens, grid = self.patch_embed(x, round_up=round_up)
        extra = 0
        if self.cls_token is not None:
            tokens = torch.cat((self.cls_token.expand(tokens.shape[0], -1, -1), tokens), 1)
            extra = 1
        for block in self.blocks:
            tokens = run_block(block, tokens, grid, extra, checkpoint=checkpoint and self.training)
        feature = tokens[:, extra:].transpose(1, 2).unflatten(2, grid)
        return feature, tokens[:, :1] if extra else None


class CvT(Backbone):
    """CvT: a pyramid with strides 4, 8 and 16."""

    first_convolution = "stage0.patch_embed.proj.weight"
    head_keys = ("head.weight", "head.bias")

    def __init__(self, config: CvTConfig) -> None:
        super().__init__()
        self.config = config
        self.num_classes = config.num_classes
        self.stage0 = CvTStage(config, 0, class_token=False)
        self.stage1 = CvTStage(config, 1, class_token=False)
        self.stage2 = CvTStage(config, 2, class_token=True)
        if config.num_classes:
            self.norm = nn.LayerNorm(config.embed_dims[-1])
            self.head = nn.Linear(config.embed_dims[-1], config.num_classes)
        self.feature_info = tuple(
            FeatureInfo(width, math.prod(_STRIDES[: stage + 1]), f"stage{stage}")
            for stage, width in enumerate(config.embed_dims)
        )
        self._init_as_official()

    def encode(self, image: Tensor) -> EncoderOutput:
        """Compute as published: map sizes round down if a side is not a multiple of 16."""
        return self._encode(image, round_up=False)

    def forward_features(self, image: Tensor) -> list[Tensor]:
        """Compute maps of ceil(H / s) x ceil(W / s) positions for s = 4, 8, 16."""
        return self._encode(image, round_up=True).maps

    def _encode(self, image: Tensor, *, round_up: bool) -> EncoderOutput:
        maps, token, x = [], None, to_fast_layout(image)
        for stage in (self.stage0, self.stage1, self.stage2):
            x, token = stage(x, checkpoint=self.gradient_checkpointing, round_up=round_up)
            maps.append(x)
        return EncoderOutput(maps, token)

    def forward_head(self, encoded: EncoderOutput) -> Tensor:
        """Norm and classify the class token."""
        if encoded.tokens is None:
            raise ValueError("CvT classifies its class token; `encoded` has none")
        logits: Tensor = self.head(self.norm(encoded.tokens)[:, 0])
        return logits

    def convert_published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Convert the layouts of microsoft/CvT and of transformers."""
        if any(key.startswith("cvt.") for key in state):
            state = _from_transformers(state)
        if self.num_classes:
            return dict(state)
        return {k: v for k, v in state.items() if not k.startswith(("head.", "norm."))}

    def _init_as_official(self) -> None:
        """Truncated normal 0.02 for matrices and the class token, zero biases."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
            elif isinstance(module, CvTStage) and module.cls_token is not None:
                nn.init.trunc_normal_(module.cls_token, std=0.02)


_RENAMES = (
    (r"^cvt\.encoder\.stages\.(\d)\.", r"stage\1."),
    (r"embedding\.convolution_embeddings\.projection\.", "patch_embed.proj."),
    (r"embedding\.convolution_embeddings\.normalization\.", "patch_embed.norm."),
    (r"\.layers\.", ".blocks."),
    (r"attention\.attention\.convolution_projection_(q|k|v)\w+\.", r"attn.conv_proj_\1."),
    (r"convolution_projection\.convolution\.", "conv."),
    (r"convolution_projection\.normalization\.", "bn."),
    (r"attention\.attention\.projection_(q|k|v)\w+\.", r"attn.proj_\1."),
    (r"attention\.output\.dense\.", "attn.proj."),
    (r"intermediate\.dense\.", "mlp.fc1."),
    (r"(?<!attention\.)output\.dense\.", "mlp.fc2."),
    (r"layernorm_before\.", "norm1."),
    (r"layernorm_after\.", "norm2."),
    (r"^layernorm\.", "norm."),
    (r"^classifier\.", "head."),
)


def _from_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for name, value in state.items():
        key = name
        for pattern, target in _RENAMES:
            key = re.sub(pattern, target, key)
        renamed[key] = value
    return renamed


def _spec(
    name: str,
    *,
    size: int,
    parameters: int,
    gmacs: float,
    top1: float,
    trained_on: str = "ImageNet-1k",
    **fields: object,
) -> ModelSpec:
    config = CvTConfig(**fields)  # type: ignore[arg-type]
    return ModelSpec(
        name=name,
        build=CvT,
        config=config,
        image_size=size,
        parameters=parameters,
        gmacs=gmacs,
        strides=(4, 8, 16),
        channels=config.embed_dims,
        top1=top1,
        trained_on=trained_on,
        paper="Wu et al., CvT, ICCV 2021, arXiv:2103.15808",
        code="microsoft/CvT@f851e68",
        weights_license="not stated (code: MIT)",
    )


_WIDE: dict[str, object] = {
    "embed_dims": (192, 768, 1024),
    "num_heads": (3, 12, 16),
    "depths": (2, 2, 20),
    "drop_path": 0.3,
}
_22K = "ImageNet-22k, then 1k"
_DEEP = (1, 4, 16)

SPECS: tuple[ModelSpec, ...] = (
    _spec("cvt_13", size=224, parameters=19_997_480, gmacs=4.566, top1=81.6),
    _spec("cvt_13_384", size=384, parameters=19_997_480, gmacs=16.269, top1=83.0),
    _spec("cvt_21", size=224, parameters=31_622_696, gmacs=7.178, top1=82.5, depths=_DEEP),
    _spec("cvt_21_384", size=384, parameters=31_622_696, gmacs=24.849, top1=83.3, depths=_DEEP),
    _spec(
        "cvt_w24_384",
        size=384,
        parameters=277_196_392,
        gmacs=194.222,
        top1=87.6,
        trained_on=_22K,
        **_WIDE,
    ),
)

SMALL: Mapping[str, SmallVariant] = {
    "cvt_13": SmallVariant({"depths": (1, 1, 2)}, exports_any_size=True)
}
