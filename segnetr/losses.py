"""The losses of training, by name, all with one contract.

Every loss takes logits (N, K, H, W) and a mask (N, 1, H, W) of int64 class indices, background 0,
and gives one float32 value that is never negative. Softmax and one-hot happen inside, in float32
also under autocast: sums over a whole image overflow float16 and lose digits in bfloat16.

The overlap losses (Dice, Tversky) leave the background out: it fills most of a image, and its
overlap is high whatever the network does. They are computed for each image and each foreground
class and then averaged, so the loss of a batch is the mean of the losses of its images.
Cross-entropy and focal loss count every class, background included.

Difference from MONAI's `DiceFocalLoss`: its focal part takes a sigmoid of each logit, although the
network is used with a softmax; here both parts see the same softmax.
"""

from collections.abc import Callable
from typing import Final, cast

import torch
from torch import Tensor

from segnetr.errors import UsageError

Loss = Callable[[Tensor, Tensor], Tensor]
LOSS_NAMES: Final = ("dice_ce", "ce", "dice", "dice_focal", "tversky")
LOSSES: Final = LOSS_NAMES

# A missed pixel costs more than a false alarm: lesions are small (Salehi et al., arXiv:1706.05721).
_TVERSKY_FALSE_ALARM: Final = 0.3
_TVERSKY_MISS: Final = 0.7


def build_loss(name: str, *, num_classes: int) -> Loss:
    """Build a loss.

    Args:
        name: One of `LOSS_NAMES`.
        num_classes: K, background included, at least 2.

    Returns:
        A function of logits (N, K, H, W) and mask (N, 1, H, W) to a float32 scalar.

    Raises:
        UsageError: If the name is unknown or there is no foreground class.
    """
    if num_classes < 2:
        raise UsageError(f"num_classes={num_classes}: give at least 2, the background counts")
    terms = _build_terms(name)

    def loss(logits: Tensor, mask: Tensor) -> Tensor:
        _check_shapes(logits, mask, num_classes)
        with torch.autocast(logits.device.type, enabled=False):
            scores = logits.float()
            ground_truth = torch.zeros_like(scores).scatter_(1, mask, 1.0)
            total = torch.stack([term(scores, ground_truth) for term in terms]).sum()
            # 1 - Dice of a perfect image rounds to about -1e-7.
            return total.clamp_min(0.0)

    return loss


def cross_entropy(logits: Tensor, ground_truth: Tensor) -> Tensor:
    """Mean cross-entropy over all pixels, of logits and one-hot ground truth, both (N, K, H, W).

    Written as a sum over classes: torch's own kernel for class indices has no deterministic
    version on a GPU.
    """
    return -(torch.log_softmax(logits, dim=1) * ground_truth).sum(dim=1).mean()


def _build_terms(name: str) -> tuple[Loss, ...]:
    if name == "ce":
        return (cross_entropy,)
    if name not in LOSS_NAMES:
        raise UsageError(f"unknown loss {name!r}; choose one of {', '.join(LOSS_NAMES)}")
    # Imported here: MONAI takes seconds, and cross-entropy does without it.
    from monai.losses import DiceLoss, FocalLoss, TverskyLoss

    if name == "tversky":
        tversky = TverskyLoss(
            include_background=False,
            softmax=True,
            alpha=_TVERSKY_FALSE_ALARM,
            beta=_TVERSKY_MISS,
        )
        return (cast(Loss, tversky),)
    dice = cast(Loss, DiceLoss(include_background=False, softmax=True))
    extra: dict[str, tuple[Loss, ...]] = {
        "dice": (),
        "dice_ce": (cross_entropy,),
        "dice_focal": (cast(Loss, FocalLoss(include_background=True, use_softmax=True)),),
    }
    return (dice, *extra[name])


def _check_shapes(logits: Tensor, mask: Tensor, num_classes: int) -> None:
    count, _, *grid = logits.shape
    if logits.shape[1] != num_classes or mask.shape != (count, 1, *grid):
        raise ValueError(
            f"logits {tuple(logits.shape)} and mask {tuple(mask.shape)} do not fit: expected "
            f"(N, {num_classes}, H, W) and (N, 1, H, W)"
        )
