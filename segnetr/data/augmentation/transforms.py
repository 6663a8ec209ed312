"""MONAI dictionary transforms from a cached case to the tensors of a batch.

The pipeline is a `monai.transforms.Compose` of items with the keys "image", "mask" and "case_id".
Add your own transforms with `training_transform(..., extra=[...])`. There the image is float32
(C, H, W), normalized, and the mask uint8 (1, H, W), the layout that MONAI expects. Random
transforms are seeded per sample. For another position, rebuild the `Compose` from its `transforms`.
"""

import random
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose, MapTransform, Randomizable, Transform

from segnetr.config.schema.segmentation import AugmentConfig, IntensityConfig
from segnetr.data.augmentation.pipeline import Pipeline
from segnetr.data.augmentation.segmentation import build_augmentation
from segnetr.data.cache.arrays import CachedArray, open_array
from segnetr.data.loading.volume_slices import SliceOf
from segnetr.data.preprocessing.intensity import check_channels, normalize
from segnetr.data.preprocessing.resize import Array, resize_image, resize_mask
from segnetr.data.volumes.slice_stack import pad_plane
from segnetr.errors import ReadError

Item = dict[Hashable, Any]

IMAGE = "image"
MASK = "mask"


class LoadCachedd(MapTransform):  # type: ignore[misc]
    """Replace the path of a cached copy with the memory-mapped array.

    16-bit images become float32 in 0..1, because albumentations supports uint8 and float32.

    Args:
        keys: Keys whose values are paths of .npy files.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        """Load all keys.

        Raises:
            ReadError: If a file is missing or damaged. The message names the case.
        """
        item = dict(data)
        messages: list[str] = []
        for key in self.keys:
            case_id = str(item.get("case_id", ""))
            item[key] = load_cached(item[key], case_id=case_id, on_repair=messages.append)
        return {**item, "messages": messages} if messages else item


class CropToSized(MapTransform, Randomizable):  # type: ignore[misc]
    """Pad image (H, W, C) and mask (H, W) to a size, and crop them at random if they are larger.

    With probability 1/2, the window contains a random foreground pixel, if there is one. Otherwise
    its position is uniform. New pixels are background with the minimum value of the slice.

    Args:
        image_size: (height, width) in pixels.
    """

    def __init__(self, image_size: tuple[int, int]) -> None:
        super().__init__((IMAGE, MASK))
        self.image_size = image_size

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        """Pad and crop image and mask."""
        image, mask = data[IMAGE], data[MASK]
        image = pad_plane(image, self.image_size, value=image.min())
        mask = pad_plane(mask, self.image_size, value=0)
        top, left = self._choose_corner(mask)
        height, width = self.image_size
        window = np.s_[top : top + height, left : left + width]
        return {
            **data,
            IMAGE: np.ascontiguousarray(image[window]),
            MASK: np.ascontiguousarray(mask[window]),
        }

    def _choose_corner(self, mask: Array) -> tuple[int, int]:
        """Choose the top left corner of the window."""
        spare = [present - side for present, side in zip(mask.shape, self.image_size, strict=True)]
        corner = [int(self.R.randint(pixels + 1)) for pixels in spare]
        if any(spare) and self.R.rand() < 0.5:
            inside = np.flatnonzero(mask)
            if inside.size:
                pixel = divmod(int(inside[self.R.randint(inside.size)]), mask.shape[1])
                corner = [
                    at - int(self.R.randint(side))
                    for at, side in zip(pixel, self.image_size, strict=True)
                ]
        top, left = (min(max(0, at), most) for at, most in zip(corner, spare, strict=True))
        return top, left


class Albumentationsd(MapTransform, Randomizable):  # type: ignore[misc]
    """An albumentations pipeline as a MONAI dictionary transform.

    The pipeline's random numbers come only from the state that MONAI sets.

    Args:
        pipeline: Called with `image` (H, W, C) and `mask` (H, W), and returns both.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__((IMAGE, MASK))
        self.pipeline = pipeline

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> "Albumentationsd":
        """Seed the pipeline as well."""
        super().set_random_state(seed=seed, state=state)
        number = int(self.R.randint(2**32, dtype=np.uint32))
        # Not set_random_seed, which gives all transforms the same seed. For example, an image that
        # is rotated to the left would always get darker.
        self.pipeline.set_random_state(
            np.random.Generator(np.random.PCG64(number)), random.Random(number)
        )
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        """Augment image and mask."""
        augmented = self.pipeline(image=data[IMAGE], mask=data[MASK])
        return {**data, IMAGE: augmented["image"], MASK: augmented["mask"]}


class FitToSized(MapTransform):  # type: ignore[misc]
    """Resize image (H, W, C) and mask (H, W) to a size, ignoring the aspect ratio.

    Args:
        image_size: (height, width) in pixels.
    """

    def __init__(self, image_size: tuple[int, int]) -> None:
        super().__init__((IMAGE, MASK))
        self.image_size = image_size

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        """Resize both."""
        return {
            **data,
            IMAGE: resize_image(data[IMAGE], self.image_size),
            MASK: resize_mask(data[MASK], self.image_size),
        }


