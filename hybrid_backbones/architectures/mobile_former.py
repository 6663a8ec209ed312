"""Mobile-Former.

Chen et al., Mobile-Former: Bridging MobileNet and Transformer, CVPR 2022, arXiv:2108.05895.
Official code: AAboys/MobileFormer.

This follows the official code where it differs from the paper: a gate on the tokens' attention to
the map, four heads in the attention among tokens, ReLU6 before the pooling, and a batch norm in the
classifier.

Deliberate differences, none of which changes a result of the published networks:
- Tokens are always (N, T, D), not (T, N, D).
- Stochastic depth drops branches for each image. The official code drops tokens over the whole
  batch. The published networks are trained without it.
- Without classes, the last attention of the tokens to the map is omitted: only the classifier uses
  it.
- The softmax of all three attentions is computed in float32 or wider, also under autocast, because
  a token may attend to tens of thousands of positions.

The tokens attend to the whole map and control every activation, so that the maps of a padded image
or of a tile differ from those of the image, and no mask can prevent this. The pyramid therefore
uses no padding; each halving rounds up. Training needs two images per step, because the classifier
normalizes over the batch.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_backbones.backbone import Backbone, EncoderOutput, FeatureInfo, run_block
from hybrid_backbones.kernels.activation import RELU6
from hybrid_backbones.kernels.dispatch import to_fast_layout
from hybrid_backbones.layers.conv_norm import ConvNorm
from hybrid_backbones.layers.drop import DropPath
from hybrid_backbones.layers.former_bridge import (
    DynamicReLU,
    MapToTokens,
    TokenBlock,
    TokensToMap,
)
from hybrid_backbones.model_spec import ModelSpec, SmallVariant

_SECOND_EXPANSION = 4
_HEAD_EXPANSION = 6

Stages = tuple[tuple[tuple[int, int], ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MobileFormerConfig:
    """A variant of Mobile-Former.

    Attributes:
        in_channels: Channels of the images.
        num_classes: Number of classes; 0: no classifier.
        stem_width: Channels of the first convolution.
        lite: Expansion, channels and stride of the first block, which has no tokens.
        stages: For each stage, expansion and channels of its blocks. The first block of a stage
            halves the resolution, except in the first stage after a first block of stride 2.
        tokens: Number of tokens, T.
        token_width: Width of a token, D.
        groups: Groups of the 1x1 convolutions.
        head_width: Hidden width of the classifier.
        head_dropout: Rate in front of the last matrix.
        drop_path: Rate of stochastic depth in the last block; rises linearly.
    """

    in_channels: int = 3
    num_classes: int = 1000
    stem_width: int = 16
    lite: tuple[int, int, int] = (2, 16, 1)
    stages: Stages = (
        ((6, 24), (4, 24)),
        ((6, 48), (4, 48)),
        ((6, 96), (4, 96), (6, 128), (6, 128)),
        ((6, 192), (6, 192), (6, 192)),
    )
    tokens: int = 6
    token_width: int = 192
    groups: int = 1
    head_width: int = 1920
    head_dropout: float = 0.3
    drop_path: float = 0.0


def shuffle_channels(x: Tensor, groups: int) -> Tensor:
    """Interleave the channels of `groups` groups of maps (N, C, H, W)."""
    shuffled: Tensor = x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)
    return shuffled


class LiteBlock(nn.Module):
    """The first block: depth-wise convolution, 1x1 convolution; tokens are unchanged."""

    def __init__(self, config: MobileFormerConfig) -> None:
        super().__init__()
        expansion, channels, stride = config.lite
        self.before, self.groups = config.stem_width, config.groups
        self.residual = stride == 1 and self.before == channels
        hidden = self.before * expansion
        self.conv1 = ConvNorm(
            self.before, hidden, 3, stride=stride, groups=self.before, activation=RELU6
        )
        self.conv2 = ConvNorm(hidden, channels, 1, groups=config.groups)

    def forward(self, x: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Map (N, C, H, W) to (N, D, ceil(H/stride), ceil(W/stride))."""
        y = self.conv1(x)
        if self.groups > 1:
            y = shuffle_channels(y, self.before)
        y = self.conv2(y)
        return (x + y if self.residual else y), tokens


