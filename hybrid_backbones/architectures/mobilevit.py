"""MobileViT.

Mehta and Rastegari, MobileViT: Light-weight, General-purpose, and Mobile-friendly Vision
Transformer, ICLR 2022, arXiv:2110.02178. Official code: apple/ml-cvnets (tag cvnets-v0.1).

The published weights expect values in [0, 1] without normalization. Those of ml-cvnets and
transformers expect the channel order blue, green, red: see `MobileViTConfig.channel_order`.

Deliberate differences, none of which changes a result beyond rounding:
- Attention uses `scaled_dot_product_attention`, which computes the softmax in float32 under
  autocast, as the official code does by a cast.
- The pyramid ends at the fifth stage, as in the official segmentation networks. The expanding
  convolution behind it belongs to the classifier; with `expand_last` it is the last map instead.
- `drop_path` exists and is 0. The published networks do not have it.
- The dilated variants (output stride 8 and 16) are not included.

The recorded float64 numbers are those of timm. ml-cvnets differs from them by 5e-8, because it
always computes the softmax in float32.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_backbones.attention_geometry import AttentionGeometry, grid_positions
from hybrid_backbones.backbone import Backbone, EncoderOutput, FeatureInfo, run_block
from hybrid_backbones.kernels.activation import SILU
from hybrid_backbones.kernels.dispatch import to_fast_layout
from hybrid_backbones.kernels.linear import Linear, PointwiseConv2d
from hybrid_backbones.layers.attention import merge_heads
from hybrid_backbones.layers.conv_norm import ConvNorm, apply_in_order
from hybrid_backbones.layers.drop import DropPath
from hybrid_backbones.layers.export_shapes import resize_bilinear
from hybrid_backbones.layers.mlp import Mlp
from hybrid_backbones.model_spec import UNIT, ModelSpec, SmallVariant

_STEM_WIDTH = 16
_PATCH = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class MobileViTConfig:
    """A variant of MobileViT.

    Attributes:
        in_channels: Channels of the images.
        num_classes: Number of classes; 0: no classifier.
        widths: Channels of the five stages.
        token_widths: Channels inside the transformers of the last three stages.
        depths: Transformer layers in each of them.
        expansion: Hidden channels of the inverted residuals over their input channels.
        num_heads: Attention heads.
        mlp_ratio: Hidden width of the MLPs over their width.
        dropout: Rate behind attention and behind MLPs.
        head_dropout: Rate in front of the classifier.
        drop_path: Rate of stochastic depth in the last transformer layer; rises linearly from 0.
        expand_last: The pyramid's last map is the expanded one that the classifier pools.
        channel_order: Order of the channels in the images. Weights in the layouts of ml-cvnets and
            transformers were trained on "bgr"; for "rgb" their first convolution is flipped while
            loading. Those of timm are loaded unchanged.
    """

    in_channels: int = 3
    num_classes: int = 1000
    widths: tuple[int, int, int, int, int] = (32, 64, 96, 128, 160)
    token_widths: tuple[int, int, int] = (144, 192, 240)
    depths: tuple[int, int, int] = (2, 4, 3)
    expansion: int = 4
    num_heads: int = 4
    mlp_ratio: float = 2.0
    dropout: float = 0.1
    head_dropout: float = 0.1
    drop_path: float = 0.0
    expand_last: bool = False
    channel_order: Literal["rgb", "bgr"] = "rgb"


class InvertedResidual(nn.Module):
    """Expand, convolve depth-wise, project.

    Source:
        Sandler et al., MobileNetV2, arXiv:1801.04381, section 3.3.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.residual = stride == 1 and in_channels == out_channels
        self.conv1_1x1 = ConvNorm(in_channels, hidden, 1, activation=SILU)
        self.conv2_kxk = ConvNorm(hidden, hidden, 3, stride=stride, groups=hidden, activation=SILU)
        self.conv3_1x1 = ConvNorm(hidden, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, D, ceil(H/stride), ceil(W/stride))."""
        y = apply_in_order(x, self.conv1_1x1, self.conv2_kxk, self.conv3_1x1)
        return x + y if self.residual else y


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width)
        self.proj = Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Attend among tokens (N, L, D)."""
        split = self.qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = split.unbind(0)
        out = F.scaled_dot_product_attention(q, k, v)
        mixed: Tensor = self.proj(merge_heads(out))
        return mixed


