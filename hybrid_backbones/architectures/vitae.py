"""ViTAE.

Xu et al., ViTAE: Vision Transformer Advanced by Exploring Intrinsic Inductive Bias, NeurIPS 2021,
arXiv:2106.03348 (tiny to small); the plain base, large and huge: Zhang et al., ViTAEv2: Vision
Transformer Advanced by Exploring Inductive Bias for Image Recognition and Beyond, IJCV 2023,
arXiv:2202.10108. Official code: ViTAE-Transformer/ViTAE-Transformer, Image-Classification/vitae.

As in the official code and unlike the paper, tiny to small have neither a class token nor position
embeddings, and the third reduction cell only reduces.

Deliberate differences, none of which changes a result at the published sizes:
- Any image size. The inputs of the dilated convolutions of a reduction cell are padded with zeros
  at the right and at the bottom if a side is not a multiple of the stride. The padding is never
  part of a map, an attention or a statistic. Maps need not be square (the official code silently
  treats 448 x 112 pixels as a square).
- Base, large and huge interpolate their position embeddings bicubically at other sizes, and pad
  images with zeros at the right and at the bottom to whole patches of 16 pixels.
- The official code builds no attention for `transformer` token modules in the reduction cell by
  mistake. Here they work. No published variant has them.
- The performer computes in float32 if the rest is in half precision, without autocast.
- The normal cells have no dropout. No published number needs it.
- ViTAE-13M has 10.8 million parameters, also in the official code. Its weights were never released.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_backbones.attention_geometry import AttentionGeometry, sequence_geometry
from hybrid_backbones.backbone import Backbone, EncoderOutput, FeatureInfo, run_block
from hybrid_backbones.kernels.conv_sequence import ConvSequence
from hybrid_backbones.kernels.dispatch import to_fast_layout
from hybrid_backbones.layers.drop import DropPath
from hybrid_backbones.layers.export_shapes import pad_to_stride
from hybrid_backbones.layers.mlp import Mlp
from hybrid_backbones.layers.position import resize_positions
from hybrid_backbones.layers.pyramid_reduction import PyramidReduction
from hybrid_backbones.layers.shape_cache import ShapeCache
from hybrid_backbones.layers.tokens import TokenAttention, TokenPerformer, TokenTransformer
from hybrid_backbones.model_spec import ModelSpec, SmallVariant

_STRIDES = (4, 2, 2)
_KERNELS = (7, 3, 3)
_DILATIONS = ((1, 2, 3, 4), (1, 2, 3), (1, 2))
_PATCH = 16

TokenModule = Literal["performer", "transformer", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ViTAEConfig:
    """A variant of ViTAE with reduction cells.

    Attributes:
        in_channels: Channels of the images.
        num_classes: Number of classes; 0: no classifier.
        embed_dims: Channels of each dilated convolution, for each stage.
        token_dims: Channels of each stage; the first public code of ViTAE-S had (64, 64, 384).
        token_modules: Attention of each reduction cell; "none": it only reduces.
        depths: Normal cells of each stage.
        num_heads: Their attention heads.
        groups: Groups of their convolutions.
        mlp_ratio: Hidden width of the normal cells over their width.
        token_dropout: Dropout of the performers in training.
        drop_path: Rate of stochastic depth in the last normal cell; rises linearly from 0.
    """

    in_channels: int = 3
    num_classes: int = 1000
    embed_dims: tuple[int, int, int] = (64, 64, 128)
    token_dims: tuple[int, int, int] = (64, 64, 256)
    token_modules: tuple[TokenModule, TokenModule, TokenModule] = ("performer", "performer", "none")
    depths: tuple[int, int, int] = (0, 0, 7)
    num_heads: tuple[int, int, int] = (1, 1, 4)
    groups: tuple[int, int, int] = (1, 1, 64)
    mlp_ratio: float = 2.0
    token_dropout: float = 0.1
    drop_path: float = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainViTAEConfig:
    """A variant of ViTAE on patches of 16 pixels, without reduction cells.

    Attributes:
        in_channels: Channels of the images.
        num_classes: Number of classes; 0: no classifier.
        embed_dim: Channels.
        depth: Normal cells.
        num_heads: Attention heads.
        mlp_ratio: Hidden width of the normal cells over their width.
        image_size: Side of the images that the position embeddings are made for, in pixels.
        drop_path: Rate of stochastic depth in the last normal cell; rises linearly from 0.
    """

    in_channels: int = 3
    num_classes: int = 1000
    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    image_size: int = 224
    drop_path: float = 0.1


class ReductionCell(nn.Module):
    """Downsampling by dilated convolutions and attention, with a parallel convolution branch.

    Source:
        arXiv:2106.03348, section 3.2.
    """

    attn: TokenPerformer | TokenTransformer | None
    PCM: nn.Sequential | None

    def __init__(self, config: ViTAEConfig, stage: int) -> None:
        super().__init__()
        before = config.token_dims[stage - 1] if stage else config.in_channels
        embed, width, stride = config.embed_dims[stage], config.token_dims[stage], _STRIDES[stage]
        module = config.token_modules[stage]
        self.PRM = PyramidReduction(
            before, embed, kernel=_KERNELS[stage], stride=stride, dilations=_DILATIONS[stage]
        )
        reduced = self.PRM.out_channels
        self.attn = self.PCM = None
        if module == "none":
            if reduced != width:
                raise ValueError(
                    f"stage {stage} of ViTAE only reduces and has {reduced} channels, "
                    f"but token_dims is {width}; set it to {len(_DILATIONS[stage])} x embed_dims"
                )
            return
        self.attn = (
            TokenPerformer(reduced, width, dropout=config.token_dropout)
            if module == "performer"
            else TokenTransformer(reduced, width)
        )
        self.PCM = ConvSequence(
            nn.Conv2d(before, embed, 3, 2, 1),
            nn.SiLU(),
            nn.Conv2d(embed, embed, 3, stride // 2, 1),
            nn.BatchNorm2d(embed),
            nn.SiLU(),
            nn.Conv2d(embed, width, 3, 1, 1),
            nn.SiLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, D, ceil(H/s), ceil(W/s))."""
        tokens: Tensor = self.PRM(x)
        if self.attn is not None and self.PCM is not None:
            tokens = self.attn(tokens, self.PCM(x).permute(0, 2, 3, 1))
        return tokens.permute(0, 3, 1, 2)


