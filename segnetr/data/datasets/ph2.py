"""PH2: 200 dermoscopy images as the archive of the ADDI project unpacks.

The archive holds `PH2Dataset/PH2 Dataset images/IMDnnn/`, and in each of these folders
`IMDnnn_Dermoscopic_Image/IMDnnn.bmp`, `IMDnnn_lesion/IMDnnn_lesion.bmp` (1-bit; of one case, in the
copy seen, RGB) and `IMDnnn_roi/`, which holds masks of colors and is not read. Numbers have gaps,
sizes vary. `PH2_dataset.txt` beside the images says the clinical diagnosis of each.

Source:
    Mendonca et al., PH2: a dermoscopic image database for research and benchmarking, EMBC 2013.
"""

from collections.abc import Mapping
from pathlib import Path

from segnetr.data.case import Case
from segnetr.data.datasets.root import find_dataset_root, list_files
from segnetr.errors import DataError, UsageError

PH2_SOURCE = "https://www.fc.up.pt/addi/ph2%20database.html"
PH2_LICENSE = "research and education only; no redistribution, no commercial use"
PH2_SIZE = "about 0.3 GB unpacked"

_IMAGES = "PH2 Dataset images"
_ARCHIVE = "PH2Dataset"
_TABLE = "PH2_dataset.txt"
_DIAGNOSES = {"0": "common nevus", "1": "atypical nevus", "2": "melanoma"}
_SUFFIX = ".bmp"
_EXPECTED = f"{_ARCHIVE}/{_IMAGES} ({PH2_SOURCE}, {PH2_SIZE}, license: {PH2_LICENSE})"


def read_ph2(root: Path) -> list[Case]:
    """Read the unpacked archive.

    Each folder of a case gives one, whose `extra["stratum"]` is the diagnosis where the table is
    there; files that are missing are left for the audit to name.

    Args:
        root: The folder `PH2Dataset`, the one above it, or `PH2 Dataset images` itself.

    Raises:
        UsageError: If the folder of images is not there or empty.
        DataError: If the table of diagnoses cannot be read.
    """
    if root.name == _IMAGES and root.is_dir():
        home = root.parent
    else:
        home = find_dataset_root(
            root, holds=lambda folder: (folder / _IMAGES).is_dir(), title="PH2",
            expected=_EXPECTED,
        )  # fmt: skip
    images = home / _IMAGES
    diagnoses = _read_diagnoses(home / _TABLE)
    cases = [_read_case(folder, diagnoses) for folder in list_files(images) if folder.is_dir()]
    if not cases:
        raise UsageError(f"{images}: holds no folder of a case; expected {_EXPECTED}")
    return cases


def _read_case(folder: Path, diagnoses: Mapping[str, str]) -> Case:
    name = folder.name
    image = _find(folder / f"{name}_Dermoscopic_Image", name)
    mask = _find(folder / f"{name}_lesion", f"{name}_lesion")
    facts = {}
    if name in diagnoses:
        facts = {"diagnosis": diagnoses[name], "stratum": diagnoses[name]}
    if not mask.exists():
        facts["expected_mask"] = str(mask)
    return Case(case_id=name, image=image, mask=mask if mask.exists() else None, extra=facts)


def _find(folder: Path, stem: str) -> Path:
    """Find a image in any letter case; where it is not, give the name it should have."""
    for path in list_files(folder) if folder.is_dir() else []:
        if path.name.lower() == f"{stem}{_SUFFIX}".lower():
            return path
    return folder / f"{stem}{_SUFFIX}"


def _read_diagnoses(table: Path) -> dict[str, str]:
    """Read the rows `|| IMDnnn || histology || 0, 1 or 2 || ...`; other lines are a legend."""
    if not table.is_file():
        return {}
    try:
        lines = table.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{table}: cannot be read as text ({error})") from error
    rows = [[cell.strip() for cell in line.split("||")] for line in lines if "||" in line]
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
                f"{table}: clinical diagnosis {row[diagnosis_at]!r} of {row[name_at]}; 0, 1 and 2"
                " are known"
            )
        diagnoses[row[name_at]] = _DIAGNOSES[row[diagnosis_at]]
    return diagnoses
