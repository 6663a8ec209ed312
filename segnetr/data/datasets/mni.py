"""A real brain without a download: the MNI152 template inside the `nilearn` package.

nilearn's wheel carries the T1 image of the ICBM 2009a template and its maps of gray and white
matter (197 x 233 x 189 voxels of 1 mm). Nothing of nilearn is imported; its folder is looked up.
The maps are thresholded into classes, and the volume is cut into slabs of axial slices, because a
split needs several cases. The template is an average of 152 people, smoother than any one of them.

Slices of one brain resemble their neighbors, so a random split of them would be a leak. The slabs
are contiguous and a gap lies between each two; the test slab is still of the same brain. A score on
it says that the program works, and nothing about other brains.

Source:
    Fonov et al., Unbiased average age-appropriate atlases for pediatric studies, NeuroImage 54(1),
    313-327 (2011); BSD-3 (nilearn), template under the ICBM's own permissive terms.
"""

import gzip
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import numpy as np
from nibabel.nifti1 import Nifti1Image
from numpy.typing import NDArray

from segnetr.data.case import Case, SplitName
from segnetr.data.readers.image_file import DEFAULT_MAX_PIXELS, ImageFile
from segnetr.data.readers.nifti import read_volume
from segnetr.errors import ReadError, UsageError, WriteError

MNI_CLASSES = ("background", "gray matter", "white matter")
WHOLE_NAME = "mni_t1.nii.gz"
"""The whole volume, for `segnetr predict`; the slabs are below `slabs/`."""

_FOLDER = "mni"
_MAP = "mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
_THRESHOLD = 128  # one half on the maps' scale of 0 to 255
_PACKING = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Slab:
    """Contiguous axial slices.

    Attributes:
        name: Of the case.
        part: Part of the split.
        first: First slice, counted from 0 at the neck.
        stop: The slice behind the last one.
    """

    name: str
    part: SplitName
    first: int
    stop: int


# Eight slices of 1 mm between each two: the cortex has changed by then, and the brain has not.
SLABS = (
    Slab(name="mni_low", part="train", first=12, stop=62),
    Slab(name="mni_validation", part="validation", first=70, stop=86),
    Slab(name="mni_test", part="test", first=94, stop=118),
    Slab(name="mni_high", part="train", first=126, stop=172),
)


def read_mni(root: Path) -> list[Case]:
    """Read the slabs below a folder.

    Raises:
        UsageError: If they were not made there yet.
    """
    slabs = _locate(root) / "slabs"
    if not slabs.is_dir():
        raise UsageError(
            f"{root}: the brain is not there; `segnetr data check --dataset mni --data-dir {root}`"
            " takes it out of the nilearn package"
        )
    cases = [
        Case(
            case_id=slab.name,
            image=slabs / f"{slab.name}.nii.gz",
            mask=slabs / f"{slab.name}_mask.nii.gz",
            split=slab.part,
        )
        for slab in SLABS
    ]
    return sorted(cases, key=lambda case: case.case_id)


def prepare_mni(root: Path) -> None:
    """Take the brain out of the nilearn package into `root/mni`, unless it is there already.

    Raises:
        UsageError: If nilearn is not installed.
        ReadError: If its files are not what they were.
        WriteError: If the folder cannot be written.
    """
    folder = _locate(root)
    wanted = [folder / WHOLE_NAME]
    for slab in SLABS:
        wanted += [folder / "slabs" / f"{slab.name}{end}.nii.gz" for end in ("", "_mask")]
    if all(path.is_file() for path in wanted):
        return
    source = find_nilearn_data()
    t1, gray, white = (_read_map(source, name) for name in ("t1", "gm", "wm"))
    if not t1.array.shape == gray.array.shape == white.array.shape or t1.affine is None:
        raise ReadError(t1.path, "its maps of gray and white matter have another size")
    needed = max(slab.stop for slab in SLABS)
    if t1.array.shape[2] < needed:
        raise ReadError(t1.path, f"it has {t1.array.shape[2]} slices where {needed} are needed")
    labels = label_tissues(gray.array, white.array)
    contents = {folder / WHOLE_NAME: _encode(t1.array, t1.affine)}
    for slab in SLABS:
        # The world coordinates stay: the origin moves up by the slices left out.
        affine = t1.affine.copy()
        affine[:3, 3] += slab.first * affine[:3, 2]
        cut = np.s_[:, :, slab.first : slab.stop]
        contents[folder / "slabs" / f"{slab.name}.nii.gz"] = _encode(t1.array[cut], affine)
        contents[folder / "slabs" / f"{slab.name}_mask.nii.gz"] = _encode(labels[cut], affine)
    for path, content in contents.items():
        _write(path, content)


def label_tissues(gray: NDArray[np.number], white: NDArray[np.number]) -> NDArray[np.uint8]:
    """Threshold the maps: the likelier tissue where it has at least one half.

    Args:
        gray: Probability of gray matter, 0 to 255, (X, Y, Z).
        white: Of white matter, likewise.

    Returns:
        0 elsewhere, 1 gray matter, 2 white matter; of equal ones white matter.
    """
    labels = np.zeros(gray.shape, dtype=np.uint8)
    labels[gray >= _THRESHOLD] = 1
    labels[(white >= _THRESHOLD) & (white >= gray)] = 2
    return labels


def find_nilearn_data() -> Path:
    """Find the folder of the files that come with nilearn, without importing it.

    Raises:
        UsageError: If nilearn is not installed.
    """
    found = importlib.util.find_spec("nilearn")
    if found is None or found.origin is None:
        raise UsageError(
            "the brain of --dataset mni lies in the package nilearn, which is not installed; "
            "pip install 'segnetr[samples]'"
        )
    return Path(found.origin).parent / "datasets" / "data"


def _locate(root: Path) -> Path:
    """Give the folder of the brain: the root itself where it bears the name already."""
    return root if root.name == _FOLDER else root / _FOLDER


def _read_map(source: Path, name: str) -> ImageFile:
    path = source / _MAP.format(name)
    if not path.is_file():
        raise ReadError(path, "this version of nilearn comes without it; 0.14.1 has it")
    return read_volume(path, max_pixels=DEFAULT_MAX_PIXELS)


def _encode(array: NDArray[np.number], affine: NDArray[np.float64]) -> bytes:
    image = Nifti1Image(np.ascontiguousarray(array), affine)
    image.header.set_xyzt_units("mm")
    # Without the time of day, so that equal volumes are equal files.
    return gzip.compress(image.to_bytes(), compresslevel=_PACKING, mtime=0)


def _write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; several programs may do so at once."""
    aside = path.with_name(f".{uuid4().hex}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(content)
        aside.replace(path)
    except OSError as error:
        raise WriteError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        aside.unlink(missing_ok=True)