class TransformerLayer(nn.Module):
    """Attention and MLP, each with a norm in front and a residual."""

    def __init__(self, config: MobileViTConfig, width: int, *, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, config.num_heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, int(width * config.mlp_ratio), activation=SILU)
        self.dropout = nn.Dropout(config.dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (N, L, D) to the same shape."""
        tokens = tokens + self.drop_path(self.dropout(self.attn(self.norm1(tokens))))
        result: Tensor = tokens + self.drop_path(self.dropout(self.mlp(self.norm2(tokens))))
        return result


def unfold_patches(x: Tensor) -> Tensor:
    """Gather the pixels with the same position inside all patches of 2 x 2.

    Args:
        x: Maps (N, C, H, W). H and W are even.

    Returns:
        Sequences (N * 4, H/2 * W/2, C): for each position in a patch, row by row, that position of
        every patch, row by row.

    Source:
        arXiv:2110.02178, section 3.1.
    """
    channels, height, width = x.shape[1:]
    cut = x.reshape(-1, channels, height // _PATCH, _PATCH, width // _PATCH, _PATCH)
    count = (height // _PATCH) * (width // _PATCH)
    return cut.permute(0, 3, 5, 2, 4, 1).reshape(-1, count, channels)


def fold_patches(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Convert sequences (N * 4, H/2 * W/2, C) back to maps (N, C, H, W), `grid` = (H, W).

    The maps are in channels-last memory format, which convolutions prefer. The concatenation behind
    would pass on the other format to all following layers.
    """
    height, width = grid
    channels = tokens.shape[-1]
    cut = tokens.reshape(-1, _PATCH, _PATCH, height // _PATCH, width // _PATCH, channels)
    last = cut.permute(0, 3, 1, 4, 2, 5).reshape(-1, height, width, channels)
    return last.permute(0, 3, 1, 2)


class MobileViTBlock(nn.Module):
    """A convolution with transformers in place of its matrix product: local, global, fused.

    Maps of odd sides are resized to even ones for the transformers, and back.

    Source:
        arXiv:2110.02178, section 3.1, figure 1b.
    """

    def __init__(
        self, config: MobileViTConfig, channels: int, width: int, *, rates: tuple[float, ...]
    ) -> None:
        super().__init__()
        self.conv_kxk = ConvNorm(channels, channels, 3, activation=SILU)
        self.conv_1x1 = PointwiseConv2d(channels, width, bias=False)
        self.transformer = nn.ModuleList(
            TransformerLayer(config, width, drop_path=rate) for rate in rates
        )
        self.norm = nn.LayerNorm(width)
        self.conv_proj = ConvNorm(width, channels, 1, activation=SILU)
        self.conv_fusion = ConvNorm(2 * channels, channels, 3, activation=SILU)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        size = (x.shape[2], x.shape[3])
        even = ((size[0] + 1) // _PATCH * _PATCH, (size[1] + 1) // _PATCH * _PATCH)
        local = self.conv_1x1(self.conv_kxk(x))
        tokens = unfold_patches(resize_bilinear(local, even))
        for layer in self.transformer:
            tokens = layer(tokens)
        y = resize_bilinear(fold_patches(self.norm(tokens), even), size)
        result: Tensor = self.conv_fusion(torch.cat((x, self.conv_proj(y)), 1))
        return result

    def attention_geometry(self, x: Tensor) -> AttentionGeometry:
        """Return the positions of the sequences; each contains one position of every patch."""
        height, width = x.shape[2:]
        # Odd sides are resized to even ones for the attention.
        even = (height + height % _PATCH, width + width % _PATCH)
        positions = grid_positions(*even) * torch.tensor([height / even[0], width / even[1]])
        sequences = unfold_patches(positions.permute(2, 0, 1)[None])
        return AttentionGeometry(queries=sequences, keys=sequences, groups_in="images")


class Classifier(nn.Module):
    """Mean over positions, dropout, linear."""

    def __init__(self, width: int, num_classes: int, *, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to logits (N, num_classes)."""
        logits: Tensor = self.fc(self.dropout(x.mean((2, 3))))
        return logits


class MobileViT(Backbone):
    """MobileViT: a pyramid with strides 2, 4, 8, 16 and 32."""

    first_convolution = "stem.conv.weight"
    head_keys = ("head.fc.weight", "head.fc.bias")

    def __init__(self, config: MobileViTConfig) -> None:
        super().__init__()
        self.config = config
        self.num_classes = config.num_classes
        self.stem = ConvNorm(config.in_channels, _STEM_WIDTH, 3, stride=2, activation=SILU)
        self.stages = nn.ModuleList(_make_stages(config))
        widths = list(config.widths)
        expanded = 4 * widths[-1]
        if config.num_classes or config.expand_last:
            self.final_conv = ConvNorm(widths[-1], expanded, 1, activation=SILU)
        if config.num_classes:
            self.head = Classifier(expanded, config.num_classes, dropout=config.head_dropout)
        modules = [f"stages.{level}" for level in range(len(widths))]
        if config.expand_last:
            widths[-1], modules[-1] = expanded, "final_conv"
        self.feature_info = tuple(
            FeatureInfo(width, 2 ** (level + 1), module)
            for level, (width, module) in enumerate(zip(widths, modules, strict=True))
        )
        self._init_as_official()

    def encode(self, image: Tensor) -> EncoderOutput:
        """Compute maps at strides 2, 4, 8, 16, 32 of images (N, C, H, W)."""
        maps = []
        x = self.stem(to_fast_layout(image))
        checkpoint = self.gradient_checkpointing and self.training
        for stage in cast(list[nn.Sequential], list(self.stages)):
            for block in stage:
                x = run_block(block, x, checkpoint=checkpoint)
            maps.append(x)
        if self.config.expand_last:
            maps[-1] = self.final_conv(x)
        return EncoderOutput(maps)

    def forward_head(self, encoded: EncoderOutput) -> Tensor:
        """Expand, mean over positions, classify."""
        x = encoded.maps[-1]
        logits: Tensor = self.head(x if self.config.expand_last else self.final_conv(x))
        return logits

    def convert_published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Convert the layouts of timm, apple/ml-cvnets and transformers.

        A network without classes also accepts the encoder of a published segmentation network.
        """
        published = [key for key in state if re.match(r"(mobilevit|encoder)\.|conv_1\.", key)]
        if published:
            renames = _TRANSFORMERS if published[0].startswith("mobilevit.") else _CVNETS
            state = _join_qkv(_rename(state, renames))
            first = state.get(self.first_convolution)
            if self.config.channel_order == "rgb" and first is not None and first.shape[1] == 3:
                state[self.first_convolution] = first.flip(1)
        unused: tuple[str, ...] = ()
        if not self.num_classes:
            unused = ("head.", "segmentation_head.", "seg_head.", "aux_head.")
            unused += () if self.config.expand_last else ("final_conv.",)
        return {key: value for key, value in state.items() if not key.startswith(unused)}

    def _init_as_official(self) -> None:
        """He's normal by outputs for convolutions, truncated normal 0.02 for matrices."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
            elif isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)


def _make_stages(config: MobileViTConfig) -> list[nn.Sequential]:
    stages = []
    count = sum(config.depths)
    rates = [config.drop_path * layer / max(count - 1, 1) for layer in range(count)]
    before = _STEM_WIDTH
    for level, width in enumerate(config.widths):
        strides = (1,) if level == 0 else (2, 1, 1) if level == 1 else (2,)
        blocks: list[nn.Module] = []
        for stride in strides:
            blocks.append(
                InvertedResidual(before, width, stride=stride, expansion=config.expansion)
            )
            before = width
        if level >= 2:
            depth = config.depths[level - 2]
            own, rates = tuple(rates[:depth]), rates[depth:]
            blocks.append(MobileViTBlock(config, width, config.token_widths[level - 2], rates=own))
        stages.append(nn.Sequential(*blocks))
    return stages


_Rename = tuple[str, str | Callable[[re.Match[str]], str]]

_CVNETS: tuple[_Rename, ...] = (
    (r"^encoder\.", ""),
    (r"^conv_1\.", "stem."),
    (r"^conv_1x1_exp\.", "final_conv."),
    (r"^classifier\.fc\.", "head.fc."),
    (r"^layer_(\d)\.(\d)\.(block\.)?", lambda match: f"stages.{int(match[1]) - 1}.{match[2]}."),
    (r"\.exp_1x1\.", ".conv1_1x1."),
    (r"(?<!local_rep)\.conv_3x3\.", ".conv2_kxk."),
    (r"\.red_1x1\.", ".conv3_1x1."),
    (r"\.local_rep\.conv_3x3\.", ".conv_kxk."),
    (r"\.local_rep\.conv_1x1\.block\.conv\.", ".conv_1x1."),
    (r"\.global_rep\.\d+\.(weight|bias)$", r".norm.\1"),
    (r"\.global_rep\.", ".transformer."),
    (r"\.pre_norm_mha\.0\.", ".norm1."),
    (r"\.pre_norm_mha\.1\.qkv_proj\.", ".attn.qkv."),
    (r"\.pre_norm_mha\.1\.out_proj\.", ".attn.proj."),
    (r"\.pre_norm_ffn\.0\.", ".norm2."),
    (r"\.pre_norm_ffn\.1\.", ".mlp.fc1."),
    (r"\.pre_norm_ffn\.4\.", ".mlp.fc2."),
    (r"\.fusion\.", ".conv_fusion."),
    (r"\.block\.conv\.", ".conv."),
    (r"\.block\.norm\.", ".bn."),
)

_TRANSFORMERS: tuple[_Rename, ...] = (
    (r"^mobilevit\.conv_stem\.", "stem."),
    (r"^mobilevit\.conv_1x1_exp\.", "final_conv."),
    (r"^classifier\.", "head.fc."),
    (r"^mobilevit\.encoder\.layer\.([01])\.layer\.(\d)\.", r"stages.\1.\2."),
    (r"^mobilevit\.encoder\.layer\.(\d)\.downsampling_layer\.", r"stages.\1.0."),
    (r"^mobilevit\.encoder\.layer\.(\d)\.", r"stages.\1.1."),
    (r"\.expand_1x1\.", ".conv1_1x1."),
    (r"\.conv_3x3\.", ".conv2_kxk."),
    (r"\.reduce_1x1\.", ".conv3_1x1."),
    (r"\.conv_1x1\.convolution\.", ".conv_1x1."),
    (r"\.conv_projection\.", ".conv_proj."),
    (r"\.fusion\.", ".conv_fusion."),
    (r"\.transformer\.layer\.", ".transformer."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.attention\.(query|key|value)\.", r".attn.\1."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.layernorm\.", ".norm."),
    (r"\.convolution\.", ".conv."),
    (r"\.normalization\.", ".bn."),
)


def _rename(state: Mapping[str, Tensor], renames: tuple[_Rename, ...]) -> dict[str, Tensor]:
    renamed = {}
    for name, value in state.items():
        key = name
        for pattern, target in renames:
            key = re.sub(pattern, target, key)
        renamed[key] = value
    return renamed


def _join_qkv(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for key in [key for key in state if ".attn.query." in key]:
        names = [key.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
        # A damaged file lacks one of the three. Strict loading then names the others.
        if all(name in state for name in names):
            joined = torch.cat([state.pop(name) for name in names])
            state[key.replace(".query.", ".qkv.")] = joined
    return state


def _spec(name: str, *, parameters: int, gmacs: float, top1: float, **fields: object) -> ModelSpec:
    config = MobileViTConfig(**fields)  # type: ignore[arg-type]
    return ModelSpec(
        name=name,
        build=MobileViT,
        config=config,
        image_size=256,
        parameters=parameters,
        gmacs=gmacs,
        strides=(2, 4, 8, 16, 32),
        channels=config.widths,
        top1=top1,
        normalization=UNIT,
        paper="Mehta and Rastegari, MobileViT, ICLR 2022, arXiv:2110.02178",
        code="apple/ml-cvnets@7771756, tag cvnets-v0.1",
        weights_license="not stated apart from the code's (Apple sample code license)",
    )


_XXS: dict[str, object] = {
    "widths": (16, 24, 48, 64, 80),
    "token_widths": (64, 80, 96),
    "expansion": 2,
    "dropout": 0.05,
}
_XS: dict[str, object] = {"widths": (32, 48, 64, 80, 96), "token_widths": (96, 120, 144)}

SPECS: tuple[ModelSpec, ...] = (
    _spec("mobilevit_xxs", parameters=1_272_024, gmacs=0.407, top1=69.0, **_XXS),
    _spec("mobilevit_xs", parameters=2_317_848, gmacs=1.026, top1=74.8, **_XS),
    _spec("mobilevit_s", parameters=5_578_632, gmacs=2.001, top1=78.4),
)

SMALL: Mapping[str, SmallVariant] = {
    "mobilevit_xxs": SmallVariant({"depths": (1, 1, 1)}, exports_any_size=True)
}
