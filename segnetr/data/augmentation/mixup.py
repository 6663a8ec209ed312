"""Mix the images and labels of a batch with mixup and CutMix.

Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018, arXiv:1710.09412. Yun et al.,
CutMix: Regularization Strategy to Train Strong Classifiers, ICCV 2019, arXiv:1905.04899.
"""

import hashlib

import torch
import torch.nn.functional as F
from scipy.special import betaincinv
from torch import Tensor

from segnetr.config.schema.classification_recipe import MixingConfig

_Region = tuple[slice, slice]


class BatchMixer:
    """Mixes each image of a batch with another one, all with the same share.

    The share, the partners and the position of CutMix's rectangle come only from a generator, and
    every call draws the same number of values from it.

    Labels are not smoothed here. Smoothing is linear, so a loss that smooths the mixed labels
    (`torch.nn.functional.cross_entropy(..., label_smoothing=s)`) is equivalent to mixing smoothed
    labels.

    Args:
        config: Method and probability.
        num_classes: Number of classes K.
    """

    def __init__(self, config: MixingConfig, num_classes: int) -> None:
        self.config = config
        self.num_classes = num_classes

    def __call__(
        self, images: Tensor, targets: Tensor, *, epoch: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Mix a batch, or only convert its labels if this batch is not mixed.

        Args:
            images: (N, C, H, W). Not changed in place.
            targets: Class indices (N,), or class probabilities or multi-labels (N, K) in 0..1.
            epoch: Number of earlier passes over the training cases.
            generator: On the CPU. See `mixing_generator`.

        Returns:
            Images (N, C, H, W) and targets (N, K) float32. The sum of each row is preserved.

        Raises:
            ValueError: If the targets are neither (N,) integers nor (N, K) floating point numbers.
        """
        labels = self._to_rows(targets)
        draws = torch.rand(5, dtype=torch.float64, generator=generator).tolist()
        partners = torch.randperm(len(images), generator=generator).to(images.device)
        alpha, cuts = self._choose(draws[0], draws[1], epoch=epoch)
        if alpha == 0:
            return images, labels
        # With the inverse distribution function, which needs one random number for any alpha.
        share = float(betaincinv(alpha, alpha, draws[2]))
        if cuts:
            height, width = images.shape[-2:]
            box = cut_box(height, width, share=share, center=(draws[3], draws[4]))
            share = 1 - _area(box) / (height * width)
            mixed = images.clone()
            mixed[..., box[0], box[1]] = images[partners][..., box[0], box[1]]
        else:
            mixed = images * share + images[partners] * (1 - share)
        return mixed, labels * share + labels[partners] * (1 - share)

    def _choose(self, mixes: float, switches: float, *, epoch: int) -> tuple[float, bool]:
        """Return alpha (0 for no mixing) and whether to use CutMix."""
        config = self.config
        is_off = 0 < config.off_epoch <= epoch
        if is_off or mixes >= config.probability:
            return 0.0, False
        if config.mixup_alpha and config.cutmix_alpha:
            cuts = switches < config.switch_probability
        else:
            cuts = config.cutmix_alpha > 0
        return (config.cutmix_alpha if cuts else config.mixup_alpha), cuts

    def _to_rows(self, targets: Tensor) -> Tensor:
        if targets.is_floating_point():
            if targets.ndim != 2 or targets.shape[1] != self.num_classes:
                raise ValueError(
                    f"targets {tuple(targets.shape)}: expected (N, {self.num_classes})"
                )
            return targets.float()
        if targets.ndim != 1:
            raise ValueError(f"class indices {tuple(targets.shape)}: expected (N,)")
        return F.one_hot(targets.long(), self.num_classes).float()


def cut_box(height: int, width: int, *, share: float, center: tuple[float, float]) -> _Region:
    """Return CutMix's rectangle, with the image's aspect ratio, clipped at the border.

    Args:
        height: Height of the images in pixels.
        width: Width of the images in pixels.
        share: Intended share of the image outside the rectangle. Clipping makes it larger, so the
            share of the label must be computed from the rectangle.
        center: Center (down, across), in 0..1 of the image's sides.

    Returns:
        Rows and columns. May be empty.

    Source:
        arXiv:1905.04899, section 3.1, equation 2.
    """
    ratio = (1 - share) ** 0.5
    sides = []
    for side, position in ((height, center[0]), (width, center[1])):
        length, middle = int(side * ratio), int(side * position)
        start = middle - length // 2
        sides.append(slice(max(start, 0), min(start + length, side)))
    return sides[0], sides[1]


def mixing_generator(seed: int, *, step: int, rank: int = 0) -> torch.Generator:
    """Return the generator of one batch, which depends on the run's seed, the step and the rank.

    A resumed run therefore mixes like an unbroken one.
    """
    digest = hashlib.blake2b(f"mixing/{seed}/{step}/{rank}".encode(), digest_size=8).digest()
    # torch accepts any 64 bits, but as a signed number.
    return torch.Generator().manual_seed(int.from_bytes(digest, "little", signed=True))


def _area(box: _Region) -> int:
    down, across = (max(0, int(side.stop) - int(side.start)) for side in box)
    return down * across
