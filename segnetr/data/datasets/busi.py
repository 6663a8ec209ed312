"""BUSI: breast ultrasound as its archive unpacks, with one folder per finding.

`Dataset_BUSI_with_GT/{benign,malignant,normal}/` contain `benign (1).png` and
`benign (1)_mask.png`. 17 of the 780 images show several lesions and have one mask per lesion
(`_mask_1.png`, ...). The ground truth is their union. Masks of normal findings are black.

Source:
    Al-Dhabyani et al., Dataset of breast ultrasound images, Data in Brief 28:104863 (2020).
"""

import re
from collections.abc import Iterator
from pathlib import Path

from segnetr.data.case import Case, DatasetSpec, find_dataset_root, list_files
from segnetr.data.readers.image_file import IMAGE_SUFFIXES
from segnetr.errors import UsageError

_SOURCE = "https://scholar.cu.edu.eg/Dataset_BUSI.zip"
_LICENSE = "CC0 1.0, as a mirror states it; see the official page"
_SIZE = "780 images, about 0.2 GB"

_FINDINGS = ("benign", "malignant", "normal")
_MASK = re.compile(r"^(?P<name>.+)_mask(?:_(?P<number>\d+))?$", re.IGNORECASE)
_EXPECTED = (
    f"Dataset_BUSI_with_GT/{{benign,malignant,normal}} ({_SOURCE}, {_SIZE}, license: {_LICENSE})"
)


def read_busi(root: Path) -> list[Case]:
    """Read the unpacked archive.

    A finding's folder may be absent. Images without a mask and masks without an image become cases
    that an audit reports.

    Args:
        root: The folder that contains the folders of findings, or its parent.

    Returns:
        The cases, sorted by id. `extra["stratum"]` is the finding.

    Raises:
        UsageError: If there is no folder of a finding, or all are empty.
    """
    data_root = find_dataset_root(
        root,
        holds=lambda folder: any((folder / name).is_dir() for name in _FINDINGS),
        title="BUSI",
        expected=_EXPECTED,
    )
    cases = [case for name in _FINDINGS for case in _read_finding(data_root / name)]
    if not cases:
        raise UsageError(f"{data_root}: its folders contain no images; expected {_EXPECTED}")
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
        extra = {"finding": folder.name, "stratum": folder.name}
        if not files:
            extra["expected_mask"] = str(folder / f"{name}_mask.png")
        for image in images.get(name, [folder / f"{name}.png"]):
            yield Case(
                case_id=name,
                image=image,
                mask=files[0] if files else None,
                more_masks=tuple(files[1:]),
                extra=extra,
            )


SPEC = DatasetSpec(
    name="busi",
    title="BUSI",
    read_cases=read_busi,
    classes=("background", "lesion"),
    in_channels=1,
    spatial_dims=2,
    counts={"train": 780},
    source=_SOURCE,
    license=_LICENSE,
    download_size=_SIZE,
)
