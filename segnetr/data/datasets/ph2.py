"""PH2: 200 dermoscopy images as the archive of the ADDI project unpacks.

The archive contains `PH2Dataset/PH2 Dataset images/IMDnnn/`, and each of these folders contains
`IMDnnn_Dermoscopic_Image/IMDnnn.bmp`, `IMDnnn_lesion/IMDnnn_lesion.bmp` (1-bit, and in the copy we
examined RGB for one case) and `IMDnnn_roi/`, which contains color masks and is not read. The
numbers have gaps and the image sizes vary. `PH2_dataset.txt` lists the clinical diagnoses.

Source:
    Mendonca et al., PH2: a dermoscopic image database for research and benchmarking, EMBC 2013.
"""

from collections.abc import Mapping
from pathlib import Path

from segnetr.data.case import Case, DatasetSpec, find_dataset_root, list_files
from segnetr.errors import DataError, UsageError

_SOURCE = "https://www.fc.up.pt/addi/ph2%20database.html"
_LICENSE = "research and education only; no redistribution, no commercial use"
_SIZE = "about 0.3 GB unpacked"

_IMAGES = "PH2 Dataset images"
_ARCHIVE = "PH2Dataset"
_TABLE = "PH2_dataset.txt"
_DIAGNOSES = {"0": "common nevus", "1": "atypical nevus", "2": "melanoma"}
_SUFFIX = ".bmp"
_EXPECTED = f"{_ARCHIVE}/{_IMAGES} ({_SOURCE}, {_SIZE}, license: {_LICENSE})"


def read_ph2(root: Path) -> list[Case]:
    """Read the unpacked archive.

    Each case folder becomes one case. `extra["stratum"]` is the diagnosis if the table exists. An
    audit reports missing files.

    Args:
        root: The folder `PH2Dataset`, its parent, or `PH2 Dataset images` itself.

    Raises:
        UsageError: If the folder of images is missing or empty.
        DataError: If the table of diagnoses cannot be read.
    """
    if root.name == _IMAGES and root.is_dir():
        data_root = root.parent
    else:
        data_root = find_dataset_root(
            root,
            holds=lambda folder: (folder / _IMAGES).is_dir(),
            title="PH2",
            expected=_EXPECTED,
        )
    images = data_root / _IMAGES
    diagnoses = _read_diagnoses(data_root / _TABLE)
    cases = [_read_case(folder, diagnoses) for folder in list_files(images) if folder.is_dir()]
    if not cases:
        raise UsageError(f"{images}: contains no case folder; expected {_EXPECTED}")
    return cases


def _read_case(folder: Path, diagnoses: Mapping[str, str]) -> Case:
    name = folder.name
    image = _find(folder / f"{name}_Dermoscopic_Image", name)
    mask = _find(folder / f"{name}_lesion", f"{name}_lesion")
    extra = {}
    if name in diagnoses:
        extra = {"diagnosis": diagnoses[name], "stratum": diagnoses[name]}
    if not mask.exists():
        extra["expected_mask"] = str(mask)
    return Case(case_id=name, image=image, mask=mask if mask.exists() else None, extra=extra)


def _find(folder: Path, stem: str) -> Path:
    """Find an image regardless of letter case. If it is missing, return the expected path."""
    for path in list_files(folder) if folder.is_dir() else []:
        if path.name.lower() == f"{stem}{_SUFFIX}".lower():
            return path
    return folder / f"{stem}{_SUFFIX}"


def _read_diagnoses(table: Path) -> dict[str, str]:
    """Read the rows `|| IMDnnn || histology || 0, 1 or 2 || ...`. The other lines are a legend."""
    if not table.is_file():
        return {}
    rows = _read_rows(table)
    header = next((row for row in rows if "Name" in row), [])
    if "Clinical Diagnosis" not in header:
        raise DataError(f"{table}: has no columns 'Name' and 'Clinical Diagnosis'")
    name_at, diagnosis_at = header.index("Name"), header.index("Clinical Diagnosis")
    diagnoses = {}
    for row in rows:
        if len(row) <= max(name_at, diagnosis_at) or not row[name_at].startswith("IMD"):
            continue
        if row[diagnosis_at] not in _DIAGNOSES:
            raise DataError(
                f"{table}: clinical diagnosis of {row[name_at]} is {row[diagnosis_at]!r}; "
                "expected 0, 1 or 2"
            )
        diagnoses[row[name_at]] = _DIAGNOSES[row[diagnosis_at]]
    return diagnoses


def _read_rows(table: Path) -> list[list[str]]:
    """Return the cells of the lines that contain the separator `||`."""
    try:
        lines = table.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{table}: cannot be read as text ({error})") from error
    return [[cell.strip() for cell in line.split("||")] for line in lines if "||" in line]


SPEC = DatasetSpec(
    name="ph2",
    title="PH2",
    read_cases=read_ph2,
    classes=("background", "lesion"),
    in_channels=3,
    spatial_dims=2,
    counts={"train": 200},
    source=_SOURCE,
    license=_LICENSE,
    download_size=_SIZE,
)
