"""What a file says of its geometry in its own words, kept for the mask that is made from it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class TextHeader:
    """The header of an NRRD or MetaImage file as it was written.

    Attributes:
        form: The format.
        fields: Name, separator and text of each line in order; names and text as in the file.
        axes: Which axes of the file, fastest first, are X, Y and Z.
        is_packed: Whether the voxels are packed.
    """

    form: Literal["nrrd", "meta"]
    fields: tuple[tuple[str, str, str], ...]
    axes: tuple[int, int, int] = (0, 1, 2)
    is_packed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class DicomSeries:
    """The slices of a DICOM series.

    Attributes:
        source: The folder, zip file or single file they are in.
        uid: Their SeriesInstanceUID.
        names: Names of the files in `source`, from the first slice along Z to the last.
    """

    source: Path
    uid: str
    names: tuple[str, ...]


StoredHeader: TypeAlias = TextHeader | DicomSeries
