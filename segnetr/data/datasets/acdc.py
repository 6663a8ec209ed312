"""ACDC, the Automated Cardiac Diagnosis Challenge: short-axis cine MR in its original layout.

`ACDC/database/training/patientNNN/` and `testing/` contain for each patient `Info.cfg`, two
annotated frames (end of diastole and end of systole, whose numbers are in `Info.cfg`) and the
whole cine sequence `patientNNN_4d.nii.gz`, which is not read. A case is one frame, a volume.

Source:
    Bernard et al., Deep Learning Techniques for Automatic MRI Cardiac Multi-Structures Segmentation
    and Diagnosis: Is the Problem Solved?, IEEE TMI 37(11):2514-2525 (2018).
"""

import re
from collections.abc import Iterator
from pathlib import Path

from segnetr.data.case import Case, DatasetSpec, SplitName
from segnetr.errors import DataError, UsageError

_SOURCE = "https://humanheart-project.creatis.insa-lyon.fr/database/"
_LICENSE = "CC BY-NC-SA 4.0, as a mirror states it; see the official page"

_SPLITS: dict[str, SplitName] = {"training": "train", "testing": "test"}
_LOCATIONS = (".", "database", "ACDC", "ACDC/database")
_PATIENT = re.compile(r"patient\d+")
_PHASES = ("ED", "ES")
_EXTRA_FIELDS = ("Height", "Weight")
_MAX_INFO_BYTES = 10_000
_EXPECTED = f"ACDC/database/training/patient001/Info.cfg ({_SOURCE}, license: {_LICENSE})"


def read_acdc(root: Path) -> list[Case]:
    """Read both official splits, as far as they exist.

    Args:
        root: The folder that contains `training` and `testing`, or one or two levels above it.

    Returns:
        Two cases per patient, `patient001_frame01` and so on, sorted by id. `extra` contains
        `group` (the pathology), `phase` (ED or ES) and, if stated, height and weight. Missing files
        are included by their expected paths, so that an audit reports them.

    Raises:
        UsageError: If the layout is not found.
        DataError: If an `Info.cfg` is missing or does not name both frames.
    """
    data_root = _find_root(root)
    cases = []
    for folder, split in _SPLITS.items():
        for patient in _list_patients(data_root / folder):
            cases += list(_read_patient(patient, split))
    if not cases:
        raise UsageError(f"{data_root}: its folders contain no patientNNN; expected {_EXPECTED}")
    return sorted(cases, key=lambda case: case.case_id)


def _find_root(root: Path) -> Path:
    if not root.is_dir():
        raise UsageError(f"{root}: no such folder; expected {_EXPECTED} in it")
    for location in _LOCATIONS:
        folder = root / location
        if any((folder / name).is_dir() for name in _SPLITS):
            return folder
    raise UsageError(f"{root}: no ACDC in it; expected {_EXPECTED}")


def _list_patients(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if _PATIENT.fullmatch(p.name) and p.is_dir())


def _read_patient(folder: Path, split: SplitName) -> Iterator[Case]:
    info = _read_info(folder / "Info.cfg")
    extra = {name.lower(): info[name] for name in _EXTRA_FIELDS if name in info}
    for phase in _PHASES:
        case_id = f"{folder.name}_frame{_read_frame(folder / 'Info.cfg', info, phase):02d}"
        mask = folder / f"{case_id}_gt.nii.gz"
        yield Case(
            case_id=case_id,
            image=folder / f"{case_id}.nii.gz",
            mask=mask,
            patient_id=folder.name,
            split=split,
            extra={
                "phase": phase,
                **({"group": info["Group"], "stratum": info["Group"]} if "Group" in info else {}),
                **extra,
            },
        )


def _read_info(path: Path) -> dict[str, str]:
    """Read lines such as `ED: 1`."""
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_INFO_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise DataError(f"{path}: the patient's data cannot be read ({reason})") from error
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def _read_frame(path: Path, info: dict[str, str], phase: str) -> int:
    value = info.get(phase, "")
    if not re.fullmatch(r"[0-9]{1,4}", value):
        raise DataError(f"{path}: the line '{phase}:' is {value!r}; expected a frame number")
    return int(value)


SPEC = DatasetSpec(
    name="acdc",
    title="ACDC (cardiac MR)",
    read_cases=read_acdc,
    classes=("background", "right ventricle", "myocardium", "left ventricle"),
    in_channels=1,
    spatial_dims=3,
    # Frames: end of diastole and of systole of 100 training and 50 test patients.
    counts={"train": 200, "test": 100},
    source=_SOURCE,
    license=_LICENSE,
    download_size="about 2 GB",
)
