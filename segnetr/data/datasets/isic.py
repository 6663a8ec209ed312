"""The lesion segmentation data of the ISIC challenges, as their archives unpack.

The data folder is the one that holds the official folders, or the folder one level above it.
Each official folder is taken as it is, or from a folder of the same name inside it, which is how
some programs unpack an archive. Nothing else is searched.

Each part of the official split (training, validation, test) has a folder of images and one of
masks. A part that is absent is left out; of a part that is there, both folders are needed. Beside
the images lie files that are none: superpixels, tables, licenses, the `._` files of macOS.
"""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from segnetr.data.case import Case, SplitName
from segnetr.data.datasets.root import find_dataset_root, list_files
from segnetr.errors import ReadError, UsageError

_IMAGE_SUFFIXES = {".jpg", ".jpeg"}
_MASK_SUFFIX = ".png"
_MASK_ENDING = "_segmentation"  # ISIC 2016 writes it with a capital letter
_SUPERPIXEL_ENDING = "_superpixels"


@dataclass(frozen=True, slots=True, kw_only=True)
class IsicPart:
    """The folders of one part of the official split.

    Attributes:
        name: The part.
        images: Folder of the images.
        masks: Folder of the masks.
        diagnoses: Table of diagnoses beside the folders; empty where the challenge has none.
    """

    name: SplitName
    images: str
    masks: str
    diagnoses: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class IsicLayout:
    """One challenge's data: its folders and what a person needs to get them.

    Attributes:
        title: The name for people.
        parts: The parts of the official split.
        source: Official address.
        license: License of the data.
        download_size: Size of the archives, for people.
    """

    title: str
    parts: tuple[IsicPart, ...]
    source: str
    license: str
    download_size: str

    @property
    def folders(self) -> tuple[str, ...]:
        """Names of all official folders."""
        return tuple(name for part in self.parts for name in (part.images, part.masks))


def read_isic(root: Path, *, layout: IsicLayout) -> list[Case]:
    """Read the official folders of one challenge.

    Every image becomes a case. Where its mask is missing, `mask` is None and
    `extra["expected_mask"]` names the file that should be there. A mask without an image becomes a
    case whose `image` is the file that should be there. Two files with one id give two cases. So
    an audit of the cases finds each of these issues.

    Args:
        root: The folder that holds the official folders, or the folder one level above it.
        layout: The challenge.

    Returns:
        The cases, sorted by id.

    Raises:
        UsageError: If no official folder is found, or one of a part's two folders is missing.
        ReadError: If the table of diagnoses cannot be read.
    """
    try:
        home = find_dataset_root(
            root,
            holds=partial(_holds_official, layout=layout),
            title=layout.title,
            expected=_expectation(layout),
        )
        cases = [case for part in layout.parts for case in _read_part(home, part, layout)]
    except OSError as error:
        raise UsageError(f"{error.filename or root}: {error.strerror or error}") from error
    if not cases:
        raise UsageError(
            f"{home}: the {layout.title} folders hold no *.jpg image and no mask; unpack the "
            f"archives so that the files lie directly in them ({_advice(layout)})"
        )
    return sorted(cases, key=lambda case: (case.case_id, str(case.image), str(case.mask)))


def _holds_official(folder: Path, layout: IsicLayout) -> bool:
    return any((folder / name).is_dir() for name in layout.folders)


def _expectation(layout: IsicLayout) -> str:
    first = layout.parts[0]
    return f"{first.images} and {first.masks} ({_advice(layout)})"


def _advice(layout: IsicLayout) -> str:
    return f"{layout.source}, {layout.download_size}, license: {layout.license}"


def _read_part(home: Path, part: IsicPart, layout: IsicLayout) -> list[Case]:
    images, masks = _open_folder(home, part.images), _open_folder(home, part.masks)
    if not images.is_dir() and not masks.is_dir():
        return []
    for folder, other in ((images, masks), (masks, images)):
        if not folder.is_dir():
            raise UsageError(
                f"{folder}: the folder is missing beside {other.name}; get it "
                f"({_advice(layout)}), or move {other.name} away to leave this part out"
            )
    diagnoses = _read_diagnoses(home / part.diagnoses) if part.diagnoses else {}
    return list(_pair_files(part.name, images, masks, diagnoses))


