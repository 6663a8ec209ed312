"""Write synthetic NIfTI volumes: a bright box in noise, with its mask."""

import gzip
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

OBLIQUE = np.array(
    [[1.2, 0.5, 0.0, -7.0], [-0.5, 1.2, 0.3, 4.0], [0.1, -0.2, 2.5, 9.0], [0.0, 0.0, 0.0, 1.0]]
)
MIRRORED = np.diag([-1.5, 1.5, 3.0, 1.0])  # determinant below 0


def draw_volume(
    shape: tuple[int, int, int] = (20, 24, 6), *, seed: int = 0, classes: int = 2
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Return values and class indices; the first and last slices along Z are empty."""
    random = np.random.default_rng(seed)
    values = random.integers(80, 120, shape).astype(np.int16)
    labels = np.zeros(shape, dtype=np.uint8)
    x, y, z = (side // 4 for side in shape)
    inside = np.s_[x : 3 * x, y : 3 * y, max(1, z) : shape[2] - max(1, z)]
    labels[inside] = 1
    if classes > 2:
        labels[x : 2 * x, y : 3 * y, max(1, z) : shape[2] - max(1, z)] = 2
    values += 300 * labels.astype(np.int16)
    return values, labels


def write_nifti(path: Path, array: NDArray[Any], affine: NDArray[np.float64] | None = None) -> Path:
    """Write a volume; the default affine has a spacing of 1.5 x 1.5 x 3 mm."""
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([1.5, 1.5, 3.0, 1.0]) if affine is None else affine
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    path.write_bytes(gzip.compress(image.to_bytes(), 1, mtime=0))
    return path


def write_acdc(
    root: Path,
    patients: int = 3,
    *,
    part: str = "training",
    first: int = 1,
    shape: tuple[int, int, int] = (20, 24, 6),
) -> Path:
    """Write patients in the ACDC layout with four classes; return the folder above `ACDC`."""
    groups = ("NOR", "DCM", "HCM", "MINF", "RV")
    for number in range(first, first + patients):
        folder = root / "ACDC" / "database" / part / f"patient{number:03d}"
        group = groups[number % len(groups)]
        folder.mkdir(parents=True)
        text = f"ED: 1\nES: 9\nGroup: {group}\nHeight: 184.0\nNbFrame: 30\nWeight: 95.0\n"
        (folder / "Info.cfg").write_text(text)
        for frame in (1, 9):
            values, labels = draw_volume(shape, seed=100 * number + frame, classes=3)
            labels[labels == 2] = 3
            name = f"patient{number:03d}_frame{frame:02d}"
            write_nifti(folder / f"{name}.nii.gz", values)
            write_nifti(folder / f"{name}_gt.nii.gz", labels)
        (folder / f"patient{number:03d}_4d.nii.gz").write_bytes(b"not read")
    return root


def write_task(
    root: Path, cases: int = 4, *, channels: int = 1, shape: tuple[int, int, int] = (20, 24, 6)
) -> Path:
    """Write a Decathlon task with two foreground classes; return its folder."""
    folder = root / "Task99_Box"
    pairs = []
    for number in range(cases):
        values, labels = draw_volume(shape, seed=number, classes=3)
        name = f"box_{number:03d}.nii.gz"
        if channels > 1:
            values = np.stack([values * (k + 1) for k in range(channels)], axis=-1)
        write_nifti(folder / "imagesTr" / name, values)
        write_nifti(folder / "labelsTr" / name, labels)
        (folder / "imagesTr" / f"._{name}").write_bytes(b"macOS")
        pairs.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    content = {
        "name": "Box",
        "licence": "CC0",
        "modality": {str(k): f"m{k}" for k in range(channels)},
        "labels": {"0": "background", "1": "far", "2": "near"},
        "numTraining": cases,
        "training": pairs,
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder
