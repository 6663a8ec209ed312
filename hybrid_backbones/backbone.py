"""The interface of every backbone: maps at declared strides, logits, and no unused parameters."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Self

from torch import Tensor, nn

from hybrid_backbones.kernels.recomputation import list_norms, recompute


@dataclass(frozen=True, slots=True)
class FeatureInfo:
    """One level of a pyramid.

    Attributes:
        channels: Channels of the map.
        stride: Input pixels for one feature pixel.
        module: Dotted name of the submodule that computes the map.
    """

    channels: int
    stride: int
    module: str


class EncoderOutput(NamedTuple):
    """The output of a backbone without its head.

    Attributes:
        maps: Finest first; map i is (N, C_i, ceil(H / s_i), ceil(W / s_i)).
        tokens: (N, T, D), class tokens or Mobile-Former's global tokens; None if there are none.
    """

    maps: list[Tensor]
    tokens: Tensor | None = None


class Backbone(nn.Module, ABC):
    """A published network, usable as a classifier and as a pyramid of feature maps.

    Attributes:
        feature_info: The levels of the pyramid, finest first.
        num_classes: Number of classes; 0: built without a head, and without anything else that the
            pyramid does not use.
        gradient_checkpointing: Recompute blocks in the backward pass instead of keeping their maps.
        no_weight_decay: Last part of the names of parameters that are excluded from weight decay
            in addition to biases, norms and vectors: position tables and class tokens.
        is_fused: Whether `fuse` has folded the batch norms; such a network cannot be trained.
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
        """Compute logits (N, num_classes) from the output of `encode`."""

    @abstractmethod
    def convert_published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename the entries of a published checkpoint to this network's own names.

        Entries that this network does not have on purpose (buffers it computes itself, the head of
        a network built without one) are removed by name. Any other unknown entry remains, so that
        strict loading reports it.
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
            RuntimeError: If the network is fused and `mode` is True.
        """
        if mode and self.is_fused:
            raise RuntimeError(
                f"this {type(self).__name__} is fused for inference and cannot be trained; "
                "train the network that was passed to fuse()"
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
    """Run a block; with `checkpoint`, keep only its inputs for the backward pass."""
    run = partial(recompute, block, norms=list_norms(block)) if checkpoint else block
    result: Tensor = run(*inputs)
    return result
