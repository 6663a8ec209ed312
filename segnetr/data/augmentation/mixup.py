"""Mixing the images and labels of a batch: mixup and CutMix.

Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018, arXiv:1710.09412. Yun et al.,
CutMix: Regularization Strategy to Train Strong Classifiers, ICCV 2019, arXiv:1905.04899.
"""

import hashlib

import torch
import torch.nn.functional as F
from scipy.special import betaincinv
from torch import Tensor

from segnetr.config.schema.classification_recipe import MixingConfig

Box = tuple[slice, slice]


class BatchMixer:
    """Mixes each image of a batch with another one, all with the same share.

    The share, the partners and the place of CutMix's rectangle come from a generator and from
    nothing else, and every call takes the same numbers from it, whatever it does with them.

    Labels are not smoothed here. Smoothing is linear, so a loss that smooths what comes out
    (`torch.nn.functional.cross_entropy(..., label_smoothing=s)`) sees the mixture of smoothed
    labels.

    Args:
        config: What is mixed and how often.
        num_classes: Width of the labels, K.
    """

    def __init__(self, config: MixingConfig, num_classes: int) -> None:
        self.config = config
        self.num_classes = num_classes

    def __call__(
        self, images: Tensor, targets: Tensor, *, epoch: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Mix a batch, or only widen its labels where this batch is not mixed.

        Args:
            images: (N, C, H, W); not changed in place.
            targets: Class indices (N,), or shares or several labels (N, K) in 0..1.
            epoch: Passes over the training cases before this one.
            generator: On the CPU; see `mixing_generator`.

        Returns:
            Images (N, C, H, W) and targets (N, K) float32; a row keeps its sum.

        Raises:
            ValueError: If the targets are neither (N,) integers nor (N, K) floating point numbers.
        """
        wide = self._widen(targets)
        draws = torch.rand(5, dtype=torch.float64, generator=generator).tolist()
        partners = torch.randperm(len(images), generator=generator).to(images.device)
        alpha, cuts = self._choose(draws[0], draws[1], epoch=epoch)
        if alpha == 0:
            return images, wide
        # By the inverse distribution: one number in, whatever alpha is.
        share = float(betaincinv(alpha, alpha, draws[2]))
        if cuts:
            height, width = images.shape[-2:]
            box = cut_box(height, width, share=share, center=(draws[3], draws[4]))
            share = 1 - _area(box) / (height * width)
            mixed = images.clone()
            mixed[..., box[0], box[1]] = images[partners][..., box[0], box[1]]
        else:
            mixed = images * share + images[partners] * (1 - share)
        return mixed, wide * share + wide[partners] * (1 - share)

    def _choose(self, mixes: float, switches: float, *, epoch: int) -> tuple[float, bool]:
        """Give alpha, 0 where nothing is mixed, and whether rectangles are cut."""
        config = self.config
        is_off = 0 < config.off_epoch <= epoch
        if is_off or mixes >= config.probability:
            return 0.0, False
        if config.mixup_alpha and config.cutmix_alpha:
            cuts = switches < config.switch_probability
        else:
            cuts = config.cutmix_alpha > 0
        return (config.cutmix_alpha if cuts else config.mixup_alpha), cuts

    def _widen(self, targets: Tensor) -> Tensor:
        if targets.is_floating_point():
            if targets.ndim != 2 or targets.shape[1] != self.num_classes:
                raise ValueError(
                    f"targets {tuple(targets.shape)}: expected (N, {self.num_classes})"
                )
            return targets.float()
        if targets.ndim != 1:
            raise ValueError(f"class indices {tuple(targets.shape)}: expected (N,)")
        return F.one_hot(targets.long(), self.num_classes).float()


def cut_box(height: int, width: int, *, share: float, center: tuple[float, float]) -> Box:
    """Choose CutMix's rectangle: sides in proportion, cut off at the border.

    Args:
        height: Of the images, in pixels.
        width: Likewise.
        share: Share of the image that is meant to stay; less is cut near the border, so the
            label's share has to be counted from the box.
        center: Place of its middle, (down, across), in 0..1 of the image's sides.

    Returns:
        Rows and columns; perhaps none.

    Source:
        arXiv:1905.04899, section 3.1, equation 2.
    """
    ratio = (1 - share) ** 0.5
    sides = []
    for side, place in ((height, center[0]), (width, center[1])):
        length, middle = int(side * ratio), int(side * place)
        start = middle - length // 2
        sides.append(slice(max(start, 0), min(start + length, side)))
    return sides[0], sides[1]


def mixing_generator(seed: int, *, step: int, rank: int = 0) -> torch.Generator:
    """Make the generator of one batch: a function of the run's seed, the step and the process.

    So a resumed run mixes as the unbroken one would have.
    """
    digest = hashlib.blake2b(f"mixing/{seed}/{step}/{rank}".encode(), digest_size=8).digest()
    # torch takes any 64 bits, but as a signed number.
    return torch.Generator().manual_seed(int.from_bytes(digest, "little", signed=True))


def _area(box: Box) -> int:
    down, across = (max(0, int(part.stop) - int(part.start)) for part in box)
    return down * across
