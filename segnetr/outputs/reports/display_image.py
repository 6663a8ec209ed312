"""What people see of an image: a image, or some slices of a volume that may stay on the disk."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from segnetr.data.readers.image_file import ImageFile
from segnetr.data.readers.nifti_stream import VolumeFile

_MOST_SAMPLED = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DisplayImage:
    """Planes of an image, and what their brightness goes by.

    Attributes:
        kind: A image, or slices of a volume along Z.
        planes: (X, Y) of a volume by the number of the slice, its first channel; (H, W, C) of a
            image under 0.
        sample: Values spread over the whole image.
        spacing: Sides of a pixel along X and Y in mm; 1 where the file does not say.
    """

    kind: Literal["image", "volume"]
    planes: Mapping[int, NDArray[Any]]
    sample: NDArray[Any]
    spacing: tuple[float, float]


def show_image(image: ImageFile | VolumeFile, depths: Collection[int]) -> DisplayImage:
    """Take out of an image what is to be shown of it.

    Args:
        image: The image; a volume on the disk is gone through once and only these slices are kept.
        depths: Slices along Z; of no weight for a image.

    Raises:
        ReadError: If a volume on the disk cannot be read any more.
    """
    side_x, side_y = (image.spacing or (1.0, 1.0))[:2]
    if isinstance(image, ImageFile) and image.kind == "image":
        planes = {0: image.array}
        return DisplayImage(
            kind="image", planes=planes, sample=image.array, spacing=(side_x, side_y)
        )
    # By the whole volume: an empty slice stays dark, and brightness does not jump.
    stride = max(1, int(np.prod(image.grid)) // _MOST_SAMPLED)
    kept, sampled, before = {}, [], 0
    for depth, plane in enumerate(_iterate_planes(image)):
        sampled.append(plane.ravel(order="F")[-before % stride :: stride])
        before += plane.size
        if depth in depths:
            kept[depth] = plane
    return DisplayImage(
        kind="volume", planes=kept, sample=np.concatenate(sampled), spacing=(side_x, side_y)
    )


def _iterate_planes(image: ImageFile | VolumeFile) -> Iterable[NDArray[Any]]:
    if isinstance(image, ImageFile):
        shown = image.display_array
        return (shown[:, :, depth] for depth in range(shown.shape[2]))
    return (plane[..., 0] for plane in image.read_planes())
