"""BUSI: breast ultrasound as its archive unpacks, one folder for each finding.

`Dataset_BUSI_with_GT/{benign,malignant,normal}/` hold `benign (1).png` with `benign (1)_mask.png`;
17 of the 780 images show several lesions, each with a mask of its own (`_mask_1.png`, ...), which
are united. Masks of normal findings are black.

Source:
    Al-Dhabyani et al., Dataset of breast ultrasound images, Data in Brief 28:104863 (2020).
"""

import re
from collections.abc import Iterator
from pathlib import Path

from segnetr.data.case import Case
from segnetr.data.datasets.root import find_dataset_root, list_files
from segnetr.data.readers.image_file import IMAGE_SUFFIXES
from segnetr.errors import UsageError

BUSI_SOURCE = "https://scholar.cu.edu.eg/Dataset_BUSI.zip"
BUSI_LICENSE = "CC0 1.0, as a mirror states it; see the official page"
BUSI_SIZE = "780 images, about 0.2 GB"

_FINDINGS = ("benign", "malignant", "normal")
_MASK = re.compile(r"^(?P<name>.+)_mask(?:_(?P<number>\d+))?$", re.IGNORECASE)
_EXPECTED = (
    "Dataset_BUSI_with_GT/{benign,malignant,normal}"
    f" ({BUSI_SOURCE}, {BUSI_SIZE}, license: {BUSI_LICENSE})"
)


def read_busi(root: Path) -> list[Case]:
    """Read the unpacked archive.

    A folder of a finding that is absent is left out. Images without a mask and masks without a
    image become cases for the audit to name.

    Args:
        root: The folder that holds the folders of findings, or the one above it.

    Returns:
        The cases, sorted by id; `extra["stratum"]` is the finding.

    Raises:
        UsageError: If no folder of a finding is there, or all are empty.
    """
    home = find_dataset_root(
        root,
        holds=lambda folder: any((folder / name).is_dir() for name in _FINDINGS),
        title="BUSI",
        expected=_EXPECTED,
    )
    cases = [case for name in _FINDINGS for case in _read_finding(home / name)]
    if not cases:
        raise UsageError(f"{home}: its folders hold no image; expected {_EXPECTED}")
    return sorted(cases, key=lambda case: case.case_id)


def _read_finding(folder: Path) -> Iterator[Case]:
    if not folder.is_dir():
        return
    images: dict[str, list[Path]] = {}
    masks: dict[str, list[tuple[int, Path]]] = {}
    for path in list_files(folder):
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        mask = _MASK.match(path.stem)
        if mask is None:
            images.setdefault(path.stem, []).append(path)
        else:
            number = int(mask["number"] or 0)
            masks.setdefault(mask["name"], []).append((number, path))
    for name in sorted({*images, *masks}):
        files = [path for _, path in sorted(masks.get(name, []))]
        facts = {"finding": folder.name, "stratum": folder.name}
        if not files:
            facts["expected_mask"] = str(folder / f"{name}_mask.png")
        for image in images.get(name, [folder / f"{name}.png"]):
            yield Case(
                case_id=name,
                image=image,
                mask=files[0] if files else None,
                more_masks=tuple(files[1:]),
                extra=facts,
            )
