"""Swin Transformer.

Liu et al., Swin Transformer: Hierarchical Vision Transformer using Shifted Windows, ICCV 2021,
arXiv:2103.14030. Official code: microsoft/Swin-Transformer (classification) and
SwinTransformer/Swin-Transformer-Semantic-Segmentation (dense).

Deliberate differences, none of which changes a result at the published sizes:
- Any image size: after the first norm, maps are padded with zeros to whole windows, as in the
  official dense backbone. Windows without a shift attend to the padding, as they do there. The maps
  of an image therefore depend on the padding near its right and lower border.
- The mask of shifted windows is -inf instead of -100, and computed once for each map size.
- `dense` selects one of two official rules: the classifier does not shift windows if one window
  covers the map, and the dense backbone always shifts them and normalizes its maps.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from hybrid_backbones.attention_geometry import AttentionGeometry, window_geometry
from hybrid_backbones.backbone import Backbone, EncoderOutput, FeatureInfo, run_block
from hybrid_backbones.kernels.linear import Linear
from hybrid_backbones.layers.attention import attend_in_windows
from hybrid_backbones.layers.drop import DropPath
from hybrid_backbones.layers.mlp import Mlp
from hybrid_backbones.layers.patch_embed import PatchEmbed
from hybrid_backbones.layers.patch_merging import PatchMerging
from hybrid_backbones.layers.shape_cache import ShapeCache
from hybrid_backbones.layers.windows import (
    merge_windows,
    partition_windows,
    relative_position_index,
    resize_relative_table,
    shifted_window_mask,
)
from hybrid_backbones.layers.windows2d import pad_to_multiple
from hybrid_backbones.model_spec import ModelSpec, SmallVariant


@dataclass(frozen=True, slots=True, kw_only=True)
class SwinConfig:
    """A variant of Swin.

    Attributes:
        in_channels: Channels of the images.
        num_classes: Number of classes; 0: no classifier.
        embed_dim: Channels of the first stage; doubled at each further one.
        depths: Blocks in each stage.
        num_heads: Attention heads in each stage.
        window_size: Side of a window in feature pixels.
        mlp_ratio: Hidden width of the MLPs over their width.
        drop_path: Rate of stochastic depth in the last block; rises linearly from 0.
        dense: Follow the official dense backbone: always shift odd blocks, normalize each map.
    """

    in_channels: int = 3
    num_classes: int = 1000
    embed_dim: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    num_heads: tuple[int, ...] = (3, 6, 12, 24)
    window_size: int = 7
    mlp_ratio: float = 4.0
    drop_path: float = 0.2
    dense: bool = False


class WindowAttention(nn.Module):
    """Attention inside windows with a learned bias for each relative position.

    Source:
        arXiv:2103.14030, section 3.2, equation 4.
    """

    relative_position_index: Tensor

    def __init__(self, width: int, heads: int, *, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.register_buffer(
            "relative_position_index", relative_position_index(window), persistent=False
        )
        self.qkv = Linear(width, 3 * width)
        self.proj = Linear(width, width)

    def forward(self, windows: Tensor, mask: Tensor | None) -> Tensor:
        """Attend inside windows (N, L, S*S, D); `mask` (L, S*S, S*S) is added to the scores."""
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)
        mixed: Tensor = self.proj(attend_in_windows(self.qkv(windows), self.heads, bias, mask))
        return mixed


class SwinBlock(nn.Module):
    """Window attention and an MLP, each with a norm in front and a residual."""

    def __init__(
        self, width: int, heads: int, *, window: int, mlp_ratio: float, drop_path: float
    ) -> None:
        super().__init__()
        self.window = window
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(width, heads, window=window)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Map (N, H, W, D) to the same shape; windows are shifted if there is a mask."""
        height, width = x.shape[1:3]
        y = pad_to_multiple(self.norm1(x), (self.window, self.window))
        shift = 0 if mask is None else self.window // 2
        if shift:
            y = torch.roll(y, (-shift, -shift), (1, 2))
        grid = (y.shape[1] // self.window, y.shape[2] // self.window)
        y = partition_windows(y, self.window)
        y = merge_windows(self.attn(y, mask), grid, self.window)
        if shift:
            y = torch.roll(y, (shift, shift), (1, 2))
        x = x + self.drop_path(y[:, :height, :width])
        result: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return result

    def attention_geometry(self, x: Tensor, mask: Tensor | None) -> AttentionGeometry:
        """Return the positions of the windows."""
        return window_geometry(
            (x.shape[1], x.shape[2]),
            (self.window, self.window),
            shift=0 if mask is None else self.window // 2,
            groups_in="images" if mask is None else "heads",
        )


class SwinStage(nn.Module):
    """Blocks at one resolution, then patch merging (not in the last stage)."""

    def __init__(
        self, config: SwinConfig, level: int, *, rates: tuple[float, ...], merge: bool
    ) -> None:
        super().__init__()
        width = config.embed_dim * 2**level
        self.window, self.dense = config.window_size, config.dense
        self.masks = ShapeCache()
        self.blocks = nn.ModuleList(
            SwinBlock(
                width,
                config.num_heads[level],
                window=config.window_size,
                mlp_ratio=config.mlp_ratio,
                drop_path=rate,
            )
            for rate in rates
        )
        self.downsample = PatchMerging(width) if merge else None

    def merge(self, x: Tensor) -> Tensor:
        """Reduce the result to the next resolution; the last stage returns it unchanged."""
        return x if self.downsample is None else self.downsample(x)

    def forward(self, x: Tensor, *, checkpoint: bool) -> Tensor:
        """Run the blocks on (N, H, W, D)."""
        height, width = x.shape[1:3]
        mask = None
        if self.dense or min(height, width) > self.window:
            make = partial(shifted_window_mask, height, width, window=self.window, like=x)
            mask = self.masks.get((height, width), make, like=x)
        for index, block in enumerate(self.blocks):
            arguments = (x, mask) if index % 2 and mask is not None else (x, None)
            x = run_block(block, *arguments, checkpoint=checkpoint and self.training)
        return x


class Swin(Backbone):
    """Swin: a pyramid with strides 4, 8, 16 and 32."""

    first_convolution = "patch_embed.proj.weight"
    head_keys = ("head.weight", "head.bias")

    def __init__(self, config: SwinConfig) -> None:
        super().__init__()
        self.config = config
        self.num_classes = config.num_classes
        levels = len(config.depths)
        widths = [config.embed_dim * 2**level for level in range(levels)]
        # On the CPU explicitly, so that a network can be built on the meta device.
        rates = torch.linspace(0, config.drop_path, sum(config.depths), device="cpu").tolist()
        starts = [sum(config.depths[:level]) for level in range(levels)]
        self.patch_embed = PatchEmbed(config.in_channels, config.embed_dim, 4)
        self.layers = nn.ModuleList(
            SwinStage(
                config,
                level,
                rates=tuple(rates[starts[level] : starts[level] + config.depths[level]]),
                merge=level < levels - 1,
            )
            for level in range(levels)
        )
        if config.dense:
            for level, width in enumerate(widths):
                self.add_module(f"norm{level}", nn.LayerNorm(width))
        if config.num_classes:
            self.norm = nn.LayerNorm(widths[-1])
            self.head = nn.Linear(widths[-1], config.num_classes)
        self.feature_info = tuple(
            FeatureInfo(width, 4 * 2**level, f"layers.{level}")
            for level, width in enumerate(widths)
        )
        self._init_as_official()

    def encode(self, image: Tensor) -> EncoderOutput:
        """Compute maps at strides 4, 8, 16, 32 of images (N, C, H, W)."""
        maps = []
        x = self.patch_embed(image)
        for level, stage in enumerate(cast(list[SwinStage], list(self.layers))):
            x = stage(x, checkpoint=self.gradient_checkpointing)
            y = getattr(self, f"norm{level}")(x) if self.config.dense else x
            maps.append(y.permute(0, 3, 1, 2))
            x = stage.merge(x)
        return EncoderOutput(maps)

    def forward_head(self, encoded: EncoderOutput) -> Tensor:
        """Norm, mean over positions, classifier."""
        tokens = encoded.maps[-1].flatten(2).transpose(1, 2)
        logits: Tensor = self.head(self.norm(tokens).mean(1))
        return logits

    def convert_published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Convert the layouts of microsoft/Swin-Transformer, its dense copy, and transformers."""
        if any(key.startswith("swin.") for key in state):
            state = _from_transformers(state)
        left_out = re.compile(r"relative_position_index$|attn_mask$")
        kept = {key: value for key, value in state.items() if not left_out.search(key)}
        if not self.num_classes:
            kept = {k: v for k, v in kept.items() if not k.startswith(("head.", "norm."))}
        if self.config.dense:
            own = self.state_dict()
            fresh = [key for key in own if re.match(r"norm\d\.", key) and key not in kept]
            kept.update({key: own[key] for key in fresh})
        for key in [key for key in kept if key.endswith("relative_position_bias_table")]:
            kept[key] = resize_relative_table(kept[key], 2 * self.config.window_size - 1)
        return kept

    def _init_as_official(self) -> None:
        """Truncated normal 0.02 for matrices and tables, zero biases."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, WindowAttention):
                nn.init.trunc_normal_(module.relative_position_bias_table, std=0.02)


_RENAMES = (
    (r"^swin\.embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^swin\.embeddings\.norm\.", "patch_embed.norm."),
    (r"^swin\.encoder\.", ""),
    (r"^swin\.layernorm\.", "norm."),
    (r"^classifier\.", "head."),
    (r"layernorm_before", "norm1"),
    (r"layernorm_after", "norm2"),
    (r"attention\.relative_position_bias\.", "attn."),
    (r"attention\.self\.relative_position_", "attn.relative_position_"),
    (r"attention\.(o_proj|output\.dense)\.", "attn.proj."),
    (r"attention\.(self\.query|q_proj)\.", "attn.q."),
    (r"attention\.(self\.key|k_proj)\.", "attn.k."),
    (r"attention\.(self\.value|v_proj)\.", "attn.v."),
    (r"intermediate\.dense\.", "mlp.fc1."),
    (r"(?<!attention\.)output\.dense\.", "mlp.fc2."),
    (r"^hidden_states_norms\.stage(\d)\.", lambda match: f"norm{int(match[1]) - 1}."),
)


def _from_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        key = name
        for pattern, target in _RENAMES:
            key = re.sub(pattern, target, key)
        renamed[key] = value
    for key in [key for key in renamed if ".attn.q." in key]:
        names = [key.replace(".q.", f".{part}.") for part in ("q", "k", "v")]
        # A damaged file lacks one of the three. Strict loading then names the others.
        if all(name in renamed for name in names):
            renamed[key.replace(".q.", ".qkv.")] = torch.cat([renamed.pop(name) for name in names])
    return renamed


def _spec(
    name: str, *, size: int, parameters: int, gmacs: float, top1: float | None, **fields: object
) -> ModelSpec:
    config = SwinConfig(**fields)  # type: ignore[arg-type]
    return ModelSpec(
        name=name,
        build=Swin,
        config=config,
        image_size=size,
        parameters=parameters,
        gmacs=gmacs,
        strides=tuple(4 * 2**level for level in range(len(config.depths))),
        channels=tuple(config.embed_dim * 2**level for level in range(len(config.depths))),
        top1=top1,
        # The large variants were published only with this pre-training.
        trained_on="ImageNet-22k, then 1k" if config.embed_dim == 192 else "ImageNet-1k",
        paper="Liu et al., Swin Transformer, ICCV 2021, arXiv:2103.14030",
        code="microsoft/Swin-Transformer@f82860b",
        weights_license="MIT",
    )


_DEEP = (2, 2, 18, 2)
_BASE: dict[str, object] = {"embed_dim": 128, "depths": _DEEP, "num_heads": (4, 8, 16, 32)}
_LARGE: dict[str, object] = {"embed_dim": 192, "depths": _DEEP, "num_heads": (6, 12, 24, 48)}

SPECS: tuple[ModelSpec, ...] = (
    _spec("swin_tiny", size=224, parameters=28_288_354, gmacs=4.491, top1=81.2),
    _spec(
        "swin_tiny_c24",
        size=256,
        parameters=28_306_432,
        gmacs=5.921,
        top1=81.6,
        num_heads=(4, 8, 16, 32),
        window_size=8,
    ),
    _spec(
        "swin_small",
        size=224,
        parameters=49_606_258,
        gmacs=8.741,
        top1=83.2,
        depths=_DEEP,
        drop_path=0.3,
    ),
    _spec(
        "swin_base",
        size=224,
        parameters=87_768_224,
        gmacs=15.431,
        top1=83.5,
        drop_path=0.5,
        **_BASE,
    ),
    _spec(
        "swin_base_384",
        size=384,
        parameters=87_903_584,
        gmacs=47.083,
        top1=84.5,
        window_size=12,
        drop_path=0.5,
        **_BASE,
    ),
    _spec("swin_large", size=224, parameters=196_532_476, gmacs=34.476, top1=86.3, **_LARGE),
    _spec(
        "swin_large_384",
        size=384,
        parameters=196_735_516,
        gmacs=103.919,
        top1=87.3,
        window_size=12,
        **_LARGE,
    ),
)

# Windows are shifted only if more than one covers the map: no export of any size.
SMALL: Mapping[str, SmallVariant] = {
    "swin_tiny": SmallVariant({"depths": (2, 2, 2, 2), "embed_dim": 48})
}