class Former(nn.Module, ABC):
    """Base of all blocks with tokens, which read the map, attend to each other, and write."""

    def __init__(
        self, before: int, channels: int, config: MobileFormerConfig, *, rate: float
    ) -> None:
        super().__init__()
        width = config.token_width
        self.groups = config.groups
        self.read = MapToTokens(before, width, drop_path=rate)
        self.think = TokenBlock(width, drop_path=rate)
        self.write = TokensToMap(channels, width, drop_path=rate)
        self.drop_path = DropPath(rate)

    def shuffle(self, x: Tensor, groups: int) -> Tensor:
        """Interleave channels if the 1x1 convolutions have groups."""
        return shuffle_channels(x, groups) if self.groups > 1 else x

    @abstractmethod
    def transform(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Map (N, C, H, W) to the block's own map, before the tokens write to it."""

    def forward(self, x: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Map (N, C, H, W) and tokens (N, T, D) to the block's map and the next tokens."""
        tokens = self.think(self.read(x, tokens))
        return self.write(self.transform(x, tokens), tokens), tokens


class Block(Former):
    """Expand, convolve depth-wise, project; the resolution is unchanged.

    Source:
        arXiv:2108.05895, "Mobile sub-block".
    """

    def __init__(
        self, before: int, channels: int, expansion: int, config: MobileFormerConfig, rate: float
    ) -> None:
        super().__init__(before, channels, config, rate=rate)
        hidden, groups = before * expansion, config.groups
        self.residual = before == channels
        self.conv1 = ConvNorm(before, hidden, 1, groups=groups)
        self.act1 = DynamicReLU(hidden, config.token_width)
        self.conv2 = ConvNorm(hidden, hidden, 3, groups=hidden)
        self.act2 = DynamicReLU(hidden, config.token_width)
        self.conv3 = ConvNorm(hidden, channels, 1, groups=groups)

    def transform(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, D, H, W)."""
        y = self.act1(self.shuffle(self.conv1(x), self.groups), tokens)
        y = self.conv3(self.act2(self.conv2(y), tokens))
        y = self.shuffle(y, self.groups)
        return x + self.drop_path(y) if self.residual else y


class DownBlock(Former):
    """Two depth-wise and 1x1 convolutions; the first halves the resolution.

    Source:
        arXiv:2108.05895, "downsample Mobile-Former block".
    """

    def __init__(
        self, before: int, channels: int, expansion: int, config: MobileFormerConfig, rate: float
    ) -> None:
        super().__init__(before, channels, config, rate=rate)
        first, second, groups = before * expansion, channels * _SECOND_EXPANSION, config.groups
        self.before, self.channels = before, channels
        self.conv1 = ConvNorm(before, first, 3, stride=2, groups=before)
        self.act1 = DynamicReLU(first, config.token_width)
        self.conv2 = ConvNorm(first, channels, 1, groups=groups)
        self.conv3 = ConvNorm(channels, second, 3, groups=channels)
        self.act3 = DynamicReLU(second, config.token_width)
        self.conv4 = ConvNorm(second, channels, 1, groups=groups)

    def transform(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, D, ceil(H/2), ceil(W/2))."""
        y: Tensor = self.conv2(self.act1(self.shuffle(self.conv1(x), self.before), tokens))
        z = self.act3(self.shuffle(self.conv3(y), self.channels), tokens)
        result: Tensor = y + self.drop_path(self.conv4(z))
        return result


class Classifier(nn.Module):
    """Expand and pool the map, concatenate the first token, two linear layers."""

    norms_behind = (("fc1", "bn"),)

    def __init__(self, config: MobileFormerConfig) -> None:
        super().__init__()
        width = config.stages[-1][-1][1]
        expanded = width * _HEAD_EXPANSION
        self.groups = config.groups
        self.conv = ConvNorm(width, expanded, 1, groups=config.groups, activation=RELU6)
        self.fc1 = nn.Linear(expanded + config.token_width, config.head_width)
        self.bn = nn.BatchNorm1d(config.head_width)
        self.dropout = nn.Dropout(config.head_dropout)
        self.fc2 = nn.Linear(config.head_width, config.num_classes)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Map (N, C, H, W) and tokens (N, T, D) to logits (N, num_classes)."""
        x = shuffle_channels(x, self.groups) if self.groups > 1 else x
        pooled = F.hardswish(self.conv(x).mean((2, 3)))
        joined = torch.cat((pooled, tokens[:, 0].to(pooled.dtype)), 1)
        hidden = F.hardswish(self.bn(self.fc1(joined)))
        logits: Tensor = self.fc2(self.dropout(hidden))
        return logits


class MobileFormer(Backbone):
    """Mobile-Former: a pyramid with strides 2, 4, 8, 16 and 32, and tokens."""

    first_convolution = "stem.conv.weight"
    head_keys = ("classifier.fc2.weight", "classifier.fc2.bias")
    no_weight_decay = ("tokens.weight",)

    def __init__(self, config: MobileFormerConfig) -> None:
        super().__init__()
        self.config = config
        self.num_classes = config.num_classes
        self.tokens = nn.Embedding(config.tokens, config.token_width)
        self.stem = ConvNorm(config.in_channels, config.stem_width, 3, stride=2, activation=RELU6)
        lite = FeatureInfo(config.lite[1], 2, "features.0")
        stem = FeatureInfo(config.stem_width, 2, "stem")
        levels = [lite if config.lite[2] == 1 else stem]
        blocks = _make_blocks(config)
        self.features = nn.ModuleList(blocks)
        last = 0
        for level, stage in enumerate(config.stages):
            last += len(stage)
            levels.append(FeatureInfo(stage[-1][1], 4 * 2**level, f"features.{last}"))
        self.feature_info = tuple(levels)
        if config.num_classes:
            self.read = MapToTokens(
                levels[-1].channels, config.token_width, drop_path=config.drop_path
            )
            self.classifier = Classifier(config)
        self._init_as_official()

    def encode(self, image: Tensor) -> EncoderOutput:
        """Compute maps at strides 2, 4, 8, 16, 32 and tokens (N, T, D) of images (N, C, H, W)."""
        x = self.stem(to_fast_layout(image))
        # Not a view of the weight, on which counters of multiply-adds fail without gradient.
        tokens = self.tokens.weight.repeat(image.shape[0], 1, 1)
        checkpoint = self.gradient_checkpointing and self.training
        made = {"stem": x}
        for index, block in enumerate(self.features):
            output = run_block(block, x, tokens, checkpoint=checkpoint)
            x, tokens = cast(tuple[Tensor, Tensor], output)
            made[f"features.{index}"] = x
        return EncoderOutput([made[info.module] for info in self.feature_info], tokens)

    def forward_head(self, encoded: EncoderOutput) -> Tensor:
        """Let the tokens attend to the last map once more, then classify both."""
        if encoded.tokens is None:
            raise ValueError("Mobile-Former classifies its tokens too; `encoded` has none")
        x = encoded.maps[-1]
        logits: Tensor = self.classifier(x, self.read(x, encoded.tokens))
        return logits

    def convert_published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Convert the layout of AAboys/MobileFormer."""
        renamed = {}
        for name, value in state.items():
            key = name
            for pattern, target in _RENAMES:
                key = re.sub(pattern, target, key)
            renamed[key] = value
        if self.num_classes:
            return renamed
        return {k: v for k, v in renamed.items() if not k.startswith(("read.", "classifier."))}

    def _init_as_official(self) -> None:
        """He's normal by outputs for convolutions, normal 0.01 for matrices, 1 for tokens."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, std=(2.0 / fan) ** 0.5)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)


def _make_blocks(config: MobileFormerConfig) -> list[nn.Module]:
    blocks: list[nn.Module] = [LiteBlock(config)]
    count = 1 + sum(map(len, config.stages))
    before = config.lite[1]
    for level, stage in enumerate(config.stages):
        for index, (expansion, channels) in enumerate(stage):
            halves = index == 0 and (level > 0 or config.lite[2] == 1)
            rate = config.drop_path * (len(blocks) + 1) / count
            kind = DownBlock if halves else Block
            blocks.append(kind(before, channels, expansion, config, rate))
            before = channels
    return blocks


_RENAMES = (
    (r"^stem\.0\.", "stem.conv."),
    (r"^stem\.1\.", "stem.bn."),
    (r"^features\.0\.conv\.([01])\.", r"features.0.conv1.\1."),
    (r"^features\.0\.conv\.4\.", "features.0.conv2.0."),
    (r"^features\.0\.conv\.5\.", "features.0.conv2.1."),
    (r"\.(conv\d)\.0\.", r".\1.conv."),
    (r"\.(conv\d)\.1\.", r".\1.bn."),
    (r"\.hyper(\d)\.hyper\.0\.", r".act\1.squeeze."),
    (r"\.hyper(\d)\.hyper\.2\.", r".act\1.expand."),
    (r"(^|\.)local_global\.alpha\.0\.", r"\1read.gate."),
    (r"(^|\.)local_global\.layer_norm\.", r"\1read.norm."),
    (r"(^|\.)local_global\.", r"\1read."),
    (r"\.global_block\.channel_mlp\.", ".think.proj."),
    (r"\.global_block\.layer_norm\.", ".think.norm1."),
    (r"\.global_block\.ffn_norm\.", ".think.norm2."),
    (r"\.global_block\.ffn\.0\.", ".think.mlp.fc1."),
    (r"\.global_block\.ffn\.2\.", ".think.mlp.fc2."),
    (r"\.global_block\.", ".think."),
    (r"\.global_local\.proj\.", ".write.v."),
    (r"\.global_local\.", ".write."),
    (r"^classifier\.conv\.1\.", "classifier.conv.conv."),
    (r"^classifier\.conv\.2\.", "classifier.conv.bn."),
    (r"^classifier\.fc\.0\.", "classifier.fc1."),
    (r"^classifier\.fc\.1\.", "classifier.bn."),
    (r"^classifier\.classifier\.1\.", "classifier.fc2."),
)


def _spec(name: str, *, parameters: int, gmacs: float, top1: float, **fields: object) -> ModelSpec:
    config = MobileFormerConfig(**fields)  # type: ignore[arg-type]
    finest = config.lite[1] if config.lite[2] == 1 else config.stem_width
    return ModelSpec(
        name=name,
        build=MobileFormer,
        config=config,
        image_size=224,
        parameters=parameters,
        gmacs=gmacs,
        strides=(2, 4, 8, 16, 32),
        channels=(finest, *(stage[-1][1] for stage in config.stages)),
        top1=top1,
        paper="Chen et al., Mobile-Former, CVPR 2022, arXiv:2108.05895",
        code="AAboys/MobileFormer@f447310",
        weights_license="not stated (nor is the code's)",
    )


_M508: dict[str, object] = {
    "stem_width": 24,
    "lite": (2, 24, 1),
    "stages": (
        ((6, 40), (3, 40)),
        ((6, 72), (3, 72)),
        ((6, 128), (4, 128), (6, 176), (6, 176)),
        ((6, 240), (6, 240), (6, 240)),
    ),
}
_M214: dict[str, object] = {
    "stem_width": 12,
    "lite": (2, 12, 1),
    "head_width": 1600,
    "head_dropout": 0.2,
    "stages": (
        ((6, 20), (3, 20)),
        ((6, 40), (4, 40)),
        ((6, 80), (4, 80), (6, 112), (6, 112)),
        ((6, 160), (6, 160), (6, 160)),
    ),
}
_M151: dict[str, object] = {
    "stem_width": 12,
    "lite": (2, 12, 1),
    "head_width": 1280,
    "head_dropout": 0.2,
    "stages": (
        ((6, 16), (3, 16)),
        ((6, 32), (3, 32)),
        ((6, 64), (4, 64), (6, 88), (6, 88)),
        ((6, 128), (6, 128), (6, 128)),
    ),
}
_M96: dict[str, object] = {
    "stem_width": 12,
    "lite": (2, 12, 1),
    "tokens": 4,
    "token_width": 128,
    "head_width": 1280,
    "head_dropout": 0.2,
    "stages": (
        ((6, 16),),
        ((6, 32), (3, 32)),
        ((6, 64), (4, 64), (6, 88)),
        ((6, 128), (6, 128)),
    ),
}
_M52: dict[str, object] = {
    "stem_width": 8,
    "lite": (3, 12, 2),
    "tokens": 3,
    "token_width": 128,
    "head_width": 1024,
    "head_dropout": 0.2,
    "stages": (
        ((3, 12),),
        ((6, 24), (3, 24)),
        ((6, 48), (4, 48), (6, 64)),
        ((6, 96), (6, 96)),
    ),
}
_M26: dict[str, object] = {**_M52, "groups": 4, "head_dropout": 0.1}

SPECS: tuple[ModelSpec, ...] = (
    _spec("mobile_former_26m", parameters=3_232_788, gmacs=0.02355, top1=64.0, **_M26),
    _spec("mobile_former_52m", parameters=3_469_092, gmacs=0.04929, top1=68.7, **_M52),
    _spec("mobile_former_96m", parameters=4_585_252, gmacs=0.09202, top1=72.8, **_M96),
    _spec("mobile_former_151m", parameters=7_595_828, gmacs=0.14625, top1=75.2, **_M151),
    _spec("mobile_former_214m", parameters=9_425_920, gmacs=0.20837, top1=76.7, **_M214),
    _spec("mobile_former_294m", parameters=11_422_648, gmacs=0.28673, top1=77.9),
    _spec("mobile_former_508m", parameters=13_976_976, gmacs=0.49847, top1=79.3, **_M508),
)

SMALL: Mapping[str, SmallVariant] = {"mobile_former_26m": SmallVariant({}, exports_any_size=True)}
