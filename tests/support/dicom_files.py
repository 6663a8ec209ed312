"""Write synthetic DICOM series; needs pydicom."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

ROOT_UID = "1.2.826.0.1.3680043.8.498"
SHAPE = (6, 5, 4)  # columns, rows, slices
STEP = 2.5


def draw_voxels(seed: int = 0) -> NDArray[np.int16]:
    """Return signed 12-bit values (X, Y, Z)."""
    return np.random.default_rng(seed).integers(-2000, 2000, SHAPE).astype(np.int16)


def write_slice(path: Path, pixels: NDArray[Any], number: int, **changes: Any) -> Path:
    """Write (rows, columns) as a slice at `number * STEP` mm. A change of None removes a field."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = f"{ROOT_UID}.9.{number + 1}"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    fields: dict[str, Any] = {
        "SOPClassUID": MRImageStorage,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "StudyInstanceUID": f"{ROOT_UID}.1",
        "SeriesInstanceUID": f"{ROOT_UID}.2",
        "FrameOfReferenceUID": f"{ROOT_UID}.3",
        "Modality": "MR",
        "SeriesDescription": "synthetic",
        "SeriesNumber": 1,
        "InstanceNumber": number + 1,
        "PatientID": "synthetic",
        "PatientName": "Drawn^Patient",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 1,
        "PixelSpacing": [0.75, 1.25],
        "SliceThickness": STEP,
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "ImagePositionPatient": [-10, 20, 30 + STEP * number],
        "PixelData": pixels.tobytes(),
    }
    for name, value in {**fields, **changes}.items():
        if value is not None:
            setattr(data, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, data, enforce_file_format=True)
    return path


def write_series(folder: Path, voxels: NDArray[Any] | None = None, **changes: Any) -> Path:
    """Write a series whose file names are in reverse slice order; return the folder."""
    voxels = draw_voxels() if voxels is None else voxels
    depth = voxels.shape[2]
    for number in range(depth):
        name = f"{depth - number}.dcm"
        pixels = np.ascontiguousarray(voxels[:, :, number].T)
        write_slice(folder / name, pixels, number, **changes)
    return folder


def zip_folder(folder: Path, path: Path) -> Path:
    """Write a zip file of a folder inside a folder."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, f"study/{file.name}")
    return path
