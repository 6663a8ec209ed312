"""Random changes of images that carry a label, and fitting them for evaluation.

One albumentations pipeline each: a image (H, W, C), uint8 or float32 in 0..1, in, one of the
training size out. The pipelines take their random numbers from
`Compose.set_random_state` and from nothing else, as that of segmentation does.
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from segnetr.config.schema.classification_recipe import ClassificationAugmentConfig
from segnetr.data.augmentation.pipeline import A, Pipeline
from segnetr.data.augmentation.randaugment import find_operations
from segnetr.data.augmentation.segmentation import build_color_steps
from segnetr.data.preprocessing.resample import Filter, resample
from segnetr.data.preprocessing.resize import Array

ErasingMode = Literal["pixel", "color", "mean"]

# Share of the image's area, and height over width, of an erased rectangle: arXiv:1708.04896, with
# the largest share of most recipes since then (0.4 in the article).
_ERASED_AREA = (0.02, 1 / 3)
_ERASED_RATIO = (0.3, 1 / 0.3)
_TRIES = 10
_STRONGEST = 10.0


def build_classification_augmentation(
    config: ClassificationAugmentConfig, *, image_size: tuple[int, int], channels: int
) -> Pipeline:
    """Build the pipeline of training.

    In the order of the published recipes: crop, mirror, RandAugment, colors, erase.

    Args:
        config: What changes and how much; what is switched off is not in the pipeline at all.
        image_size: (height, width) of the result in pixels.
        channels: Channels of the images; saturation, hue and RandAugment's "color" need 3.

    Returns:
        Takes `image` (H, W, C).
    """
    steps: list[A.BasicTransform] = [_build_crop(config, image_size)]
    if config.flip:
        steps.append(A.HorizontalFlip(p=config.flip))
    if config.flip_vertical:
        steps.append(A.VerticalFlip(p=config.flip_vertical))
    if config.randaugment_operations:
        steps.append(
            RandAugment(
                config.randaugment_operations,
                magnitude=config.randaugment_magnitude,
                deviation=config.randaugment_deviation,
                probability=config.randaugment_probability,
                channels=channels,
            )
        )
    steps += build_color_steps(config, channels)
    if config.erasing_probability:
        steps.append(
            RandomErasing(
                config.erasing_probability, mode=config.erasing_mode, most=config.erasing_count
            )
        )
    return Pipeline(steps)


def build_classification_evaluation(
    config: ClassificationAugmentConfig, *, image_size: tuple[int, int]
) -> Pipeline:
    """Build the pipeline of evaluation, which has nothing random in it.

    Args:
        config: Its `evaluation_crop`, `evaluation_fit` and `interpolation` count.
        image_size: (height, width) of the result in pixels.

    Returns:
        Takes `image` (H, W, C), any number of channels.
    """
    filter_name: Filter = "bilinear" if config.interpolation == "bilinear" else "bicubic"
    whole = config.evaluation_fit == "squash"
    return Pipeline(
        [CenterCrop(image_size, None if whole else config.evaluation_crop, filter_name)]
    )


class CropToSize(A.ImageOnlyTransform):  # type: ignore[misc]
    """Cut a random rectangle out and resize it.

    Its area is a uniform share of the image's, its proportions are drawn so that twice as wide
    is as likely as twice as high. Where ten draws do not fit into the image, the largest central
    rectangle of the nearest allowed proportions is taken.

    Args:
        size: (height, width) of the result in pixels.
        scale: Smallest and largest share of the area.
        ratio: Smallest and largest width over height.
        filters: One of these is drawn for each image.

    Source:
        Szegedy et al., Going deeper with convolutions, arXiv:1409.4842, section 6.
    """

    def __init__(
        self,
        size: tuple[int, int],
        *,
        scale: tuple[float, float],
        ratio: tuple[float, float],
        filters: tuple[Filter, ...],
    ) -> None:
        super().__init__(p=1.0)
        self.size, self.scale, self.ratio, self.filters = size, scale, ratio, filters

    def get_params_dependent_on_data(
        self,
        params: dict[str, Any],
        data: dict[str, Any],  # noqa: ARG002
    ) -> dict[str, Any]:
        """Draw one rectangle."""
        height, width = params["shape"][:2]
        filter_name = self.py_random.choice(self.filters)
        low, high = np.log(self.ratio)
        for _ in range(_TRIES):
            area = height * width * self.py_random.uniform(*self.scale)
            ratio = float(np.exp(self.py_random.uniform(low, high)))
            down, across = round((area / ratio) ** 0.5), round((area * ratio) ** 0.5)
            if 0 < down <= height and 0 < across <= width:
                top = self.py_random.randint(0, height - down)
                left = self.py_random.randint(0, width - across)
                return {"box": (top, left, down, across), "filter_name": filter_name}
        ratio = min(max(width / height, self.ratio[0]), self.ratio[1])
        down = max(1, min(height, round(width / ratio)))
        across = max(1, min(width, round(height * ratio)))
        box = ((height - down) // 2, (width - across) // 2, down, across)
        return {"box": box, "filter_name": filter_name}

    def apply(
        self, img: Array, box: tuple[int, int, int, int], filter_name: Filter, **_: Any
    ) -> Array:
        """Cut and resize (H, W, C)."""
        top, left, down, across = box
        return resample(img[top : top + down, left : left + across], self.size, filter_name)


class PaddedCrop(A.ImageOnlyTransform):  # type: ignore[misc]
    """Resize, add black on all sides and cut the size out at random, as is usual for CIFAR.

    Args:
        size: (height, width) of the result in pixels.
        padding: Width of the black, in pixels of the result.
        filters: One of these is drawn for each image.
    """

    def __init__(self, size: tuple[int, int], padding: int, filters: tuple[Filter, ...]) -> None:
        super().__init__(p=1.0)
        self.size, self.padding, self.filters = size, padding, filters

    def get_params(self) -> dict[str, Any]:
        """Draw one place."""
        top, left = (self.py_random.randint(0, 2 * self.padding) for _ in range(2))
        return {"corner": (top, left), "filter_name": self.py_random.choice(self.filters)}

    def apply(self, img: Array, corner: tuple[int, int], filter_name: Filter, **_: Any) -> Array:
        """Change (H, W, C)."""
        around = (self.padding, self.padding)
        padded = np.pad(resample(img, self.size, filter_name), (around, around, (0, 0)))
        rows = slice(corner[0], corner[0] + self.size[0])
        return np.ascontiguousarray(padded[rows, corner[1] : corner[1] + self.size[1]])


class CenterCrop(A.ImageOnlyTransform):  # type: ignore[misc]
    """Resize with proportions kept and cut the middle out, or squash.

    Args:
        size: (height, width) of the result in pixels.
        share: Share of the resized image's sides that stays, of the side that fits tighter;
            None: squash the whole image to the size.
        filter_name: How it is resized.
    """

    def __init__(self, size: tuple[int, int], share: float | None, filter_name: Filter) -> None:
        super().__init__(p=1.0)
        self.size, self.share, self.filter_name = size, share, filter_name

    def apply(self, img: Array, **_: Any) -> Array:
        """Fit (H, W, C)."""
        if self.share is None:
            return resample(img, self.size, self.filter_name)
        height, width = img.shape[:2]
        scale = max(self.size[0] / height, self.size[1] / width) / self.share
        # Rounded down, as the published evaluations do; the tighter side must still be covered.
        fitted = (
            max(self.size[0], int(height * scale + 1e-6)),
            max(self.size[1], int(width * scale + 1e-6)),
        )
        resized = resample(img, fitted, self.filter_name)
        top, left = (round((fitted[axis] - self.size[axis]) / 2) for axis in (0, 1))
        cut = resized[top : top + self.size[0], left : left + self.size[1]]
        return np.ascontiguousarray(cut)


class RandAugment(A.ImageOnlyTransform):  # type: ignore[misc]
    """N operations of one strength, drawn from a list with replacement.

    The list and the ranges are those of the article, which takes them from AutoAugment; all
    operations grow stronger with M. For images that are not colored, "color" is not among them.

    Args:
        count: Operations for each image, N.
        magnitude: Their strength, M, 0 to 10.
        deviation: Standard deviation of the noise on M.
        probability: Probability that a drawn operation is carried out.
        channels: Channels of the images.

    Source:
        Cubuk et al., RandAugment, arXiv:1909.13719, section 3; ranges: AutoAugment,
        arXiv:1805.09501, table 6. Noise on M and a probability: the recipe of DeiT,
        arXiv:2012.12877, table 9.
    """

    def __init__(
        self, count: int, *, magnitude: float, deviation: float, probability: float, channels: int
    ) -> None:
        super().__init__(p=1.0)
        self.count, self.magnitude = count, magnitude
        self.deviation, self.probability = deviation, probability
        self.operations = find_operations(channels)

    def get_params(self) -> dict[str, Any]:
        """Draw the operations with their strengths from -1 to 1."""
        synthetic = []
        for _ in range(self.count):
            name = self.py_random.choice(tuple(self.operations))
            strength = self.py_random.gauss(self.magnitude, self.deviation) / _STRONGEST
            sign = self.py_random.choice((-1, 1))
            if self.py_random.random() < self.probability:
                synthetic.append((name, sign * min(max(strength, 0.0), 1.0)))
        return {"synthetic": synthetic}

    def apply(self, img: Array, synthetic: list[tuple[str, float]], **_: Any) -> Array:
        """Carry the drawn operations out on (H, W, C)."""
        for name, strength in synthetic:
            img = self.operations[name](img, strength)
        return np.ascontiguousarray(img)


class RandomErasing(A.ImageOnlyTransform):  # type: ignore[misc]
    """Replace random rectangles.

    Args:
        probability: Of erasing at all.
        mode: What takes their place.
        most: Largest number of rectangles; their whole area is shared among them.

    Source:
        Zhong et al., Random Erasing Data Augmentation, arXiv:1708.04896, algorithm 1.
    """

    def __init__(self, probability: float, *, mode: ErasingMode, most: int) -> None:
        super().__init__(p=probability)
        self.mode, self.most = mode, most

    def get_params_dependent_on_data(
        self,
        params: dict[str, Any],
        data: dict[str, Any],  # noqa: ARG002
    ) -> dict[str, Any]:
        """Draw the rectangles."""
        height, width = params["shape"][:2]
        count = self.py_random.randint(1, self.most)
        low, high = np.log(_ERASED_RATIO)
        boxes = []
        for _ in range(count):
            for _ in range(_TRIES):
                area = height * width * self.py_random.uniform(*_ERASED_AREA) / count
                ratio = float(np.exp(self.py_random.uniform(low, high)))
                down, across = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
                if 0 < down < height and 0 < across < width:
                    top = self.py_random.randint(0, height - down)
                    left = self.py_random.randint(0, width - across)
                    boxes.append((slice(top, top + down), slice(left, left + across)))
                    break
        return {"boxes": boxes}

    def apply(self, img: Array, boxes: list[tuple[slice, slice]], **_: Any) -> Array:
        """Erase in (H, W, C)."""
        erased = img.copy()
        mean = img.mean((0, 1), dtype=np.float64)
        color = (np.rint(mean) if img.dtype == np.uint8 else mean).astype(img.dtype)
        for box in boxes:
            place = erased[box]
            shape = place.shape if self.mode == "pixel" else (1, 1, place.shape[2])
            erased[box] = color if self.mode == "mean" else self._draw(shape, img)
        return erased

    def _draw(self, shape: tuple[int, ...], like: Array) -> NDArray[Any]:
        generator: np.random.Generator = self.random_generator
        if like.dtype == np.uint8:
            return generator.integers(0, 256, shape, dtype=np.uint8)
        return generator.random(shape, dtype=np.float32)


def _build_crop(config: ClassificationAugmentConfig, size: tuple[int, int]) -> A.BasicTransform:
    names: dict[str, tuple[Filter, ...]] = {
        "bilinear": ("bilinear",),
        "bicubic": ("bicubic",),
        "random": ("bilinear", "bicubic"),
    }
    filters = names[config.interpolation]
    if config.padding:
        return PaddedCrop(size, config.padding, filters)
    return CropToSize(size, scale=config.crop_scale, ratio=config.crop_ratio, filters=filters)