class NormalCell(nn.Module):
    """Attention with a parallel convolution branch, then an MLP.

    Source:
        arXiv:2106.03348, section 3.3; with `shallow`, two convolutions instead of three.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        mlp_ratio: float,
        groups: int,
        drop_path: float,
        shallow: bool = False,
    ) -> None:
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = TokenAttention(width, width, heads)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, hidden)
        first = (
            nn.Conv2d(width, hidden, 3, 1, 1, groups=groups),
            nn.BatchNorm2d(hidden),
            nn.SiLU(),
            nn.Conv2d(hidden, width, 3, 1, 1, groups=groups),
        )
        rest = (
            nn.BatchNorm2d(width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, 1, 1, groups=groups),
            nn.SiLU(),
        )
        self.PCM = ConvSequence(*first, *(() if shallow else rest))

    def forward(self, tokens: Tensor, grid: tuple[int, int], extra: int) -> Tensor:
        """Map tokens (N, E + L, D) to the same shape; the first E = `extra` are not on the grid."""
        image = tokens[:, extra:].transpose(1, 2).unflatten(2, grid)
        local = self.PCM(image).flatten(2).transpose(1, 2)
        if extra:
            local = F.pad(local, (0, 0, extra, 0))
        tokens = tokens + self.drop_path(self.attn(self.norm1(tokens))) + self.drop_path(local)
        result: Tensor = tokens + self.drop_path(self.mlp(self.norm2(tokens)))
        return result

    def attention_geometry(
        self, tokens: Tensor, grid: tuple[int, int], extra: int
    ) -> AttentionGeometry:
        """Return the positions of the map, behind the tokens without a position."""
        del tokens
        return sequence_geometry(*grid, extra=extra)


class ViTAEStage(nn.Module):
    """A reduction cell and normal cells."""

    def __init__(self, config: ViTAEConfig, stage: int, *, rates: list[float]) -> None:
        super().__init__()
        self.RC = ReductionCell(config, stage)
        self.NC = nn.ModuleList(
            NormalCell(
                config.token_dims[stage],
                config.num_heads[stage],
                mlp_ratio=config.mlp_ratio,
                groups=config.groups[stage],
                drop_path=rate,
            )
            for rate in rates
        )

    def forward(self, x: Tensor, *, checkpoint: bool) -> Tensor:
        """Map (N, C, H, W) to (N, D, ceil(H/s), ceil(W/s))."""
        checkpoint = checkpoint and self.training
        x = run_block(self.RC, x, checkpoint=checkpoint)
        if not len(self.NC):
            return x
        grid = (x.shape[2], x.shape[3])
        tokens = x.flatten(2).transpose(1, 2)
        for cell in self.NC:
            tokens = run_block(cell, tokens, grid, 0, checkpoint=checkpoint)
        return tokens.transpose(1, 2).reshape(-1, tokens.shape[2], *grid)


class ViTAE(Backbone):
    """ViTAE: a pyramid with strides 4, 8 and 16."""

    first_convolution = (
        "layers.0.RC.PCM.0.weight",
        *(f"layers.0.RC.PRM.convs.{index}.0.weight" for index in range(len(_DILATIONS[0]))),
    )
    head_keys = ("head.weight", "head.bias")

    def __init__(self, config: ViTAEConfig) -> None:
        super().__init__()
        self.config = config
        self.num_classes = config.num_classes
        # On the CPU explicitly, so that a network can be built on the meta device.
        rates = torch.linspace(0, config.drop_path, sum(config.depths), device="cpu")
        self.layers = nn.ModuleList(
            ViTAEStage(config, stage, rates=part.tolist())
            for stage, part in enumerate(rates.split(list(config.depths)))
        )
        if config.num_classes:
            self.head = nn.Linear(config.token_dims[-1], config.num_classes)
        self.feature_info = tuple(
            FeatureInfo(width, math.prod(_STRIDES[: stage + 1]), f"layers.{stage}")
            for stage, width in enumerate(config.token_dims)
        )
        self._init_as_official()

    def encode(self, image: Tensor) -> EncoderOutput:
        """Compute maps at strides 4, 8 and 16 of images (N, C, H, W)."""
        maps, x = [], to_fast_layout(image)
        for stage in cast(list[ViTAEStage], list(self.layers)):
            x = stage(x, checkpoint=self.gradient_checkpointing)
            maps.append(x)
        return EncoderOutput(maps)

    def forward_head(self, encoded: EncoderOutput) -> Tensor:
        """Mean over positions, classifier."""
        logits: Tensor = self.head(encoded.maps[-1].mean((2, 3)))
        return logits

    def convert_published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Convert the official layout, which is this network's own."""
        if self.num_classes:
            return dict(state)
        return {key: value for key, value in state.items() if not key.startswith("head.")}

    def _init_as_official(self) -> None:
        """Truncated normal 0.02 for matrices, zero biases; orthogonal features of performers."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, TokenPerformer):
                module.reset_features()


class PatchEmbedding(nn.Module):
    """Patches of 16 x 16 pixels and a class token, with learned positions."""

    def __init__(self, config: PlainViTAEConfig) -> None:
        super().__init__()
        self.side = config.image_size // _PATCH
        self.tables = ShapeCache(limit=1)
        self.PRM = nn.ModuleDict(
            {"proj": nn.Conv2d(config.in_channels, config.embed_dim, _PATCH, _PATCH)}
        )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.side**2, config.embed_dim))

    def forward(self, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Map (N, C, H, W) to tokens (N, 1 + L, D), class token first, and their grid."""
        patches = self.PRM["proj"](pad_to_stride(image, _PATCH))
        grid = (patches.shape[2], patches.shape[3])
        token = self.cls_token.expand(patches.shape[0], -1, -1)
        tokens = torch.cat((token, patches.flatten(2).transpose(1, 2)), 1)
        resized = partial(resize_positions, grid=grid)
        own = (self.side, self.side)
        return tokens + self.tables.resize(self.pos_embed, resized, own=own, size=grid), grid


