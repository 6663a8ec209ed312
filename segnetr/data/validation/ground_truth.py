"""Read the ground truth of a case."""

from segnetr.data.case import Case, DatasetSpec
from segnetr.data.readers.image_file import DEFAULT_MAX_PIXELS, MaskFile
from segnetr.data.readers.read_files import read_ground_truth


def read_case_ground_truth(
    case: Case, spec: DatasetSpec, *, max_pixels: int = DEFAULT_MAX_PIXELS
) -> MaskFile:
    """Read the mask files of a case with the classes and mask values of its dataset.

    Args:
        case: A case with at least one mask.
        spec: The dataset.
        max_pixels: As in `read_image`.

    Raises:
        ReadError: As in `read_ground_truth`.
    """
    return read_ground_truth(
        case.mask_files, classes=len(spec.classes), values=spec.mask_values, max_pixels=max_pixels
    )
