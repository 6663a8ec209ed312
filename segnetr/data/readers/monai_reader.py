"""A MONAI reader for `LoadImage` and `LoadImaged` that uses the strict readers."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import ImageReader
from monai.utils import MetaKeys, SpaceKeys
from numpy.typing import NDArray

from segnetr.data.readers.image_file import DEFAULT_MAX_PIXELS, ImageFile
from segnetr.data.readers.read_files import is_supported, read_image, read_mask_file
from segnetr.errors import ReadError

FileName = str | PathLike[str]


class StrictReader(ImageReader):  # type: ignore[misc]  # MONAI comes without types
    """Reads images and volumes for MONAI, with strict checks.

    If a reader raises in `read`, `LoadImage` tries its own readers, and ITK silently loads
    truncated volumes. So `read` only returns the path. `get_data` reads the file and raises errors,
    since no other reader is tried after it.

    Images are (H, W, C) with the rows first, unlike those of MONAI's `PILReader`, which are
    (W, H, C). The metadata mark the channels as last, so `ensure_channel_first=True` returns
    (C, H, W). Volumes are (X, Y, Z) without a channel axis. Masks are (H, W) or (X, Y, Z).

    Args:
        channels: As in `read_image`.
        classes: If given, files are read as masks of this many classes.
        max_pixels: As in `read_image`.

    Source:
        Interface: `monai.data.ImageReader`, MONAI 1.6.
    """

    def __init__(
        self,
        channels: int | None = None,
        *,
        classes: int | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.classes = classes
        self.max_pixels = max_pixels

    def verify_suffix(self, filename: Sequence[FileName] | FileName) -> bool:
        """Return whether the formats of all files are supported."""
        return all(is_supported(path) for path in _as_paths(filename))

    def read(self, data: Sequence[FileName] | FileName, **kwargs: Any) -> tuple[Path, ...]:
        """Return the paths. The class docstring explains why nothing is read here.

        Raises:
            TypeError: If options are given; there are none.
        """
        if kwargs:
            raise TypeError(f"StrictReader.read takes no options, got {', '.join(kwargs)}")
        return _as_paths(data)

    def get_data(self, img: tuple[Path, ...]) -> tuple[NDArray[Any], dict[str, Any]]:
        """Read the file.

        Args:
            img: The result of `read`.

        Returns:
            The array, and metadata with `spatial_shape`, `original_channel_dim` and, for volumes,
            `affine`, `original_affine`, `space` and the header's fields.

        Raises:
            ReadError: As `read_image` and `read_mask_file`, or if there are several files.
        """
        if len(img) != 1:
            raise ReadError(img[0] if img else Path(), f"{len(img)} files where one is read")
        (path,) = img
        if self.classes is not None:
            mask = read_mask_file(path, classes=self.classes, max_pixels=self.max_pixels)
            meta = _describe_grid(mask.array.shape, affine=mask.affine)
            return mask.array, meta | {"warnings": "; ".join(mask.warnings)}
        image = read_image(path, channels=self.channels, max_pixels=self.max_pixels)
        rank = 2 if image.kind == "image" else 3
        meta = _describe_grid(image.array.shape, affine=image.affine, rank=rank)
        return image.array, _header_fields(image) | meta | {"warnings": "; ".join(image.warnings)}


def _as_paths(filename: Sequence[FileName] | FileName) -> tuple[Path, ...]:
    if isinstance(filename, str | PathLike):
        return (Path(filename),)
    return tuple(Path(name) for name in filename)


def _describe_grid(
    shape: tuple[int, ...], *, affine: NDArray[np.float64] | None, rank: int | None = None
) -> dict[str, Any]:
    rank = len(shape) if rank is None else rank
    meta: dict[str, Any] = {
        MetaKeys.SPATIAL_SHAPE: np.asarray(shape[:rank]),
        # In MONAI, NaN means "no channel axis".
        MetaKeys.ORIGINAL_CHANNEL_DIM: -1 if len(shape) > rank else float("nan"),
    }
    if affine is not None:
        meta |= {
            MetaKeys.AFFINE: affine.copy(),
            MetaKeys.ORIGINAL_AFFINE: affine.copy(),
            MetaKeys.SPACE: SpaceKeys.RAS,
        }
    return meta


def _header_fields(image: ImageFile) -> dict[str, Any]:
    """Return the numeric fields of a NIfTI header, as MONAI's own reader does."""
    if image.header is None:
        return {}
    fields = dict(image.header.as_byteswapped("<"))
    # Text fields cannot be collated into a batch.
    return {name: value for name, value in fields.items() if value.dtype.kind not in "SU"}
