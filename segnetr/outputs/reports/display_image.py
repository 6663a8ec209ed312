"""Read the pixels that a figure shows: an image, or some slices of a volume."""

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
    """Planes of an image, and a sample of its values for the gray scale.

    Attributes:
        kind: An image, or slices of a volume along Z.
        planes: For a volume, (X, Y) of its first channel by slice number; for an image,
            (H, W, C) with the key 0.
        sample: Evenly selected values of the whole image.
        spacing: Sides of a pixel along X and Y in mm; 1 if unknown.
    """

    kind: Literal["image", "volume"]
    planes: Mapping[int, NDArray[Any]]
    sample: NDArray[Any]
    spacing: tuple[float, float]


def show_image(image: ImageFile | VolumeFile, depths: Collection[int]) -> DisplayImage:
    """Return the requested slices of a volume, or the image itself.

    Args:
        image: The image; a volume on disk is read once, and only these slices are stored.
        depths: Slices along Z; not used for an image.

    Raises:
        ReadError: If a volume on disk can no longer be read.
    """
    side_x, side_y = (image.spacing or (1.0, 1.0))[:2]
    if isinstance(image, ImageFile) and image.kind == "image":
        planes = {0: image.array}
        return DisplayImage(
            kind="image", planes=planes, sample=image.array, spacing=(side_x, side_y)
        )
    # One gray scale for the volume: empty slices are dark, and brightness does not jump.
    stride = max(1, int(np.prod(image.grid)) // _MOST_SAMPLED)
    planes_by_depth, sampled, before = {}, [], 0
    for depth, plane in enumerate(_iterate_planes(image)):
        sampled.append(plane.ravel(order="F")[-before % stride :: stride])
        before += plane.size
        if depth in depths:
            planes_by_depth[depth] = plane
    return DisplayImage(
        kind="volume",
        planes=planes_by_depth,
        sample=np.concatenate(sampled),
        spacing=(side_x, side_y),
    )


def _iterate_planes(image: ImageFile | VolumeFile) -> Iterable[NDArray[Any]]:
    if isinstance(image, ImageFile):
        shown = image.display_array
        return (shown[:, :, depth] for depth in range(shown.shape[2]))
    return (plane[..., 0] for plane in image.read_planes())
