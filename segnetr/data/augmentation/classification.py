"""Augmentation and evaluation resizing of images for classification.

Both are albumentations pipelines from an image (H, W, C), uint8 or float32 in 0..1, to one of the
training size. Their random numbers come only from `Compose.set_random_state`.
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

# Share of the image's area, and height over width, of an erased rectangle: arXiv:1708.04896, but
# with the largest share of most later recipes (0.4 in the paper).
_ERASED_AREA = (0.02, 1 / 3)
_ERASED_RATIO = (0.3, 1 / 0.3)
_MAX_TRIES = 10
_MAX_MAGNITUDE = 10.0


def build_classification_augmentation(
    config: ClassificationAugmentConfig, *, image_size: tuple[int, int], channels: int
) -> Pipeline:
    """Build the training pipeline.

    The steps follow the published recipes: crop, flip, RandAugment, color jitter, erasing.

    Args:
        config: The augmentation. Disabled steps are not part of the pipeline.
        image_size: (height, width) of the result in pixels.
        channels: Channels of the images. Saturation, hue and RandAugment's "color" need 3.

    Returns:
        A pipeline for `image` (H, W, C).
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
    """Build the evaluation pipeline, which is deterministic.

    Args:
        config: Only `evaluation_crop`, `evaluation_fit` and `interpolation` are used.
        image_size: (height, width) of the result in pixels.

    Returns:
        A pipeline for `image` (H, W, C) with any number of channels.
    """
    filter_name: Filter = "bilinear" if config.interpolation == "bilinear" else "bicubic"
    crop = None if config.evaluation_fit == "squash" else config.evaluation_crop
    return Pipeline([CenterCrop(image_size, crop, filter_name)])


class CropToSize(A.ImageOnlyTransform):  # type: ignore[misc]
    """Crop a random rectangle and resize it (random resized crop).

    Its area is a uniform share of the image's area, and its aspect ratio is log-uniform. If ten
    draws do not fit into the image, the largest central rectangle with the nearest allowed aspect
    ratio is used.

    Args:
        size: (height, width) of the result in pixels.
        scale: Smallest and largest share of the area.
        ratio: Smallest and largest width over height.
        filters: One of these is chosen at random for each image.

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
        """Draw the rectangle."""
        height, width = params["shape"][:2]
        filter_name = self.py_random.choice(self.filters)
        low, high = np.log(self.ratio)
        for _ in range(_MAX_TRIES):
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
        """Crop and resize (H, W, C)."""
        top, left, down, across = box
        return resample(img[top : top + down, left : left + across], self.size, filter_name)


class PaddedCrop(A.ImageOnlyTransform):  # type: ignore[misc]
    """Resize, pad with black and crop at random, as is usual for CIFAR.

    Args:
        size: (height, width) of the result in pixels.
        padding: Width of the padding in pixels of the result.
        filters: One of these is chosen at random for each image.
    """

    def __init__(self, size: tuple[int, int], padding: int, filters: tuple[Filter, ...]) -> None:
        super().__init__(p=1.0)
        self.size, self.padding, self.filters = size, padding, filters

    def get_params(self) -> dict[str, Any]:
        """Draw the position."""
        top, left = (self.py_random.randint(0, 2 * self.padding) for _ in range(2))
        return {"corner": (top, left), "filter_name": self.py_random.choice(self.filters)}

    def apply(self, img: Array, corner: tuple[int, int], filter_name: Filter, **_: Any) -> Array:
        """Pad and crop (H, W, C)."""
        margin = (self.padding, self.padding)
        padded = np.pad(resample(img, self.size, filter_name), (margin, margin, (0, 0)))
        rows = slice(corner[0], corner[0] + self.size[0])
        return np.ascontiguousarray(padded[rows, corner[1] : corner[1] + self.size[1]])


class CenterCrop(A.ImageOnlyTransform):  # type: ignore[misc]
    """Resize with the aspect ratio preserved and crop the center, or resize the whole image.

    Args:
        size: (height, width) of the result in pixels.
        share: Crop size over the size of the resized image, along its tighter side. None: resize
            the whole image, ignoring the aspect ratio.
        filter_name: Resampling filter.
    """

    def __init__(self, size: tuple[int, int], share: float | None, filter_name: Filter) -> None:
        super().__init__(p=1.0)
        self.size, self.share, self.filter_name = size, share, filter_name

    def apply(self, img: Array, **_: Any) -> Array:
        """Resize and crop (H, W, C)."""
        if self.share is None:
            return resample(img, self.size, self.filter_name)
        height, width = img.shape[:2]
        scale = max(self.size[0] / height, self.size[1] / width) / self.share
        # Rounded down, as in the published evaluations, but at least the crop size.
        full = (
            max(self.size[0], int(height * scale + 1e-6)),
            max(self.size[1], int(width * scale + 1e-6)),
        )
        resized = resample(img, full, self.filter_name)
        top, left = (round((full[axis] - self.size[axis]) / 2) for axis in (0, 1))
        crop = resized[top : top + self.size[0], left : left + self.size[1]]
        return np.ascontiguousarray(crop)


class RandAugment(A.ImageOnlyTransform):  # type: ignore[misc]
    """Apply N operations of one magnitude, drawn from a list with replacement.

    The list and the ranges are those of the paper, which takes them from AutoAugment. All
    operations get stronger with M. "color" is used for color images only.

    Args:
        count: Operations per image, N.
        magnitude: Magnitude of the operations, M, 0 to 10.
        deviation: Standard deviation of the noise on M.
        probability: Probability that a drawn operation is applied.
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
        operations = []
        for _ in range(self.count):
            name = self.py_random.choice(tuple(self.operations))
            strength = self.py_random.gauss(self.magnitude, self.deviation) / _MAX_MAGNITUDE
            sign = self.py_random.choice((-1, 1))
            if self.py_random.random() < self.probability:
                operations.append((name, sign * min(max(strength, 0.0), 1.0)))
        return {"operations": operations}

    def apply(self, img: Array, operations: list[tuple[str, float]], **_: Any) -> Array:
        """Apply the operations to (H, W, C)."""
        for name, strength in operations:
            img = self.operations[name](img, strength)
        return np.ascontiguousarray(img)


class RandomErasing(A.ImageOnlyTransform):  # type: ignore[misc]
    """Erase random rectangles.

    Args:
        probability: Probability that an image is erased.
        mode: Fill of the rectangles: random pixels, one random color each, or the mean color.
        most: Largest number of rectangles, which share the erased area.

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
            for _ in range(_MAX_TRIES):
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
            region = erased[box]
            shape = region.shape if self.mode == "pixel" else (1, 1, region.shape[2])
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
