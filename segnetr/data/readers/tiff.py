"""Read TIFF files with several pages as volumes without geometry.

Columns are X, rows are Y, pages are Z, as in ITK and ImageJ. TIFF has no reliable slice spacing, so
the volume has neither spacing nor affine, and distances are in voxels. Pages are gray, with 8, 16
or 32 bit or real numbers, and have equal size and type. Several color pages are
rejected.
"""

import mmap
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.TiffImagePlugin import TiffImageFile

from segnetr.data.readers.image import DECODE_ERRORS, describe_image_damage, native_gray
from segnetr.data.readers.image_file import (
    ImageFile,
    check_extent,
    check_finite,
    describe_os_error,
)
from segnetr.data.readers.image_integrity import BrokenImageError, find_format, walk_pages
from segnetr.errors import ReadError

TIFF_SUFFIXES = (".tif", ".tiff")

_WIDTH, _HEIGHT, _SAMPLES = 256, 257, 277
_Tags = Mapping[int, tuple[int, ...]]


def has_pages(path: Path) -> bool:
    """Return whether a file is a TIFF with several complete pages. Damage is reported later."""
    try:
        with path.open("rb") as stream:
            if find_format(stream.read(16)) != "TIFF":
                return False
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return sum(1 for _ in walk_pages(data)) > 1
    except (OSError, ValueError):  # a BrokenImageError is a ValueError
        return False


def read_tiff_pages(path: Path, *, max_pixels: int) -> ImageFile:
    """Read a TIFF with several pages.

    Args:
        path: A file for which `has_pages` is true.
        max_pixels: Reject more pixels than this in all pages before memory is allocated.

    Returns:
        A volume (X, Y, Z): columns, rows, pages.

    Raises:
        ReadError: If the file is damaged or too large, or its pages are not gray, or differ in size
            or type.
    """
    try:
        with path.open("rb") as stream:
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                pages = list(walk_pages(data))
            width, height = _find_size(path, [tags for _, tags in pages])
            check_extent(path, (width, height, len(pages)), max_pixels=max_pixels)
            stack = _decode(path, TiffImageFile(stream), [at for at, _ in pages], (height, width))
    except BrokenImageError as error:
        raise ReadError(path, f"damaged TIFF file: {error}") from error
    except OSError as error:
        if error.errno is not None:
            raise ReadError(path, describe_os_error(error)) from error
        raise describe_image_damage(path, "TIFF", error) from error
    except DECODE_ERRORS as error:
        raise describe_image_damage(path, "TIFF", error) from error
    check_finite(path, stack)
    note = f"{len(pages)} pages are read as a volume without spacing"
    return ImageFile(path=path, array=stack.transpose(2, 1, 0), kind="volume", warnings=(note,))


def _find_size(path: Path, pages: Sequence[_Tags]) -> tuple[int, int]:
    sizes = {(_first(tags, _WIDTH), _first(tags, _HEIGHT)) for tags in pages}
    if len(sizes) > 1:
        raise ReadError(
            path, f"its {len(pages)} pages have {len(sizes)} sizes; pages of one size are a volume"
        )
    if any(tags.get(_SAMPLES, (1,))[:1] != (1,) for tags in pages):
        raise ReadError(
            path,
            f"it holds {len(pages)} pages of colors; pages of gray values are a volume, save color"
            " pages as separate files",
        )
    return sizes.pop()


def _first(tags: _Tags, tag: int) -> int:
    values = tags.get(tag)
    if not values:
        raise BrokenImageError(f"its field {tag} is missing")
    return values[0]


def _decode(
    path: Path, image: TiffImageFile, pages: Sequence[int], size: tuple[int, int]
) -> NDArray[Any]:
    """Return the pages (Z, Y, X)."""
    stack: NDArray[Any] | None = None
    for number, page in enumerate(pages):
        image.seek(page)
        image.load()
        if image.mode not in ("1", "L", "I", "F", "P") and not image.mode.startswith("I;16"):
            raise ReadError(path, f"its page {number + 1} is {image.mode}; gray pages are read")
        plane = np.asarray(image) if image.mode == "P" else native_gray(image)
        plane = plane.astype(np.uint8) if plane.dtype == bool else plane
        if stack is None:
            stack = np.empty((len(pages), *size), dtype=plane.dtype)
        if plane.shape != size or plane.dtype != stack.dtype:
            raise ReadError(path, f"its page {number + 1} is not of the size and type of the first")
        stack[number] = plane
    if stack is None:
        raise struct.error("no page")
    return stack
