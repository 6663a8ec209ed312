"""ACDC, the Automated Cardiac Diagnosis Challenge: short-axis cine MR in its original layout.

`ACDC/database/training/patientNNN/` and `testing/` hold for each patient `Info.cfg`, the two frames
with masks (end of diastole and of systole, whose numbers stand in `Info.cfg`) and the whole film
`patientNNN_4d.nii.gz`, which is not read. A case is one frame, a volume.

Source:
    Bernard et al., Deep Learning Techniques for Automatic MRI Cardiac Multi-Structures Segmentation
    and Diagnosis: Is the Problem Solved?, IEEE TMI 37(11):2514-2525 (2018).
"""

import re
from collections.abc import Iterator
from pathlib import Path

from segnetr.data.case import Case, SplitName
from segnetr.errors import DataError, UsageError

ACDC_CLASSES = ("background", "right ventricle", "myocardium", "left ventricle")
ACDC_SOURCE = "https://humanheart-project.creatis.insa-lyon.fr/database/"
ACDC_LICENSE = "CC BY-NC-SA 4.0, as a mirror states it; see the official page"

_PARTS: dict[str, SplitName] = {"training": "train", "testing": "test"}
_PLACES = (".", "database", "ACDC", "ACDC/database")
_PATIENT = re.compile(r"patient\d+")
_PHASES = ("ED", "ES")
_FACTS = ("Height", "Weight")
_MOST_INFO_BYTES = 10_000


def read_acdc(root: Path) -> list[Case]:
    """Read both parts of the official split, as far as they are there.

    Args:
        root: The folder that holds `training` and `testing`, or one or two levels above it.

    Returns:
        Two cases for each patient, `patient001_frame01` and so on, sorted by id, with `group` (the
        pathology), `phase` (ED or ES) and, where stated, height and weight as further facts. A file
        that should be there and is not is named all the same, so that an audit finds it.

    Raises:
        UsageError: If the layout is not found.
        DataError: If an `Info.cfg` is missing or does not name both frames.
    """
    home = _find_home(root)
    cases = []
    for folder, split in _PARTS.items():
        for patient in _list_patients(home / folder):
            cases += list(_read_patient(patient, split))
    if not cases:
        raise UsageError(f"{home}: its folders hold no patientNNN; expected {_expectation()}")
    return sorted(cases, key=lambda case: case.case_id)


def _find_home(root: Path) -> Path:
    if not root.is_dir():
        raise UsageError(f"{root}: there is no such folder; expected there: {_expectation()}")
    for place in _PLACES:
        home = root / place
        if any((home / part).is_dir() for part in _PARTS):
            return home
    raise UsageError(f"{root}: no ACDC there; expected {_expectation()}")


def _expectation() -> str:
    return f"ACDC/database/training/patient001/Info.cfg ({ACDC_SOURCE}, license: {ACDC_LICENSE})"


def _list_patients(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if _PATIENT.fullmatch(p.name) and p.is_dir())


def _read_patient(folder: Path, split: SplitName) -> Iterator[Case]:
    info = _read_info(folder / "Info.cfg")
    facts = {name.lower(): info[name] for name in _FACTS if name in info}
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
                **facts,
            },
        )


def _read_info(path: Path) -> dict[str, str]:
    """Read lines `ED: 1`."""
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_INFO_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise DataError(f"{path}: the facts of this patient cannot be read ({reason})") from error
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def _read_frame(path: Path, info: dict[str, str], phase: str) -> int:
    value = info.get(phase, "")
    if not re.fullmatch(r"[0-9]{1,4}", value):
        raise DataError(
            f"{path}: its line '{phase}:' gives {value!r} where a frame's number belongs"
        )
    return int(value)
