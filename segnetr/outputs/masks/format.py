"""Choose the file format of a mask: the format of its image, or a requested one."""

from collections.abc import Mapping
from pathlib import Path

from segnetr.errors import UsageError

MASK_FORMATS: Mapping[str, str] = {
    "same": "",
    "png": ".png",
    "palette": ".png",
    "bmp": ".bmp",
    "tif": ".tif",
    "nii": ".nii",
    "nii.gz": ".nii.gz",
    "nrrd": ".nrrd",
    "mha": ".mha",
    "dcm": ".dcm",
}
"""Values of `--format` and their suffixes; a palette is a PNG in colors."""

IMAGE_FORMATS = ("png", "palette", "bmp", "tif")
VOLUME_FORMATS = ("nii", "nii.gz", "nrrd", "mha")

_NIFTI = (".nii", ".nii.gz")
_VOLUMES = (*_NIFTI, ".nrrd", ".nhdr", ".mha", ".mhd")
_DICOM = ".dcm"
# Lossless formats. Masks of two-file formats are written as one file of the same format.
_SAME = {".png": "", ".bmp": "", ".tif": "", ".tiff": "", ".nii": "", ".nii.gz": "", ".nrrd": "",
         ".mha": "", ".dcm": "", ".nhdr": ".nrrd", ".mhd": ".mha"}  # fmt: skip


def check_format(name: str) -> str:
    """Return the name of a known format.

    Raises:
        UsageError: If the format is unknown.
    """
    if name not in MASK_FORMATS:
        raise UsageError(f"--format {name}: unknown format; use one of {', '.join(MASK_FORMATS)}")
    return name


def choose_suffix(source: Path, suffix: str, format_name: str) -> str:
    """Return the suffix of a mask.

    Args:
        source: The image, for messages.
        suffix: Suffix of the image file; `.dcm` for any DICOM source.
        format_name: One of `MASK_FORMATS`.

    Raises:
        UsageError: If a mask of this image cannot be written in this format.
    """
    if format_name == "same":
        return (_SAME[suffix.lower()] or suffix) if suffix.lower() in _SAME else ".png"
    known: tuple[str, ...] = IMAGE_FORMATS
    if suffix.lower() in _VOLUMES:
        known = VOLUME_FORMATS
    elif suffix.lower() == _DICOM:
        known = (*VOLUME_FORMATS, "dcm")
    if format_name not in known:
        raise UsageError(
            f"{source}: its mask cannot be written as {format_name}; --format {', '.join(known)}"
        )
    return MASK_FORMATS[format_name]