class NormalizeIntensityd(MapTransform):  # type: ignore[misc]
    """Normalize the image and move the channels of image and mask to the first axis.

    Args:
        intensity: How values are normalized.
    """

    def __init__(self, intensity: IntensityConfig) -> None:
        super().__init__((IMAGE, MASK))
        self.intensity = intensity

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        """Return image (C, H, W) float32 and mask (1, H, W)."""
        image = normalize(data[IMAGE], self.intensity).transpose(2, 0, 1)
        return {**data, IMAGE: np.ascontiguousarray(image), MASK: data[MASK][None]}


class ToPlainTensord(MapTransform):  # type: ignore[misc]
    """Convert the image to a plain float32 tensor and the mask to a plain int64 tensor.

    MONAI transforms return `MetaTensor`s, whose metadata would be collated without being used.
    """

    def __init__(self) -> None:
        super().__init__((IMAGE, MASK))

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        """Convert both."""
        mask = _as_plain(data[MASK])
        if mask.is_floating_point():
            mask = mask.round()  # a MONAI transform may have left 0.9999999
        return {
            **data,
            IMAGE: _as_plain(data[IMAGE]).to(torch.float32).contiguous(),
            MASK: mask.to(torch.int64).contiguous(),
        }


def training_transform(
    augment: AugmentConfig,
    *,
    image_size: tuple[int, int],
    intensity: IntensityConfig,
    channels: int,
    color: bool = True,
    crop: bool = False,
    extra: Sequence[Transform] = (),
) -> Compose:
    """Build the training transform.

    Args:
        augment: The augmentation.
        image_size: (height, width) in pixels.
        intensity: How values are normalized.
        channels: Channels of the images, C.
        color: Whether three channels are RGB, so that saturation and hue may change.
        crop: Crop windows of the image size instead of resizing the images.
        extra: Additional MONAI dictionary transforms, applied after augmentation and normalization
            and before conversion to tensors: "image" is float32 (C, H, W), "mask" uint8 (1, H, W).

    Returns:
        A transform from the paths of a cached case to "image" (C, H, W) float32 and "mask"
        (1, H, W) int64.

    Raises:
        UsageError: If `intensity` does not fit `channels`.
    """
    check_channels(intensity, channels)
    pipeline = build_augmentation(augment, image_size=image_size, channels=channels if color else 1)
    return Compose(
        [
            LoadCachedd((IMAGE, MASK)),
            *([CropToSized(image_size)] if crop else []),
            Albumentationsd(pipeline),
            NormalizeIntensityd(intensity),
            *extra,
            ToPlainTensord(),
        ]
    )


def evaluation_transform(
    image_size: tuple[int, int], intensity: IntensityConfig, channels: int
) -> Compose:
    """Build the transform without randomness, otherwise like `training_transform`.

    Raises:
        UsageError: If `intensity` does not fit `channels`.
    """
    check_channels(intensity, channels)
    return Compose(
        [
            LoadCachedd((IMAGE, MASK)),
            FitToSized(image_size),
            NormalizeIntensityd(intensity),
            ToPlainTensord(),
        ]
    )


def load_cached(
    copy: CachedArray | SliceOf | Path,
    *,
    case_id: str,
    on_repair: Callable[[str], None] = lambda _line: None,
) -> Array:
    """Load a cached copy: uint8 memory-mapped, uint16 as float32 in 0..1.

    Args:
        copy: The .npy file, or a slice of one.
        case_id: For messages.
        on_repair: Receives one line if the copy was damaged and was decoded again.

    Raises:
        ReadError: If the file is missing or damaged.
    """
    try:
        array = _open(copy, on_repair)
    except (OSError, ValueError, EOFError) as error:
        raise ReadError(
            str(copy),
            f"the cached copy of case {case_id} is missing or damaged ({error}); "
            "run the command again to rebuild it",
        ) from error
    if isinstance(copy, SliceOf):
        array = copy.take(array)
    if array.dtype == np.uint16:
        return array.astype(np.float32) * np.float32(1 / 65535)
    return array


def _open(copy: CachedArray | SliceOf | Path, on_repair: Callable[[str], None]) -> Array:
    if not isinstance(copy, SliceOf):
        return open_array(copy, on_repair=on_repair)
    if isinstance(copy.path, Path):
        return open_array(copy.path, on_repair=on_repair)
    indices = copy.indices(len(copy.path.checksums))
    return open_array(copy.path, indices=indices, on_repair=on_repair)


def _as_plain(value: Any) -> torch.Tensor:
    tensor: torch.Tensor = torch.as_tensor(value)
    return tensor.as_subclass(torch.Tensor)