class PlainViTAE(Backbone):
    """ViTAE base, large and huge: one map at stride 16 and a class token."""

    first_convolution = "embed.PRM.proj.weight"
    head_keys = ("head.weight", "head.bias")

    def __init__(self, config: PlainViTAEConfig) -> None:
        super().__init__()
        self.config = config
        self.num_classes = config.num_classes
        self.embed = PatchEmbedding(config)
        self.cells = nn.ModuleList(
            NormalCell(
                config.embed_dim,
                config.num_heads,
                mlp_ratio=config.mlp_ratio,
                groups=config.embed_dim // 4,
                drop_path=rate,
                shallow=True,
            )
            for rate in torch.linspace(0, config.drop_path, config.depth, device="cpu").tolist()
        )
        if config.num_classes:
            self.fc_norm = nn.LayerNorm(config.embed_dim, eps=1e-6)
            self.head = nn.Linear(config.embed_dim, config.num_classes)
        self.feature_info = (FeatureInfo(config.embed_dim, _PATCH, "cells"),)
        self._init_as_official()

    def encode(self, image: Tensor) -> EncoderOutput:
        """Compute the map at stride 16 and the class token of images (N, C, H, W)."""
        tokens, grid = self.embed(image)
        checkpoint = self.gradient_checkpointing and self.training
        for cell in self.cells:
            tokens = run_block(cell, tokens, grid, 1, checkpoint=checkpoint)
        return EncoderOutput([tokens[:, 1:].transpose(1, 2).unflatten(2, grid)], tokens[:, :1])

    def forward_head(self, encoded: EncoderOutput) -> Tensor:
        """Mean over positions (without the class token), norm, classifier."""
        logits: Tensor = self.head(self.fc_norm(encoded.maps[-1].mean((2, 3))))
        return logits

    def convert_published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Convert the official layout; positions of another image size are interpolated."""
        renamed = {}
        for name, value in state.items():
            key = re.sub(r"^layers\.0\.RC\.", "embed.", name)
            key = re.sub(r"^layers\.2\.NC\.", "cells.", key)
            if self.num_classes or not key.startswith(("head.", "fc_norm.")):
                renamed[key] = value
        table = renamed.get("embed.pos_embed")
        if table is not None and math.isqrt(table.shape[1] - 1) ** 2 == table.shape[1] - 1:
            side = self.embed.side
            renamed["embed.pos_embed"] = resize_positions(table, (side, side))
        return renamed

    def _init_as_official(self) -> None:
        """Truncated normal 0.02 for matrices, positions and the class token, zero biases."""
        nn.init.trunc_normal_(self.embed.cls_token, std=0.02)
        nn.init.trunc_normal_(self.embed.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)


def _spec(
    name: str, config: ViTAEConfig | PlainViTAEConfig, *, parameters: int, gmacs: float, top1: float
) -> ModelSpec:
    cells = isinstance(config, ViTAEConfig)
    return ModelSpec(
        name=name,
        build=ViTAE if cells else PlainViTAE,
        config=config,
        image_size=224,
        parameters=parameters,
        gmacs=gmacs,
        strides=(4, 8, 16) if cells else (_PATCH,),
        channels=config.token_dims if isinstance(config, ViTAEConfig) else (config.embed_dim,),
        top1=top1,
        trained_on="ImageNet-1k" if cells else "ImageNet-1k (MAE first)",
        paper="Xu et al., ViTAE, NeurIPS 2021, arXiv:2106.03348"
        if cells
        else "Zhang et al., ViTAEv2, IJCV 2023, arXiv:2202.10108",
        code="ViTAE-Transformer/ViTAE-Transformer@aebf1d7",
        weights_license="not stated (README: research purpose only)",
    )


_6M = ViTAEConfig(depths=(0, 0, 10))
_13M = ViTAEConfig(
    embed_dims=(64, 64, 160), token_dims=(64, 64, 320), depths=(0, 0, 11), num_heads=(1, 1, 5)
)
_SMALL = ViTAEConfig(
    embed_dims=(64, 64, 192),
    token_dims=(96, 192, 384),
    depths=(0, 0, 14),
    num_heads=(1, 1, 6),
    groups=(1, 1, 96),
    mlp_ratio=3.0,
)
_LARGE = PlainViTAEConfig(embed_dim=1024, depth=24, num_heads=16)
_HUGE = PlainViTAEConfig(embed_dim=1280, depth=32, num_heads=16)

SPECS: tuple[ModelSpec, ...] = (
    _spec("vitae_tiny", ViTAEConfig(), parameters=4_886_888, gmacs=1.757, top1=75.3),
    _spec("vitae_6m", _6M, parameters=6_614_120, gmacs=2.152, top1=77.9),
    _spec("vitae_13m", _13M, parameters=10_834_728, gmacs=3.036, top1=81.0),
    _spec("vitae_small", _SMALL, parameters=24_032_136, gmacs=6.180, top1=82.0),
    _spec("vitae_base", PlainViTAEConfig(), parameters=89_341_672, gmacs=18.084, top1=83.8),
    _spec("vitae_large", _LARGE, parameters=311_724_008, gmacs=62.942, top1=86.0),
    _spec("vitae_huge", _HUGE, parameters=644_528_360, gmacs=129.627, top1=86.9),
)

SMALL: Mapping[str, SmallVariant] = {
    "vitae_base": SmallVariant(
        {"embed_dim": 96, "depth": 2, "num_heads": 3, "image_size": 64}, exports_any_size=True
    ),
    "vitae_tiny": SmallVariant({"depths": (0, 0, 2)}, exports_any_size=True),
}
