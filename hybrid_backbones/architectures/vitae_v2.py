"""ViTAEv2.

Zhang et al., ViTAEv2: Vision Transformer Advanced by Exploring Inductive Bias for Image
Recognition and Beyond, IJCV 2023, arXiv:2202.10108. Official code:
ViTAE-Transformer/ViTAE-Transformer, Image-Classification/vitaev2 and Semantic-Segmentation.

Deliberate differences, none of which changes a result at the published sizes:
- Any image size. The inputs of the dilated convolutions of a reduction cell are padded with zeros
  at the right and at the bottom if a side is not a multiple of the stride. The padding is never
  part of a map or a statistic. The official dense backbone needs multiples of 32, the official
  classifier its own square size.
- Maps that are not a multiple of the window are padded with zeros on all sides after the first
  norm, as in the official dense backbone. Windows attend to the padding, as they do there. The maps
  of an image therefore depend on the padding near its borders. A mask would change the published
  numbers.
- Rates of stochastic depth rise over all normal cells, as described in the paper. The official code
  starts each stage at the depth of the previous one, so that most cells get a lower rate.
- There is no dropout. ViTAEv2-B was trained with 0.1.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from hybrid_backbones.attention_geometry import AttentionGeometry
from hybrid_backbones.backbone import Backbone, EncoderOutput, FeatureInfo, run_block
from hybrid_backbones.kernels.conv_sequence import ConvSequence
from hybrid_backbones.kernels.dispatch import to_fast_layout
from hybrid_backbones.layers.drop import DropPath
from hybrid_backbones.layers.mlp import Mlp
from hybrid_backbones.layers.pyramid_reduction import PyramidReduction
from hybrid_backbones.layers.tokens import (
    TokenAttention,
    TokenTransformer,
    attend_map,
    centered_window_geometry,
)
from hybrid_backbones.model_spec import ModelSpec, SmallVariant

_STRIDES = (4, 2, 2, 2)
_KERNELS = (7, 3, 3, 3)
_DILATIONS = ((1, 2, 3, 4), (1, 2, 3), (1, 2), (1, 2))


@dataclass(frozen=True, slots=True, kw_only=True)
class ViTAEv2Config:
    """A variant of ViTAEv2.

    Attributes:
        in_channels: Channels of the images.
        num_classes: Number of classes; 0: no classifier.
        embed_dims: Channels of each dilated convolution, for each stage.
        token_dims: Channels of each stage.
        window_sizes: Side of the windows of each stage in feature pixels; 0: no windows.
        depths: Normal cells of each stage.
        num_heads: Their attention heads.
        groups: Groups of their convolutions.
        reduction_heads: Attention heads of the reduction cell of each stage.
        reduction_groups: Groups of its convolutions.
        mlp_ratio: Hidden width of the normal cells over their width.
        drop_path: Rate of stochastic depth in the last normal cell; rises linearly from 0.
    """

    in_channels: int = 3
    num_classes: int = 1000
    embed_dims: tuple[int, int, int, int] = (64, 64, 128, 256)
    token_dims: tuple[int, int, int, int] = (64, 128, 256, 512)
    window_sizes: tuple[int, int, int, int] = (7, 7, 0, 0)
    depths: tuple[int, int, int, int] = (2, 2, 8, 2)
    num_heads: tuple[int, int, int, int] = (1, 2, 4, 8)
    groups: tuple[int, int, int, int] = (1, 32, 64, 128)
    reduction_heads: tuple[int, int, int, int] = (1, 1, 2, 4)
    reduction_groups: tuple[int, int, int, int] = (1, 16, 32, 64)
    mlp_ratio: float = 4.0
    drop_path: float = 0.1


class LocalBranch(ConvSequence):
    """Three convolutions with norms and SiLU between them.

    Source:
        arXiv:2202.10108, section 3.2 (PCM).
    """

    def __init__(
        self, before: int, hidden: tuple[int, int], width: int, *, stride: int, groups: int
    ) -> None:
        # A stride of 4 is split into two.
        first, second = (1 if stride == 1 else 2), (2 if stride == 4 else 1)
        super().__init__(
            nn.Conv2d(before, hidden[0], 3, first, 1, groups=groups),
            nn.BatchNorm2d(hidden[0]),
            nn.SiLU(),
            nn.Conv2d(hidden[0], hidden[1], 3, second, 1, groups=groups),
            nn.BatchNorm2d(hidden[1]),
            nn.SiLU(),
            nn.Conv2d(hidden[1], width, 3, 1, 1, groups=groups),
        )


class ReductionCell(nn.Module):
    """Downsampling by dilated convolutions and attention, with a parallel convolution branch.

    Source:
        arXiv:2202.10108, section 3.2.
    """

    def __init__(self, config: ViTAEv2Config, stage: int) -> None:
        super().__init__()
        before = config.token_dims[stage - 1] if stage else config.in_channels
        embed, width, stride = config.embed_dims[stage], config.token_dims[stage], _STRIDES[stage]
        self.PCM = LocalBranch(
            before, (embed, embed), width, stride=stride, groups=config.reduction_groups[stage]
        )
        self.PRM = PyramidReduction(
            before, embed, kernel=_KERNELS[stage], stride=stride, dilations=_DILATIONS[stage]
        )
        self.attn = TokenTransformer(
            self.PRM.out_channels,
            width,
            heads=config.reduction_heads[stage],
            window=config.window_sizes[stage],
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, ceil(H/s), ceil(W/s), D)."""
        tokens: Tensor = self.attn(self.PRM(x), self.PCM(x).permute(0, 2, 3, 1))
        return tokens


