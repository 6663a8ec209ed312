"""MoA-Transformer.

Patel, Bur, Li and Wang, Aggregating Global Features into Local Vision Transformer, ICPR 2022,
arXiv:2201.12903. Official code: krushi1992/MOA-transformer. The weights were trained with that
code, which differs from the article: there is no MLP after the global attention, and the
convolution behind it is 3 x 3 instead of 1 x 1, with a residual from the normalized tokens.

The official code reinterprets memory in five places where axes should be permuted: before the
first and the last convolution of the global attention, in its queries, in its keys and values, and
where its result is added to 14 * 14 tokens in raster order instead of a window. `layout="official"`
reproduces this, and official weights need it. `layout="raster"` permutes axes as the article
describes, for training from scratch and especially for segmentation, because the official global
branch loses the positions. Block, residuals and maps are in raster order in both.

Deliberate differences, none of which changes a result at the published sizes:
- Any image size: each stage pads its map with zeros to whole windows and masks the padding in the
  local attention. Windows shrink to smaller maps, with the same relative positions. The table of
  the global attention is resized bicubically to the grid of windows. The official code runs only at
  multiples of its native geometry, and has no dense form. The global attention covers every window,
  so that adding a border to an image changes its maps.
- The stride of the keys' patches is the window's side. In the official code it is always 14, with
  which its CIFAR variants do not run. CIFAR base has a number of heads that divides its widths.
- The pyramid consists of each stage's tokens after the global attention and before merging. The
  last map is normalized.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_backbones.attention_geometry import AttentionGeometry, padded_positions, window_geometry
from hybrid_backbones.backbone import Backbone, EncoderOutput, FeatureInfo, run_block
from hybrid_backbones.kernels.linear import Linear
from hybrid_backbones.layers.attention import attend_in_windows, merge_heads
from hybrid_backbones.layers.drop import DropPath
from hybrid_backbones.layers.mlp import Mlp
from hybrid_backbones.layers.patch_embed import PatchEmbed
from hybrid_backbones.layers.patch_merging import PatchMerging
from hybrid_backbones.layers.shape_cache import ShapeCache
from hybrid_backbones.layers.windows import resize_relative_table
from hybrid_backbones.layers.windows2d import (
    merge_windows2d,
    pad_to_multiple,
    padding_mask,
    partition_windows2d,
    window_position_index,
)
from hybrid_backbones.model_spec import ModelSpec, SmallVariant

_TABLE = "relative_position_bias_table"


@dataclass(frozen=True, slots=True, kw_only=True)
class MoAConfig:
    """A variant of MoA-Transformer.

    Attributes:
        in_channels: Channels of the images.
        num_classes: Number of classes; 0: no classifier.
        image_size: Side of the images that the position tables are made for, in pixels.
        patch: Side of a patch, in pixels; the stride of the first stage.
        embed_dim: Channels of the first stage; doubled at each further one.
        depths: Blocks in each stage.
        num_heads: Attention heads in each stage.
        window_size: Side of a window in feature pixels.
        overlap: Feature pixels by which keys of the global attention extend beyond their window.
        reduction: Channels of a stage divided by those of the global attention, R.
        mlp_ratio: Hidden width of the MLPs over their width.
        drop_path: Rate of stochastic depth in the last block; rises linearly from 0.
        global_drop_path: The same for the global attention of the last stage that has one.
        layout: Order of memory in the global attention: as in the official code, or corrected.
    """

    in_channels: int = 3
    num_classes: int = 1000
    image_size: int = 224
    patch: int = 4
    embed_dim: int = 96
    depths: tuple[int, ...] = (2, 2, 8)
    num_heads: tuple[int, ...] = (3, 6, 12)
    window_size: int = 14
    overlap: int = 1
    reduction: int = 32
    mlp_ratio: float = 4.0
    drop_path: float = 0.2
    global_drop_path: float = 0.2
    layout: Literal["official", "raster"] = "official"

    def __post_init__(self) -> None:
        """Check the layout."""
        if self.layout not in ("official", "raster"):
            raise ValueError(f"layout {self.layout!r}: use 'official' or 'raster'")

    def side(self, level: int) -> int:
        """Side of a stage's map, in feature pixels, at `image_size`."""
        stride: int = self.patch * 2**level
        return -(-self.image_size // stride)


class WindowAttention(nn.Module):
    """Attention inside windows with a learned bias for each relative position.

    Source:
        Liu et al., Swin Transformer, arXiv:2103.14030, section 3.2, equation 4.
    """

    def __init__(self, width: int, heads: int, *, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.qkv = Linear(width, 3 * width)
        self.proj = Linear(width, width)

    def forward(self, windows: Tensor, index: Tensor, mask: Tensor | None) -> Tensor:
        """Attend inside windows.

        Args:
            windows: (N, L, P, D).
            index: Row of the table for each pair of positions (P, P).
            mask: Added to the scores, (L, 1, P), or None.

        Returns:
            (N, L, P, D).
        """
        bias = self.relative_position_bias_table[index].permute(2, 0, 1)
        mixed: Tensor = self.proj(attend_in_windows(self.qkv(windows), self.heads, bias, mask))
        return mixed


class LocalBlock(nn.Module):
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

    def forward(self, x: Tensor, index: Tensor, mask: Tensor | None) -> Tensor:
        """Map (N, H, W, D) to the same shape."""
        height, width = x.shape[1:3]
        sides = (min(self.window, height), min(self.window, width))
        y = pad_to_multiple(self.norm1(x), sides)
        grid = (y.shape[1] // sides[0], y.shape[2] // sides[1])
        y = merge_windows2d(self.attn(partition_windows2d(y, sides), index, mask), grid, sides)
        x = x + self.drop_path(y[:, :height, :width])
        result: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return result

    def attention_geometry(
        self, x: Tensor, index: Tensor, mask: Tensor | None
    ) -> AttentionGeometry:
        """Return the positions of the windows."""
        del index
        size = (x.shape[1], x.shape[2])
        window = (min(self.window, size[0]), min(self.window, size[1]))
        groups_in: Literal["images", "heads"] = "images" if mask is None else "heads"
        return window_geometry(size, window, groups_in=groups_in)


class GlobalAttention(nn.Module):
    """Attention between whole windows, one query, key and value for each.

    Keys and values are computed from patches a little larger than the window.

    Source:
        arXiv:2201.12903, section 3.2.
    """

    def __init__(self, config: MoAConfig, level: int) -> None:
        super().__init__()
        width, self.heads = config.embed_dim * 2**level, config.num_heads[level]
        self.window, self.overlap = config.window_size, config.overlap
        self.official = config.layout == "official"
        reduced = width // config.reduction
        patch = config.window_size + 2 * config.overlap
        rows = (2 * -(-config.side(level) // config.window_size) - 1) ** 2
        self.relative_position_bias_table = nn.Parameter(torch.zeros(rows, self.heads))
        self.indices = ShapeCache()
        self.pre_conv = nn.Conv2d(width, reduced, 1)
        self.q = Linear(config.window_size**2 * reduced, width)
        self.kv = Linear(patch**2 * reduced, 2 * width)
        self.proj = Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return the result of its window for each position of a map (N, H, W, D)."""
        height, width, channels = x.shape[1:]
        z = self.pre_conv(swap_layout(x, official=self.official)).permute(0, 2, 3, 1)
        z = pad_to_multiple(z, (self.window, self.window))
        rows, columns = z.shape[1] // self.window, z.shape[2] // self.window
        queries, keys = self._patches(z)
        q = self.q(queries).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = self.kv(keys).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        bias = self._bias(rows, columns)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        y = self.proj(merge_heads(out)).unsqueeze(2)
        y = y.expand(-1, -1, self.window**2, -1)
        if self.official:
            merged = y.reshape(-1, rows * self.window, columns * self.window, channels)
        else:
            merged = merge_windows2d(y, (rows, columns), (self.window, self.window))
        result: Tensor = merged[:, :height, :width]
        return result

    def attention_geometry(self, x: Tensor) -> AttentionGeometry | None:
        """Return the centers of the windows' parts inside the map; the official layout has none."""
        if self.official:
            return None
        sides = (self.window, self.window)
        windows = partition_windows2d(
            padded_positions((x.shape[1], x.shape[2]), sides)[None], sides
        )
        centers = windows[0].nanmean(1)[None]
        return AttentionGeometry(queries=centers, keys=centers)

    def _patches(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vectors of windows (N, L, S*S*C) and of the larger patches (N, L, T*T*C)."""
        queries = partition_windows2d(z, (self.window, self.window)).flatten(2)
        keys = F.unfold(
            z.permute(0, 3, 1, 2),
            self.window + 2 * self.overlap,
            padding=self.overlap,
            stride=self.window,
        )
        if self.official:
            count, length = keys.shape[2], keys.shape[1]
            queries = queries.transpose(1, 2).reshape(-1, count, queries.shape[2])
            return queries, keys.reshape(-1, count, length)
        return queries, keys.transpose(1, 2)

    def _bias(self, rows: int, columns: int) -> Tensor:
        """Return the bias (1, heads, L, L) of a grid of windows."""
        table: Tensor = self.relative_position_bias_table
        own = round(table.shape[0] ** 0.5)
        sides = (2 * rows - 1, 2 * columns - 1)
        if sides != (own, own):
            image = table.t().reshape(1, -1, own, own)
            resized = F.interpolate(image, sides, mode="bicubic", align_corners=False)
            table = resized.reshape(self.heads, -1).t()
        make = partial(window_position_index, rows, columns, device=table.device)
        index = self.indices.get((rows, columns), make, like=table.detach())
        return table[index].permute(2, 0, 1).unsqueeze(0).contiguous()


def swap_layout(x: Tensor, *, official: bool) -> Tensor:
    """Convert maps (N, H, W, D) to (N, D, H, W); `official`: by reinterpreting memory."""
    height, width, channels = x.shape[1:]
    return x.reshape(-1, channels, height, width) if official else x.permute(0, 3, 1, 2)


class MoAStage(nn.Module):
    """Local blocks at one resolution, the global attention, and merging to the next resolution."""

    position_index: Tensor

    def __init__(self, config: MoAConfig, level: int, *, rates: list[float]) -> None:
        super().__init__()
        width, last = config.embed_dim * 2**level, len(config.depths) - 1
        self.window = min(config.window_size, config.side(level))
        self.official = config.layout == "official"
        index = window_position_index(self.window, self.window)
        self.register_buffer("position_index", index, persistent=False)
        self.masks = ShapeCache()
        self.blocks = nn.ModuleList(
            LocalBlock(
                width,
                config.num_heads[level],
                window=self.window,
                mlp_ratio=config.mlp_ratio,
                drop_path=rate,
            )
            for rate in rates
        )
        self.glb_attn: GlobalAttention | None = None
        if level < last and config.side(level) >= config.window_size:
            self.glb_attn = GlobalAttention(config, level)
            self.drop_path = DropPath(config.global_drop_path * level / max(last - 1, 1))
            self.post_conv = nn.Conv2d(width, width, 3, padding=1)
            self.norm1 = nn.LayerNorm(width)
            self.norm2 = nn.LayerNorm(width)
        self.downsample = PatchMerging(width) if level < last else None

    def merge(self, x: Tensor) -> Tensor:
        """Reduce the result to the next resolution; the last stage returns it unchanged."""
        return x if self.downsample is None else self.downsample(x)

    def forward(self, x: Tensor, *, checkpoint: bool) -> Tensor:
        """Run the blocks and the global attention on (N, H, W, D)."""
        height, width = x.shape[1:3]
        rows, columns = sides = (min(self.window, height), min(self.window, width))
        pairs = self.position_index.reshape([self.window] * 4)
        index = pairs[:rows, :columns, :rows, :columns].reshape(rows * columns, rows * columns)
        make = partial(padding_mask, height, width, sides=sides, like=x)
        mask = self.masks.get((height, width), make, like=x)
        for block in self.blocks:
            x = run_block(block, x, index, mask, checkpoint=checkpoint and self.training)
        return x if self.glb_attn is None else self._mix(x, self.glb_attn)

    def _mix(self, x: Tensor, attention: GlobalAttention) -> Tensor:
        y = self.norm1(x)
        y = self.norm2(x + self.drop_path(y + attention(y)))
        mixed = self.post_conv(swap_layout(y, official=self.official))
        back = mixed.reshape(-1, *y.shape[1:]) if self.official else mixed.permute(0, 2, 3, 1)
        result: Tensor = y + self.drop_path(back)
        return result


class MoA(Backbone):
    """MoA-Transformer: a pyramid with strides 4, 8 and 16 (CIFAR variants: 1, 2, 4 and 8)."""

    first_convolution = "patch_embed.proj.weight"
    head_keys = ("head.weight", "head.bias")

    def __init__(self, config: MoAConfig) -> None:
        super().__init__()
        self.config = config
        self.num_classes = config.num_classes
        blocks = sum(config.depths)
        rates = [config.drop_path * block / max(blocks - 1, 1) for block in range(blocks)]
        self.patch_embed = PatchEmbed(config.in_channels, config.embed_dim, config.patch)
        self.layers = nn.ModuleList()
        for level, depth in enumerate(config.depths):
            start = sum(config.depths[:level])
            self.layers.append(MoAStage(config, level, rates=rates[start : start + depth]))
        widths = [config.embed_dim * 2**level for level in range(len(config.depths))]
        self.norm = nn.LayerNorm(widths[-1])
        if config.num_classes:
            self.head = nn.Linear(widths[-1], config.num_classes)
        self.feature_info = tuple(
            FeatureInfo(
                width,
                config.patch * 2**level,
                f"layers.{level}" if level < len(widths) - 1 else "norm",
            )
            for level, width in enumerate(widths)
        )
        self._init_as_official()

    def encode(self, image: Tensor) -> EncoderOutput:
        """Compute the maps of images (N, C, H, W); the last one is normalized."""
        maps = []
        x = self.patch_embed(image)
        for stage in cast(list[MoAStage], list(self.layers)):
            x = stage(x, checkpoint=self.gradient_checkpointing)
            y = self.norm(x) if stage.downsample is None else x
            maps.append(y.permute(0, 3, 1, 2))
            x = stage.merge(x)
        return EncoderOutput(maps)

    def forward_head(self, encoded: EncoderOutput) -> Tensor:
        """Mean over positions, classifier."""
        logits: Tensor = self.head(encoded.maps[-1].mean((2, 3)))
        return logits

    def convert_published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Convert the official layout; resize tables of other image sizes bicubically."""
        own = self.state_dict()
        kept = {k: v for k, v in state.items() if not k.endswith("relative_position_index")}
        if not self.num_classes:
            kept = {k: v for k, v in kept.items() if not k.startswith("head.")}
        for key in [key for key in kept if key.endswith(_TABLE) and key in own]:
            kept[key] = resize_relative_table(kept[key], round(own[key].shape[0] ** 0.5))
        return kept

    def _init_as_official(self) -> None:
        """Truncated normal 0.02 for matrices and local tables, zero biases and global tables."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, WindowAttention):
                nn.init.trunc_normal_(module.relative_position_bias_table, std=0.02)
            elif isinstance(module, GlobalAttention):
                nn.init.zeros_(module.relative_position_bias_table)


def _spec(name: str, *, parameters: int, gmacs: float, **fields: object) -> ModelSpec:
    config = MoAConfig(**fields)  # type: ignore[arg-type]
    return ModelSpec(
        name=name,
        build=MoA,
        config=config,
        image_size=config.image_size,
        parameters=parameters,
        gmacs=gmacs,
        strides=tuple(config.patch * 2**level for level in range(len(config.depths))),
        channels=tuple(config.embed_dim * 2**level for level in range(len(config.depths))),
        top1=None,
        trained_on="CIFAR" if config.patch == 1 else "ImageNet-1k",
        paper="Patel et al., Aggregating Global Features into Local Vision Transformer, ICPR 2022, "
        "arXiv:2201.12903",
        code="krushi1992/MOA-transformer@61b98df",
        weights_license="no license; weights not published, the authors send them on request",
    )


_DEEP = (2, 2, 20)
_CIFAR: dict[str, object] = {
    "num_classes": 100,
    "image_size": 32,
    "patch": 1,
    "window_size": 4,
    "depths": (2, 2, 6, 2),
    "drop_path": 0.1,
}

SPECS: tuple[ModelSpec, ...] = (
    _spec("moa_tiny", parameters=17_638_396, gmacs=5.411),
    _spec("moa_small", parameters=39_036_940, gmacs=9.927, depths=_DEEP, drop_path=0.3),
    _spec(
        "moa_base",
        parameters=69_091_480,
        gmacs=17.222,
        embed_dim=128,
        num_heads=(4, 8, 16),
        depths=_DEEP,
        drop_path=0.4,
    ),
    _spec("moa_cifar_tiny", parameters=30_056_152, gmacs=1.694, num_heads=(3, 6, 12, 24), **_CIFAR),
    _spec(
        "moa_cifar_base",
        parameters=53_363_924,
        gmacs=3.005,
        embed_dim=128,
        num_heads=(4, 8, 16, 32),
        **_CIFAR,
    ),
)

# Windows shrink to small maps, and the official layout reinterprets memory: no export of any size.
SMALL: Mapping[str, SmallVariant] = {
    "moa_tiny": SmallVariant({"depths": (1, 1, 2), "window_size": 4, "image_size": 64})
}
