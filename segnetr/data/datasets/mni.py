"""A real brain without a download: the MNI152 template inside the `nilearn` package.

nilearn's wheel contains the T1 image of the ICBM 2009a template and its maps of gray and white
matter (197 x 233 x 189 voxels of 1 mm). The files are read without importing nilearn. The maps are
thresholded into classes, and the volume is cut into slabs of axial slices, because a split needs
several cases. The template is an average of 152 people and smoother than any single brain.

Neighboring slices of one brain are similar, so a random split of slices would leak. The slabs are
contiguous with a gap between them, but the test slab is still from the same brain. A score on it
shows that the program works. It says nothing about other brains.

Source:
    Fonov et al., Unbiased average age-appropriate atlases for pediatric studies, NeuroImage 54(1),
    313-327 (2011); BSD-3 (nilearn), template under the ICBM's own permissive terms.
"""

import gzip
import importlib.util
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import numpy as np
from nibabel.nifti1 import Nifti1Image
from numpy.typing import NDArray

from segnetr.data.case import Case, DatasetSpec, SplitName
from segnetr.data.readers.image_file import DEFAULT_MAX_PIXELS, ImageFile
from segnetr.data.readers.nifti import read_volume
from segnetr.errors import ReadError, UsageError, WriteError

WHOLE_NAME = "mni_t1.nii.gz"
"""File of the whole volume, for `segnetr predict`. The slabs are in `slabs/`."""

_FOLDER = "mni"
_MAP = "mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
_THRESHOLD = 128  # probability one half on the maps' scale of 0 to 255
_COMPRESSION_LEVEL = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Slab:
    """Contiguous axial slices.

    Attributes:
        name: Case id.
        split: Split of the case.
        first: First slice, counted from 0 at the neck.
        stop: The slice after the last one.
    """

    name: str
    split: SplitName
    first: int
    stop: int


# The slabs are eight slices (8 mm) apart, enough for the cortex to change.
SLABS = (
    Slab(name="mni_low", split="train", first=12, stop=62),
    Slab(name="mni_validation", split="validation", first=70, stop=86),
    Slab(name="mni_test", split="test", first=94, stop=118),
    Slab(name="mni_high", split="train", first=126, stop=172),
)


def read_mni(root: Path) -> list[Case]:
    """Read the slabs below a folder.

    Raises:
        UsageError: If the slabs have not been generated yet.
    """
    slabs = _locate(root) / "slabs"
    if not slabs.is_dir():
        raise UsageError(
            f"{root}: the MNI152 slabs have not been generated; run"
            f" `segnetr data check --dataset mni --data-dir {root}`"
        )
    cases = [
        Case(
            case_id=slab.name,
            image=slabs / f"{slab.name}.nii.gz",
            mask=slabs / f"{slab.name}_mask.nii.gz",
            split=slab.split,
        )
        for slab in SLABS
    ]
    return sorted(cases, key=lambda case: case.case_id)


def prepare_mni(root: Path) -> None:
    """Generate the slabs below `root/mni` from the nilearn package, unless they exist.

    Raises:
        UsageError: If nilearn is not installed.
        ReadError: If its files are missing or have unexpected sizes.
        WriteError: If the folder cannot be written.
    """
    folder = _locate(root)
    outputs = [folder / WHOLE_NAME]
    for slab in SLABS:
        outputs += [folder / "slabs" / f"{slab.name}{end}.nii.gz" for end in ("", "_mask")]
    if all(path.is_file() for path in outputs):
        return
    source = find_nilearn_data()
    t1, gray, white = (_read_map(source, name) for name in ("t1", "gm", "wm"))
    if not t1.array.shape == gray.array.shape == white.array.shape or t1.affine is None:
        raise ReadError(t1.path, "its maps of gray and white matter have another size")
    needed = max(slab.stop for slab in SLABS)
    if t1.array.shape[2] < needed:
        raise ReadError(t1.path, f"it has {t1.array.shape[2]} slices; {needed} are needed")
    labels = label_tissues(gray.array, white.array)
    contents = {folder / WHOLE_NAME: _encode(t1.array, t1.affine)}
    for slab in SLABS:
        # Shift the origin by the removed slices, so that world coordinates are preserved.
        affine = t1.affine.copy()
        affine[:3, 3] += slab.first * affine[:3, 2]
        cut = np.s_[:, :, slab.first : slab.stop]
        contents[folder / "slabs" / f"{slab.name}.nii.gz"] = _encode(t1.array[cut], affine)
        contents[folder / "slabs" / f"{slab.name}_mask.nii.gz"] = _encode(labels[cut], affine)
    for path, content in contents.items():
        _write(path, content)


def label_tissues(gray: NDArray[np.number], white: NDArray[np.number]) -> NDArray[np.uint8]:
    """Assign each voxel to its more probable tissue if that has a probability of at least one half.

    Args:
        gray: Probability of gray matter, 0 to 255, (X, Y, Z).
        white: Probability of white matter, likewise.

    Returns:
        1 for gray matter, 2 for white matter, 0 elsewhere. Ties go to white matter.
    """
    labels = np.zeros(gray.shape, dtype=np.uint8)
    labels[gray >= _THRESHOLD] = 1
    labels[(white >= _THRESHOLD) & (white >= gray)] = 2
    return labels


def find_nilearn_data() -> Path:
    """Find nilearn's data folder without importing nilearn.

    Raises:
        UsageError: If nilearn is not installed.
    """
    found = importlib.util.find_spec("nilearn")
    if found is None or found.origin is None:
        raise UsageError(
            "--dataset mni reads its data from the package nilearn, which is not installed; "
            "run pip install 'segnetr[samples]'"
        )
    return Path(found.origin).parent / "datasets" / "data"


def _locate(root: Path) -> Path:
    """Return the dataset's folder: the root itself if it has the name already."""
    return root if root.name == _FOLDER else root / _FOLDER


def _read_map(source: Path, name: str) -> ImageFile:
    path = source / _MAP.format(name)
    if not path.is_file():
        raise ReadError(
            path, "the installed version of nilearn comes without it; version 0.14.1 has it"
        )
    return read_volume(path, max_pixels=DEFAULT_MAX_PIXELS)


def _encode(array: NDArray[np.number], affine: NDArray[np.float64]) -> bytes:
    image = Nifti1Image(np.ascontiguousarray(array), affine)
    image.header.set_xyzt_units("mm")
    # No timestamp, so that equal volumes give equal files.
    return gzip.compress(image.to_bytes(), compresslevel=_COMPRESSION_LEVEL, mtime=0)


def _write(path: Path, content: bytes) -> None:
    """Write a file atomically. Several processes may do so at once."""
    temporary = path.with_name(f".{uuid4().hex}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        raise WriteError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        temporary.unlink(missing_ok=True)


SPEC = DatasetSpec(
    name="mni",
    title="MNI152 brain (in the package nilearn, no download)",
    read_cases=read_mni,
    classes=("background", "gray matter", "white matter"),
    in_channels=1,
    spatial_dims=3,
    counts=dict(Counter(slab.split for slab in SLABS)),
    source="https://nilearn.github.io",
    license="BSD-3-Clause (nilearn); ICBM's own permissive terms (template)",
    prepare=prepare_mni,
)
