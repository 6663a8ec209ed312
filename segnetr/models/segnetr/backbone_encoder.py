"""Encoders of SegNetr from published backbones."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import hybrid_backbones
from segnetr.errors import UsageError, suggest, unknown_name
from segnetr.models.segnetr.blocks import BlockSettings
from segnetr.models.segnetr.detail_branch import DetailBranch
from segnetr.models.segnetr.timm_pyramid import TIMM_PREFIX, TimmFeatures, build_timm

_OWN_FIELDS = ("in_channels", "num_classes")  # decided by the data, not by a setting


class Pyramid(nn.Module):
    """A backbone that returns feature maps, with their widths and strides.

    Args:
        backbone: Maps images to a list of maps, finest first, one map per stride.
        out_channels: Width of each map.
        strides: Input pixels per feature pixel of each map.
        multiple: The sides of the images must be multiples of this, in pixels.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        out_channels: Sequence[int],
        strides: Sequence[int],
        multiple: int = 1,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.out_channels = tuple(out_channels)
        self.strides = tuple(strides)
        self.multiple = multiple

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map images (N, C, H, W) to feature maps (N, C_i, ceil(H/s_i), ceil(W/s_i))."""
        maps: list[Tensor] = self.backbone(image)
        return maps


class BackboneEncoder(nn.Module):
    """A backbone, with a light convolutional branch for the levels finer than its first map.

    Args:
        pyramid: The backbone.
        in_channels: Channels of the images.
        width: Channels at full resolution, doubled at each level up to the backbone's first map.
        settings: Settings shared by all blocks.

    Attributes:
        out_channels: Width of each map, finest first.
        strides: Stride of each map. The first is 1.
    """

    def __init__(
        self, pyramid: Pyramid, in_channels: int, *, width: int, settings: BlockSettings
    ) -> None:
        super().__init__()
        finest = pyramid.strides[0]
        self.stem = (
            DetailBranch(in_channels, width=width, finest_stride=finest, settings=settings)
            if finest > 1
            else None
        )
        above = ((), ()) if self.stem is None else (self.stem.out_channels, self.stem.strides)
        self.pyramid = pyramid
        self.out_channels = (*above[0], *pyramid.out_channels)
        self.strides = (*above[1], *pyramid.strides)

    @property
    def transferable(self) -> nn.Module:
        """The module whose weights can be loaded from another training run: the backbone."""
        inner = self.pyramid.backbone
        if isinstance(inner, hybrid_backbones.FeatureExtractor):
            return inner.backbone
        return inner.network if isinstance(inner, TimmFeatures) else inner

    def own_parts(self) -> tuple[nn.Module, ...]:
        """Return the modules that use this package's initialization."""
        return () if self.stem is None else (self.stem,)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map images (N, C, H, W) to feature maps, finest first. The first has full resolution."""
        # The channel norms of the blocks are faster in channels-last layout. The backbone gets the
        # image unchanged, because not every backbone is faster in that layout.
        layout = torch.channels_last
        maps = [x.contiguous(memory_format=layout) for x in self.pyramid(image)]
        if self.stem is None:
            return maps
        return [*self.stem(image.contiguous(memory_format=layout)), *maps]


def list_encoders() -> list[str]:
    """Return the encoders without extra dependencies: the paper's, then by parameter count."""
    names = hybrid_backbones.list_models()
    return ["segnetr", *sorted(names, key=lambda name: hybrid_backbones.get_spec(name).parameters)]


def build_pyramid(name: str, in_channels: int, *, settings: Mapping[str, Any]) -> Pyramid:
    """Build a backbone with its published initialization and without its classifier.

    Args:
        name: A name of `hybrid_backbones.list_models()`, or "timm:NAME".
        in_channels: Channels of the images.
        settings: Fields of its configuration.

    Raises:
        UsageError: If the backbone or a field is unknown (the message suggests the nearest name), a
            value differs in type from the default, or timm is not installed.
    """
    settings = check_encoder(name, settings)
    if name.startswith(TIMM_PREFIX):
        return Pyramid(**build_timm(name, in_channels, settings=settings))
    try:
        extractor = hybrid_backbones.create_model(
            name, features_only=True, in_channels=in_channels, **settings
        )
    except (ValueError, TypeError, IndexError, AssertionError, RuntimeError) as error:
        raise UsageError(
            f"encoder {name!r} cannot be built; model.encoder_settings {dict(settings)}: {error}"
        ) from error
    return Pyramid(extractor, out_channels=extractor.out_channels, strides=extractor.strides)


def check_encoder(name: str, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Check the name of an encoder and the names and types of its settings, without building it.

    Returns:
        The settings, with old names of version 0.1 replaced by the new ones.

    Raises:
        UsageError: As in `build_pyramid`.
    """
    if name.startswith(TIMM_PREFIX):
        return settings
    known = list_encoders()
    if name not in known:
        raise unknown_name("encoder", name, [*known, TIMM_PREFIX])
    if name == "segnetr":
        if settings:
            raise UsageError(
                "model.encoder_settings: encoder 'segnetr' takes none; its settings are "
                "model.width, model.windows and the others of `segnetr models show segnetr`"
            )
        return settings
    settings = hybrid_backbones.rename_old_fields(name, settings)
    config = hybrid_backbones.get_spec(name).config
    fields = {field.name for field in dataclasses.fields(config)} - set(_OWN_FIELDS)
    for key, value in settings.items():
        if key not in fields:
            raise UsageError(
                f"unknown setting 'model.encoder_settings.{key}' of encoder {name!r}; "
                f"{suggest(key, fields) or ', '.join(sorted(fields))}".rstrip()
            )
        default = getattr(config, key)
        if not _is_duplicate(value, default):
            raise UsageError(
                f"model.encoder_settings.{key}: {value!r} does not fit; {name!r} has {default!r}"
            )
    return settings


def _is_duplicate(value: Any, default: Any) -> bool:
    if isinstance(default, tuple) and isinstance(value, tuple):
        pairs = zip(value, default, strict=False)
        return len(value) == len(default) and all(_is_duplicate(one, other) for one, other in pairs)
    if isinstance(default, float) and type(value) is int:
        return True
    return type(value) is type(default)
