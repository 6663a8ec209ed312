"""The chains of MONAI dictionary transforms from a cached case to the tensors of a batch.

A chain is an ordinary `monai.transforms.Compose`. Its items have the keys "image", "mask" and
"case_id". A transform of one's own goes in by `training_transform(..., extra=[...])`: there the
image is float32 (C, H, W), normalized, and the mask uint8 (1, H, W), the layout MONAI expects;
random ones are seeded for each sample with the rest. For another place, `Compose.transforms` is
a tuple that can be taken apart and put together again.
"""

import random
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose, MapTransform, Randomizable, Transform

from segnetr.config.schema.segmentation import AugmentConfig, IntensityConfig
from segnetr.data.augmentation.pipeline import Pipeline
from segnetr.data.augmentation.segmentation import build_augmentation
from segnetr.data.loading.volume_slices import SliceOf
from segnetr.data.preprocessing.intensity import check_channels, normalize
from segnetr.data.preprocessing.resize import Array, resize_image, resize_mask
from segnetr.data.volumes.slice_stack import pad_plane
from segnetr.errors import ReadError

Item = dict[Hashable, Any]

IMAGE = "image"
MASK = "mask"


class LoadCachedd(MapTransform):  # type: ignore[misc]
    """Replace the path of a cached copy by the array, mapped into memory.

    Images of 16 bits become float32 in 0..1, because albumentations knows uint8 and float32.

    Args:
        keys: Keys whose values are paths of .npy files.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        """Load all keys.

        Raises:
            ReadError: If a file is missing or damaged; the message names the case.
        """
        item = dict(data)
        for key in self.keys:
            item[key] = load_cached(item[key], case_id=str(item.get("case_id", "")))
        return item


class CropToSized(MapTransform, Randomizable):  # type: ignore[misc]
    """Pad image (H, W, C) and mask (H, W) to a size, and cut it out where they are larger.

    Every second window on average is laid around a random pixel of the foreground, where there is
    one; the others lie anywhere. New pixels are background, as dark as the darkest of the slice.

    Args:
        image_size: (height, width) in pixels.
    """

    def __init__(self, image_size: tuple[int, int]) -> None:
        super().__init__((IMAGE, MASK))
        self.image_size = image_size

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        """Cut both alike."""
        image, mask = data[IMAGE], data[MASK]
        image = pad_plane(image, self.image_size, value=image.min())
        mask = pad_plane(mask, self.image_size, value=0)
        top, left = self._place(mask)
        height, width = self.image_size
        window = np.s_[top : top + height, left : left + width]
        return {
            **data,
            IMAGE: np.ascontiguousarray(image[window]),
            MASK: np.ascontiguousarray(mask[window]),
        }

    def _place(self, mask: Array) -> tuple[int, int]:
        """Choose the upper left corner."""
        room = [present - side for present, side in zip(mask.shape, self.image_size, strict=True)]
        wanted = [int(self.R.randint(spare + 1)) for spare in room]
        if any(room) and self.R.rand() < 0.5:
            inside = np.flatnonzero(mask)
            if inside.size:
                pixel = divmod(int(inside[self.R.randint(inside.size)]), mask.shape[1])
                wanted = [
                    at - int(self.R.randint(side))
                    for at, side in zip(pixel, self.image_size, strict=True)
                ]
        top, left = (min(max(0, at), spare) for at, spare in zip(wanted, room, strict=True))
        return top, left


class Albumentationsd(MapTransform, Randomizable):  # type: ignore[misc]
    """An albumentations pipeline as a MONAI dictionary transform.

    The pipeline's random numbers come from the state MONAI sets and from nothing else.

    Args:
        pipeline: Called with `image` (H, W, C) and `mask` (H, W), and gives both back.
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
        # Not set_random_seed: it gives all transforms one seed, and then a image that turns to
        # the left is always the one that gets darker.
        self.pipeline.set_random_state(
            np.random.Generator(np.random.PCG64(number)), random.Random(number)
        )
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        """Change image and mask together."""
        changed = self.pipeline(image=data[IMAGE], mask=data[MASK])
        return {**data, IMAGE: changed["image"], MASK: changed["mask"]}


class FitToSized(MapTransform):  # type: ignore[misc]
    """Squash image (H, W, C) and mask (H, W) to a size.

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
    """Normalize the image and put the channels of image and mask first.

    Args:
        intensity: How values are normalized.
    """

    def __init__(self, intensity: IntensityConfig) -> None:
        super().__init__((IMAGE, MASK))
        self.intensity = intensity

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        """Give image (C, H, W) float32 and mask (1, H, W)."""
        image = normalize(data[IMAGE], self.intensity).transpose(2, 0, 1)
        return {**data, IMAGE: np.ascontiguousarray(image), MASK: data[MASK][None]}


class ToPlainTensord(MapTransform):  # type: ignore[misc]
    """Turn the image into a plain float32 tensor and the mask into a plain int64 one.

    MONAI transforms give `MetaTensor`s, whose meta data would be carried and collated for nothing.
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
    """Build the chain for training.

    Args:
        augment: The random changes.
        image_size: (height, width) in pixels.
        intensity: How values are normalized.
        channels: Channels of the images, C.
        color: Three channels are red, green and blue, and their saturation and hue may change.
        crop: Cut windows of the image size out of the images in place of squashing them.
        extra: Further MONAI dictionary transforms, applied after augmentation and normalization
            and before conversion to tensors: "image" is float32 (C, H, W), "mask" uint8 (1, H, W).

    Returns:
        From the paths of a cached case to "image" (C, H, W) float32 and "mask" (1, H, W) int64.

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
    """Build the chain without randomness, otherwise as `training_transform`.

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


def load_cached(path: Any, *, case_id: str) -> Array:
    """Load a cached copy: uint8 as it is, mapped into memory, and uint16 as float32 in 0..1.

    Args:
        path: The .npy file, or a slice of one.
        case_id: For messages.

    Raises:
        ReadError: If the file is missing or damaged.
    """
    try:
        # Not numpy.load, which would also open archives; this reads plain arrays only.
        file = path.path if isinstance(path, SliceOf) else path
        array = np.asarray(np.lib.format.open_memmap(file, mode="r"))
    except (OSError, ValueError, EOFError) as error:
        raise ReadError(
            path,
            f"the cached copy of case {case_id} is missing or damaged ({error}); "
            "start again, and it is made anew",
        ) from error
    if isinstance(path, SliceOf):
        array = path.take(array)
    if array.dtype == np.uint16:
        return array.astype(np.float32) * np.float32(1 / 65535)
    return array


def _as_plain(value: Any) -> torch.Tensor:
    tensor: torch.Tensor = torch.as_tensor(value)
    return tensor.as_subclass(torch.Tensor)