class NormalCell(nn.Module):
    """Attention with a parallel convolution branch, then an MLP.

    Source:
        arXiv:2202.10108, section 3.3.
    """

    def __init__(self, config: ViTAEv2Config, stage: int, *, drop_path: float) -> None:
        super().__init__()
        width = config.token_dims[stage]
        hidden = int(width * config.mlp_ratio)
        self.window = config.window_sizes[stage]
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = TokenAttention(width, width, config.num_heads[stage])
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, hidden)
        self.PCM = LocalBranch(width, (hidden, width), width, stride=1, groups=config.groups[stage])

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, H, W, D) to the same shape."""
        local = self.PCM(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        attended = attend_map(self.attn, self.norm1(x), window=self.window)
        x = x + self.drop_path(attended) + self.drop_path(local)
        result: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return result

    def attention_geometry(self, x: Tensor) -> AttentionGeometry:
        """Return the positions of the windows."""
        return centered_window_geometry((x.shape[1], x.shape[2]), self.window)


class ViTAEv2Stage(nn.Module):
    """A reduction cell and normal cells."""

    def __init__(self, config: ViTAEv2Config, stage: int, *, rates: list[float]) -> None:
        super().__init__()
        self.RC = ReductionCell(config, stage)
        self.NC = nn.ModuleList(NormalCell(config, stage, drop_path=rate) for rate in rates)

    def forward(self, x: Tensor, *, checkpoint: bool) -> Tensor:
        """Map (N, C, H, W) to (N, D, ceil(H/s), ceil(W/s))."""
        checkpoint = checkpoint and self.training
        x = run_block(self.RC, x, checkpoint=checkpoint)
        for cell in self.NC:
            x = run_block(cell, x, checkpoint=checkpoint)
        return x.permute(0, 3, 1, 2)


class ViTAEv2(Backbone):
    """ViTAEv2: a pyramid with strides 4, 8, 16 and 32."""

    first_convolution = (
        "layers.0.RC.PCM.0.weight",
        *(f"layers.0.RC.PRM.convs.{index}.0.weight" for index in range(len(_DILATIONS[0]))),
    )
    head_keys = ("head.weight", "head.bias")

    def __init__(self, config: ViTAEv2Config) -> None:
        super().__init__()
        self.config = config
        self.num_classes = config.num_classes
        # On the CPU explicitly, so that a network can be built on the meta device.
        rates = torch.linspace(0, config.drop_path, sum(config.depths), device="cpu")
        self.layers = nn.ModuleList(
            ViTAEv2Stage(config, stage, rates=part.tolist())
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
        """Compute maps at strides 4, 8, 16 and 32 of images (N, C, H, W)."""
        maps, x = [], to_fast_layout(image)
        for stage in cast(list[ViTAEv2Stage], list(self.layers)):
            x = stage(x, checkpoint=self.gradient_checkpointing)
            maps.append(x)
        return EncoderOutput(maps)

    def forward_head(self, encoded: EncoderOutput) -> Tensor:
        """Mean over positions, classifier, without a last norm."""
        logits: Tensor = self.head(encoded.maps[-1].mean((2, 3)))
        return logits

    def convert_published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Convert the official layouts of the classifier and of the dense backbone."""
        # The files contain an index of relative positions, which no published variant uses.
        unused = (".relative_position_index", ".attn_mask")
        kept = {key: value for key, value in state.items() if not key.endswith(unused)}
        if self.num_classes:
            return kept
        return {key: value for key, value in kept.items() if not key.startswith("head.")}

    def _init_as_official(self) -> None:
        """Truncated normal 0.02 for matrices, zero biases."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


def _spec(
    name: str, config: ViTAEv2Config, *, parameters: int, gmacs: float, top1: float
) -> ModelSpec:
    return ModelSpec(
        name=name,
        build=ViTAEv2,
        config=config,
        image_size=224,
        parameters=parameters,
        gmacs=gmacs,
        strides=(4, 8, 16, 32),
        channels=config.token_dims,
        top1=top1,
        paper="Zhang et al., ViTAEv2, IJCV 2023, arXiv:2202.10108",
        code="ViTAE-Transformer/ViTAE-Transformer@aebf1d7",
        weights_license="not stated (README: research purpose only)",
    )


_48M = ViTAEv2Config(
    embed_dims=(64, 64, 192, 384),
    token_dims=(96, 192, 384, 768),
    depths=(2, 2, 11, 2),
    drop_path=0.25,
)
_B = ViTAEv2Config(
    embed_dims=(96, 96, 256, 512),
    token_dims=(128, 256, 512, 1024),
    depths=(2, 2, 12, 2),
    num_heads=(1, 4, 8, 16),
    reduction_heads=(1, 1, 4, 8),
    drop_path=0.4,
)

SPECS: tuple[ModelSpec, ...] = (
    _spec("vitaev2_s", ViTAEv2Config(), parameters=19_355_688, gmacs=5.753, top1=82.6),
    _spec("vitaev2_48m", _48M, parameters=48_674_632, gmacs=13.341, top1=83.8),
    _spec("vitaev2_b", _B, parameters=89_693_352, gmacs=24.373, top1=84.6),
)

SMALL: Mapping[str, SmallVariant] = {
    "vitaev2_s": SmallVariant({"depths": (1, 1, 2, 1)}, exports_any_size=True)
}
