"""The door to the strict readers: pictures, volumes and masks, in plain Python and behind MONAI."""

from segnetr.data.files.file_list import list_images
from segnetr.data.files.image_file import (
    DEFAULT_MAX_PIXELS,
    PICTURE_SUFFIXES,
    SUPPORTED_SUFFIXES,
    VOLUME_SUFFIXES,
    ImageFile,
    MaskFile,
)
from segnetr.data.files.read_files import (
    is_supported,
    read_image,
    read_mask,
    read_mask_file,
)
from segnetr.data.files.strict_reader import StrictReader

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "PICTURE_SUFFIXES",
    "SUPPORTED_SUFFIXES",
    "VOLUME_SUFFIXES",
    "ImageFile",
    "MaskFile",
    "StrictReader",
    "is_supported",
    "list_images",
    "read_image",
    "read_mask",
    "read_mask_file",
]
