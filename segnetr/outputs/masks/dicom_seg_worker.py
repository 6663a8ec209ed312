"""Child process that encodes DICOM-SEG. `dicom_seg` starts it and never imports it."""

import hashlib
import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import highdicom
import numpy as np
import pydicom
from highdicom.seg import Segmentation, SegmentDescription
from numpy.typing import NDArray
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from segnetr.data.readers.dicom.headers import PARSE_ERRORS, DicomSource, describe_dicom_damage
from segnetr.data.readers.dicom.sandbox import ChildReply, answer_parent
from segnetr.errors import ReadError

_TISSUE = Code("85756007", "SCT", "Tissue")
_ARTIFICIAL = Code("123110", "DCM", "Artificial Intelligence")
_NAME = "SegNetr"
# Attributes of type 2: the standard requires them, but allows empty values.
_MAY_BE_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
    "StudyID", "AccessionNumber", "ReferringPhysicianName", "PositionReferenceIndicator",
)  # fmt: skip
_MOST_LABEL_LETTERS = 64
_SERIES_NUMBER = 900  # unlikely for a series of a scanner


def encode_request(request: Mapping[str, Any], stream: IO[bytes]) -> ChildReply:
    """Encode the object.

    Args:
        request: `path`, `series`, `names` of the slices in order, `shape` (Z, Y, X), `classes`,
            `version`.
        stream: The labels, uint8.

    Returns:
        The number of bytes, and the file.

    Raises:
        ReadError: If a slice cannot be read, or lacks required attributes.
    """
    path = Path(request["path"])
    labels = np.frombuffer(stream.read(), dtype=np.uint8).reshape(request["shape"])
    slices = _read_slices(DicomSource(path), request["names"])
    try:
        segmentation = _segment(slices, labels, request)
        buffer = io.BytesIO()
        segmentation.save_as(buffer, enforce_file_format=True)
    except (ValueError, TypeError, KeyError, AttributeError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ReadError(
            path, f"its mask cannot be a DICOM-SEG ({reason}); --format nii.gz writes NIfTI"
        ) from error
    content = buffer.getvalue()
    return {"bytes": len(content)}, (content,)


def _read_slices(source: DicomSource, names: Sequence[str]) -> list[pydicom.Dataset]:
    slices: list[pydicom.Dataset] = []
    for name in names:
        try:
            with source.open(name) as stream:
                data = pydicom.dcmread(stream, stop_before_pixels=True)
        except PARSE_ERRORS as error:
            raise describe_dicom_damage(source.full_path(name), error) from error
        for keyword in _MAY_BE_EMPTY:
            if keyword not in data:
                setattr(data, keyword, None)
        slices.append(data)
    return slices


def _segment(
    slices: Sequence[pydicom.Dataset], labels: NDArray[np.uint8], request: Mapping[str, Any]
) -> Segmentation:
    software = highdicom.AlgorithmIdentificationSequence(
        name=_NAME, family=_ARTIFICIAL, version=request["version"]
    )
    segments = [
        SegmentDescription(
            segment_number=number,
            segment_label=name[:_MOST_LABEL_LETTERS],
            segmented_property_category=_TISSUE,
            segmented_property_type=_TISSUE,
            algorithm_type="AUTOMATIC",
            algorithm_identification=software,
        )
        for number, name in enumerate(request["classes"][1:], start=1)
    ]
    # Identifiers depend only on the content: equal masks of a series give equal objects.
    seeds = [request["series"], hashlib.sha256(labels.tobytes()).hexdigest(), request["version"]]
    return Segmentation(
        source_images=list(slices),
        pixel_array=labels,
        segmentation_type="BINARY",
        segment_descriptions=segments,
        series_instance_uid=generate_uid(entropy_srcs=["series", *seeds]),
        series_number=_SERIES_NUMBER,
        sop_instance_uid=generate_uid(entropy_srcs=["instance", *seeds]),
        instance_number=1,
        manufacturer=_NAME,
        manufacturer_model_name=_NAME,
        software_versions=request["version"],
        device_serial_number="0",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        series_description=f"{_NAME} segmentation",
        omit_empty_frames=bool(labels.any()),
    )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    answer_parent(encode_request)
