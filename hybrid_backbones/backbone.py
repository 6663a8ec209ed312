"""What every backbone promises: maps at declared strides, logits, and nothing it does not use."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class FeatureInfo:
    """One level of a pyramid.

    Attributes:
        channels: Channels of the map.
        stride: Input pixels for one feature pixel.
        module: Dotted name of the submodule that makes the map.
    """

    channels: int
    stride: int
    module: str


class EncoderOutput(NamedTuple):
    """What a backbone knows about an image.

    Attributes:
        maps: Finest first; map i is (N, C_i, ceil(H / s_i), ceil(W / s_i)).
        tokens: (N, T, D), class tokens or Mobile-Former's global tokens; None where there are none.
    """

    maps: list[Tensor]
    tokens: Tensor | None = None


class Backbone(nn.Module, ABC):
    """A published network, usable as a classifier and as a pyramid of feature maps.

    Attributes:
        feature_info: The levels of the pyramid, finest first.
        num_classes: Width of the classifier; 0: built without a head, and without anything else
            that the pyramid does not use.
        gradient_checkpointing: Recompute blocks in the backward pass instead of keeping their maps.
        undecayed: Last part of the names of parameters that training does not decay though they
            are no biases, norms or vectors: tables of positions, class tokens and the like.
        is_fused: The batch norms are folded in, by `fuse`; such a network cannot be trained.
    """

    feature_info: tuple[FeatureInfo, ...]
    num_classes: int
    gradient_checkpointing: bool = False
    no_weight_decay: tuple[str, ...] = ("cls_token", "pos_embed", "relative_position_bias_table")
    is_fused: bool = False

    @abstractmethod
    def encode(self, image: Tensor) -> EncoderOutput:
        """Compute maps and tokens of images (N, C, H, W), any H and W from 32 up."""

    @abstractmethod
    def forward_head(self, encoded: EncoderOutput) -> Tensor:
        """Compute logits (N, num_classes) from what `encode` gave."""

    @abstractmethod
    def convert_published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename the entries of a published checkpoint to this network's own names.

        Entries that this network has no place for on purpose (buffers it computes itself, heads
        of a network built without one) are left out by name; any other unknown entry is kept, so
        that strict loading names it.
        """

    def forward_features(self, image: Tensor) -> list[Tensor]:
        """Compute the pyramid of images (N, C, H, W), finest map first."""
        return self.encode(image).maps

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits (N, num_classes) of images (N, C, H, W)."""
        return self.forward_head(self.encode(image))

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation.

        Raises:
            RuntimeError: If a fused network should train.
        """
        if mode and self.is_fused:
            raise RuntimeError(
                f"this {type(self).__name__} is fused for inference and cannot be trained; "
                "train the network it was made of"
            )
        return super().train(mode)


class FeatureExtractor(nn.Module):
    """Chosen levels of a backbone's pyramid, as an encoder for dense prediction.

    Attributes:
        out_channels: Channels of the maps, finest first.
        strides: Their strides.
    """

    def __init__(self, backbone: Backbone, levels: Sequence[int] | None = None) -> None:
        super().__init__()
        count = len(backbone.feature_info)
        chosen = tuple(range(count)) if levels is None else tuple(levels)
        wrong = [level for level in chosen if not 0 <= level < count]
        if wrong or not chosen:
            raise ValueError(f"levels {list(chosen)}: the pyramid has levels 0 to {count - 1}")
        self.backbone = backbone
        self.levels = chosen
        self.feature_info = tuple(backbone.feature_info[level] for level in chosen)
        self.out_channels = tuple(info.channels for info in self.feature_info)
        self.strides = tuple(info.stride for info in self.feature_info)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Compute the chosen maps of images (N, C, H, W), finest first."""
        maps = self.backbone.forward_features(image)
        return [maps[level] for level in self.levels]


def run_block(block: nn.Module, *inputs: object, checkpoint: bool) -> Tensor:
    """Run a block, keeping only its inputs for the backward pass where `checkpoint` is set."""
    if checkpoint and torch.is_grad_enabled():
        from torch.utils.checkpoint import checkpoint as recompute

        if torch.compiler.is_compiling():
            # Compiled graphs update statistics once by themselves, and take no foreign contexts.
            traced: Tensor = recompute(block, *inputs, use_reentrant=False)
            return traced
        contexts = partial(_recompute_contexts, block)
        output: Tensor = recompute(block, *inputs, use_reentrant=False, context_fn=contexts)
        return output
    result: Tensor = block(*inputs)
    return result


def _recompute_contexts(
    block: nn.Module,
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _keep_statistics(block)


@contextmanager
def _keep_statistics(block: nn.Module) -> Iterator[None]:
    # Recomputing a batch norm must not count its batch a second time.
    norms = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    try:
        for norm in norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None
        yield
    finally:
        for norm, (momentum, count) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