def _open_folder(home: Path, name: str) -> Path:
    nested = home / name / name
    return nested if nested.is_dir() else home / name


def _pair_files(
    split: SplitName, images: Path, masks: Path, diagnoses: Mapping[str, str]
) -> Iterable[Case]:
    """Give a case for each image and each mask of a part, paired by the image's stem."""
    masks_by_id: dict[str, list[Path]] = {}
    for path in list_files(masks):
        if path.suffix.lower() == _MASK_SUFFIX and path.stem.lower().endswith(_MASK_ENDING):
            masks_by_id.setdefault(path.stem[: -len(_MASK_ENDING)], []).append(path)
    seen = set()
    for image in list_files(images):
        if image.suffix.lower() not in _IMAGE_SUFFIXES or image.stem.endswith(_SUPERPIXEL_ENDING):
            continue
        seen.add(image.stem)
        facts = {"diagnosis": diagnoses[image.stem]} if image.stem in diagnoses else {}
        if image.stem not in masks_by_id:
            facts["expected_mask"] = str(masks / f"{image.stem}{_MASK_ENDING}{_MASK_SUFFIX}")
        for mask in masks_by_id.get(image.stem, [None]):
            yield Case(case_id=image.stem, image=image, mask=mask, split=split, extra=facts)
    for case_id in masks_by_id.keys() - seen:
        for mask in masks_by_id[case_id]:
            missing = images / f"{case_id}.jpg"
            yield Case(case_id=case_id, image=missing, mask=mask, split=split)


def _read_diagnoses(table: Path) -> dict[str, str]:
    """Read `image_id,melanoma,seborrheic_keratosis`; where both are 0.0 it is a nevus."""
    if not table.is_file():
        return {}
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            return {row["image_id"]: _name_diagnosis(row) for row in csv.DictReader(file)}
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise ReadError(
            table, f"no table of image_id, melanoma, seborrheic_keratosis ({error!r})"
        ) from error


def _name_diagnosis(row: Mapping[str, str]) -> str:
    if float(row["melanoma"]):
        return "melanoma"
    return "seborrheic keratosis" if float(row["seborrheic_keratosis"]) else "nevus"


_SOURCE = "https://challenge.isic-archive.com/data/"

ISIC_2017 = IsicLayout(
    title="ISIC 2017 (Part 1)",
    parts=(
        IsicPart(
            name="train",
            images="ISIC-2017_Training_Data",
            masks="ISIC-2017_Training_Part1_GroundTruth",
            diagnoses="ISIC-2017_Training_Part3_GroundTruth.csv",
        ),
        IsicPart(
            name="validation",
            images="ISIC-2017_Validation_Data",
            masks="ISIC-2017_Validation_Part1_GroundTruth",
            diagnoses="ISIC-2017_Validation_Part3_GroundTruth.csv",
        ),
        IsicPart(
            name="test",
            images="ISIC-2017_Test_v2_Data",
            masks="ISIC-2017_Test_v2_Part1_GroundTruth",
            diagnoses="ISIC-2017_Test_v2_Part3_GroundTruth.csv",
        ),
    ),
    source=f"{_SOURCE}#2017",
    license="CC0 1.0, as a mirror states it; see the official page",
    download_size="about 12 GB",
)

ISIC_2018 = IsicLayout(
    title="ISIC 2018 (Task 1)",
    parts=(
        IsicPart(
            name="train",
            images="ISIC2018_Task1-2_Training_Input",
            masks="ISIC2018_Task1_Training_GroundTruth",
        ),
        IsicPart(
            name="validation",
            images="ISIC2018_Task1-2_Validation_Input",
            masks="ISIC2018_Task1_Validation_GroundTruth",
        ),
        IsicPart(
            name="test",
            images="ISIC2018_Task1-2_Test_Input",
            masks="ISIC2018_Task1_Test_GroundTruth",
        ),
    ),
    source=f"{_SOURCE}#2018",
    license="CC BY-NC 4.0, as a mirror states it; see the official page and the archive's LICENSE",
    download_size="about 13 GB",
)
