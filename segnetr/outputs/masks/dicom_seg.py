"""Write masks as DICOM Segmentation objects, with highdicom in a limited child process."""

from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from segnetr import __version__
from segnetr.data.readers.dicom.sandbox import ChildLimits, ask_child
from segnetr.data.readers.dicom.series import count_seconds, require_package
from segnetr.data.readers.image_file import DicomSeries

_CHILD = "segnetr.outputs.masks.dicom_seg_worker"
_MEMORY_BYTES, _BYTES_PER_VOXEL = 2 * 2**30, 16


def encode_segmentation(
    labels: NDArray[np.uint8], series: DicomSeries, *, classes: Sequence[str]
) -> bytes:
    """Return a DICOM-SEG object that refers to the slices of its series.

    Position, orientation and spacing are those of the slices; each foreground class is a segment
    of one bit. Only the label names the class: the coded category and type are the general
    "Tissue" (SNOMED CT 85756007), because a class name is not a code.

    Args:
        labels: (X, Y, Z) class indices, on the grid of the series.
        series: The slices.
        classes: Names of the classes, background first.

    Returns:
        The whole file.

    Raises:
        ReadError: If highdicom is not installed, or the slices lack required attributes.
    """
    path = Path(series.source)
    require_package(path, "highdicom")
    stack = np.ascontiguousarray(labels.transpose(2, 1, 0))
    request = {
        "path": str(path.absolute()),
        "series": series.uid,
        "names": list(series.names),
        "shape": stack.shape,
        "classes": list(classes),
        "version": __version__,
    }
    memory = _MEMORY_BYTES + _BYTES_PER_VOXEL * stack.size
    limits = ChildLimits(memory_bytes=memory, seconds=2 * count_seconds(path))
    content: bytes = ask_child(
        _CHILD, request, path=path, limits=limits, take=_read_reply, payload=stack.tobytes()
    )
    return content


def _read_reply(facts: Any, rest: IO[bytes]) -> bytes:
    content = rest.read(facts["bytes"])
    if len(content) != facts["bytes"]:
        raise EOFError
    return content
