"""Training losses by name.

Every loss takes logits (N, K, H, W) and a mask (N, 1, H, W) of int64 class indices, background 0.
It returns one float32 scalar that is never negative. Softmax and one-hot encoding are applied
inside, in float32 even under autocast: sums over a whole image overflow float16 and lose precision
in bfloat16.

The overlap losses (Dice, Tversky) exclude the background: it fills most of an image, and its
overlap is high for any prediction. They are computed per image and per foreground class and then
averaged, so the loss of a batch is the mean of the losses of its images. Cross-entropy and focal
loss include every class.

Difference from MONAI's `DiceFocalLoss`: its focal term applies a sigmoid to each logit, although
the network is used with a softmax. Here both terms use the same softmax.

To add a loss, write a function that returns its terms and add one line to `LOSSES`. torch and MONAI
are imported when a loss is built, so that the table can be read without them.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from segnetr.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

Loss = Callable[["Tensor", "Tensor"], "Tensor"]

# A missed pixel costs more than a false alarm: lesions are small (Salehi et al., arXiv:1706.05721).
_TVERSKY_FALSE_POSITIVE: Final = 0.3
_TVERSKY_FALSE_NEGATIVE: Final = 0.7


@dataclass(frozen=True, slots=True)
class LossBuilder:
    """One entry of `LOSSES`.

    Attributes:
        help: One sentence for `--help` and the documentation.
        build_terms: Returns the terms whose sum is the loss. Each term maps float32 logits and a
            one-hot ground truth, both (N, K, H, W), to a scalar.
    """

    help: str
    build_terms: Callable[[], tuple[Loss, ...]]


def build_loss(name: str, *, num_classes: int) -> Loss:
    """Build a loss.

    Args:
        name: A key of `LOSSES`.
        num_classes: K, including the background; at least 2.

    Returns:
        A function from logits (N, K, H, W) and a mask (N, 1, H, W) to a float32 scalar.

    Raises:
        UsageError: If the name is unknown or there is no foreground class.
    """
    if num_classes < 2:
        raise UsageError(
            f"num_classes={num_classes}: must be at least 2, because the background counts"
        )
    terms = _get_builder(name).build_terms()
    import torch

    def loss(logits: Tensor, mask: Tensor) -> Tensor:
        _check_shapes(logits, mask, num_classes)
        with torch.autocast(logits.device.type, enabled=False):
            scores = logits.float()
            ground_truth = torch.zeros_like(scores).scatter_(1, mask, 1.0)
            total = torch.stack([term(scores, ground_truth) for term in terms]).sum()
            # 1 - Dice of a perfect prediction rounds to about -1e-7.
            return total.clamp_min(0.0)

    return loss


def cross_entropy(logits: Tensor, ground_truth: Tensor) -> Tensor:
    """Return the mean cross-entropy over all pixels.

    Written as a sum over classes: torch's own kernel for class indices has no deterministic
    version on a GPU.

    Args:
        logits: Logits (N, K, H, W).
        ground_truth: One-hot ground truth (N, K, H, W).
    """
    import torch

    return -(torch.log_softmax(logits, dim=1) * ground_truth).sum(dim=1).mean()


def _cross_entropy() -> tuple[Loss, ...]:
    return (cross_entropy,)


def _dice() -> tuple[Loss, ...]:
    from monai.losses.dice import DiceLoss

    return (cast("Loss", DiceLoss(include_background=False, softmax=True)),)


def _dice_cross_entropy() -> tuple[Loss, ...]:
    return (*_dice(), cross_entropy)


def _dice_focal() -> tuple[Loss, ...]:
    from monai.losses.focal_loss import FocalLoss

    return (*_dice(), cast("Loss", FocalLoss(include_background=True, use_softmax=True)))


def _tversky() -> tuple[Loss, ...]:
    from monai.losses.tversky import TverskyLoss

    tversky = TverskyLoss(
        include_background=False,
        softmax=True,
        alpha=_TVERSKY_FALSE_POSITIVE,
        beta=_TVERSKY_FALSE_NEGATIVE,
    )
    return (cast("Loss", tversky),)


LOSSES: Final[dict[str, LossBuilder]] = {
    "dice_ce": LossBuilder("Dice loss plus cross-entropy.", _dice_cross_entropy),
    "ce": LossBuilder("Cross-entropy over all classes.", _cross_entropy),
    "dice": LossBuilder("Dice loss over the foreground classes.", _dice),
    "dice_focal": LossBuilder("Dice loss plus focal loss, for rare classes.", _dice_focal),
    "tversky": LossBuilder("Tversky loss; false negatives cost more.", _tversky),
}


def _get_builder(name: str) -> LossBuilder:
    if name in LOSSES:
        return LOSSES[name]
    nearest = difflib.get_close_matches(name, LOSSES, n=1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    raise UsageError(f"unknown loss {name!r}; {hint}choose one of {', '.join(LOSSES)}")


def _check_shapes(logits: Tensor, mask: Tensor, num_classes: int) -> None:
    count, _, *grid = logits.shape
    if logits.shape[1] != num_classes or mask.shape != (count, 1, *grid):
        raise ValueError(
            f"logits {tuple(logits.shape)} and mask {tuple(mask.shape)} do not fit: expected "
            f"(N, {num_classes}, H, W) and (N, 1, H, W)"
        )
